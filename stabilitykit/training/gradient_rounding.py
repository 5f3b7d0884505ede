"""The seeded stand-in for low-level nondeterminism: each gradient element moves to a neighbouring float."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from .data import sent
from .task import TrainingError

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


@contextlib.contextmanager
def rounded_gradients(seed: int) -> Iterator[set[int]]:
    """Move every gradient element to a neighbouring float, by coin toss, where an optimizer's step uses it.

    This is the seeded stand-in for the summation order of kernels: its effect has the same size, and can be repeated.
    Zeros stay zero, as an empty sum does in any order. Yields the ids of the parameters with such a gradient.
    """
    rounding = _Rounding(seed)
    hooks = (
        register_optimizer_step_pre_hook(rounding.before_step),
        register_optimizer_step_post_hook(rounding.after_step),
    )
    try:
        yield rounding.reached
    finally:
        for hook in hooks:
            hook.remove()


class _Rounding:
    """The gradients that the optimizers of one training use, each rounded once before each use.

    A step without a closure uses those that are there. A step with a closure uses what each call of the closure makes.
    """

    def __init__(self, seed: int) -> None:
        self.reached: set[int] = set()  #: ids of the parameters with a gradient that was rounded
        self._generator = torch.Generator().manual_seed(seed)
        #: The call of a step that is running. It may call other steps, as a wrapper's and a subclass's do.
        self._outermost: FrameType | None = None
        #: The gradients rounded in this step, by id, each with torch's count of its changes.
        self._done: dict[int, tuple[Tensor, int]] = {}

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not _is_running(self._outermost):
            self._outermost, self._done = sys._getframe(1), {}
        closures = [argument for argument in (*args[1:2], kwargs.get("closure")) if _is_closure(argument)]
        if not closures:
            self._round(optimizer)
            return args, kwargs
        (closure,) = closures
        followed = self._followed(closure, optimizer)
        if kwargs.get("closure") is closure:
            return args, {**kwargs, "closure": followed}
        return (args[0], followed, *args[2:]), kwargs

    def after_step(self, _optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if sys._getframe(1) is self._outermost:  # never the case after a step that raised
            self._outermost, self._done = None, {}

    def _followed(self, closure: Callable[[], Any], optimizer: Optimizer) -> Callable[[], Any]:
        @functools.wraps(closure)
        def made_and_rounded(*args: Any, **kwargs: Any) -> Any:
            self._done = {}
            loss = closure(*args, **kwargs)
            self._round(optimizer)
            return loss

        return made_and_rounded

    def _round(self, optimizer: Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = {id(gradient): gradient for gradient in map(_own_gradient, parameters)}
        new = [g for key, g in gradients.items() if key not in self._done or self._done[key][1] != g._version]
        with torch.no_grad():  # gradients that were made with create_graph=True have a graph of their own
            _nudge([_numbers(gradient) for gradient in new], self._generator)
        self._done |= {id(gradient): (gradient, gradient._version) for gradient in new}
        self.reached.update(map(id, parameters))


def _is_running(call: FrameType | None) -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is not None


def _is_closure(argument: object) -> bool:
    return callable(argument) and not isinstance(argument, nn.Module)


def _own_gradient(parameter: Tensor) -> Tensor:
    """Return the parameter's gradient with each number of its own in memory, which can be written."""
    gradient = parameter.grad
    assert gradient is not None, "called only for parameters with one"
    if gradient.layout is torch.sparse_coo:
        gradient = gradient.coalesce()  # a row that occurs twice is one element
    elif gradient.is_inference() or (gradient.layout is torch.strided and 0 in gradient.stride()):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
    gradient = gradient.resolve_conj()
    if gradient is not parameter.grad:
        parameter.grad = gradient
    return gradient


def _numbers(gradient: Tensor) -> Tensor:
    """Return the real numbers that a gradient is made of, in its own memory."""
    if gradient.layout is torch.sparse_coo:
        gradient = gradient._values()
    elif gradient.layout in _COMPRESSED:
        gradient = gradient.values()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient)
    if gradient.layout is torch.strided and gradient.is_floating_point() and gradient.element_size() in (2, 4, 8):
        return gradient
    raise TrainingError(
        f"'low_level' varies, but a gradient is {gradient.dtype}, {gradient.layout}: only float16, bfloat16, float32, "
        f"float64 and complex numbers, dense or sparse, can be rounded. Vary the other sources"
    )


def _nudge(gradients: Sequence[Tensor], generator: torch.Generator) -> None:
    for dtype, device in dict.fromkeys((gradient.dtype, gradient.device) for gradient in gradients):
        alike = [gradient for gradient in gradients if gradient.dtype is dtype and gradient.device == device]
        sizes = [gradient.numel() for gradient in alike]
        factors_of_all = _halves_and_doubles(sum(sizes), dtype, device, generator)
        for gradient, factors in zip(alike, torch.split(factors_of_all, sizes), strict=True):
            # Half a number lies towards zero, its double away from zero; for zero both are zero, which stays.
            gradient.nextafter_(gradient * factors.view(gradient.shape))


def _halves_and_doubles(count: int, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
    """Toss ``count`` fair coins for 0.5 or 2.0, 32 from one draw: a draw for each could take longer than a step.

    The draws are made on the CPU, so that a seed gives the same coins on every device; one bit a coin is sent there.
    """
    integer, half, to_double = _half_and_double(dtype)
    words = torch.randint(-(2**31), 2**31, (-(-count // 32), 1), dtype=torch.int32, generator=generator)
    coins = (sent(words, device) >> _positions(device)).bitwise_and_(1).to(integer)
    return coins.mul_(to_double).add_(half).view(dtype).view(-1)[:count]


@functools.cache
def _positions(device: torch.device) -> Tensor:
    """Return the places of the bits in a word."""
    return torch.arange(32, dtype=torch.int32, device=device)


@functools.cache
def _half_and_double(dtype: torch.dtype) -> tuple[torch.dtype, int, int]:
    """Return the integer type of a float's width, the bits of 0.5, and the number to add for the bits of 2.0."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    half, double = torch.tensor([0.5, 2.0], dtype=dtype).view(integer).tolist()
    return integer, half, double - half
