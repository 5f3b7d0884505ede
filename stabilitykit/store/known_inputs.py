"""What the runs of an experiment are known to have read, whichever processes and sessions trained them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .layout import LATER
from .traced_inputs import Inputs, entry_of, write_later


class KnownInputs:
    """Inputs that count for the key of an experiment, and beside them what only later runs have read."""

    def __init__(self, inputs: Inputs, folder: Path, others: Iterable[Path] = ()) -> None:
        """Start with the ``inputs`` that count; what later runs read is kept in ``folder``, or found in ``others``."""
        self._known, self._folder = inputs, folder
        self._folders = (folder, *(other for other in others if other != folder))
        self._taken: set[Path] = set()  #: files of later runs that are part of what is known

    def note(self, read: Inputs) -> tuple[str, ...]:
        """Keep what a run has read that no run before it is known to read.

        Return in words what an earlier run has read with another content.
        """
        self._take()
        others = read.contradicted(self._known)
        if others:
            return others
        more = read.beyond(self._known)
        ours = write_later(self._folder, more)
        # Again: of two runs that end at the same time, the later to be kept sees the other.
        met = [one for path, one in self._take() if path != ours]
        self._known = self._known.merged(more)
        written = self._known.written
        words = (word for one in met for word in read.contradicted(replace(one, written=written)))
        return tuple(dict.fromkeys(words))

    def _take(self) -> list[tuple[Path, Inputs]]:
        """Take what other processes and sessions have kept since the last time, and return it."""
        paths = {path for folder in self._folders for path in (folder / LATER).glob("*.json")} - self._taken
        self._taken |= paths
        new = [(path, one) for path in sorted(paths) if (one := entry_of(path)) is not None]
        for _, one in new:
            self._known = self._known.merged(one)
        return new
