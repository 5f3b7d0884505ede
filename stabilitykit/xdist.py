"""Under pytest-xdist: idle workers help to train the runs of a test that another worker owns.

A worker whose own tests are done re-enters the stability tests that are still open. In them, `stability.measure` trains
runs that nobody has trained or trains, and leaves. It needs no extra test items, and works with every ``--dist``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from _pytest.runner import runtestprotocol  # the one way to run an item without reporting it
from _pytest.warnings import catch_warnings_for_item  # what pytest puts around an item that it reports

from .config import StabilityConfig
from .errors import StoreError

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

#: Seconds for which a helper stays although no living worker owns a test: longer than a crashed worker's replacement
#: takes to collect, and to enter the test again.
_GRACE = 10.0
_POLL = 0.1


class SessionPlugin(Protocol):
    """What the plugin of one session shows of itself."""

    session_id: str
    is_worker: bool
    values: StabilityConfig
    tell: Callable[[dict[str, Any]], None]  #: of progress

    @property
    def folder(self) -> Path:
        """Where the session keeps its own files."""
        ...

    def number_of(self, item: pytest.Item) -> int:
        """Return the test's position in the collection."""
        ...


class XdistBridge:
    """Both ends: in the controller it names the session and hears of progress, in a worker it owns and helps."""

    def __init__(self, config: pytest.Config, plugin: SessionPlugin) -> None:
        self.config, self.plugin = config, plugin
        self.is_helping = False  #: whether this worker's own tests are done
        self._board: Any = None
        self._experiments: dict[str, Any] = {}
        self._came_to_training = False
        if plugin.is_worker:
            channel = config.workerinput.get("stability_channel")  # type: ignore[attr-defined]  # xdist's
            if channel is not None:
                plugin.tell = channel.send  # plain numbers and text, which is what a channel takes

    @property
    def board(self) -> Any:
        """The session's notice board, made when the first stability test needs it."""
        if self._board is None:
            from .board import Board

            self._board = Board(self.plugin.folder)
        return self._board

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Give a new worker the session's name, and a channel to tell of progress."""
        node.workerinput["stability_session"] = self.plugin.session_id
        channel = node.gateway.newchannel()
        node.workerinput["stability_channel"] = channel
        channel.setcallback(self._heard)

    def _heard(self, progress: dict[str, Any]) -> None:
        # This is the receiver's thread; the controller's main thread prints, from its own queue of events.
        dsession = self.config.pluginmanager.get_plugin("dsession")
        if dsession is not None:
            dsession.worker_stability_progress = self._show
            dsession.queue.put(("stability_progress", {"progress": progress}))

    def _show(self, progress: dict[str, Any]) -> None:
        self.plugin.tell(progress)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """In a worker, own the test while it runs."""
        if not self.plugin.is_worker or not _asks(item) or not self._can_share():
            return (yield)
        with self.board.owning(self.plugin.number_of(item)):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """In a worker, help once its own tests are done."""
        result = yield
        if self.plugin.is_worker:
            tests = {self.plugin.number_of(item): item for item in session.items if _asks(item)}
            if tests and self._can_share():
                self._help(session, tests)
        return result

    def _can_share(self) -> bool:
        """Whether the store can be written; where it cannot, the fixture says so in its test's name."""
        try:
            return self.board is not None
        except StoreError:
            return False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, object, object]:
        """Notice that a helper's pass through a test came as far as training."""
        report = yield
        if self.is_helping and call.excinfo is not None:
            from .sharing import HelperLeaves

            self._came_to_training |= call.excinfo.errisinstance(HelperLeaves)
        return report

    def _help(self, session: pytest.Session, tests: dict[int, pytest.Item]) -> None:
        self.is_helping = True
        entered: set[int] = set()
        last_alive = time.monotonic()
        while not (session.shouldstop or session.shouldfail):
            waiting = {number: item for number, item in tests.items() if not self.board.is_done(number)}
            if not waiting:
                return
            enter = [number for number in waiting if number not in entered or self._has_free_run(number)]
            for number in enter:
                entered.add(number)
                if not self.board.is_done(number) and not self._enter(waiting[number]):
                    del tests[number]  # it fails or skips before it trains; its owner will report that
            if enter or any(map(self.board.is_owned, waiting)):
                last_alive = time.monotonic()
            elif time.monotonic() - last_alive > _GRACE:
                return
            if not enter:
                time.sleep(_POLL)

    def _has_free_run(self, number: int) -> bool:
        return any(
            self._experiment(study.folder).is_free(index)
            for study in self.board.announced(number)
            for index in range(study.runs)
        )

    def _experiment(self, folder: str) -> Any:
        if folder not in self._experiments:
            from .store import Experiment

            reuse = self.plugin.values.cache != "refresh"
            self._experiments[folder] = Experiment(Path(folder), self.plugin.session_id, {}, reuse=reuse)
        return self._experiments[folder]

    def _enter(self, item: pytest.Item) -> bool:
        """Run a test as its helper, reported to nobody; say whether it came as far as training."""
        self._came_to_training = False
        with catch_warnings_for_item(self.config, _Nobody(), when="runtest", item=item):
            runtestprotocol(item, log=False, nextitem=None)
        return self._came_to_training


def _asks(item: pytest.Item) -> bool:
    return "stability" in getattr(item, "fixturenames", ())


class _Nobody:
    """Stands for the hooks that hear of warnings: the owner of the test reports its own."""

    class pytest_warning_recorded:  # noqa: N801  # the hook's name
        call_historic = staticmethod(lambda **warning: None)
