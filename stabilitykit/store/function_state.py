"""What a function holds beside its code: attributes, closure and defaults, without what torch and Python note there.

torch and Python write on functions: ids, caches, switches. What they write differs between processes, and between the
time before a training and after it, though the function computes the same.
"""

from __future__ import annotations

import types
from collections.abc import Iterator

import torch
from torch.utils._contextlib import _DecoratorContextManager

#: Beginnings of the names under which torch's compiler notes things on functions and modules.
_OF_THE_COMPILER = ("_torchdynamo_", "__dynamo_")
#: What made functions of other people's close over between calls: those of ``functools.singledispatch``.
_CACHES = frozenset({"dispatch_cache", "cache_token"})
#: Attributes of torch's compiler that say how it compiles, and by which backend.
_SETTINGS = (
    "fullgraph", "_dynamic", "export", "error_on_graph_break", "compiler_config", "_one_graph", "_export",
    "_torchdynamo_orig_backend", "_torchdynamo_orig_callable",
)  # fmt: skip
#: Beginnings of the names under which a context of torch keeps what it found when it was entered.
_FOUND_ON_ENTRY = ("prev", "_inference_mode_context")
#: The code of the wrapper that torch puts around the ``step`` of a class of optimizers.
_PROFILE = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__


def is_of_the_compiler(name: str) -> bool:
    """Whether torch's compiler keeps notes under a name, in the attributes of a function or module."""
    return name.startswith(_OF_THE_COMPILER)


def attributes_of(function: types.FunctionType) -> dict[str, object]:
    """Return the attributes of a function without the notes of torch's compiler."""
    return {name: value for name, value in vars(function).items() if not is_of_the_compiler(name)}


def closure_of(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """Yield the variables that a function closes over, and their values."""
    yield from zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that the enclosing function has not assigned yet
        return "<empty cell>"


def made_with(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """Yield what an installed function was made with, as decorators make one: functions, numbers and objects."""
    yield from (item for item in closure_of(function) if item[0] not in _CACHES)
    yield "__wrapped__", getattr(function, "__wrapped__", None)


def without_profile(member: object) -> object:
    """Return a function without the wrapper that torch puts around ``step`` when an optimizer is first made."""
    while isinstance(member, types.FunctionType) and member.__code__ is _PROFILE and hasattr(member, "__wrapped__"):
        member = member.__wrapped__
    return member


def is_profiled_inheritance(kind: type, name: str) -> bool:
    """Whether a class has a member only since torch has put its wrapper around the one that the class inherits."""
    member = vars(kind)[name]
    plain = without_profile(member)
    if plain is member:
        return False
    inherited = (vars(base)[name] for base in kind.__mro__[1:] if name in vars(base))
    return without_profile(next(inherited, None)) is plain


def settings_of(value: object) -> dict[str, object] | None:
    """Return what counts of an object of torch's compiler, or of a context such as ``no_grad``; None of any other."""
    state = getattr(value, "__dict__", {})
    if type(value).__module__.startswith("torch._dynamo."):
        return {name: state[name] for name in _SETTINGS if name in state}
    if isinstance(value, (torch.autocast, _DecoratorContextManager)):
        return {name: part for name, part in state.items() if not name.startswith(_FOUND_ON_ENTRY)}
    return None
