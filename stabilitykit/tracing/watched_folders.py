"""The folders in which the files that are read can be the user's, and so inputs of a training."""

from __future__ import annotations

import functools
from pathlib import Path

from ..store.layout import STORE
from .callers import is_foreign

#: Folders of tools: their content is made of other files, or is ours.
_CACHES = frozenset({"__pycache__", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox", ".nox", STORE})

_SYSTEM = tuple(f"/{name}/" for name in ("proc", "dev", "sys", "run", "usr", "lib", "lib64", "bin", "sbin", "etc"))

#: Folders of the system in which users keep data: in memory, on drives that are plugged in, and in containers.
_USERS = ("/dev/shm/", "/run/media/", "/run/user/", "/usr/src/", "/usr/local/")

#: Folders of programs among these.
_PROGRAMS = tuple(f"/usr/local/{name}/" for name in ("bin", "sbin", "lib", "lib64", "libexec", "include"))


@functools.lru_cache(maxsize=4096)
def is_watched(folder: str, rootdir: Path) -> bool:
    """Whether the files in a folder can be the user's: not Python's, the system's, or a cache of tools."""
    path = Path(folder)
    if path.is_relative_to(rootdir):
        return _CACHES.isdisjoint(path.relative_to(rootdir).parts) and not is_foreign(folder)
    return _CACHES.isdisjoint(path.parts) and not is_foreign(folder) and not _is_systems(f"{folder}/")


def _is_systems(folder: str) -> bool:
    return folder.startswith(_SYSTEM) and (not folder.startswith(_USERS) or folder.startswith(_PROGRAMS))
