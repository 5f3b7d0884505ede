"""Paths out of a folder for temporary files: their names differ from session to session, so their content counts."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import tempfile
from pathlib import Path

from .loaded_files import stamp_of

#: The most files, and bytes of them, that are read below one path; beyond it, their stamps count.
_MOST_FILES, _MOST_BYTES = 10_000, 2**30

_chosen: list[str] = []


def choose_temporary(folder: str | Path) -> None:
    """Take what is in ``folder`` for temporary, as pytest's ``--basetemp`` names it."""
    _chosen.extend(_roots(str(folder)))


class TemporaryPaths:
    """The temporary paths, as seen by a task whose project lies in ``rootdir``."""

    def __init__(self, rootdir: Path | None) -> None:
        self._rootdir = "\0" if rootdir is None else str(rootdir)
        self._roots = (*_roots(tempfile.gettempdir()), *_roots(os.environ.get("PYTEST_DEBUG_TEMPROOT", "")), *_chosen)

    def content_of(self, text: str) -> str | None:
        """Return a hash of all that lies at a temporary path; None for any other text, and for folders above a project.

        >>> TemporaryPaths(None).content_of("learning rate")
        """
        if not text.startswith(self._roots):
            return None
        path = os.path.realpath(text)
        in_project = path == self._rootdir or path.startswith(self._rootdir + os.sep)
        if (in_project and not path.startswith(tuple(_chosen))) or self._rootdir.startswith(path + os.sep):
            return None
        return _content_of(Path(path))


@functools.cache
def _roots(folder: str) -> tuple[str, ...]:
    """Return a folder as it is spelled and as it really is, each as the beginning of the paths below it."""
    return tuple({f"{place}{os.sep}" for place in (folder, os.path.realpath(folder))}) if folder else ()


def _content_of(path: Path) -> str:
    """Return a hash of the files at or below ``path``: their names below it, and what they hold."""
    digest = hashlib.sha256()
    files = list(itertools.islice((file for file in sorted(path.rglob("*")) if file.is_file()), _MOST_FILES + 1))
    files = [path] if path.is_file() else files
    is_much = len(files) > _MOST_FILES or sum(file.stat().st_size for file in files) > _MOST_BYTES
    if is_much:
        digest.update(str(path).encode())
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(repr(stamp_of(file)).encode() if is_much else _hash_of(file))
    return digest.hexdigest()


def _hash_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()
