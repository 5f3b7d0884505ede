"""Environment variables that a module set when it was imported: in a new process they are not set yet."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class _Set:
    before: str | None
    after: str | None
    modules: frozenset[str]  #: the one that set it, and those that imported that


_by_name: dict[str, _Set] = {}


def set_by_import(name: str, before: str | None, after: str | None, modules: frozenset[str]) -> None:
    """Note that modules set a variable when they were imported, which happens once in a process."""
    first = _by_name.get(name)
    _by_name[name] = _Set(first.before if first and first.after == before else before, after, modules)


def before_import(name: str, value: str | None, asked_for: Container[str]) -> str | None:
    """Return what a variable was before an import gave it ``value``; ``value`` if none did.

    Only a module that is ``asked_for`` would set it in a new process as well.
    """
    found = _by_name.get(name)
    if found is None or found.after != value:
        return value
    return found.before if any(module in asked_for for module in found.modules) else value
