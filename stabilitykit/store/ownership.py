"""Removing and moving files of a run store, after the proof that stabilitykit made them.

Other programs may write to a store's folder, by mistake or on purpose. So a place alone is no proof: all of the
following must hold, or nothing is touched.

- The path lies below a store: a folder whose file ``FORMAT``, not a link, holds the number of a format and no more.
- Every name on the way has the exact form that this package writes there (`LAYOUT`).
- No folder on the way, and nothing below a folder that is to go, is a symbolic link, a mount point or a special file.
- A folder that goes as a whole holds the marker of its kind, and nothing of a name that this package does not write.

A file that this process made itself is known by its inode: `discard`. The system calls take names relative to open
folders, so a folder that is replaced by a link meanwhile is not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import StoreError
from .layout import DRAFT, FORMAT_FILE, LAYOUT, Entry, File, Folder

#: Errors of opening a path that does not exist, or is a link or a socket.
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO}

_UNMARKED = "has none of the files by which stabilitykit knows a folder of its own"


class NotOurs(StoreError):
    """A path that stabilitykit cannot show to have made; it was left as it is."""

    def __init__(self, path: Path, why: str) -> None:
        self.why = f"{path} {why}"
        super().__init__(
            f"Expected to remove or to write what stabilitykit has made but {self.why}. It was left as it is; move it "
            f"away, or name another store."
        )


def remove(path: Path) -> int:
    """Delete a file or a folder of a store and return the bytes that this freed: 0 if it does not exist.

    Raises `NotOurs` before anything is deleted, and OSError as the system does.
    """
    with _Place(path) as place:
        entry = place.prove()
        return 0 if entry is None else _delete(place.folder, place.name, entry, place.path)


def move(path: Path, to: Path) -> None:
    """Rename a file or a folder within its store, if it exists; the errors are those of `remove`."""
    with _Place(path) as place, _Place(to) as target:
        if place.prove() is not None:
            target.entry()
            os.rename(place.name, target.name, src_dir_fd=place.folder, dst_dir_fd=target.folder)


def check_removable(path: Path) -> None:
    """Raise `NotOurs` if `remove` would."""
    with _Place(path) as place:
        place.prove()


def check_form(path: Path, inside: Iterable[str] = ()) -> None:
    """Raise `NotOurs` for a path that this package would not write: of another form, or through a link.

    The same for the entries of a folder that ``inside`` names.
    """
    with _Place(path) as place:
        if place.entry() is not None and inside:
            place.enter(place.path)
            for name in inside:
                place.entry(name)


def drafts_below(folder: Path, rule: Folder = LAYOUT) -> Iterator[Path]:
    """Yield the half-written files of a store, in the folders that this package writes."""
    for found in sorted(folder.iterdir()):
        entry = rule.find(found.name)
        if isinstance(entry, Folder) and not found.is_symlink():
            yield from drafts_below(found, entry)
        elif isinstance(entry, File) and DRAFT.fullmatch(found.name):
            yield found


def discard(path: Path, made: os.stat_result) -> None:
    """Delete a file that this process made, while it is still the one that ``made`` describes."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(path.lstat(), made):
            path.unlink()


def format_of(folder: Path) -> int | None:
    """Return the format that a store says it has; None for a folder that is no store."""
    says = _format_says(folder)
    return int(says) if says is not None and re.fullmatch(r"[0-9]{1,6}\s?", says) else None


def _format_says(folder: Path) -> str | None:
    """Return how the file ``FORMAT`` begins; None if it does not exist or is no regular file."""
    try:  # non-blocking: a pipe of that name is not waited for
        handle = os.open(folder / FORMAT_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    try:
        is_file = stat.S_ISREG(os.fstat(handle).st_mode)
        return os.read(handle, 32).decode(errors="replace") if is_file else None
    finally:
        os.close(handle)


def check_may_be_store(folder: Path) -> None:
    """Raise `StoreError` for a folder with other files: one that is not empty, and is no store."""
    if not folder.is_dir() or format_of(folder) is not None:
        return
    strange = sorted(path.name for path in folder.iterdir() if not _is_of_a_new_store(path.name))
    if not strange or format_of(folder) is not None:  # another process has made it a store meanwhile
        return
    says = _format_says(folder)
    if says is not None:
        raise StoreError(
            f"Expected {folder / FORMAT_FILE} to name the format of a run store but it says {says!r}. Is this a folder "
            f"of stabilitykit? Move it away to start a new store."
        )
    shown = ", ".join(map(repr, strange[:3])) + (", ..." if len(strange) > 3 else "")
    raise StoreError(
        f"Expected the run store {folder} to be a new or an empty folder, or a store, but it holds {shown} and no "
        f"file {FORMAT_FILE}. A store is written to and cleared up, so stabilitykit takes no folder that holds other "
        f"files. Name one that does not exist yet, such as {folder / 'stability'}."
    )


def _is_of_a_new_store(name: str) -> bool:
    draft = DRAFT.fullmatch(name)  # of a store that another process is making
    return name == "lost+found" or (draft is not None and draft[1] == FORMAT_FILE)  # the former is a folder of ext4


class _Place:
    """The open folder in which a path lies, reached from its store without following a link."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  # Path.resolve would follow links
        self.name = self.path.name
        self.folder = -1
        self._is_reached = True  #: False if a folder on the way, and so the path, does not exist
        self._entered: list[Path] = []  #: the folders on the way, below the store
        self._unmarked: Path | None = None  #: a folder on the way without its marker

    def __enter__(self) -> _Place:
        store = next((above for above in self.path.parents if format_of(above) is not None), None)
        if store is None:
            raise NotOurs(self.path, f"lies in no run store: no folder above it has a file {FORMAT_FILE} of ours")
        self._store, self._rule = store, LAYOUT
        self.folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
        self._device = os.fstat(self.folder).st_dev
        try:
            for folder in list(reversed(self.path.parents))[len(store.parts) :]:
                self.enter(folder)
        except FileNotFoundError:
            self._is_reached = False
        except BaseException:
            os.close(self.folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.folder)

    def entry(self, name: str = "") -> Entry | None:
        """Return what the path is, or the file ``name`` of the folder that was entered; None if it does not exist.

        Raises `NotOurs` if this package did not make it.
        """
        if not self._is_reached:
            return None
        path = self.path / name
        entry = self._rule.find(path.name)
        if entry is None:
            raise NotOurs(path, "has a name that stabilitykit does not write there")
        try:
            found = os.stat(path.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        _check_kind(found, entry, path)
        return entry

    def prove(self) -> Entry | None:
        """Return what the path is, once shown to be removable: every folder has its marker, and none is mounted."""
        entry = self.entry()
        if entry is not None and self._unmarked is not None:
            raise NotOurs(self._unmarked, _UNMARKED)
        for mount in _mounts_below(self._store):
            if mount in self._entered or (entry is not None and self.path in (mount, *mount.parents)):
                raise NotOurs(mount, "is a mount point")
        if isinstance(entry, Folder):
            with _opened(self.name, self.folder) as inside:
                _check_below(inside, entry, self.path)
        return entry

    def enter(self, path: Path) -> None:
        """Open a folder on the way to the path, or the path itself, in place of the one around it."""
        rule = self._rule.find(path.name)
        if not isinstance(rule, Folder):
            raise NotOurs(path, "is no folder that stabilitykit writes")
        _check_kind(os.stat(path.name, dir_fd=self.folder, follow_symlinks=False), rule, path)
        inner = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.folder)
        os.close(self.folder)
        self.folder, self._rule = inner, rule
        self._entered.append(path)
        if os.fstat(inner).st_dev != self._device:
            raise NotOurs(path, "is a mount point")
        if not _is_marked(inner, rule):
            self._unmarked = path


def _check_below(folder: int, rule: Folder, path: Path) -> None:
    """Raise `NotOurs` for a folder without its marker, and for anything below it that this package did not write."""
    if not _is_marked(folder, rule):
        raise NotOurs(path, _UNMARKED)
    for found in list(os.scandir(folder)):
        below, entry = path / found.name, rule.find(found.name)
        if entry is None:
            raise NotOurs(below, "has a name that stabilitykit does not write there")
        _check_kind(found.stat(follow_symlinks=False), entry, below)
        if isinstance(entry, Folder):
            with _opened(found.name, folder) as inner:
                _check_below(inner, entry, below)


def _delete(parent: int, name: str, entry: Entry | None, path: Path) -> int:
    """Delete what `_Place.prove` has passed, a marker last: half a folder is still known as ours; return its bytes."""
    if entry is None:
        raise NotOurs(path, "has just appeared, with a name that stabilitykit does not write there")
    freed = 0
    if isinstance(entry, File):
        with contextlib.suppress(FileNotFoundError):
            freed = os.stat(name, dir_fd=parent, follow_symlinks=False).st_size
            os.unlink(name, dir_fd=parent)
        return freed
    with _opened(name, parent) as folder:
        for below in sorted(os.listdir(folder), key=lambda name: name in entry.markers):  # noqa: PTH208  # of a handle
            freed += _delete(folder, below, entry.find(below), path / below)
    os.rmdir(name, dir_fd=parent)
    return freed


@contextlib.contextmanager
def _opened(name: str, parent: int) -> Iterator[int]:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield folder
    finally:
        os.close(folder)


def _is_marked(folder: int, rule: Folder) -> bool:
    found = [entry for entry in os.scandir(folder) if entry.name in rule.markers] if rule.markers else []
    return not rule.markers or any(entry.is_file(follow_symlinks=False) for entry in found)


def _check_kind(found: os.stat_result, entry: Entry, path: Path) -> None:
    is_right, wanted = (stat.S_ISDIR, "folder") if isinstance(entry, Folder) else (stat.S_ISREG, "regular file")
    if not is_right(found.st_mode):
        raise NotOurs(path, "is a symbolic link" if stat.S_ISLNK(found.st_mode) else f"is no {wanted}")


def _mounts_below(store: Path) -> list[Path]:
    """Return the mount points below a store; none on systems without /proc/self/mountinfo."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:  # not Linux
        return []
    real = f"{store.resolve()}{os.sep}"
    if real not in _unescaped(mounts):  # nearly always, and each folder of a store is asked for
        return []
    points = (_unescaped(line.split()[4]) for line in mounts.splitlines())
    return [store / point.removeprefix(real) for point in points if point.startswith(real)]


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), text)


#: A space, tab, newline or backslash in a path of /proc/self/mountinfo (proc(5)).
_ESCAPED = re.compile(r"\\([0-7]{3})")
