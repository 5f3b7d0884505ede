"""The count of a study's finished runs, whichever processes train them, at a cost that does not grow with their number.

A run that this process has published is counted at once. To find those of other processes takes a look through the
folder of runs, which a study of thousands must not do after each of its runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..store.run_store import Experiment

#: Seconds between two looks through the folder, and the most of all time that the looks may take.
_PAUSE, _SHARE = 0.2, 0.05


class Tally:
    """The finished runs among those that a study wants."""

    def __init__(self, experiment: Experiment, wanted: Iterable[int]) -> None:
        """Count the runs that are there; they are the known ones, and those that end from now on are new."""
        self._experiment, self._left = experiment, set(wanted)
        self._records: dict[int, Mapping[str, Any]] = {}
        self._due = 0.0
        self.failed, self.by_worker = 0, Counter[str]()
        self.look()
        self.known = frozenset(self._records)
        self.by_worker.clear()

    def __len__(self) -> int:
        """Return how many are finished."""
        return len(self._records)

    @property
    def new(self) -> int:
        """The number of those that were not there at first."""
        return len(self._records) - len(self.known)

    @property
    def longest(self) -> float:
        """The seconds that the longest of them took."""
        return max((record["seconds"] for record in self._records.values()), default=0.0)

    def look(self) -> None:
        """Count the runs of all processes."""
        started = time.monotonic()
        for index in self._left.intersection(self._experiment.indices()):
            self.note(index)
        now = time.monotonic()
        self._due = now + max(_PAUSE, (now - started) / _SHARE)

    def look_if_due(self) -> None:
        """Count the runs of all processes, unless that was done a moment ago."""
        if time.monotonic() >= self._due:
            self.look()

    def note(self, index: int) -> None:
        """Count a run, if it is finished and wanted."""
        record = self._experiment.record_of(index) if index in self._left else None
        if record is not None:
            self._left.discard(index)
            self._records[index] = record
            self.failed += record["status"] != "ok"
            self.by_worker[record["trained_by"].get("worker", "main")] += 1

    def of_first(self, count: int) -> Tally:
        """Return the tally of the runs 0 to ``count`` - 1 alone."""
        part = Tally(self._experiment, range(count))
        part.known &= self.known
        part.by_worker = Counter(
            record["trained_by"].get("worker", "main")
            for index, record in part._records.items()
            if index not in part.known
        )
        return part
