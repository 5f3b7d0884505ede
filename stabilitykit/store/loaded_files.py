"""From which state of its file each module of this process was imported.

A file may be edited while a session runs. What trains then is the text that was imported, and not the one on the disk.
Python tells of each import by an audit event, which is heard from the moment that `stabilitykit` is imported.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from .audit_events import listen, tell

#: Told when the code of a module of the user's begins to run, with that code.
MODULE_BEGINS = "module begins"


class Stamp(NamedTuple):
    """What tells two states of a file apart without reading it.

    Tools can set when a file was written (``cp -p``, ``touch -r``); when the system last changed it, they cannot.
    """

    size: int
    written_ns: int
    changed_ns: int = 0
    inode: int = 0

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the state that the system has told."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


_FOREIGN = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}", f"{Path(os.__file__).parent}{os.sep}")
_TRAINING = f"{Path(__file__).parents[1] / 'training'}{os.sep}"
_real_paths: dict[str, str | None] = {}  #: by the name in a module's code, when it last began; None if it is foreign
_loaded: dict[str, Stamp] = {}
_loaded_by_training: set[str] = set()
_loaded_for: dict[str, dict[str, None]] = {}  #: what was imported while a file was
_started = time.time_ns()


def stamp_of(path: str | Path) -> Stamp | None:
    """Return the state of a file now; None if there is none."""
    try:
        return Stamp.of(os.stat(path))  # noqa: PTH116  # each study asks it a hundred times, and a Path is slow to make
    except OSError:
        return None


def changed_since_import(paths: Iterable[Path]) -> list[Path]:
    """Return the files among ``paths`` that were edited after this process had imported them."""
    changed = [path for path in paths if (known := _loaded.get(str(path))) is not None and known != stamp_of(path)]
    # A module that was imported before its import could be heard: its file must be older than that.
    young = [path for path in paths if str(path) not in _loaded and _written(path) > _started]
    if young:
        named = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
        files = {os.path.realpath(file) for file in named if file}
        changed += [path for path in young if str(path) in files]
    return changed


def imported_otherwise(expected: Mapping[str, Stamp]) -> list[str]:
    """Return the files that this process has imported in another state than the one that is ``expected``."""
    return [file for file, stamp in expected.items() if _loaded.get(file, stamp) != stamp]


def imported_by_training(path: Path) -> bool:
    """Whether a training has imported a file in this process: what it read outside for it is traced."""
    return str(path) in _loaded_by_training


def imported_for(paths: Iterable[Path]) -> list[Path]:
    """Return the files that this process has imported while it imported ``paths``, by whatever name or hook."""
    return [Path(file) for path in paths for file in _loaded_for.get(os.path.realpath(path), ())]


def _is_training(frame: FrameType) -> bool:
    while frame.f_back is not None and not frame.f_code.co_filename.startswith(_TRAINING):
        frame = frame.f_back
    return frame.f_back is not None


def _written(path: Path) -> int:
    try:
        status = path.stat()
    except OSError:
        return 0
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _see_exec(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    code = arguments[0]
    if code.co_name == "<module>" and not is_foreign(code.co_filename):
        tell(MODULE_BEGINS, frame, code)


def _see_module(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    name = arguments[0].co_filename
    file = _real_paths[name] = os.path.realpath(name)
    if (stamp := stamp_of(file)) is not None:
        _loaded[file] = stamp
        (_loaded_by_training.add if _is_training(frame) else _loaded_by_training.discard)(file)
        for importer in importing(frame):
            _loaded_for.setdefault(importer, {})[file] = None


def importing(frame: FrameType | None) -> Iterator[str]:
    """Give the files of the modules that are being imported in a frame, the innermost first, without Python's."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and (file := _real_path(frame.f_code.co_filename)) is not None:
            yield file
        frame = frame.f_back


def _real_path(name: str) -> str | None:
    if name not in _real_paths:  # it began before it could be heard, or is foreign
        _real_paths[name] = None if is_foreign(name) else os.path.realpath(name)
    return _real_paths[name]


def is_foreign(file: str) -> bool:
    """Whether a file is Python's or of an installed package, or none at all."""
    return file.startswith("<") or is_installed(file)


def is_installed(path: str) -> bool:
    """Whether a path leads into Python's library, or to installed packages; that of a folder ends with a slash."""
    return any(part in path for part in _FOREIGN)


listen("exec", _see_exec)
listen(MODULE_BEGINS, _see_module)
