"""The files that a command names, and the code that its Python scripts import: what is known of what it runs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..store.loaded_files import Stamp, stamp_of
from ..store.provenance import Provenance
from ..store.source_files import sources_of
from ..store.traced_inputs import content_digest
from .placeholders import names_in

#: The program that runs modules by ``-m``, by the beginning of its name.
_PYTHON = "python"


@dataclass(frozen=True)
class FilesRead:
    """The files of a command in one state."""

    parts: Mapping[str, str]  #: a hash of each file of the user's, and version and content of each package, by name
    stamps: Mapping[str, Stamp | None]  #: the state of each file

    def changed(self) -> list[str]:
        """Return the names of the files that are in another state now."""
        return [Path(file).name for file, stamp in self.stamps.items() if stamp_of(file) != stamp]


@dataclass(frozen=True)
class CommandFiles:
    """What a command names, seen from its folder."""

    command: Sequence[str]  #: with placeholders
    cwd: Path
    env: Mapping[str, str]  #: what it finds beyond the variables of this process, with placeholders
    inputs: Sequence[str] = ()  #: patterns of further files

    def read(self) -> FilesRead:
        """Read the files as they are now."""
        code = sources_of(self._code, Provenance(self.root), conftests=False, places=self._places)
        data = [path for path in (*self._named, *self.input_files) if path not in code.paths]
        hashes = {f"file {self._label(path)}": content_digest(path) for path in data}
        stamps = {str(path): stamp_of(path) for path in (*code.paths, *data)}
        return FilesRead(code.parts() | hashes, stamps)

    def _label(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if self.root in path.parents else str(path)

    @property
    def root(self) -> Path:
        """The folder that files are named from: of the repository, or that of the command."""
        return next((above for above in (self.cwd, *self.cwd.parents) if (above / ".git").exists()), self.cwd)

    @property
    def has_code(self) -> bool:
        """Whether it names Python code whose imports can be read."""
        return bool(self._code)

    @property
    def _code(self) -> list[Path]:
        """The Python files that it names, and the modules behind ``-m``."""
        return [path for path in (*self._named, *self._modules) if path.suffix == ".py"]

    @property
    def input_files(self) -> list[Path]:
        """The files that ``inputs`` match; a folder counts with all files in it."""
        found = [self.cwd / pattern for pattern in self.inputs if (self.cwd / pattern).exists()]
        found += [path for pattern in self.inputs for path in _glob(self.cwd, pattern)]
        inside = [path for folder in found if folder.is_dir() for path in folder.rglob("*")]
        return sorted({path for path in (*found, *inside) if path.is_file()})

    def unmatched(self) -> list[str]:
        """Return the patterns of ``inputs`` that match nothing."""
        return [one for one in self.inputs if not CommandFiles((), self.cwd, {}, [one]).input_files]

    @property
    def program(self) -> Path | None:
        """The program that is started; None where there is none of that name."""
        path = self.env.get("PATH", os.environ.get("PATH"))
        name = self.command[0]
        found = shutil.which(str(self.cwd / name) if os.sep in name else name, path=path)
        return None if found is None else Path(found).absolute()

    @property
    def is_this_python(self) -> bool:
        """Whether the program is the Python that runs this, with its packages."""
        here, program = Path(sys.executable).absolute(), self.program
        return program is not None and program.parent == here.parent and program.resolve() == here.resolve()

    @property
    def is_python(self) -> bool:
        """Whether the program is a Python, by its name."""
        return Path(self.command[0]).name.startswith(_PYTHON)

    def missing_script(self) -> str | None:
        """Return the script that a Python is to run, where there is none."""
        script = self.command[1] if self.is_python and len(self.command) > 1 else ""
        return script if script.endswith(".py") and not (self.cwd / script).is_file() else None

    @property
    def _named(self) -> Iterator[Path]:
        for text in self.command:
            for word in (text, text.partition("=")[2]):
                if word and not names_in(word) and (self.cwd / word).is_file():
                    yield self.cwd / word

    @property
    def _modules(self) -> Iterator[Path]:
        for option, name in zip(self.command, self.command[1:], strict=False):
            if option == "-m":
                yield from _module(name, self._places)

    @property
    def _places(self) -> list[Path]:
        """The folders in which a script of the command looks for modules before it looks where packages are."""
        variable = self.env.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        ahead = [self.cwd / folder for folder in variable.split(os.pathsep) if folder]
        return list(dict.fromkeys([*(path.parent for path in self._named if path.suffix == ".py"), self.cwd, *ahead]))


def _glob(folder: Path, pattern: str) -> Iterable[Path]:
    return folder.glob(pattern) if not Path(pattern).is_absolute() else Path("/").glob(pattern.lstrip("/"))


def _module(name: str, places: Iterable[Path]) -> Iterator[Path]:
    """Yield the file of a module that is run by name, and the front pages of the packages that it lies in."""
    *packages, last = name.split(".")
    for place in (*places, *map(Path, sys.path)):
        folder = place.joinpath(*packages)
        found = [path for path in (folder / f"{last}.py", folder / last / "__main__.py") if path.is_file()]
        if found:
            depths = range(1, len(packages) + 2)
            pages = (place.joinpath(*[*packages, last][:depth], "__init__.py") for depth in depths)
            yield from found[:1]
            yield from (page for page in pages if page.is_file())
            return
