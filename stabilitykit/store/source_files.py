"""The user's own source files that a task can reach, found by reading imports and never by running them."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Directories below a root that hold other people's code, which `Environment` covers by version.
_FOREIGN = frozenset({"site-packages", "dist-packages", ".tox", ".nox", ".venv", "venv", "node_modules"})


def is_own(path: Path, rootdir: Path) -> bool:
    """Whether ``path`` is the user's source: below the root, and not an installed package."""
    try:
        below = path.relative_to(rootdir)
    except ValueError:
        return False
    return not _FOREIGN.intersection(below.parts)


def source_closure(roots: Iterable[Path], rootdir: Path) -> frozenset[Path]:
    """Return ``roots`` and every own file that they import, directly or not, in any function, with its conftests.

    Only what can be reached counts, and not what happens to be loaded: so the answer is the same whichever tests were
    selected, in whichever order they ran, and in every worker.
    """
    waiting = [path for path in roots if is_own(path, rootdir)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        stat = path.stat()
        neighbours = conftests_of(path, rootdir)
        for level, name in _imports(path, stat.st_mtime_ns, stat.st_size):
            neighbours += _files_of(name, _search_path(path, level, rootdir))
        waiting.extend(near for near in neighbours if is_own(near, rootdir))
    return frozenset(found)


def source_digest(roots: Iterable[Path], rootdir: Path) -> str:
    """Return one hash over the closure of ``roots``: names relative to the root, and contents."""
    digest = hashlib.sha256()
    for path in sorted(source_closure(roots, rootdir)):
        digest.update(str(path.relative_to(rootdir)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def conftests_of(path: Path, rootdir: Path) -> list[Path]:
    """Return the conftest files that pytest would load for ``path``; they may patch anything."""
    folders = [folder for folder in path.parents if folder == rootdir or rootdir in folder.parents]
    return [folder / "conftest.py" for folder in folders if (folder / "conftest.py").is_file()]


@functools.lru_cache(maxsize=4096)
def _imports(path: Path, mtime_ns: int, size: int) -> tuple[tuple[int, str], ...]:
    """Every imported name with its number of leading dots; mtime and size only keep the cache honest."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ()
    names: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.extend((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from a import b` may mean the module a.b as well as a name inside a.
            parts = [node.module] if node.module else []
            names.extend((node.level, ".".join([*parts, alias.name])) for alias in node.names)
    return tuple(dict.fromkeys(names))


def _search_path(path: Path, level: int, rootdir: Path) -> list[Path]:
    if level:
        return [path.parents[level - 1]]
    return [*dict.fromkeys([path.parent, rootdir, rootdir / "src", *_resolved(tuple(sys.path))])]


@functools.lru_cache(maxsize=4)
def _resolved(entries: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(Path(entry).resolve() for entry in entries if entry)


def _files_of(name: str, folders: Iterable[Path]) -> Iterator[Path]:
    """The files that importing the dotted ``name`` would run: each package on the way, and the module."""
    parts = name.split(".")
    for folder in folders:
        if not (folder / parts[0]).is_dir() and not (folder / f"{parts[0]}.py").is_file():
            continue
        here = folder
        for part in parts:
            yield here / f"{part}.py"
            yield here / part / "__init__.py"
            here = here / part
