"""Epochs of a loop that another library runs."""

from __future__ import annotations

from ..training.run import Run


class CountedEpochs:
    """Counts the epochs of another library's loop as `Run.epochs` counts those of a loop of the user's."""

    def __init__(self, run: Run, count: int) -> None:
        """Begin the first of ``count`` epochs."""
        self._run, self._epochs = run, run.epochs(count)
        next(self._epochs, None)

    def end(self) -> bool:
        """End an epoch and begin the next; return whether training goes on: a rehearsal wants only the first."""
        next(self._epochs, None)
        return not self._run.is_cut
