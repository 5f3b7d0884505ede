"""The whole state of a training between two epochs, as plain values and tensors, from which other runs go on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..store.plain_values import CannotKeep


def state_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of a model and its optimizer, not copied. Raises `CannotKeep` if a module has an extra state."""
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise CannotKeep(f"{name or 'the model'} has an extra state")
    parameters = list(_parameters(optimizer))
    if set(optimizer.state) - set(parameters):
        raise CannotKeep("the optimizer has a state that belongs to none of its parameters")
    return {
        "model": dict(_tensors(model)),
        "training": [name for name, module in model.named_modules() if module.training],
        "groups": [{key: group[key] for key in group if key != "params"} for group in optimizer.param_groups],
        "optimizer": [optimizer.state.get(parameter) for parameter in parameters],
    }


def fits(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> bool:
    """Whether a new model and optimizer have the tensors and parameter groups of ``state``."""
    own = {name: (tensor.shape, tensor.dtype) for name, tensor in _tensors(model)}
    return (
        own == {name: (tensor.shape, tensor.dtype) for name, tensor in state["model"].items()}
        and len(optimizer.param_groups) == len(state["groups"])
        and len(list(_parameters(optimizer))) == len(state["optimizer"])
    )


def take_state(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Put a model and its optimizer into ``state``, which `fits`, bit for bit.

    load_state_dict would not do: it leaves out buffers that are not persistent, and changes types in an optimizer.
    """
    with torch.no_grad():
        for name, tensor in _tensors(model):
            tensor.copy_(state["model"][name])
    for name, module in model.named_modules():
        module.training = name in state["training"]
    for group, values in zip(optimizer.param_groups, state["groups"], strict=True):
        group.update(values)
    for parameter, values in zip(_parameters(optimizer), state["optimizer"], strict=True):
        if values is not None:
            optimizer.state[parameter] = values


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer once, with those that a state dict leaves out."""
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
