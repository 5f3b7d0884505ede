"""Where code comes from: the user's own files, an installed distribution, or Python and stabilitykit themselves."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from ..errors import PACKAGE
from .distributions import Distribution, changed_at, installed_in, owner_of, project_names

#: What is known of files, by all that decides it: each study walks over thousands of functions in the same few files.
_seen: dict[tuple[object, ...], dict[str, tuple[Origin, Path]]] = {}

#: Distributions that run a test and train nothing.
_ASKING = frozenset({"pytest", "pytest-xdist", "stabilitykit"})


class Kind(Enum):
    """The kinds of code beside installed distributions."""

    OWN = "the user's own, which counts by its content"
    BASE = "Python and stabilitykit, whose versions the environment has, and what runs tests"


Origin: TypeAlias = "Kind | Distribution"


class Provenance:
    """The origin of each file, as long as nothing is installed beside."""

    def __init__(self, rootdir: Path | None) -> None:
        """Call everything the user's own that is not installed; where ``rootdir`` is None, nothing."""
        self.rootdir = rootdir
        self.entries = () if rootdir is None else _entries()
        self.folders = frozenset(self.entries)
        self._projects = frozenset() if rootdir is None else project_names(rootdir)
        self._repository = None if rootdir is None else _repository(rootdir)
        changed = tuple(changed_at(folder) for folder in self.entries)
        self._known = _seen.setdefault((rootdir, self.entries, changed), {})

    def of(self, file: str | Path) -> Origin:
        """Return where a file comes from."""
        return self._look_up(str(file))[0]

    def own_path(self, file: str | Path) -> Path | None:
        """Return the real path of a file of the user's own; None for any other."""
        origin, path = self._look_up(str(file))
        return path if origin is Kind.OWN else None

    def is_own(self, distribution: Distribution) -> bool:
        """Whether a distribution is of the project under test, or was installed from a folder of its source."""
        return distribution.name in self._projects or distribution.is_users_own

    def label(self, path: Path) -> str:
        """Return a name for an own file that is the same in every clone of the user's repository."""
        bases = [base for base in (self.rootdir, self._repository) if base is not None]
        base = next((base for base in bases if base in path.parents and not _in_site(path.relative_to(base))), None)
        if base is None:
            base = next((parent for parent in path.parents if parent in self.folders), path.parent)
        return path.relative_to(base).as_posix()

    def with_needs(self, distributions: Iterable[Distribution]) -> list[Distribution]:
        """Return the distributions with all that they need, by name."""
        found: dict[str, Distribution] = {}
        installed = installed_in(self.folders)
        waiting = list(distributions)
        while waiting:
            one = waiting.pop()
            if one.name not in found and one.name not in _ASKING:
                found[one.name] = one
                waiting += [installed[name] for name in one.needs if name in installed]
        return [found[name] for name in sorted(found)]

    def _look_up(self, file: str) -> tuple[Origin, Path]:
        if file not in self._known:
            plain = Path(file).absolute()  # some installers link the files of a package to a folder elsewhere
            real = Path(os.path.realpath(file))
            self._known[file] = self._find(plain, real), real
        return self._known[file]

    def _find(self, plain: Path, real: Path) -> Origin:
        rootdir = self.rootdir
        if rootdir is None:
            return Kind.BASE
        if rootdir in real.parents and not _in_site(real.relative_to(rootdir)):
            return Kind.OWN
        if PACKAGE in real.parents or (not _in_site(real) and not _STDLIB.isdisjoint(real.parents)):
            return Kind.BASE
        owner = owner_of(plain, self.folders) or (owner_of(real, self.folders) if real != plain else None)
        if owner is None or self.is_own(owner):
            return Kind.OWN
        return Kind.BASE if owner.name in _ASKING else owner


_STDLIB = frozenset(
    Path(os.path.realpath(folder))
    for folder in (Path(os.__file__).parent, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
)


def _in_site(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _entries() -> tuple[Path, ...]:
    """Return the folders that Python looks for modules in, real and as they are spelled."""
    spelled = [Path(entry).absolute() for entry in sys.path]
    return tuple(dict.fromkeys(path for entry in spelled for path in (entry, entry.resolve())))


def _repository(folder: Path) -> Path | None:
    return next((above for above in (folder, *folder.parents) if (above / ".git").exists()), None)
