"""One study under pytest-xdist: the owner of its test announces it, helpers train its free runs and leave."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import IsolationError
from ..store.differences import first_difference
from ..store.key import key_of
from ..store.layout import ABOUT
from ..store.reading import read_json
from ..store.record import RunRecord
from ..study.journal import Journal
from .certifier import Certifier
from .notice_board import Announcement, Board
from .question import Prepared
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

    _about: Mapping[str, Any]  #: what the study that this process knows is made of

    def settle(self, asked: Prepared, certifier: Certifier) -> Prepared:
        """Train run 0 or its repetition if one is free, until the owner knows what a training reads."""
        self._about = asked.about
        for _ in self._waiting(certifier):
            found = asked.matching()
            if found is not None:
                return asked.with_inputs(found)
            self._train_missing(certifier)
        raise HelperLeaves

    def certify(self, certifier: Certifier, wanted: Wanted) -> None:
        """Train the base run or its repetition if one is free, and show that this process computes its first bits.

        The owner proves the rest, and waits for nothing that a helper does.
        """
        self._about = wanted.experiment.about
        if not certifier.trainer.task.isolates:
            return
        for _ in self._waiting(certifier):
            if certifier.can_join():
                break
            self._train_missing(certifier)
        try:
            certifier.join()
        except IsolationError as error:
            self._board.refute(self._test, self._call, str(error))
            raise HelperUseless from None

    def _train_missing(self, certifier: Certifier) -> None:
        for missing in certifier.missing():
            certifier.runner(missing).train_free(is_wanted=self._is_wanted)

    def _waiting(self, certifier: Certifier) -> Iterator[None]:
        """Yield as long as the test goes on, each time a little later."""
        wait = FIRST_WAIT
        while self._is_wanted():
            if certifier.runner(certifier.repeated).reason_to_stop() is not None:
                raise HelperUseless
            yield
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        raise HelperLeaves

    def gather(self, runner: Runner, journal: Journal) -> list[RunRecord]:
        """Train the free runs and leave; stay only if the test is known to ask for another study."""
        self._about = runner.wanted.experiment.about
        while runner.train_free(is_wanted=self._is_wanted):
            pass
        self._tell_if_settled(runner)
        if runner.reason_to_stop() is not None:
            raise HelperUseless
        if not self._is_wanted() or all(a.call <= self._call for a in self._board.announced(self._test)):
            raise HelperLeaves
        return super().gather(runner, journal)

    def _is_wanted(self) -> bool:
        """Whether the test goes on, with the study that this process knows; raise `HelperUseless` for another one."""
        folders = [a.folder for a in self._board.announced(self._test) if a.call == self._call]
        theirs = read_json(Path(folders[0]) / ABOUT) if folders else None
        if theirs is not None and _key_without_inputs(self._about) != _key_without_inputs(theirs):
            self._board.dispute(self._test, first_difference(theirs, self._about))
            raise HelperUseless
        return not self._board.is_done(self._test)


def _key_without_inputs(about: Mapping[str, Any]) -> str:
    """Return what can be compared before it is known what a training reads."""
    return key_of({name: value for name, value in about.items() if name != "inputs"})
