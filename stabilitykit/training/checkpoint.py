"""The whole state of a training between two epochs, as plain values and tensors: what a branched run goes on from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class CannotKeep(Exception):
    """A model or optimizer holds what is neither a number, a text nor a plain tensor, or a container of such."""


def state_of(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Return the state of a model and its optimizer; its tensors are theirs, not copies.

    Raises `CannotKeep` for a module that keeps a state of its own kind (``get_extra_state``).
    """
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
    """Whether a model and optimizer that were just made are of the shape of those whose state this was."""
    own = {name: (tensor.shape, tensor.dtype) for name, tensor in _tensors(model)}
    return (
        own == {name: (tensor.shape, tensor.dtype) for name, tensor in state["model"].items()}
        and len(optimizer.param_groups) == len(state["groups"])
        and len(list(_parameters(optimizer))) == len(state["optimizer"])
    )


def take_state(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Make a model and its optimizer go on from ``state``, which `fits`, with its bits.

    Not by load_state_dict: it leaves out buffers that are not persistent, and turns an optimizer's tensors to the type
    of their parameter.
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


def flatten(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a value in JSON's types, and the tensors in it by the names that it has in their place.

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
    # Kernels go through memory in its own order, and what they vectorise can round otherwise than the rest.
    dense = torch.ops.aten.is_non_overlapping_and_dense(tensor)
    strides = list(tensor.stride()) if dense and not tensor.is_contiguous() else None
    tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)
    return {"tensor": name, "strides": strides, "home": "cpu" if tensor.device.type == "cpu" else "device"}


def unflatten(plain: Any, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> Any:
    """Return the value that `flatten` was given, with tensors in memory of their own.

    Those that were not on the CPU go to ``device``.
    """
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


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer once, those that a state dict leaves out too."""
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
