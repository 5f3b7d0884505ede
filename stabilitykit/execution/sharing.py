"""One study under pytest-xdist: the owner of its test announces it, helpers train its free runs and leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..protocol import NoiseProtocol
from ..store.atomic_files import read_json
from ..store.differences import first_difference
from ..store.layout import ABOUT
from ..store.record import RunRecord
from ..store.run_store import Experiment
from ..study.journal import Journal
from ..training.control import Control, ControlMode
from .executor import Executor
from .notice_board import Announcement, Board
from .runner import Runner
from .session import Session


class HelperLeaves(BaseException):
    """A helper has trained the free runs of the test that it entered, and ends its pass through the test.

    Not an Exception, so that a test's own ``except Exception`` lets it through.
    """


class HelperUseless(BaseException):
    """No run that a helper could train would count: its task is not the owner's, or the time is up."""


class SharedSession(Session):
    """A session for one study that several workers know of: the ``call``-th of a test."""

    def __init__(self, board: Board, test: int, call: int, *settings: Any, **more: Any) -> None:
        super().__init__(*settings, **more)
        self._board, self._test, self._call = board, test, call

    def _tell_if_settled(self, runner: Runner) -> None:
        if runner.wanted.is_settled():
            self._board.settle(self._test, self._call)


class OwnerSession(SharedSession):
    """The session of the worker that runs the test and reports its study."""

    def gather(self, runner: Runner, journal: Journal) -> list[RunRecord]:
        """Announce the study, and work through its runs."""
        self._board.announce(
            self._test, Announcement(self._call, str(runner.wanted.experiment.folder), len(runner.wanted.plans))
        )
        records = super().gather(runner, journal)
        self._tell_if_settled(runner)
        difference = self._board.dispute_of(self._test)
        if difference is not None:
            cause = difference or "is its data or model made from a generator without a seed?"
            journal.remark(f"another worker made a different task of this test and could not help: {cause}")
        return records


class HelperSession(SharedSession):
    """The session of a worker that has no test of its own left."""

    keeps_looks = False  # the owner writes them

    def control(
        self, experiment: Experiment, executor: Executor, protocol: NoiseProtocol, mode: ControlMode
    ) -> Control:
        """Leave it to the owner, which proves it while helpers already train; if it fails, so does the test."""
        return Control(False, "checked by the test's own worker")

    def gather(self, runner: Runner, journal: Journal) -> list[RunRecord]:
        """Train the free runs and leave; stay only if the test is known to ask for another study."""
        while runner.train_free(is_wanted=lambda: self._is_wanted(runner)):
            pass
        self._tell_if_settled(runner)
        if runner.reason_to_stop() is not None:
            raise HelperUseless
        if not self._is_wanted(runner) or all(a.call <= self._call for a in self._board.announced(self._test)):
            raise HelperLeaves
        return super().gather(runner, journal)

    def _is_wanted(self, runner: Runner) -> bool:
        folders = {a.folder for a in self._board.announced(self._test) if a.call == self._call}
        if folders and str(runner.wanted.experiment.folder) not in folders:
            theirs = read_json(Path(next(iter(folders))) / ABOUT)
            self._board.dispute(self._test, first_difference(theirs or {}, runner.wanted.experiment.about))
            raise HelperUseless
        return not self._board.is_done(self._test)
