"""What the user's modules have read while they were imported: Python runs a module once, and keeps what it made.

A training that imports a module which is loaded already reads nothing, and gets what was read then: by a conftest, by
another test, or by the training of another task. So this counts as if the training had read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..store.audit_events import listen
from ..store.loaded_files import MODULE_BEGINS, importing
from .earlier_reads import EarlierReads, kept_by

_of_modules: dict[str, EarlierReads] = {}  #: by the real path of the module's file
_of_earlier: dict[str, EarlierReads] = {}  #: what it read when it was imported before: it may have been kept elsewhere


def read_for_imports(paths: Iterable[Path]) -> EarlierReads:
    """Return what was read while the modules of these source files were imported."""
    found = EarlierReads()
    for path in map(str, paths):
        for known in (_of_earlier, _of_modules):  # what was read last counts
            if (reads := known.get(path)) is not None:
                found.add(reads)
    return found


def _records(frame: FrameType) -> Iterator[EarlierReads]:
    for file in importing(frame):
        yield _of_modules.setdefault(file, EarlierReads())


def _see_module(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    file = os.path.realpath(arguments[0].co_filename)
    if (reads := _of_modules.pop(file, None)) is not None:  # it is imported once more, or under another name
        _of_earlier.setdefault(file, EarlierReads()).add(reads)


kept_by(_records)
listen(MODULE_BEGINS, _see_module)
