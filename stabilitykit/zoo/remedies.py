"""Remedies that the paper found not to help against instability (appendix A): each takes a recipe and returns one.

Another momentum, rate or optimizer, such as Adam, needs no more than ``dataclasses.replace(recipe, optimizer=...)``.

>>> from stabilitykit.zoo import cifar10_shallow, linear
>>> images, classes = torch.randn(20, 3, 32, 32), torch.arange(20) % 10
>>> recipe = cifar10_shallow(linear, (images, classes), (images, classes), epochs=4)
>>> [remedy(recipe).name for remedy in (clip_gradients, augment_weights, aswa, average_weights)]
['linear, clipped at 1', 'linear, weights + 0.01', 'linear, ASWA', 'linear, averaged']
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from ..errors import TaskError, number_of
from ..training.recipe import Recipe

_MakeModel = Callable[[], nn.Module]
_MakeOptimizer = Callable[[nn.Module], Optimizer]


def clip_gradients(recipe: Recipe, max_norm: float = 1.0) -> Recipe:
    """Clip the norm of all gradients together to ``max_norm`` before every step."""
    _check_positive("max_norm", max_norm)
    optimizer = functools.partial(_clipping, recipe.optimizer, max_norm)
    return dataclasses.replace(recipe, optimizer=optimizer, name=f"{recipe.name}, clipped at {max_norm:g}")


def augment_weights(recipe: Recipe, sd: float = 0.01) -> Recipe:
    """Move every weight by its own normal offset, of this SD, for each forward and backward pass in training.

    The gradient at the moved weights is applied to the weights themselves. The source of the offsets is ``stochastic``.
    """
    _check_positive("sd", sd)
    model = functools.partial(_noisy, recipe.model, sd)
    return dataclasses.replace(recipe, model=model, name=f"{recipe.name}, weights + {sd:g}")


def aswa(recipe: Recipe) -> Recipe:
    """Set the weights after every step to their mean over all steps so far: Aggressive Stochastic Weight Averaging.

    The n-th step moves the weights by 1/(n + 1) of its length, which is why the paper's model hardly trained.
    Source: Madhyastha & Jain, 2019.
    """
    optimizer = functools.partial(_averaging_in_place, recipe.optimizer)
    return dataclasses.replace(recipe, optimizer=optimizer, name=f"{recipe.name}, ASWA")


def average_weights(recipe: Recipe) -> Recipe:
    """Train unchanged, and score the mean over all steps of the weights and of batch normalisation's averages.

    The paper modified ASWA until it converged and does not say how; this is the plainest way.
    """
    model = functools.partial(_averaged, recipe.model)
    optimizer = functools.partial(_averaging_beside, recipe.optimizer)
    return dataclasses.replace(recipe, model=model, optimizer=optimizer, name=f"{recipe.name}, averaged")


class NoisyWeights(nn.Module):
    """A model whose weights are moved at random for each pass in training; in evaluation it is ``model`` itself."""

    def __init__(self, model: nn.Module, sd: float) -> None:
        super().__init__()
        self.model, self.sd = model, sd

    def forward(self, *inputs: Tensor) -> Any:
        if not self.training:
            return self.model(*inputs)
        moved = {name: w + self.sd * torch.randn_like(w) for name, w in self.model.named_parameters()}
        return functional_call(self.model, moved, inputs)


class AveragedWeights(nn.Module):
    """A model, and the mean of its weights and floating-point buffers over all steps, which is used in evaluation."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # Named, because the default of AveragedModel on CUDA refuses integer buffers.
        mean = get_swa_avg_fn()  # type: ignore[no-untyped-call]  # torch's own signature has no types
        self.average = AveragedModel(model, avg_fn=mean, use_buffers=True).requires_grad_(False)

    def forward(self, *inputs: Tensor) -> Any:
        return (self.model if self.training else self.average)(*inputs)


def _clipping(make: _MakeOptimizer, max_norm: float, model: nn.Module) -> Optimizer:
    optimizer = make(model)

    def clip(*_: object) -> None:
        clip_grad_norm_(_weights_of(optimizer), max_norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def _noisy(make: _MakeModel, sd: float) -> nn.Module:
    return NoisyWeights(make(), sd)


def _averaging_in_place(make: _MakeOptimizer, model: nn.Module) -> Optimizer:
    optimizer = make(model)
    averages = [weight.detach().clone() for weight in _weights_of(optimizer)]
    steps = 0

    @torch.no_grad()
    def average(*_: object) -> None:
        nonlocal steps
        steps += 1
        for mean, weight in zip(averages, _weights_of(optimizer), strict=True):
            mean += (weight - mean) / (steps + 1)
            weight.copy_(mean)

    optimizer.register_step_post_hook(average)
    return optimizer


def _averaged(make: _MakeModel) -> nn.Module:
    return AveragedWeights(make())


def _averaging_beside(make: _MakeOptimizer, model: AveragedWeights) -> Optimizer:
    optimizer = make(model.model)
    optimizer.register_step_post_hook(lambda *_: model.average.update_parameters(model.model))
    return optimizer


def _weights_of(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _check_positive(name: str, value: float) -> None:
    if not 0 < number_of(value) < math.inf:
        raise TaskError(f"Expected a finite {name} > 0 but got {name}={value!r}.")
