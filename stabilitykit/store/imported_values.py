"""What the user's modules held when their import was over: what differs later was set by a test, or by code that ran.

Python tells when the code of a module begins, and not when it ends. But it marks the end on the module's specification,
which has a class of ours until then.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import weakref
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

from .audit_events import listen
from .loaded_files import MODULE_BEGINS

_held: weakref.WeakKeyDictionary[ModuleType, dict[str, object]] = weakref.WeakKeyDictionary()


def held_after_import(module: ModuleType) -> Mapping[str, object]:
    """Return the plain data that a module and its classes held, by name; nothing where its import was not heard.

    Names of a class's members begin with that of the class: ``Net.depth``.
    """
    return _held.get(module, {})


class _ImportedSpec(ModuleSpec):
    """The specification of a module that is being imported."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            self.__class__ = ModuleSpec  # type: ignore[assignment]  # as it was before
            with contextlib.suppress(Exception):  # what is raised here would be the user's
                _keep(sys.modules[self.name])


def _keep(module: ModuleType) -> None:
    from .module_sources import is_plain  # here, so that every session need not load it

    scope = dict(vars(module))
    for kind in [value for value in scope.values() if isinstance(value, type) and value.__module__ == module.__name__]:
        scope |= {f"{kind.__qualname__}.{name}": value for name, value in vars(kind).items()}
    _held[module] = {
        name: copy.deepcopy(value)
        for name, value in scope.items()
        if not name.rpartition(".")[2].startswith("__") and is_plain(value)
    }


def _see_module(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    scopes = [one for one in frame.f_locals.get("args", ()) if isinstance(one, dict)]  # of importlib's call of exec
    spec = scopes[0].get("__spec__") if scopes else None
    if type(spec) is ModuleSpec:
        spec.__class__ = _ImportedSpec


listen(MODULE_BEGINS, _see_module)
