"""The seeded stand-in for low-level nondeterminism: each gradient element moves to a neighbouring float."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from .data import sent
from .task import TrainingError


@contextlib.contextmanager
def rounded_gradients(seed: int) -> Iterator[None]:
    """Move every gradient element to a neighbouring float, by coin toss, before each optimizer step.

    This is the seeded stand-in for the summation order of kernels: its effect has the same size, and can be repeated.
    Zeros stay zero, as an empty sum does in any order.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = 0

    def round_gradients(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        nonlocal steps
        steps += 1
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        _nudge([gradient._values() if gradient.is_sparse else gradient for gradient in gradients], generator)

    handle = register_optimizer_step_pre_hook(round_gradients)
    try:
        yield
    finally:
        handle.remove()
    if steps == 0:
        raise TrainingError("'low_level' varies, but no torch optimizer made a step: there were no gradients to round")


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
