"""What a training has read, as inputs: made of what its trace has seen, when the training is over."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..store.folder_names import NUMBER, shape_of
from ..store.loaded_files import changed_since_import, imported_for, stamp_of
from ..store.provenance import Provenance
from ..store.source_files import sources_of
from ..store.traced_inputs import (
    ABSENT,
    BETWEEN,
    LINK,
    SMALL,
    Inputs,
    content_digest,
    folder_digest,
    is_temporary,
    path_digest,
    place_of,
    variable_digest,
    writes_to,
)
from .cached_reads import read_for
from .callers import Caller, is_foreign, kind_of
from .earlier_reads import LOST, EarlierReads, Read
from .import_reads import read_for_imports
from .seen import FOLDER, MOST_FILES, Seen


def inputs_of(seen: Seen) -> tuple[Inputs, tuple[str, ...]]:
    """Return the inputs, and the modules that were edited while they were being read."""
    if kinds := sorted({type(process).__name__ for process in seen.processes if process.is_alive()}):
        seen.say(f"Other processes were there before it ({', '.join(kinds)}): what they read is not traced.")
    reached = _reached(seen)
    modules, places, edited = _modules(seen, reached)
    files, unheard = _files(seen, frozenset(places.values()))
    folders, made = _folders(seen)
    before = read_for_imports(reached)
    before.add(read_for(seen.hits_before))
    rewritten = sorted(path for path in before.rewritten if seen.is_watched(path.rpartition(os.sep)[0]))
    for sentence in (*before.untraced, *(writes_to(seen.named(path)) for path in rewritten)):
        seen.say(sentence)
    files = {**_kept(seen, before.files), **files}
    files |= {f"{seen.named(path)}{LINK}": to for path, to in before.links.items() if seen.is_link_of_user(path)}
    files |= _listed_before(seen, before) | folders
    named = {name: path for path in seen.read for name in _names(seen, path) if name in files}
    stamps = {name: s for name, path in named.items() if (s := seen.read[path][1]) and s.size > SMALL}
    asked = (*seen.read, *seen.listed)
    relative = {name: spelling for path in asked for name, spelling in _names(seen, path).items()}
    relative |= {seen.named(path): spelling for path, spelling in _relative_before(seen, before)}
    relative = {name: spelling for name, spelling in relative.items() if spelling and name in files}
    untraced, written = tuple(seen.untraced), tuple(_made(seen))
    for name, value in before.variables.items():
        seen.variables.setdefault(name, (variable_digest(value, seen.rootdir), path_digest(value)))
    variables = {name: digest for name, (digest, _) in seen.variables.items()}
    spelled = {name: path for name, (digest, path) in seen.variables.items() if path != digest}
    inputs = Inputs(modules, files, variables, untraced, places, stamps, relative, written, spelled, made, unheard)
    return inputs, tuple(edited)


def _files(seen: Seen, modules: frozenset[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests of files and links, and those of now where nothing was heard to write what changed.

    The files of ``modules`` are not named twice. The digest is `ABSENT` where the content that was read is lost.
    """
    files: dict[str, str] = {}
    unheard: dict[str, str] = {}
    places = functools.cache(lambda: frozenset(map(os.path.realpath, seen.written)))  # by another name, of a link
    for path, (digest, stamp) in seen.read.items():
        name, is_link = seen.named(path), path.endswith(LINK)
        is_written = bool(seen.written_above(path.removesuffix(LINK)))
        if name in modules or (is_written and digest == ABSENT):  # looked for, and then written
            continue
        is_as_it_was = content_digest(Path(path)) == digest if is_link else stamp == stamp_of(Path(path))
        before = digest
        if is_written or (not is_as_it_was and (path in seen.changeable or os.path.realpath(path) in places())):
            _says_it_writes(seen, path)
            continue
        if before is None or not is_as_it_was:
            now = content_digest(Path(path))
            before = now if before is None and stamp == stamp_of(Path(path)) else before
            if before != now:
                unheard |= dict.fromkeys(_names(seen, path), now)
        files |= dict.fromkeys(_names(seen, path), before or ABSENT)
    return files, unheard


def _says_it_writes(seen: Seen, path: str) -> None:
    name = seen.named(path.removesuffix(LINK))
    seen.written.add(path)
    seen.say(writes_to(f"the database {name}" if path in seen.databases else name))


def _folders(seen: Seen) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests of listed folders, and the shapes of the names that the training makes in them."""
    shapes: dict[str, set[str]] = {f"{folder}{FOLDER}": set() for folder in seen.folders_made}
    for path in (*seen.written, *seen.folders_made) if seen.listed else ():
        folder, _, name = path.removesuffix(LINK).rpartition(os.sep)
        shapes.setdefault(f"{folder}{FOLDER}", set()).add(shape_of(name))
    folders: dict[str, str] = {}
    made: dict[str, str] = {}
    for path, names in seen.listed.items():
        ours = BETWEEN.join(sorted(shapes[path])) if path in shapes else None
        for name in _names(seen, path):
            folders[name] = folder_digest(names, ours)
            made |= {} if ours is None else {name: ours}
        for shape in sorted(shapes.get(path, ())):
            if NUMBER in shape:
                seen.say(f"It makes names like {shape} in {seen.named(path)}: which of these are there is not traced.")
    return folders, made


def _made(seen: Seen) -> Iterator[str]:
    """Give the names of what the training has written, as its later runs would read it."""
    for path in sorted(seen.written)[:MOST_FILES]:
        is_gone = is_temporary(Path(path), seen.rootdir) and not os.path.lexists(path)
        if seen.is_watched(path.rpartition(os.sep)[0]) and not is_gone:
            yield seen.named(path)


def _kept(seen: Seen, reads: Mapping[str, Read]) -> dict[str, str]:
    """Return the digests of files of which the training got what had been kept, as they were when it was read."""
    return {
        seen.named(path): read.digest or (content_digest(Path(path)) if read.stamp == stamp_of(Path(path)) else LOST)
        for path, read in reads.items()
        if path not in seen.written and seen.is_watched(path.rpartition(os.sep)[0])
    }


def _listed_before(seen: Seen, before: EarlierReads) -> dict[str, str]:
    """Return the digests of the folders that modules had listed."""
    listed = {path: names for path, names in before.folders.items() if seen.is_watched(path)}
    return {seen.named(path.rstrip(FOLDER) + FOLDER): folder_digest(names, None) for path, names in listed.items()}


def _relative_before(seen: Seen, before: EarlierReads) -> Iterator[tuple[str, str]]:
    """Give the files and folders that modules had asked for in what is still the working folder."""
    for path, spelling in before.relative.items():
        if seen.cwd and os.path.normpath(os.path.join(seen.cwd, spelling)) == path:  # noqa: PTH118  # Path leaves ".."
            end = FOLDER if path in before.folders else ""
            yield path + end, spelling + end


def _reached(seen: Seen) -> list[Path]:
    """Return the source files of modules that were loaded and that the training has asked for, with their imports.

    What another module had imported for them is among them.
    """
    places = (place_of(name) for name in seen.asked_for if name in seen.loaded_before)
    own = [place for place in places if place is not None and _is_users(place)]
    if not own:
        return []
    paths = sources_of(own, Provenance(seen.rootdir), conftests=False).paths
    return sorted(path for path in paths.union(imported_for(paths)) if _is_users(path))


def _names(seen: Seen, path: str) -> dict[str, str]:
    """Return the names by which a file counts, each with its path from the working folder; "" for its own place.

    There is one, but of a file that was asked for in several ways.
    """
    first, *more = sorted(seen.spelled.get(path, [""]))
    return {seen.named(path): first, **{f"./{spelling}": spelling for spelling in more}}


def _modules(seen: Seen, reached: list[Path]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return digest and file of the user's modules that were imported or ``reached``, and which were edited."""
    modules, places, edited = {}, {}, []
    names = {name for name in list(sys.modules) if name not in seen.loaded_before}
    names |= {name for name in list(sys.modules) if (place := place_of(name)) in reached} if reached else set()
    for name in sorted(names.union(seen.asked_for)):
        place = place_of(name)
        if place is None and not seen.asked_for.get(name, True):
            modules[name], places[name] = ABSENT, name
        if place is None or not _is_users(place):
            continue
        if str(place) in seen.written or not place.is_file():
            continue
        now = LOST if changed_since_import([Path(os.path.realpath(place))]) else content_digest(place)
        before = seen.read.get(str(place), (None, None))[0] or now
        if before != now:
            edited.append(name)
        modules[name], places[name] = before, seen.named(str(place))
    return modules, places, edited


def _is_users(place: Path) -> bool:
    return kind_of(str(place)) is Caller.USER and not is_foreign(str(place))
