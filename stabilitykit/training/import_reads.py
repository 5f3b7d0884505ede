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
from ..store.loaded_files import importing
from .earlier_reads import EarlierReads, kept_by

_of_modules: dict[str, EarlierReads] = {}  #: by the real path of the module's file


def read_for_imports(paths: Iterable[Path]) -> EarlierReads:
    """Return what was read while the modules of these source files were imported."""
    found = EarlierReads()
    for path in paths:
        if (reads := _of_modules.get(str(path))) is not None:
            found.add(reads)
    return found


def _records(frame: FrameType) -> Iterator[EarlierReads]:
    for file in importing(frame):
        yield _of_modules.setdefault(file, EarlierReads())


def _see_exec(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    code = arguments[0]
    if _of_modules and getattr(code, "co_name", "") == "<module>" and code.co_filename[:1] != "<":
        _of_modules.pop(code.co_filename, None)  # it is imported, perhaps once more: what it read before is gone
        if os.path.islink(code.co_filename):  # noqa: PTH114  # at each import
            _of_modules.pop(os.path.realpath(code.co_filename), None)


kept_by(_records)
listen("exec", _see_exec)
