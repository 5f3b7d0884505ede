"""Nested values as plain JSON and named tensors, and back: the store keeps no pickles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def leaves_of(values: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Yield each value that is no mapping by the keys that lead to it, joined by dots.

    >>> dict(leaves_of({"loss": 0.5, "eval": {"f1": 0.9}}))
    {'loss': 0.5, 'eval.f1': 0.9}
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves_of(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def flatten(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a value in JSON's types, and the tensors in it by the names that stand in their place.

    >>> plain, tensors = flatten({"betas": (0.9, None), 3: [torch.ones(2)]})
    >>> plain
    {'dict': [['betas', {'tuple': [0.9, None]}], [3, [{'tensor': '0', 'strides': None, 'home': 'cpu'}]]]}
    >>> unflatten(plain, tensors)
    {'betas': (0.9, None), 3: [tensor([1., 1.])]}
    """
    tensors: dict[str, Tensor] = {}
    return _flatten(value, tensors), tensors


def _flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    kind = type(value)
    if isinstance(value, Tensor):
        return _flatten_tensor(value.detach(), tensors)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_flatten(item, tensors) for item in value]
    if kind is tuple:
        return {"tuple": [_flatten(item, tensors) for item in value]}
    if isinstance(value, dict) and all(type(key) in (int, str) for key in value):
        return {"dict": [[key, _flatten(item, tensors)] for key, item in value.items()]}
    raise CannotKeep(f"a {kind.__name__}")


def _flatten_tensor(tensor: Tensor, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise CannotKeep(f"a tensor of layout {tensor.layout}")
    name = str(len(tensors))
    # The strides are kept: kernels go through memory in its own order, on which the rounding can depend.
    dense = torch.ops.aten.is_non_overlapping_and_dense(tensor)
    strides = list(tensor.stride()) if dense and not tensor.is_contiguous() else None
    tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return {"tensor": name, "strides": strides, "home": "cpu" if tensor.device.type == "cpu" else "device"}


def unflatten(plain: Any, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> Any:
    """Return what `flatten` was given, with tensors in new memory: on ``device``, if they were not on the CPU."""
    if isinstance(plain, list):
        return [unflatten(item, tensors, device) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if "tuple" in plain:
        return tuple(unflatten(item, tensors, device) for item in plain["tuple"])
    if "dict" in plain:
        return {key: unflatten(item, tensors, device) for key, item in plain["dict"]}
    stored, strides = tensors[plain["tensor"]], plain["strides"]
    own = torch.empty_strided(stored.shape, strides or stored.stride(), dtype=stored.dtype).copy_(stored)
    return own if plain["home"] == "cpu" else own.to(device)


class CannotKeep(Exception):
    """A model or optimizer holds a value other than numbers, texts, plain tensors, and containers of these."""
