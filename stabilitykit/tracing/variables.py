"""The environment variables of this process, for whatever asks to hear of them: Python has no audit event for them.

`os.environ` stays the object that it is, for all who hold it. From the import of stabilitykit on its class is one that
tells of what is read and set.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator, KeysView, Mapping, MutableMapping
from types import CodeType, FrameType
from typing import Any, NamedTuple

from ..store.audit_events import listen, tell
from ..store.imported_variables import ENVIRON, set_by_import

#: Events: a variable was read, with its name and value (None if it is not set); one was set or removed, with its name
#: and the value before; all were read; one was read that an earlier training of another task had set.
READ, SET, ALL, SHARED = "variable read", "variable set", "variables read", "variable shared"


class _Heard(os._Environ):  # type: ignore[type-arg]  # of text, or of bytes
    def __getitem__(self, name: Any) -> Any:
        value, text, block = self._value(name), os.fsdecode(self.encodekey(name)), _blocks[-1] if _blocks else None
        if block is not None and text in block.shared:
            tell(SHARED, sys._getframe(1), text)
        tell(READ, sys._getframe(1), name, value if block is None else block.again.get(text, value))
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: Any, value: Any) -> None:
        before = self._value(name)
        super().__setitem__(name, value)
        self._tell_set(sys._getframe(1), name, before)

    def __delitem__(self, name: Any) -> None:
        before = self._value(name)
        super().__delitem__(name)
        self._tell_set(sys._getframe(1), name, before)

    def __iter__(self) -> Iterator[Any]:
        if (instruction := _instruction(sys._getframe(1))) is not None:
            _reading_all.add(instruction)
        tell(ALL, sys._getframe(1))
        return super().__iter__()

    def _value(self, name: Any) -> Any:
        try:
            return super().__getitem__(name)
        except KeyError:
            return None

    def _tell_set(self, frame: FrameType, name: Any, before: Any) -> None:
        if vars(self)["_data"] is vars(ENVIRON)["_data"]:  # else it is a copy
            if _blocks:
                _blocks[-1].touch(os.fsdecode(self.encodekey(name)), frame)
            tell(SET, frame, name, before)


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


class _Change(NamedTuple):
    before: str | None
    after: str


#: What trainings changed and `put_back` put back, by the owner's id and by name: a set-up may run once a process.
_kept: dict[int, dict[str, _Change]] = {}

#: What helpers of trainings changed, by name, as far as no later training of the same owner has changed it again.
_shared: dict[str, _Change] = {}

_unforgotten: list[object] = []  #: owners that no weak reference can be made to: their ids must stay theirs


class _Block:
    """A block of `put_back`: what it puts back, and what earlier blocks had changed and is set again."""

    def __init__(self, kept: Mapping[str, _Change]) -> None:
        self.environ = os.environ  # which may be replaced
        self.before: dict[str, str | None] = dict(ENVIRON)
        self.touched: dict[str, bool] = {}  #: names that the block itself sets or removes, and whether by a helper
        #: Values that a new process would find where a variable is set again.
        self.again: dict[str, str | None] = dict(_blocks[-1].again) if _blocks else {}
        #: Names that are set again since a block of another owner had set them.
        self.shared: set[str] = set(_blocks[-1].shared) if _blocks else set()
        for name, change in {**_shared, **kept}.items():
            if self.before.get(name) == change.before:
                _give(name, change.after)
                self.again[name] = change.before
                self.shared |= {name} - kept.keys()

    def touch(self, name: str, frame: FrameType | None) -> None:
        """Note that a variable is set or removed, if not by this package."""
        if users := _functions_of_users(frame):
            self.touched[name] = users > 1
            self.again.pop(name, None)
            self.shared.discard(name)

    def put_back(self, kept: dict[str, _Change]) -> None:
        """Put the variables back, and keep what may have been set once a process."""
        now, os.environ = dict(ENVIRON), self.environ
        for name in {*self.before, *now}:
            if self.before.get(name) != now.get(name):
                _give(name, self.before.get(name))
        for name, is_of_helper in self.touched.items():
            earlier, before, after = kept.pop(name, None), self.before.get(name), now.get(name)
            if earlier is not None and _shared.get(name) is earlier:
                del _shared[name]  # each training sets it
            if after is not None and after != before:
                change = earlier
                if change is None or before is None or change.before != before:  # else PATH would grow with each run
                    change = _Change(before, after)
                kept[name] = change
                if earlier is None and is_of_helper:
                    _shared.setdefault(name, change)


#: The blocks of `put_back` that run, the innermost last.
_blocks: list[_Block] = []


def _give(name: str, value: str | None) -> None:
    """Set or remove a variable without telling of it: no code of the user's did."""
    if value is None:
        os._Environ.__delitem__(ENVIRON, name)
    else:
        os._Environ.__setitem__(ENVIRON, name, value)


def _functions_of_users(frame: FrameType | None) -> int:
    """Return how many functions of the user's are running in a training, one called by the other."""
    from .callers import Caller, kind_of

    found = 0
    while frame is not None and (kind := kind_of(frame.f_code.co_filename)) is not Caller.TOOL:
        found += kind is Caller.USER
        frame = frame.f_back
    return found


@contextlib.contextmanager
def put_back(owner: object = None) -> Iterator[KeysView[str]]:
    """Put each variable back, after a block, to what it was; what an import set stays, as the module does.

    It is set again for a later block of the same owner; also of others where a function set it that the training calls,
    until a training is seen that sets it each time. Yields the names that are set or removed, all once it is over.
    """
    block = _Block(_kept.get(id(owner), {}))
    _blocks.append(block)
    try:
        yield block.touched.keys()
    finally:
        _blocks[:] = [other for other in _blocks if other is not block]
        kept = _kept.get(id(owner), {})
        block.put_back(kept)
        _keep(owner, kept)


def _keep(owner: object, kept: dict[str, _Change]) -> None:
    if kept and id(owner) not in _kept:
        _kept[id(owner)] = kept
        try:  # not a reference to the owner, which may hold its data
            weakref.finalize(owner, _kept.pop, id(owner), None).atexit = False
        except TypeError:
            _unforgotten.append(owner)


def _see_import(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    from .callers import modules_imported

    if modules := modules_imported(frame):
        name, was = os.fsdecode(arguments[0]), None if arguments[1] is None else os.fsdecode(arguments[1])
        now = ENVIRON.get(name)
        set_by_import(name, _blocks[0].before.get(name) if _blocks else was, now, modules)
        for block in _blocks:
            block.before[name] = now
            block.touched.pop(name, None)


listen(SET, _see_import)

for variables in (os.environ, getattr(os, "environb", os.environ)):  # Windows has no bytes
    variables.__class__ = _Heard
