"""Knobs: the seeds that a training takes as arguments, and the two values that each is tried at."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..errors import TaskError

#: What a caller says of knobs: their names, or the two values of each by name.
Knobs: TypeAlias = str | Iterable[str] | Mapping[str, tuple[Any, Any]]


class Knob(NamedTuple):
    """One argument that should seed something."""

    name: str
    one: Any  #: its value in all trainings but one
    other: Any  #: its value in that one

    def __str__(self) -> str:
        """Say which two values it has."""
        return f"{self.name}={self.one!r} or {self.other!r}"


def knobs_of(function: Callable[..., Any], asked: Knobs | None, arguments: Mapping[str, Any]) -> tuple[Knob, ...]:
    """Return the knobs that are asked for; without any, the parameters that are named after a seed.

    >>> def train(seed=3, data_seed=None, epochs=1): ...
    >>> knobs_of(train, None, {})
    (Knob(name='seed', one=3, other=4), Knob(name='data_seed', one=None, other=1))
    """
    parameters = _parameters(function)
    known = {**parameters, **arguments}
    if asked is None:
        return tuple(default_knob(n, known[n]) for n in parameters if _is_seed(n) and _may_be_seed(known[n]))
    if isinstance(asked, str):
        asked = [asked]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
    for name in asked:
        if name not in parameters and not takes_any:
            close = difflib.get_close_matches(name, parameters, n=1)
            raise TaskError(
                f"Expected a parameter of {name_of(function)}({', '.join(parameters)}) as a knob but got {name!r}. "
                + (f"Did you mean {close[0]!r}?" if close else "Name one of these.")
            )
    if isinstance(asked, Mapping):
        return tuple(Knob(name, *_two_values(name, values)) for name, values in asked.items())
    return tuple(default_knob(name, known.get(name, inspect.Parameter.empty)) for name in asked)


def default_knob(name: str, value: Any) -> Knob:
    """Return a knob that is tried at its value in the code, and at another one."""
    if value is inspect.Parameter.empty:
        return Knob(name, 0, 1)
    if value is None:
        return Knob(name, None, 1)
    if isinstance(value, int) and not isinstance(value, bool):
        return Knob(name, value, value + 1)
    raise TaskError(
        f"Expected the knob {name!r} to be an integer but its value is {value!r}: no other one is known to try. Give "
        f"two values: knobs={{{name!r}: (one, other)}}."
    )


def _two_values(name: str, values: Any) -> tuple[Any, Any]:
    if not isinstance(values, tuple | list) or len(values) != 2 or values[0] == values[1]:
        raise TaskError(f"Expected two different values for the knob {name!r} but got {values!r}.")
    return values[0], values[1]


def name_of(function: Any) -> str:
    """Return the name of a function, also of one within a partial."""
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__name__", type(inner).__name__))


def check_complete(function: Callable[..., Any], knobs: Iterable[Knob], arguments: Mapping[str, Any]) -> None:
    """Raise `TaskError` where a function needs an argument that it is not given, or is given one that it lacks."""
    parameters = inspect.signature(function).parameters.values()
    given = {knob.name for knob in knobs} | set(arguments)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if missing := [name for name in required if name not in given]:
        raise TaskError(
            f"Expected a value for {', '.join(missing)}, which {name_of(function)} needs beside its knobs. Give it: "
            f"arguments={{{missing[0]!r}: value}}, or --set {missing[0]}=VALUE on the command line."
        )
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        names = _parameters(function)
        for name in arguments:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                raise TaskError(
                    f"Expected arguments of {name_of(function)}({', '.join(names)}) but got {name!r}."
                    + (f" Did you mean {close[0]!r}?" if close else "")
                )


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the default of each parameter by its name."""
    if not callable(function):
        raise TaskError(f"Expected a train function to audit but got {type(function).__name__}.")
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _is_seed(name: str) -> bool:
    return "seed" in name.lower() or name.lower() == "random_state"


def _may_be_seed(value: Any) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number or value is None or value is inspect.Parameter.empty
