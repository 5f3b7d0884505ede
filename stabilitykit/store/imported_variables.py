"""Environment variables that a module set when it was imported: in a new process they are not set yet."""

from __future__ import annotations

import os
import sys
from collections.abc import Container
from dataclasses import dataclass

#: The variables of this process, whatever a test has put in the place of `os.environ`.
ENVIRON = os.environ

#: What stands behind the digest of a value that was given or taken after an import had set the variable.
SINCE = ", since an import set another"


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


def before_import(name: str, value: str | None, asked_for: Container[str]) -> tuple[str | None, str]:
    """Return what a variable was before an import gave it ``value``; ``value`` if none did, and `SINCE` or "".

    Only a module that is ``asked_for`` would set it in a new process as well.
    """
    found = _by_name.get(name)
    if found is None or found.after != value:
        return value, SINCE * (_replaced(name, value) is not None)
    return (found.before if any(module in asked_for for module in found.modules) else value), ""


def is_as_before_import(name: str, value: str | None) -> bool:
    """Whether a variable was put back to what it was before an import that will not set it again."""
    found = _replaced(name, value)
    return found is not None and found.before == value


def _replaced(name: str, value: str | None) -> _Set | None:
    found = _by_name.get(name)
    is_over = found is not None and found.after != value and sys.modules.keys() >= found.modules
    return found if is_over else None
