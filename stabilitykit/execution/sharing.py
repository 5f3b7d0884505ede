"""One study under pytest-xdist: the owner of its test announces it, helpers train its free runs and leave."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..errors import IsolationError
from ..store.atomic_files import read_json
from ..store.differences import first_difference
from ..store.layout import ABOUT
from ..store.record import RunRecord
from ..study.journal import Journal
from .certifier import Certifier
from .notice_board import Announcement, Board
from .runner import FIRST_WAIT, LONGEST_WAIT, Runner, Wanted
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

    def open(self, wanted: Wanted) -> None:
        """Announce the study, so that helpers know which runs are wanted."""
        folder = str(wanted.experiment.folder)
        self._board.announce(self._test, Announcement(self._call, folder, len(wanted.plans)))

    def gather(self, runner: Runner, journal: Journal) -> list[RunRecord]:
        """Work through the runs of the study; raise `IsolationError` for a helper that computes other bits."""
        records = super().gather(runner, journal)
        self._tell_if_settled(runner)
        refuted = self._board.why_refuted(self._test, self._call)
        if refuted:
            raise IsolationError(refuted)
        difference = self._board.dispute_of(self._test)
        if difference is not None:
            cause = difference or "is its data or model made from a generator without a seed?"
            journal.remark(f"another worker made a different task of this test and could not help: {cause}")
        return records


class HelperSession(SharedSession):
    """The session of a worker that has no test of its own left."""

    keeps_looks = False  # the owner writes them

    def certify(self, certifier: Certifier, wanted: Wanted) -> None:
        """Train the base run or its repetition if one is free, and show that this process computes its first bits.

        The owner proves the rest, and waits for nothing that a helper does.
        """
        self._experiment = wanted.experiment
        if not certifier.trainer.task.isolates:
            return
        wait = FIRST_WAIT
        while not certifier.can_join():
            for missing in certifier.missing():
                certifier.runner(missing).train_free(is_wanted=self._is_wanted)
            if certifier.runner(wanted).reason_to_stop() is not None:
                raise HelperUseless
            if not self._is_wanted():
                raise HelperLeaves
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        try:
            certifier.join()
        except IsolationError as error:
            self._board.refute(self._test, self._call, str(error))
            raise HelperUseless from None

    def gather(self, runner: Runner, journal: Journal) -> list[RunRecord]:
        """Train the free runs and leave; stay only if the test is known to ask for another study."""
        self._experiment = runner.wanted.experiment
        while runner.train_free(is_wanted=self._is_wanted):
            pass
        self._tell_if_settled(runner)
        if runner.reason_to_stop() is not None:
            raise HelperUseless
        if not self._is_wanted() or all(a.call <= self._call for a in self._board.announced(self._test)):
            raise HelperLeaves
        return super().gather(runner, journal)

    def _is_wanted(self) -> bool:
        folders = {a.folder for a in self._board.announced(self._test) if a.call == self._call}
        if folders and str(self._experiment.folder) not in folders:
            theirs = read_json(Path(next(iter(folders))) / ABOUT)
            self._board.dispute(self._test, first_difference(theirs or {}, self._experiment.about))
            raise HelperUseless
        return not self._board.is_done(self._test)
