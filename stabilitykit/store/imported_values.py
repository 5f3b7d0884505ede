"""What the user's modules held when their import was over: what differs later was set by a test, or by code that ran.

Python tells when the code of a module begins, and not when it ends. But whatever loads a module drops its code then,
which a weak reference hears; and an import also marks the end on the module's specification, which has a class of ours
until then, for where a debugger or coverage holds the code.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from _thread import get_ident
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from .audit_events import listen
from .loaded_files import MODULE_BEGINS

if TYPE_CHECKING:
    from .pictures import Held

_held: weakref.WeakKeyDictionary[ModuleType, dict[str, dict[str, Held]]] = weakref.WeakKeyDictionary()


def held_after_import(module: ModuleType) -> Mapping[str, Mapping[str, Held]] | None:
    """Return what a module held by name, below ``""``, and each of its classes below the class's name.

    None where the import was not heard.
    """
    _settle(sys._getframe())
    return _held.get(module)


def heard_modules() -> list[ModuleType]:
    """Return the user's modules that were imported, and are still there."""
    _settle(sys._getframe())
    return [module for module in _held if sys.modules.get(names_in(module).get("__name__", "")) is module]


def names_in(module: ModuleType) -> dict[str, Any]:
    """Return the names of a module, and not by `vars`, which would load one of LazyLoader."""
    return ModuleType.__getattribute__(module, "__dict__")  # type: ignore[no-any-return]  # it is a dict of names


class _ImportedSpec(ModuleSpec):
    """The specification of a module that is being imported."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "_initializing" and not value:
            self.__class__ = ModuleSpec  # type: ignore[assignment]
            with contextlib.suppress(Exception):  # what is raised here would be the user's
                _keep(sys.modules[self.name], again=False)


class _End(weakref.ref[CodeType]):
    """The code of a module that runs, and the module."""

    __slots__ = ("module", "thread")

    module: ModuleType
    thread: int


_running: dict[int, _End] = {}


def _ended(end: weakref.ref[CodeType]) -> None:
    found = _running.pop(id(end), None)
    with contextlib.suppress(Exception):
        if found is not None:
            _keep(found.module, again=True)


def _settle(frame: FrameType | None) -> None:
    """Take what modules hold whose code has run, though something holds that code."""
    if not _running:
        return
    codes = set()
    while frame is not None:
        codes.add(id(frame.f_code))
        frame = frame.f_back
    thread = get_ident()
    for end in [one for one in [*_running.values()] if one.thread == thread and id(one()) not in codes]:
        _ended(end)


def _keep(module: ModuleType, *, again: bool) -> None:
    from .pictures import Held  # here, so that every session need not load it

    if again or module not in _held:
        scope = names_in(module)
        if isinstance(spec := scope.get("__spec__"), _ImportedSpec):
            spec.__class__ = ModuleSpec  # type: ignore[assignment]  # as it was before
        kinds = {name: vars(kind) for name, kind in classes_in(scope, scope.get("__name__", ""))}
        plain = {name: value for name, value in scope.items() if not name.startswith("__")}
        _held[module] = {
            owner: {name: Held(value) for name, value in names.items()} for owner, names in {"": plain, **kinds}.items()
        }


def classes_in(scope: Mapping[str, Any], module: str, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Yield the classes that a module defines, and those in them, by dotted name."""
    for name, value in [*scope.items()]:
        if isinstance(value, type) and value.__module__ == module and value.__qualname__ == f"{prefix}{name}":
            yield value.__qualname__, value
            yield from classes_in(vars(value), module, f"{value.__qualname__}.")


def _see_module(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    code = arguments[0]
    _settle(frame)
    if (module := _module_of(frame, code.co_filename)) is None:
        return
    spec = names_in(module).get("__spec__")
    if type(spec) is ModuleSpec:
        spec.__class__ = _ImportedSpec
    _held.pop(module, None)
    end = _End(code, _ended)
    end.module, end.thread = module, get_ident()
    _running[id(end)] = end


def _module_of(frame: FrameType, file: str) -> ModuleType | None:
    """Return the module for which a frame runs the code of a file: what loads it has the module at hand."""
    for one in (frame, frame.f_back):
        for value in () if one is None else [*one.f_locals.values()]:
            if isinstance(value, ModuleType) and names_in(value).get("__file__") == file:
                return value
    return None


listen(MODULE_BEGINS, _see_module)
