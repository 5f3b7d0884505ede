"""The user's own source files and the installed distributions that a task can reach, by reading imports alone."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path

from .distributions import Distribution
from .loaded_files import Stamp, stamp_of
from .provenance import Provenance

#: Directories below a root that hold other people's code.
_FOREIGN = frozenset({"site-packages", "dist-packages", ".tox", ".nox", ".venv", "venv", "node_modules"})
#: Functions whose first argument names a module.
IMPORTERS = frozenset({"import_module", "__import__", "importorskip"})


def in_tree(path: Path, rootdir: Path) -> bool:
    """Whether ``path`` lies below the root, and in no folder of installed packages."""
    try:
        below = path.relative_to(rootdir)
    except ValueError:
        return False
    return not _FOREIGN.intersection(below.parts)


@dataclass(frozen=True)
class Sources:
    """What a task can reach of code that lies in files."""

    files: tuple[tuple[str, Path], ...]  #: the user's own, by the name that they have in every clone
    distributions: tuple[Distribution, ...]

    @property
    def paths(self) -> frozenset[Path]:
        """The user's own files."""
        return frozenset(path for _, path in self.files)

    def parts(self) -> dict[str, str]:
        """Return a hash of each own file, and version and content of each distribution, by name."""
        packages = {f"package {one.name}": f"{one.version} {one.content}" for one in self.distributions}
        return packages | {f"file {label}": _digest_of(path) for label, path in self.files}

    def stamps(self) -> dict[str, Stamp]:
        """Return the state of each own file now."""
        found = ((str(path), stamp_of(path)) for _, path in self.files)
        return {file: stamp for file, stamp in found if stamp is not None}


def sources_of(
    roots: Iterable[Path],
    provenance: Provenance,
    also: Iterable[Distribution] = (),
    *,
    conftests: bool = True,
    places: Iterable[Path] = (),
) -> Sources:
    """Return ``roots`` and all that they import, directly or not, in any function, with the conftests beside them.

    Own files are read for further imports; of a distribution, what it needs counts too. Only what can be reached
    counts, and not what happens to be loaded: so the answer is the same whichever tests were selected, in whichever
    order they ran, and in every worker. ``places`` are folders of modules that another process looks in.
    """
    search = _Search(provenance, conftests=conftests, places=places)
    waiting: list[str | Path] = [*roots]
    found: set[Path] = set()
    distributions = set(also)
    while waiting:
        path = waiting.pop()
        origin = provenance.of(path)
        if isinstance(origin, Distribution):
            distributions.add(origin)
        own = provenance.own_path(path)
        if own is not None and not own.is_file():  # a module in a zip file: all of that counts
            own = next((above for above in own.parents if above.is_file()), None)
        if own is None or own in found:
            continue
        found.add(own)
        waiting += search.neighbours(own)
    labelled = sorted((provenance.label(path), path) for path in found)
    return Sources(tuple(labelled), tuple(provenance.with_needs(distributions)))


def conftests_of(path: Path, rootdir: Path) -> list[Path]:
    """Return the conftest files that pytest would load for ``path``; they may patch anything."""
    folders = [folder for folder in path.parents if folder == rootdir or rootdir in folder.parents]
    return [folder / "conftest.py" for folder in folders if (folder / "conftest.py").is_file()]


class _Search:
    """Finds the files that an import would run; it lists each folder once.

    Paths are plain text here: there are thousands, and a Path is slow to make.
    """

    def __init__(self, provenance: Provenance, *, conftests: bool, places: Iterable[Path]) -> None:
        self._provenance, self._conftests = provenance, conftests
        self._further = [*map(str, places)]
        self._listings: dict[str, frozenset[str]] = {}
        self._specs: dict[str, list[Path]] = {}
        self._on_path: dict[str, list[str]] = {}

    def neighbours(self, path: Path) -> list[str]:
        """Return the conftests for an own file, and the files that its imports lead to."""
        rootdir = self._provenance.rootdir
        found = [*map(str, conftests_of(path, rootdir))] if rootdir is not None and self._conftests else []
        stamp = stamp_of(path)
        if path.suffix == ".py" and stamp is not None:
            for level, name in _imports(path, stamp):
                found += self._files_of(level, name, path)
        return found

    def _files_of(self, level: int, name: str, importer: Path) -> Iterator[str]:
        """Give the files that importing the dotted ``name`` would run: each package on the way, and the module."""
        parts = name.split(".")
        if level:
            yield from self._below(str(importer.parents[level - 1]), parts)
            return
        rootdir = self._provenance.rootdir
        own = self._further + ([] if rootdir is None else [str(rootdir), _in(str(rootdir), "src")])
        places = [place for place in dict.fromkeys([str(importer.parent), *own]) if self._has(place, parts[0])]
        places += self._first_on_path(parts[0])
        for place in places:
            yield from self._below(place, parts)
        if not places and parts[0] not in sys.stdlib_module_names:
            for file in self._found_by_hooks(parts[0]):
                yield str(file)
                if file.name == "__init__.py":
                    yield from self._below(str(file.parent), parts[1:])

    def _first_on_path(self, name: str) -> list[str]:
        """Return the folder on Python's path that has a top-level module; several for a package without a file."""
        if name not in self._on_path:
            found = self._on_path[name] = []
            for place in map(str, self._provenance.entries):
                if self._has(place, name):
                    found.append(place)
                    if name not in self._listing(place) or "__init__.py" in self._listing(_in(place, name)):
                        break
        return self._on_path[name]

    def _below(self, folder: str, parts: list[str]) -> Iterator[str]:
        for part in parts:
            listing = self._listing(folder)
            yield from (_in(folder, name) for name in _files_named(part) if name in listing)
            folder = _in(folder, part)
            if part not in listing:
                return
            if "__init__.py" in self._listing(folder):
                yield _in(folder, "__init__.py")

    def _has(self, folder: str, name: str) -> bool:
        listing = self._listing(folder)
        return name in listing or not listing.isdisjoint(_files_named(name))

    def _listing(self, folder: str) -> frozenset[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = frozenset(os.listdir(folder))  # noqa: PTH208  # names alone, of hundreds
            except OSError:
                self._listings[folder] = frozenset()
        return self._listings[folder]

    def _found_by_hooks(self, name: str) -> list[Path]:
        """Return the files of a top-level module that only an import hook finds, as of some editable installations."""
        if name not in self._specs:
            spec: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
            try:
                spec = spec or importlib.util.find_spec(name)
            except (ImportError, ValueError, AttributeError):
                spec = None
            file = spec.origin if spec is not None and spec.has_location else None
            self._specs[name] = [Path(file)] if file else []
        return self._specs[name]


def _in(folder: str, name: str) -> str:
    return f"{folder}{os.sep}{name}"


def _files_named(module: str) -> list[str]:
    """Return what the file of a module may be called; a compiled one beside its place has no source."""
    return [module + suffix for suffix in (".py", ".pyc", *EXTENSION_SUFFIXES)]


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.lru_cache(maxsize=4096)
def _imports(path: Path, stamp: Stamp) -> tuple[tuple[int, str], ...]:
    """Every imported name with its number of leading dots; ``stamp`` only keeps the cache honest."""
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
        elif isinstance(node, (ast.Call, ast.Assign)):
            names.extend((0, name) for name in _named_by_text(node))
    return tuple(dict.fromkeys(names))


def _named_by_text(node: ast.Call | ast.Assign) -> list[str]:
    """Return the modules that ``import_module("a.b")`` or ``pytest_plugins = ["a.b"]`` name."""
    if isinstance(node, ast.Call):
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        texts: list[ast.expr] = node.args[:1] if function in IMPORTERS else []
    else:
        is_plugins = any(getattr(target, "id", "") == "pytest_plugins" for target in node.targets)
        texts = getattr(node.value, "elts", [node.value]) if is_plugins else []
    values = (text.value for text in texts if isinstance(text, ast.Constant))
    return [value for value in values if isinstance(value, str) and value.replace(".", "").isidentifier()]
