"""The environment variables of this process, for whatever asks to hear of them: Python has no audit event for them.

`os.environ` stays the object that it is, for all who hold it. From the import of stabilitykit on its class is one that
tells of what is read and set.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from types import CodeType, FrameType
from typing import Any

from ..store.audit_events import listen, tell
from ..store.imported_variables import set_by_import

#: Events: a variable was read, with its name and value (None if it is not set); one was set or removed, with its name
#: and the value before; all were read.
READ, SET, ALL = "variable read", "variable set", "variables read"


class _Heard(os._Environ):  # type: ignore[type-arg]  # of text, or of bytes
    def __getitem__(self, name: Any) -> Any:
        value = self._value(name)
        tell(READ, sys._getframe(1), name, None if _is_again(self._text(name)) else value)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: Any, value: Any) -> None:
        before = self._value(name)
        super().__setitem__(name, value)
        _forget(self._text(name))
        tell(SET, sys._getframe(1), name, before)

    def __delitem__(self, name: Any) -> None:
        before = self._value(name)
        super().__delitem__(name)
        _forget(self._text(name))
        tell(SET, sys._getframe(1), name, before)

    def __iter__(self) -> Iterator[Any]:
        if (instruction := _instruction(sys._getframe(1))) is not None:
            _reading_all.add(instruction)
        tell(ALL, sys._getframe(1))
        return super().__iter__()

    def _value(self, name: Any) -> Any:
        try:
            return super().__getitem__(name)
        except KeyError:
            again = _set_again(self._text(name)) if _blocks else None
        if again is None:
            return None
        os._Environ.__setitem__(os.environ, self._text(name), again)  # which tells of no change: the run made none
        return super().__getitem__(name)

    def _text(self, name: Any) -> str:
        return os.fsdecode(self.encodekey(name))


#: Functions that read one variable, by a name that they are given.
_READING_ONE = frozenset(
    function.__code__
    for function in (
        Mapping.get,
        Mapping.__contains__,
        MutableMapping.pop,
        os._Environ.setdefault,
        os.path.expanduser,
        os.path.expandvars,
    )
)

#: Instructions that read all variables, ``dict(os.environ)``: each of these reads is a part of that.
_reading_all: set[tuple[CodeType, int]] = set()


def is_asked_for(frame: FrameType) -> bool:
    """Whether a read of a variable is one by its name, and not by a function of Python's that names it itself."""
    from .callers import looks_up_itself  # here, since it asks Python where its folders are

    is_one = frame.f_code in _READING_ONE or _instruction(frame) not in _reading_all
    return is_one and not looks_up_itself(frame)


def _instruction(frame: FrameType) -> tuple[CodeType, int] | None:
    from .callers import beyond_python

    asking = beyond_python(frame)
    return None if asking is None else (asking.f_code, asking.f_lasti)


class _Block:
    """A block of `put_back`: what it puts back, and what an earlier block of the same owner had set."""

    def __init__(self, kept: Mapping[str, str]) -> None:
        self.before: dict[str, str | None] = dict(os.environ)
        self.kept = {name: value for name, value in kept.items() if name not in self.before}  #: not set again so far
        self.again: set[str] = set()  #: names set again, and neither set nor removed by the block itself


#: The blocks of `put_back` that run, the innermost last.
_blocks: list[_Block] = []

#: What the blocks of an owner had set and `put_back` removed, by the owner's id: a set-up may run once a process.
_kept: dict[int, dict[str, str]] = {}

_unforgotten: list[object] = []  #: owners that no weak reference can be made to: their ids must stay theirs


def _set_again(name: str) -> str | None:
    """Return what an earlier block had set a variable to that is not set now; the blocks take it as set again."""
    for index, block in enumerate(_blocks):
        if name in block.kept:
            value = block.kept[name]
            for inner in _blocks[index:]:
                inner.kept.pop(name, None)
                inner.again.add(name)
            for inner in _blocks[index + 1 :]:
                inner.before[name] = value  # as if it had stayed since the outer block's earlier run
            return value
    return None


def _is_again(name: str) -> bool:
    """Whether a variable was set again: a trace counts it as unset, as a new process finds it."""
    return bool(_blocks) and name in _blocks[-1].again


def _forget(name: str) -> None:
    for block in _blocks:
        block.again.discard(name)


@contextlib.contextmanager
def put_back(owner: object = None) -> Iterator[None]:
    """Put each variable back, after a block, to what it was; what an import set stays, as the module does.

    A variable that was unset before is set again where a later block of the same owner reads it without setting it.
    """
    kept = _kept.get(id(owner), {}) if owner is not None else {}
    block = _Block(kept)
    _blocks.append(block)
    try:
        yield
    finally:
        _blocks[:] = [other for other in _blocks if other is not block]
        still = {name: kept[name] for name in kept if name in block.kept or name in block.before}
        removed = _put_back(block)
        if owner is not None:
            _keep(owner, still | removed)


def _put_back(block: _Block) -> dict[str, str]:
    """Put the variables back, and return those that were unset before."""
    removed: dict[str, str] = {}
    for name in {*block.before, *os.environ}:
        value, now = block.before.get(name), os.environ.get(name)
        if value is not None and now != value:
            os.environ[name] = value
        elif value is None and now is not None:
            removed[name] = now
            del os.environ[name]
    return removed


def _keep(owner: object, values: dict[str, str]) -> None:
    if values and id(owner) not in _kept:
        try:  # not a reference to the owner, which may hold its data
            weakref.finalize(owner, _kept.pop, id(owner), None).atexit = False
        except TypeError:
            _unforgotten.append(owner)
    if values or id(owner) in _kept:
        _kept[id(owner)] = values


def _see_import(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    from .callers import modules_imported

    if modules := modules_imported(frame):
        name, was = os.fsdecode(arguments[0]), None if arguments[1] is None else os.fsdecode(arguments[1])
        now = os.environ.get(name)
        set_by_import(name, _blocks[0].before.get(name) if _blocks else was, now, modules)
        for block in _blocks:
            block.before[name] = now


listen(SET, _see_import)

for variables in (os.environ, getattr(os, "environb", os.environ)):  # Windows has no bytes
    variables.__class__ = _Heard
