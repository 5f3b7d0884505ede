"""Installed distributions: which one a file belongs to, and what of it counts for a key."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .loaded_files import Stamp, stamp_of

#: Folders in which a distribution counts as installed even if its installer has left no RECORD, as Debian's does.
_SITES = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True)
class Distribution:
    """One installed distribution."""

    name: str  #: in lower case, with "-" between words
    version: str
    info: Path  #: its folder of metadata

    @functools.cached_property
    def record(self) -> Path:
        """The list of its files, if its installer has left one."""
        return self.info / "RECORD"

    @property
    def is_users_own(self) -> bool:
        """Whether it was installed from a folder of source code, editable or not, and not from an index."""
        try:
            origin = json.loads((self.info / "direct_url.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(origin, dict) and "dir_info" in origin

    @property
    def content(self) -> str:
        """A hash of its RECORD, which has one of every file; without a RECORD, of the names and sizes of its files."""
        stamp = stamp_of(self.record)
        return _hash_of_sizes(self.info) if stamp is None else _hash_of_record(self.record, stamp)

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the distributions that it cannot do without."""
        return _needs_of(self.info)


def owner_of(path: Path, folders: frozenset[Path]) -> Distribution | None:
    """Return the distribution that installed ``path`` below one of ``folders``, or below a site-packages folder."""
    for folder in path.parents:
        if folder in folders or folder.name in _SITES:
            inside = path.relative_to(folder).parts
            owners = _owners_of_name(folder, changed_at(folder), inside[0])
            if len(owners) > 1:  # parts of a namespace package
                owners = tuple(owner for owner in owners if _claims(owner, "/".join(inside)))
            if owners:
                return owners[0]
    return None


def installed_in(folders: Iterable[Path]) -> dict[str, Distribution]:
    """Return the distributions of ``folders`` by name; of two with one name, that of the first folder in order."""
    found: dict[str, Distribution] = {}
    for folder in sorted(folders, reverse=True):
        found |= _installed(folder, changed_at(folder))
    return found


def project_names(folder: Path) -> frozenset[str]:
    """Return the names of the projects that ``folder`` is part of, by the files that declare them."""
    return frozenset(name for above in (folder, *folder.parents) for name in _declared(above))


@functools.lru_cache(maxsize=256)
def _declared(folder: Path) -> tuple[str, ...]:
    names: list[str] = []
    for file in ("pyproject.toml", "setup.cfg", "setup.py"):
        try:
            text = (folder / file).read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        # The name stands on a line of its own in each of the three, and a wrong match only takes more for own code.
        names += re.findall(r"""^\s*name\s*=\s*["']?([A-Za-z0-9][\w.-]*)""", text, re.MULTILINE)
    return tuple(map(_normal, names))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def changed_at(folder: Path) -> int:
    """Return when an entry of a folder was made or removed, in ns; 0 for a folder that is not there."""
    stamp = stamp_of(folder)
    return 0 if stamp is None else stamp.written_ns


@functools.lru_cache(maxsize=64)
def _installed(folder: Path, changed: int) -> dict[str, Distribution]:
    """Return the distributions of one folder, by name; ``changed`` only keeps the cache honest."""
    try:
        entries = os.listdir(folder)  # noqa: PTH208  # names alone, of hundreds
    except OSError:
        return {}
    found: dict[str, Distribution] = {}
    for entry in sorted(entries):
        stem, dot, kind = entry.rpartition(".")
        if kind not in ("dist-info", "egg-info") or not dot:
            continue
        name, _, version = stem.partition("-")
        info = folder / entry
        if folder.name in _SITES or (kind == "dist-info" and (info / "RECORD").is_file()):
            found[_normal(name)] = Distribution(_normal(name), version.partition("-py")[0], info)
    return found


@functools.lru_cache(maxsize=4096)
def _owners_of_name(folder: Path, changed: int, top: str) -> tuple[Distribution, ...]:
    """Return the distributions of a folder that have installed ``top``, a package or module in it."""
    installed = _installed(folder, changed)
    likely = installed.get(_normal(top.removesuffix(".py")))
    if likely is not None and _has_top(likely, top):
        return (likely,)
    return tuple(one for one in installed.values() if _has_top(one, top))


def _has_top(distribution: Distribution, top: str) -> bool:
    try:
        record = b"\n" + distribution.record.read_bytes()
    except OSError:
        return top.removesuffix(".py") in _tops_without_record(distribution)
    return b"\n" + top.encode() + (b"," if "." in top else b"/") in record


def _claims(distribution: Distribution, file: str) -> bool:
    try:
        record = b"\n" + distribution.record.read_bytes()
    except OSError:
        return True
    return b"\n" + file.encode() + b"," in record


def _tops_without_record(distribution: Distribution) -> list[str]:
    try:
        listed = (distribution.info / "top_level.txt").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        listed = []
    return listed or [distribution.name.replace("-", "_")]


@functools.lru_cache(maxsize=1024)
def _hash_of_record(record: Path, stamp: Stamp) -> str:
    # Scripts with a path, notes of the installer and compiled files differ between two installations of one wheel.
    others = (b"../", record.parent.name.encode() + b"/")
    lines = record.read_bytes().splitlines()
    code = [line for line in lines if not line.endswith(b",,") and not line.startswith(others)]
    return hashlib.sha256(b"\n".join(sorted(code))).hexdigest()[:16]


@functools.lru_cache(maxsize=64)
def _hash_of_sizes(info: Path) -> str:
    distribution = Distribution("", "", info)
    tops = [info.parent / top for top in _tops_without_record(distribution)]
    files = sorted((str(path.relative_to(info.parent)), path.stat().st_size) for top in tops for path in _code_in(top))
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _code_in(top: Path) -> Iterator[Path]:
    yield from (path for path in (top.with_name(f"{top.name}.py"),) if path.is_file())
    yield from (path for path in top.rglob("*") if path.suffix in (".py", ".so", ".pyd") and path.is_file())


@functools.lru_cache(maxsize=1024)
def _needs_of(info: Path) -> tuple[str, ...]:
    try:
        text = (info / "METADATA").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return ()
    needed = re.findall(r"^Requires-Dist:\s*([\w.-]+)(.*)$", text, re.MULTILINE)
    return tuple(_normal(name) for name, rest in needed if "extra ==" not in rest)
