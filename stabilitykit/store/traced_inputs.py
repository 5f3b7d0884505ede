"""What a training read while it ran: modules, files and environment variables, each with a digest of its content.

Kept as a compiler's cache keeps the headers that a source includes. An experiment whose training reads a file that is
edited has two entries, one for each content; the entry that is as the machine is now names the runs to take.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.machinery
import json
import os
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .atomic_files import write_json, write_once
from .folder_names import names_digest, names_in
from .imported_variables import ENVIRON, before_import, is_as_before_import
from .layout import INPUTS, LATER
from .loaded_files import Stamp, stamp_of
from .reading import read_json
from .temporary_paths import TemporaryPaths

#: The digest of a file, folder, module or variable that is not there.
ABSENT = "absent"

#: The end of the name by which a symbolic link counts, for where it leads.
LINK = " ->"

#: What is said of a file that is another one because tests run in another folder.
HERE = ", seen from another working folder"

#: Bytes up to which a file is always read again; a larger one only where its stamp is another.
SMALL = 1 << 20

#: Entries of one experiment that are looked at, the latest first: a variable may have another value in each session.
_MOST = 200


@dataclass(frozen=True)
class Inputs:
    """The inputs of a training, by name; `changed` compares them with the present state of this machine.

    Files below the rootdir are named relative to it. A folder that was listed is a file whose name ends in ``/``, and
    a symbolic link whose target was asked for is one whose name ends in `LINK`.
    A file that was asked for relative to the working folder is the one that this path leads to where it is compared.
    """

    modules: Mapping[str, str] = field(default_factory=dict)  #: imported while it trained: digest of the source
    files: Mapping[str, str] = field(default_factory=dict)  #: digest of the content, or of the names in a folder
    variables: Mapping[str, str] = field(default_factory=dict)  #: see `variable_digest`; the value itself is not kept
    untraced: tuple[str, ...] = ()  #: sentences: what it read that is not in the others
    places: Mapping[str, str] = field(default_factory=dict)  #: the file of each module
    stamps: Mapping[str, Stamp] = field(default_factory=dict)  #: of large files
    relative: Mapping[str, str] = field(default_factory=dict)  #: how such a file was asked for in the working folder
    written: tuple[str, ...] = ()  #: files that it wrote: no inputs of later runs
    spelled: Mapping[str, str] = field(default_factory=dict)  #: digest of the path in variables that count by content
    made: Mapping[str, str] = field(default_factory=dict)  #: shapes of names in folders that it fills: `BETWEEN`
    unheard: Mapping[str, str] = field(default_factory=dict)  #: digests of files that changed meanwhile, afterwards

    @property
    def digest(self) -> str:
        """The hash of all names and contents, 64 hex digits."""
        files = {name: name for name in self.files} | {
            name: f"./{path}" for name, path in self.relative.items() if path != name
        }
        read = sorted((files[name], digest) for name, digest in self.files.items())
        counted = [sorted(self.modules.items()), read, sorted(self.variables.items())]
        return hashlib.sha256(json.dumps(counted).encode()).hexdigest()

    @property
    def are_none(self) -> bool:
        """Whether nothing was read that could be another next time."""
        return not (self.modules or self.files or self.variables)

    def beside(self, more: Mapping[str, Any]) -> Inputs:
        """Return these inputs with those of another process, in JSON's types, which trained the same."""
        if not more:
            return self
        other = Inputs.from_json(more)
        return replace(self.without(other.written).merged(other), unheard={})

    def merged(self, other: Inputs) -> Inputs:
        """Return these inputs and others, whose contents count for a name that both have."""
        merged: dict[str, Any] = {name: {**getattr(self, name), **getattr(other, name)} for name in _BY_NAME}
        of_self = {name: shapes for name, shapes in self.made.items() if name not in other.files}
        merged["made"] = {**of_self, **other.made}  # as the digests that are taken
        for name in ("variables", "spelled"):  # before a training has written into a temporary folder
            merged[name] |= getattr(self, name)
        merged |= {name: tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name)))) for name in _LISTS}
        return Inputs(**merged)

    def beyond(self, known: Inputs) -> Inputs:
        """Return what a later run has read that the runs before are not ``known`` to read.

        What these have written is no input, but said.
        """
        made = {name for name in self.files if name in known.written and name not in known.files}
        new: dict[str, Any] = {
            name: {
                key: value for key, value in getattr(self, name).items() if key not in made | getattr(known, of).keys()
            }
            for name, of in _BESIDE.items()
        }
        said = [f"It reads {name}, which an earlier run has written: it is not traced." for name in sorted(made)]
        said += [writes_to(name) for name in self.written if name in known.files]
        untraced = tuple(sentence for sentence in (*self.untraced, *said) if sentence not in known.untraced)
        written = tuple(name for name in self.written if name not in known.written)
        return Inputs(**new, untraced=untraced, written=written)

    def without(self, written: Container[str]) -> Inputs:
        """Return these inputs without the files that runs have ``written``: what these held is not compared."""
        if not any(name in written for name in self.files):
            return self
        of_files = [name for name, of in _BESIDE.items() if of == "files"]
        kept: dict[str, Any] = {
            name: {key: value for key, value in getattr(self, name).items() if key not in written} for name in of_files
        }
        return replace(self, **kept)

    def explained(self, written: Collection[str]) -> Inputs:
        """Return these inputs where, of the files that changed meanwhile, the training has ``written`` these.

        The others are as they were, but for the time or inode that the system tells.
        """
        same = {name: digest for name, digest in self.unheard.items() if name not in written}
        said = (f"Each training changes {words}: what it reads there is not traced." for words in all_in_words(written))
        return replace(
            replace(self, files={**self.files, **same}).without(written),
            written=tuple(dict.fromkeys((*self.written, *written))),
            untraced=tuple(dict.fromkeys((*self.untraced, *said))),
            unheard={},
        )

    def contradicted(self, known: Inputs) -> tuple[str, ...]:
        """Return in words the files and modules that had another content when they were ``known`` to be read.

        The names in a folder and variables are left out: a training may change them in ways that nothing sees.
        """
        files = {name: digest for name, digest in self.files.items() if not name.endswith("/")}
        for name in (*self.written, *known.written):
            files.pop(name, None)
        edited = [in_words(name) for name, digest in files.items() if known.files.get(name, digest) != digest]
        modules = ((name, digest, known.modules.get(name, digest)) for name, digest in self.modules.items())
        return (*edited, *(f"module {name}" for name, mine, theirs in modules if mine != theirs))

    def to_json(self) -> dict[str, Any]:
        """Return every field, by name."""
        return asdict(self)

    def told(self) -> dict[str, Any]:
        """Return what a report tells: the inputs with their digests, and what is untraced."""
        told = {"modules": dict(self.modules), "files": dict(self.files), "variables": dict(self.variables)}
        return {**told, "untraced": list(self.untraced)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Inputs:
        """Return the inputs that `to_json` wrote; raises `ValueError` for anything else."""
        # Earlier versions did not keep all of them.
        values = {"written": (), "spelled": {}, "made": {}, "unheard": {}, **values}
        if set(values) != {one.name for one in fields(cls)}:
            raise ValueError("not the inputs of a training")
        if not all(isinstance(values[name], dict) for name in _BY_NAME):
            raise ValueError("not the inputs of a training")
        if not all(isinstance(values[name], list | tuple) for name in _LISTS):
            raise ValueError("not the inputs of a training")
        stamps = values["stamps"]
        texts = [text for name in _BY_NAME if name != "stamps" for text in values[name].values()]
        texts += [text for name in _LISTS for text in values[name]]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("not the inputs of a training")
        if not all(isinstance(s, list | tuple) and {type(n) for n in s} == {int} for s in stamps.values()):
            raise ValueError("not the inputs of a training")
        try:
            kept = {name: Stamp(*stamp) for name, stamp in stamps.items()}  # earlier versions kept two numbers
        except TypeError:
            raise ValueError("not the inputs of a training") from None
        return cls(**{**values, **{name: tuple(values[name]) for name in _LISTS}, "stamps": kept})

    def changed(self, rootdir: Path) -> tuple[str, ...]:
        """Return in words what is not as the training found it; empty if all is: ``("variable LR",)``."""
        return tuple(self._changes(rootdir))

    def now(self, rootdir: Path) -> Inputs:
        """Return the present state of what the training found."""
        files = {name: self._file_now(name, rootdir) for name in self.files}
        places = {name: self._path(name, rootdir) for name in self.files}
        stamps = {name: stamp for name in self.stamps if (stamp := stamp_of(places[name])) is not None}
        modules = {
            name: content_digest(place_of(name) or rootdir / self.places.get(name, name)) for name in self.modules
        }
        variables = {name: self._variable_now(name, rootdir) for name in self.variables}
        return replace(self, files=files, stamps=stamps, modules=modules, variables=variables)

    def _variable_now(self, name: str, rootdir: Path) -> str:
        kept = self.variables[name]
        if name == REPLACED:
            return replaced_digest(rootdir)
        values = {ENVIRON.get(name), os.environ.get(name)}  # a test may have replaced the second: either may be read
        return next((now for value in values if (now := self._with(name, value, rootdir)) != kept), kept)

    def _with(self, name: str, value: str | None, rootdir: Path) -> str:
        """Return the digest of a variable of this value: the one that is kept if the training would find it so."""
        ways = {before_import(name, value, self.modules)}
        if not is_as_before_import(name, value):
            ways.add((value, ""))
        spelled = {path_digest(one) + since for one, since in ways}
        digests = [variable_digest(one, rootdir) + since for one, since in ways]
        is_found_so = self.spelled.get(name) in spelled or self.variables[name] in digests  # it has written there
        return self.variables[name] if is_found_so else digests[-1]

    def _file_now(self, name: str, rootdir: Path) -> str:
        path = self._path(name, rootdir)
        if self._is_as_it_was(name, path):
            return self.files[name]
        is_folder = name.endswith("/")
        names = names_in(path) if is_folder else None
        now = folder_digest(names, self.made.get(name)) if is_folder else content_digest(path)
        if (
            (names is None if is_folder else now == ABSENT)
            and name not in self.relative
            and is_temporary(path, rootdir)
        ):
            return self.files[name]  # pytest makes such folders anew: the task's own paths count by what is in them
        return now

    def _changes(self, rootdir: Path) -> Iterator[str]:
        now = self.now(rootdir)
        for name, digest in self.variables.items():
            if now.variables[name] != digest:
                yield f"{VARIABLE}{name}"
        for name, digest in self.files.items():
            if (found := now.files[name]) != digest:
                how = "leads elsewhere" if name.endswith(LINK) else "edited"
                how = "other names in it" if name.endswith("/") else how
                how = "new" if digest == ABSENT else "gone" if found == ABSENT else how
                is_elsewhere = name in self.relative and self._path(name, rootdir) != rootdir / name
                what = in_words(self.relative[name] if is_elsewhere else name)
                yield f"{what} ({how}{HERE if is_elsewhere else ''})"
        for name, digest in self.modules.items():
            if (found := now.modules[name]) != digest:
                yield f"module {name}" + (" (gone)" if found == ABSENT else " (new)" if digest == ABSENT else "")

    def _path(self, name: str, rootdir: Path) -> Path:
        """Return where a file is that a training read: an absolute place, or one seen from the working folder."""
        if name not in self.relative:
            return rootdir / name
        try:
            return Path(os.path.abspath(self.relative[name]))  # noqa: PTH100  # as the trace names it: links stay
        except OSError:
            return rootdir / name  # there is no working folder, and so nothing in it

    def _is_as_it_was(self, name: str, path: Path) -> bool:
        kept = self.stamps.get(name)
        return kept is not None and kept == stamp_of(path)


#: Fields of `Inputs` that are mappings, each with the one that has its names; and those that are lists.
_BESIDE = {"modules": "modules", "files": "files", "variables": "variables"} | {
    "places": "modules",
    "stamps": "files",
    "relative": "files",
    "made": "files",
    "unheard": "files",
    "spelled": "variables",
}
_BY_NAME, _LISTS = tuple(_BESIDE), ("untraced", "written")

#: What stands between shapes of names.
BETWEEN = "/"

#: The name of what a test has put in the place of `os.environ`, as a variable.
REPLACED = "os.environ"

#: How variables begin that pytest sets, another value for each test.
OF_PYTEST = "PYTEST_"

#: What `os.environ` holds beside the variables, and the variables by bytes.
_ATTRIBUTES, _BYTES = vars(ENVIRON).keys() | set(), getattr(os, "environb", None)

#: What stands before the name of a variable.
VARIABLE = "variable "


def in_words(name: str) -> str:
    """Return the name of a file, folder or link with what it is.

    >>> in_words("a.csv"), in_words("images/"), in_words("latest ->")
    ('file a.csv', 'folder images/', 'link latest')
    """
    if name.endswith(LINK):
        return f"link {name.removesuffix(LINK)}"
    return f"{'folder' if name.endswith('/') else 'file'} {name}"


def all_in_words(names: Iterable[str]) -> list[str]:
    """Return the names of files with what they are, each file once: one that begins with ``./`` has a name beside.

    >>> all_in_words(["in/a.csv", "./a.csv"])
    ['file in/a.csv']
    """
    return [in_words(name) for name in names if not name.startswith("./")]


def writes_to(name: str) -> str:
    """Return the sentence on a file that a training both reads and writes."""
    return f"It writes to {name}: what it reads there is not traced."


def variable_digest(value: str | None, rootdir: Path) -> str:
    """Return the digest of an environment variable's value; a temporary path counts by what is there.

    Its name is another one in each session. What the training writes there is found by other studies of the session:
    to them the same path is the same value, and each file that is read counts by itself.
    """
    return path_digest(None if value is None else TemporaryPaths(rootdir).content_of(value) or value)


def replaced_digest(rootdir: Path) -> str:
    """Return the digest of what a test has put in the place of `os.environ`; `ABSENT` if it is Python's own.

    What is no mapping, such as a mock in the place of ``os.environ.get``, is another thing each time.
    """
    of_bytes: Any = getattr(os, "environb", None)
    found = [now for now, own in ((os.environ, ENVIRON), (of_bytes, _BYTES)) if now is not own]
    if vars(ENVIRON).keys() != _ATTRIBUTES or not all(isinstance(one, Mapping) for one in found):
        return uuid.uuid4().hex
    items = [(str(name), variable_digest(str(one[name]), rootdir)) for one in found for name in one]
    counted = sorted(item for item in items if OF_PYTEST not in item[0])
    return path_digest(json.dumps(counted)) if found else ABSENT


def path_digest(value: str | None) -> str:
    """Return the digest of an environment variable's value as it is spelled."""
    return ABSENT if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()


def content_digest(path: Path) -> str:
    """Return the digest of a regular file's bytes, or of where a link leads; `ABSENT` if it cannot be read."""
    try:
        if path.name.endswith(LINK):
            return path_digest(os.readlink(str(path).removesuffix(LINK)))  # noqa: PTH115  # a link's name is no path
        return file_digest(path, path.stat())
    except OSError:
        return ABSENT


def folder_digest(names: Sequence[str] | None, made: str | None) -> str:
    """Return the digest of the names in a folder, None if it is not there, without those of the shapes ``made``.

    A folder that the training fills may not be there before.
    """
    if names is None and made is None:
        return ABSENT
    return names_digest(names or (), frozenset((made or "").split(BETWEEN)) - {""})


def file_digest(path: Path, found: os.stat_result) -> str:
    """Return the digest of a file's bytes, of which the state is known; `ABSENT` if it is no regular file."""
    if not stat.S_ISREG(found.st_mode):
        return ABSENT
    if found.st_size <= SMALL:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return _large_digest(path, Stamp.of(found))


@functools.lru_cache(maxsize=65_536)
def _large_digest(path: Path, stamp: Stamp) -> str:  # another stamp is another entry of the cache
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_temporary(path: Path, rootdir: Path) -> bool:
    """Whether a file lies in the system's temporary folder, and not in the project."""
    return path.is_relative_to(tempfile.gettempdir()) and not path.is_relative_to(rootdir)


def place_of(module: str) -> Path | None:
    """Return the file of a module: of the one that is loaded, else of the one that importing the name would run."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        file = getattr(loaded, "__file__", None)
        return Path(file) if isinstance(file, str) else None
    return file_by_name(module)


def file_by_name(module: str) -> Path | None:
    """Return the file that importing a dotted name would run in a new process; nothing is imported."""
    places: Any = None
    found: importlib.machinery.ModuleSpec | None = None
    for part in module.split("."):
        found = importlib.machinery.PathFinder.find_spec(part, places)
        if found is None:
            return None
        places = found.submodule_search_locations
    return Path(found.origin) if found is not None and found.origin else None


def write(folder: Path, inputs: Inputs) -> None:
    """Keep the inputs of a training as one more entry of an experiment's folder."""
    _write(_file_of(folder, inputs), inputs)


def _file_of(folder: Path, inputs: Inputs) -> Path:
    return folder / INPUTS / f"{inputs.digest[:16]}.json"


def write_later(folder: Path, inputs: Inputs) -> Path | None:
    """Keep beside the runs of an experiment what only a later one of them has read or written.

    Return the file, which may be that of another run; None where there is nothing to keep.
    """
    if inputs.are_none and not inputs.untraced and not inputs.written:
        return None
    content = json.dumps([inputs.digest, inputs.untraced, inputs.written])
    file = folder / LATER / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    _write(file, inputs)
    return file


def _write(path: Path, inputs: Inputs) -> None:
    path.parent.mkdir(exist_ok=True)
    write_once(path, json.dumps(inputs.to_json()))


def entries_of(folder: Path) -> tuple[Inputs, ...]:
    """Return the entries of an experiment's folder, the latest first; a torn one is left out."""
    found: list[tuple[int, Inputs]] = []
    for path in (folder / INPUTS).glob("*.json"):
        inputs, stamp = entry_of(path), stamp_of(path)
        if inputs is not None:
            found.append((stamp.written_ns if stamp else 0, inputs))
    return tuple(inputs for _, inputs in sorted(found, key=lambda entry: entry[0], reverse=True)[:_MOST])


def renew_stamps(folder: Path, inputs: Inputs, rootdir: Path) -> None:
    """Keep the stamps of large files as they are now in an entry that matches: a copied store is hashed once."""
    now: dict[str, Stamp] = {}
    for name, before in inputs.stamps.items():
        path = inputs._path(name, rootdir)
        stamp = stamp_of(path)
        if stamp not in (before, None) and inputs.files.get(name) == content_digest(path) and stamp_of(path) == stamp:
            now[name] = stamp
    if now:
        renewed = replace(inputs, stamps={**inputs.stamps, **now})
        with contextlib.suppress(StoreError):  # a store that can only be read is hashed each time
            write_json(_file_of(folder, inputs), renewed.to_json(), durable=False)


def later_of(folder: Path) -> tuple[Inputs, ...]:
    """Return what only later runs of an experiment have read."""
    lost = "What a later run has read is not known: its file in the run store is damaged."
    return tuple(entry_of(path) or Inputs(untraced=(lost,)) for path in sorted((folder / LATER).glob("*.json")))


def entry_of(file: Path) -> Inputs | None:
    """Return the inputs in a file that `write` or `write_later` wrote; None for any other."""
    try:
        return Inputs.from_json(read_json(file) or {})
    except ValueError:
        return None


def matching(
    entries: Iterable[Inputs], rootdir: Path, written_later: Callable[[Inputs], Container[str]] = lambda _: ()
) -> Inputs | None:
    """Return the entry whose inputs are all as they are now; None if there is none. Every process chooses the same.

    What later runs are seen to write is not compared: ``written_later`` gives its names for an entry.
    """

    def is_as_now(one: Inputs) -> bool:
        return not one.changed(rootdir) or (bool(one.files) and not one.without(written_later(one)).changed(rootdir))

    return min((one for one in entries if is_as_now(one)), key=lambda one: one.digest, default=None)
