"""Under pytest-xdist: idle workers help to train the runs of a test that another worker owns.

A worker whose own tests are done re-enters the stability tests that are still open. In them, `stability.measure` trains
runs that no process has trained or is training, and leaves the test. Helping needs no extra test items, and works with
every ``--dist``.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from _pytest.runner import runtestprotocol  # the one way to run an item without reporting it
from _pytest.warnings import catch_warnings_for_item  # what pytest puts around an item that it reports

from ..errors import MissingModuleError, StoreError
from ..execution.stop import Stop
from ..store.layout import file_of_test
from .options import StabilityConfig

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ..execution.notice_board import Board


#: Seconds for which a helper stays although no living worker owns a test: longer than a crashed worker's replacement
#: takes to collect, and to enter the test again.
_GRACE = 10.0
_POLL = 0.1
#: How often a test whose worker crashed is given to another worker. A run that always crashes fails its study after two
#: crashes; crashes outside of runs fail the test after these.
_MOST_CRASHES = 3
#: Stands in for the hooks that receive a helper's warnings: the owner of the test reports them.
_NO_HOOKS = SimpleNamespace(pytest_warning_recorded=SimpleNamespace(call_historic=lambda **warning: None))


class SessionPlugin(Protocol):
    """The part of `StabilityPlugin` that the bridge uses."""

    session_id: str
    is_worker: bool
    store: Path  #: folder of finished runs
    folder: Path  #: the session's own files, in the store
    started: float  #: when the session started, seconds since the epoch
    stop: Stop
    values: StabilityConfig
    tell: Callable[[dict[str, Any]], None]  #: takes the progress of a study

    def asks(self, item: pytest.Item) -> bool:
        """Whether a test asks for the fixture ``stability``."""

    def number_of(self, item: pytest.Item) -> int:
        """Return the test's position in the collection."""


class XdistBridge:
    """Both ends of a session: the controller's names it and receives progress, a worker's owns tests and helps.

    The class has no properties, as `StabilityPlugin` has none.
    """

    def __init__(self, config: pytest.Config, plugin: SessionPlugin) -> None:
        self.config, self.plugin = config, plugin
        self.is_helping = False  #: whether this worker's own tests are done
        self._board: Board | None = None
        self._experiments: dict[str, Any] = {}
        self._came_to_training = False
        self._slots = Slots()
        self._channels: list[Any] = []
        self._failures = 0
        self._crashes: Counter[str] = Counter()  #: crashes of workers, by test
        self._owed: dict[str, pytest.TestReport] = {}  #: of each test whose worker crashed, and that has no outcome yet
        if plugin.is_worker:
            channel = config.workerinput["stability_channel"]  # type: ignore[attr-defined]  # xdist's
            plugin.tell = channel.send  # plain numbers and text, which is what a channel takes
            channel.setcallback(plugin.stop.now)

    def board(self) -> Board:
        """Return the session's notice board, made when the first stability test needs it."""
        if self._board is None:
            from ..execution.notice_board import Board
            from ..store.ownership import check_form
            from ..store.run_store import make_store

            make_store(self.plugin.store)
            check_form(self.plugin.folder)
            self._board = Board(self.plugin.folder)
        return self._board

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Give a new worker the session's names, and a channel: progress comes up, "stop" goes down."""
        channel = node.gateway.newchannel()
        node.workerinput |= {
            "stability_session": self.plugin.session_id,
            "stability_store": str(self.plugin.store),
            "stability_started": self.plugin.started,
            "stability_slot": self._slots.take(node.gateway.id),
            "stability_channel": channel,
        }
        channel.setcallback(self._heard)
        self._channels.append(channel)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController) -> None:
        """Free the slot of a worker that has ended, before its replacement takes one."""
        self._slots.give_back(node.gateway.id)

    @pytest.hookimpl(optionalhook=True, wrapper=True)
    def pytest_handlecrashitem(
        self, crashitem: str, report: pytest.TestReport, sched: Any
    ) -> Generator[None, object, object]:
        """Give a test whose worker crashed to another worker, which finds the finished runs in the store.

        Unless another plugin has done so, as pytest-rerunfailures does: the test would run twice.
        """
        result = yield
        if str(report.outcome) != "rerun":
            self._run_again(crashitem, report, sched)
        return result

    def _run_again(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        if self.config.getoption("dist") == "each":  # each worker runs every test anyway
            return
        number = list(sched.collection).index(crashitem)
        if not file_of_test(self.plugin.folder, number, "begun").exists():  # no stability test
            return
        self._crashes[crashitem] += 1
        if self._crashes[crashitem] > _MOST_CRASHES:
            self._owed.pop(crashitem, None)
            return
        with contextlib.suppress(NotImplementedError):  # schedulers by scope give the test away themselves
            sched.mark_test_pending(crashitem)
        self._owed[crashitem] = copy.copy(report)
        report.outcome = "rerun"  # type: ignore[assignment]  # as pytest-rerunfailures has it

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, tuple[str, Any]] | None:
        """Show a test that is run again after a crash."""
        return ("rerun", "R", ("RERUN", {"yellow": True})) if str(report.outcome) == "rerun" else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the controller, note which tests have an outcome, and let ``-x`` and ``--maxfail`` end the training."""
        if self.plugin.is_worker:
            return
        if str(report.outcome) != "rerun" and (report.when == "call" or not report.passed):
            self._owed.pop(report.nodeid, None)
        self._failures += report.failed
        most = self.config.getvalue("maxfail")
        if most and self._failures >= most:
            self._stop_workers(f"the session ends after {self._failures} failure{'s' * (self._failures > 1)}")

    def pytest_keyboard_interrupt(self) -> None:
        """Tell the workers at once: from xdist they hear of an interruption only after their runs."""
        if not self.plugin.is_worker:
            self._stop_workers("the session was interrupted")

    def _stop_workers(self, reason: str) -> None:
        for channel in self._channels:
            with contextlib.suppress(OSError):  # a worker that has ended
                channel.send(reason)

    def _heard(self, progress: dict[str, Any]) -> None:
        # This is the receiver's thread; the controller's main thread prints, from its own queue of events.
        dsession = self.config.pluginmanager.get_plugin("dsession")
        if dsession is not None:
            dsession.worker_stability_progress = self.plugin.tell
            dsession.queue.put(("stability_progress", {"progress": progress}))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """In a worker, own the test while it runs."""
        if not self.plugin.is_worker or not self.plugin.asks(item) or not self._can_share():
            return (yield)
        with self.board().owning(self.plugin.number_of(item)):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """In a worker, help once its own tests are done; in the controller, report tests that only crashed."""
        result = yield
        if self.plugin.is_worker:
            tests = {self.plugin.number_of(item): item for item in session.items if self.plugin.asks(item)}
            if tests and self._can_share():
                self._help(session, tests)
        for report in list(self._owed.values()):
            self.config.hook.pytest_runtest_logreport(report=report)
        return result

    def _can_share(self) -> bool:
        """Whether this session trains, and has a store to share runs in; if it has none, the fixture says why."""
        if self.plugin.values.plan:  # nothing trains
            return False
        try:
            return self.board() is not None
        except (StoreError, MissingModuleError):
            return False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, object, object]:
        """Note whether a helper's pass through a test came as far as training."""
        report = yield
        if self.is_helping and call.excinfo is not None:
            from ..execution.sharing import HelperLeaves

            self._came_to_training |= call.excinfo.errisinstance(HelperLeaves)
        return report

    def _help(self, session: pytest.Session, tests: dict[int, pytest.Item]) -> None:
        self.is_helping = True
        entered: set[int] = set()
        last_alive = time.monotonic()
        while not (session.shouldstop or session.shouldfail or self.plugin.stop.reason):
            waiting = {number: item for number, item in tests.items() if not self.board().is_done(number)}
            if not waiting:
                return
            enter = [number for number in waiting if number not in entered or self._has_free_run(number)]
            for number in enter:
                entered.add(number)
                if not self.board().is_done(number) and not self._enter(waiting[number]):
                    del tests[number]  # the test fails or skips before it trains; its owner will report that
            if enter or any(map(self.board().is_owned, waiting)):
                last_alive = time.monotonic()
            elif time.monotonic() - last_alive > _GRACE:
                return
            if not enter:
                time.sleep(_POLL)

    def _has_free_run(self, number: int) -> bool:
        return any(
            self._experiment(study.folder).is_free(index)
            for study in self.board().announced(number)
            if not self.board().is_settled(number, study.call)
            for index in range(study.runs)
        )

    def _experiment(self, folder: str) -> Any:
        if folder not in self._experiments:
            from ..store.run_store import Experiment

            reuse = self.plugin.values.cache != "refresh"
            self._experiments[folder] = Experiment(Path(folder), self.plugin.session_id, {}, reuse=reuse)
        return self._experiments[folder]

    def _enter(self, item: pytest.Item) -> bool:
        """Run a test as its helper, without a report; return whether it came as far as training."""
        self._came_to_training = False
        with catch_warnings_for_item(self.config, _NO_HOOKS, when="runtest", item=item):
            runtestprotocol(item, log=False, nextitem=None)
        return self._came_to_training


class Slots:
    """The slots of a session's workers, counted from 0; the replacement of a worker that died takes its slot.

    >>> slots = Slots()
    >>> slots.take("gw0"), slots.take("gw1"), slots.take("gw2")
    (0, 1, 2)
    >>> slots.give_back("gw1")
    >>> slots.take("gw3")
    1
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, worker: str) -> int:
        """Give a worker the lowest free slot, which is its own until `give_back`."""
        slot = next(slot for slot in range(len(self._taken) + 1) if slot not in self._taken.values())
        self._taken[worker] = slot
        return slot

    def give_back(self, worker: str) -> None:
        """Free the slot of a worker that has ended; nothing happens where it has none."""
        self._taken.pop(worker, None)
