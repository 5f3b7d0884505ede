"""The pytest plugin: options, the fixture ``stability``, progress, the table at the end, and the JSON report.

Every session of every user loads this module, so whatever needs torch is imported where it is used.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ..errors import BaselineExceededError, BudgetError, StabilityError, UsageError, is_ours, spell_settings
from ..execution.stop import Stop
from ..store.layout import FORMAT_FILE, SESSIONS, STORE
from .askers import Asker
from .findings import STUDIES, Findings, pack
from .options import BUDGETS, OPTIONS, MarkerConfig, StabilityConfig, check_baselines, spelled
from .progress import ProgressLines

if TYPE_CHECKING:
    from ..execution.runner import Progress
    from .budget_file import BudgetFile
    from .fixture import Stability, TestContext
    from .xdist import XdistBridge


#: The variable that makes cuBLAS deterministic; read once, when CUDA starts.
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register each option, on the command line and as an ini key."""
    group = parser.getgroup("stability", "stability of training (stabilitykit)")
    for option in OPTIONS:
        more: dict[str, Any] = {"choices": option.choices} if option.choices else {"metavar": option.metavar}
        more = {"action": "store_true"} if option.is_flag else more | {"type": option.parse}
        group.addoption(option.flag, dest=option.key, default=None, help=option.help, **more)
        parser.addini(option.key, f"the same as {option.flag}", default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Turn the options into one value, and register the plugins that use it."""
    config.add_cleanup(spell_settings(spelled))
    config.addinivalue_line(
        "markers",
        "stability(runs=N, vary='init'): R and what varies, for the studies of this test that do not say so themselves",
    )
    given = {option.name: _given(config, option.key) for option in OPTIONS}
    with _errors_of_usage():
        values = StabilityConfig.from_values(given)
    plugin = config.stash[_PLUGIN] = StabilityPlugin(config, values)
    config.pluginmanager.register(plugin, "stabilitykit-session")
    if values.workers > 1 and config.getoption("dist", "no") != "no":
        raise pytest.UsageError(
            f"Expected --stability-workers {values.workers} without workers of pytest-xdist: each of those trains one "
            f"run at a time, and helps the others. Leave out one of the two."
        )
    if not plugin.is_worker:
        with _errors_of_usage():
            _check_store(config, plugin.store)
            if plugin.has_budgets:
                plugin.budgets().check_tests_exist(config.rootpath)
            if values.save or values.compare:
                check_baselines(plugin.store, save=values.save, compare=values.compare, update=values.update)
    if config.pluginmanager.hasplugin("xdist"):
        from .xdist import XdistBridge

        plugin.xdist = XdistBridge(config, plugin)
        config.pluginmanager.register(plugin.xdist, "stabilitykit-xdist")


@pytest.fixture(scope="session")
def stability(pytestconfig: pytest.Config) -> Stability:
    """Train a task R times and return what differs: ``stability.measure(recipe, vary="init")``, ``stability.check``."""
    plugin: StabilityPlugin = pytestconfig.stash[_PLUGIN]
    try:
        return plugin.fixture()
    except StabilityError as error:  # no line of the test is to blame
        message = f"{type(error).__name__}: {error}"
    pytest.fail(message, pytrace=False)


@contextlib.contextmanager
def _errors_of_usage() -> Iterator[None]:
    """Let pytest end the session with one line, and without a traceback."""
    try:
        yield
    except StabilityError as error:
        raise pytest.UsageError(str(error)) from None


def _check_store(config: pytest.Config, store: Path) -> None:
    """Refuse a folder that is no store, and options of ours that pytest has taken for paths of tests."""
    from ..store.ownership import check_may_be_store
    from .rootdir import check_rootdir

    if store.exists() and not store.is_dir():
        raise UsageError(f"Expected the run store to be a folder but {store} is a file.")
    try:
        check_may_be_store(store)
        check_rootdir(config)
    except OSError as error:
        raise UsageError(f"Expected to read the run store {store} but got: {error}.") from None


def _given(config: pytest.Config, key: str) -> Any:
    option = config.getoption(key)
    return option if option is not None else config.getini(key) or None


_PLUGIN = pytest.StashKey["StabilityPlugin"]()


class StabilityPlugin:
    """One session's stability tests; without properties, since another plugin may read every attribute."""

    def __init__(self, config: pytest.Config, values: StabilityConfig) -> None:
        self.config = config
        self.values = values
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        self.worker: str = worker["workerid"] if worker else "main"
        self.slot: int = worker["stability_slot"] if worker else 0
        self.runs_at_once: int = values.workers * (worker["workercount"] if worker else 1)
        self.session_id: str = worker["stability_session"] if worker else secrets.token_hex(8)
        self.store = Path(worker["stability_store"]) if worker else _store_of(config, values)
        self.folder = self.store / SESSIONS / self.session_id  #: this session's own files
        self.started: float = worker["stability_started"] if worker else time.time()
        minutes = values.budget_minutes
        self.stop = Stop(None if minutes is None else self.started + 60 * minutes, minutes)
        self.progress = ProgressLines(config)
        self.tell: Callable[[dict[str, Any]], None] = self.progress.show
        self.xdist: XdistBridge | None = None
        self.findings = Findings()
        self.has_budgets = (config.rootpath / BUDGETS).exists()  #: where it is False, nothing is imported for them
        self._budgets: BudgetFile | None = None
        self._wrong_budgets: list[str] = []
        self._tests: dict[str, TestContext] = {}
        self._numbers: dict[str, int] = {}
        self._asking: dict[str, bool] = {}
        self._current: pytest.Item | None = None
        self._params: dict[str, str] = {}  #: the parameters that fixtures of wider scopes were made with last
        self._askers: list[Asker] = []  #: the fixtures of wider scopes that are being set up, the innermost last
        self._fixture: Stability | None = None
        self._said: list[str] = []  #: what the summary begins with

    def budgets(self) -> BudgetFile:
        """Return the reviewed budgets, read when they are first needed."""
        if self._budgets is None:
            from .budget_file import BudgetFile

            self._budgets = BudgetFile.read(self.config.rootpath / BUDGETS)
        return self._budgets

    def fixture(self) -> Stability:
        """Return this session's one `Stability`, made when the first test asks for it."""
        if self._wrong_budgets:  # xdist's workers run what they could collect all the same
            raise BudgetError(self._wrong_budgets[0])
        if self._fixture is None:
            from ..store.run_store import RunStore
            from ..store.temporary_paths import choose_temporary
            from .expected import see_expected
            from .fixture import Hooks, Stability

            if self.config.getoption("basetemp", None):
                choose_temporary(self.config.getoption("basetemp"))

            ends = self._undecided, self._incomplete, self._plan_ends
            hooks = Hooks(self._current_test, self._asker, self._progress, *ends, self._is_helping)
            store = RunStore(self.store, self.session_id, self.values.cache, self.worker)
            board = self.xdist.board() if self.xdist and self.is_worker else None
            session = self.config.rootpath, store, hooks, self.slot, self.stop, board, self.budgets()
            self._fixture = Stability(self.values, *session)
            if self.slot == 0:  # one worker is enough
                self._clear_leftovers()
            self.config.add_cleanup(see_expected())
        return self._fixture

    def _is_helping(self) -> bool:
        return self.xdist is not None and self.xdist.is_helping

    def pytest_report_header(self) -> str:
        """Name the settings that every number depends on."""
        shown = ["runs", "seed", "device", "threads", "cache"]
        shown += ["isolation"] * (self.values.isolation != "none") + ["workers"] * (self.values.workers > 1)
        return f"stability: {', '.join(f'{name} {getattr(self.values, name)}' for name in shown)}"

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Check markers and budgets before anything runs: by errors of collection, which xdist's workers can tell."""
        report = yield
        items = [item for item in report.result or () if isinstance(item, pytest.Item)]
        errors = [error for item in items for error in _marker_errors(item)]
        tests = (pytest.Module, pytest.Class)  # all of a file's, not its doctests
        if self.has_budgets and report.passed and type(collector) in tests:
            unknown = self.budgets().unknown_below(collector.nodeid, [child.nodeid for child in report.result])
            self._wrong_budgets += unknown
            errors += unknown
        if errors:
            report.outcome, report.longrepr, report.result = "failed", "\n".join(errors), []
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Enter only the stability tests where a plan is asked for."""
        if self.values.plan:
            config.hook.pytest_deselected(items=[item for item in items if not self.asks(item)])
            items[:] = filter(self.asks, items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Number the tests: the same numbers in every worker. Make CUDA deterministic before anything starts it."""
        self._numbers = {item.nodeid: number for number, item in enumerate(session.items)}
        if self.values.device != "cpu" and any(map(self.asks, session.items)) and _CUBLAS not in os.environ:
            environment = pytest.MonkeyPatch()
            environment.setenv(_CUBLAS, ":4096:8")
            self.config.add_cleanup(environment.undo)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Take a time limit that pytest-timeout has for all tests off those that train; a marker of their own stays.

        Such a limit would end a whole study; ``--stability-run-timeout`` ends the one run that hangs.
        """
        limits = self.config.pluginmanager.hasplugin("timeout")
        if limits and self.asks(item) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(0))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Know which test asks, even where the fixture that asks has a wider scope."""
        self._current = item
        self._tests.pop(item.nodeid, None)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Know which fixture asks, if its scope is wider than a test: whichever test comes first, it asks the same."""
        if request.scope == "function":
            return (yield)
        # Those of the fixtures that it is made of, too, which are set up by now.
        params = [*(self._params.get(name, "") for name in fixturedef.argnames), _param_of(request)]
        self._params[fixturedef.argname] = "".join(params)
        where = fixturedef.baseid if request.scope in ("session", "package") else request.node.nodeid
        self._askers.append(Asker(f"{where}::{fixturedef.argname}{self._params[fixturedef.argname]} (a fixture)"))
        try:
            return (yield)
        finally:
            self._askers.pop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Fail a test whose studies got worse than their baselines, after its own assertions."""
        __tracebackhide__ = True
        try:
            yield
        except pytest.skip.Exception:  # a verdict that is UNDECIDED may skip
            self._check_baselines(item)
            raise
        self._check_baselines(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send the test's studies along with its report: as text, which is all that crosses from a worker."""
        error = None if call.excinfo is None else call.excinfo.value
        is_of_ours = item.nodeid in self._tests or isinstance(
            error, StabilityError
        )  # a test may ask with a wrong Budget
        if error is not None and is_of_ours and not self.config.getoption("fulltrace", False):
            call.excinfo = pytest.ExceptionInfo.from_exception(_without_own_frames(error))
        report = yield
        if call.excinfo is not None and call.excinfo.errisinstance(BaselineExceededError):
            report.longrepr = call.excinfo.getrepr(style="value")  # no line of the test is to blame
        test = self._tests.get(item.nodeid)
        if test is not None and not self._is_helping():
            self._carry_reds(report, test)
        has_ended = report.when == "call" or (report.when == "setup" and not report.passed)
        if test is None or not has_ended or self._is_helping():
            return report
        if test.forecasts:
            self._show_as_planned(item, call, report, test)
        found = test.found(self.runs_at_once)
        report.stability_findings = pack(test.name, test.number, found)  # type: ignore[attr-defined]  # a report carries any attribute
        # JUnit's reporter reads properties from the teardown's report, which takes them from the item.
        others = [(name, value) for name, value in item.user_properties if not name.startswith("stability_")]
        item.user_properties = [*others, *_properties(found[STUDIES])]
        report.user_properties = list(item.user_properties)
        return report

    def _carry_reds(self, report: pytest.TestReport, test: TestContext) -> None:
        """Fail the report of a test that caught its failure, or skips though a study got worse; note failures."""
        from .expected import is_expected

        if not report.failed and not hasattr(report, "wasxfail"):
            caught = next((error for error in test.reds if not is_expected(error)), None)
            if caught is not None:
                report.outcome = "failed"
                report.longrepr = (
                    f"Expected the failure below to reach pytest but the test went on: code of the test, or of what it "
                    f"calls, caught it. Let it through; a test that expects it says so by pytest.raises(...), by "
                    f"'except {type(caught).__name__}:' or by the marker xfail.\n\n{type(caught).__name__}: {caught}"
                )
            elif self._fixture and (report.skipped or report.when == "teardown"):
                complaint = self._fixture.baselines.complaint(test.name)
                if complaint and not test.is_failed:
                    report.outcome, report.longrepr = "failed", f"BaselineExceededError: {complaint}"
        test.is_failed = test.is_failed or not report.passed
        if not report.passed or hasattr(report, "wasxfail"):
            test.reds.clear()  # they have been reported
        if report.failed and self._fixture:
            self._fixture.note_failure(test)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Let go of the studies of a test that has been reported, with their logits."""
        self._tests.pop(nodeid, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Make room on the terminal."""
        self.progress.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the studies, in the one process that sees all reports."""
        self.progress.clear()
        found = getattr(report, "stability_findings", None)
        if found is not None and not self.is_worker:
            self.findings.add(found)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        """Print the table."""
        write_line = terminalreporter.write_line
        if exitstatus == pytest.ExitCode.INTERRUPTED and (self.store / FORMAT_FILE).exists():
            write_line(f"stability: finished runs are kept in {self.store}; the next session goes on")
        for said in self._said:
            write_line(f"stability: {said}", red=True)
        for title, lines in self.findings.sections():
            terminalreporter.write_sep("=", title)
            write_line("\n".join(lines))
            if title == "stability" and self.values.json:
                write_line(f"written: {self.values.json}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write budgets and the report, and remove the files of this session."""
        self.progress.clear()
        if self.is_worker:
            return
        is_written = self.findings.write_budgets(self.config.rootpath / BUDGETS, update=self.values.update)
        nothing = self.findings.nothing_compared()
        self._said += [nothing] if nothing else []
        if (nothing or not is_written) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.folder.is_dir():
            self._clear_up()
        if self.values.json:
            self.findings.write_report(Path(self.values.json), is_plan=self.values.plan)

    def _clear_up(self) -> None:
        """Remove the files of this session, and those that killed sessions have left."""
        from ..store.ownership import NotOurs, remove

        try:
            with contextlib.suppress(OSError):  # a worker that is being killed still writes: the next session clears up
                remove(self.folder)
        except NotOurs as error:
            self._said.append(str(error))
        self._clear_leftovers()

    def _clear_leftovers(self) -> None:
        """Remove what killed sessions have left: when a session begins as well, since each of them may be killed."""
        from ..store.catalog import Catalog
        from ..store.pruning import Pruning

        with contextlib.suppress(OSError, StabilityError):  # another session clears up, too
            Pruning(Catalog(self.store)).leftovers()

    def _check_baselines(self, item: pytest.Item) -> None:
        __tracebackhide__ = True
        if self._fixture and (complaint := self._fixture.baselines.complaint(_name_of(item))):
            raise BaselineExceededError(complaint)

    def asks(self, item: pytest.Item) -> bool:
        """Whether a test asks for the fixture ``stability``, itself or through another fixture."""
        if item.nodeid not in self._asking:
            self._asking[item.nodeid] = "stability" in getattr(item, "fixturenames", ()) or _asks_by_text(item)
        return self._asking[item.nodeid]

    def number_of(self, item: pytest.Item) -> int:
        """Return the test's position in the collection."""
        return self._numbers[item.nodeid]

    def _current_test(self) -> TestContext:
        item = self._current
        if item is None:
            raise UsageError("Expected stability.measure(...) to be called while a test runs.")
        if item.nodeid not in self._tests:
            from ..store.source_files import conftests_of
            from .fixture import TestContext

            number, conftests = self._numbers.get(item.nodeid, 0), conftests_of(item.path, self.config.rootpath)
            self._tests[item.nodeid] = TestContext(_name_of(item), number, _marker_of(item), tuple(conftests))
        return self._tests[item.nodeid]

    def _asker(self) -> Asker:
        return self._askers[-1] if self._askers else self._current_test().asker

    def _progress(self, test: TestContext, progress: Progress) -> None:
        now = time.time()
        running = [
            {"index": run.index, "worker": run.worker, "pid": run.pid, "seconds": now - run.started}
            for run in progress.running
        ]
        values = vars(progress) | {"running": running, "by_worker": dict(progress.by_worker)}
        self.tell({"test": test.name, "call": test.calls, **values, "seconds_left": progress.seconds_left})

    def _show_as_planned(
        self, item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, test: TestContext
    ) -> None:
        """Report a test that was planned as skipped: it neither passed nor failed, since nothing was trained."""
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, StabilityError):
            test.forecasts.clear()
            return
        reason = "planned"
        if error is not None:
            reason += f"; without trained models the test went no further: {error}".partition("\n")[0]
            test.went_no_further = reason
        report.outcome, report.longrepr = "skipped", (str(item.path), (item.location[1] or 0) + 1, f"Skipped: {reason}")

    def _plan_ends(self, what: str) -> NoReturn:
        __tracebackhide__ = True
        pytest.skip(f"{what} has no value before runs are trained")

    def _incomplete(self, message: str) -> None:
        __tracebackhide__ = True
        if self.stop.reason is not None:  # the session ends; no verdict was asked for any more
            pytest.skip(message)

    def _undecided(self, message: str) -> None:
        __tracebackhide__ = True
        if self.values.undecided == "skip":
            reasons = [line.strip() for line in message.splitlines() if line.startswith("UNDECIDED")]
            pytest.skip(" ".join(reasons or [message]))
        if self.values.undecided == "fail":
            from ..study.study import fail_undecided

            fail_undecided(message)


def _asks_by_text(item: pytest.Item) -> bool:
    """Whether a test, or a fixture of it, writes ``request.getfixturevalue("stability")``."""
    fixtures = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    functions = [getattr(item, "function", None), *(one.func for known in fixtures.values() for one in known)]
    return any(_names_stability(getattr(inspect.unwrap(f), "__code__", None)) for f in functions if f is not None)


def _names_stability(code: CodeType | None) -> bool:
    if code is None:
        return False
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    is_here = "getfixturevalue" in code.co_names and "stability" in code.co_consts
    return is_here or any(map(_names_stability, inner))


def _store_of(config: pytest.Config, values: StabilityConfig) -> Path:
    """Return the folder of finished runs: an option is relative to where pytest was called, an ini key to the root."""
    from_option = config.getoption("stability_store") is not None
    base = config.invocation_params.dir if from_option else config.rootpath
    return base / (values.store or STORE)


def _name_of(item: pytest.Item) -> str:
    """Return the node id without the group that ``--dist loadgroup`` adds, so that reports are equal for any ``-n``."""
    name, at, _ = item.nodeid.rpartition("@")
    grouped = item.config.getoption("loadgroup", False) and item.get_closest_marker("xdist_group")
    return name if at and grouped else item.nodeid


def _param_of(request: pytest.FixtureRequest) -> str:
    """Return how a name shows the parameter of a fixture; empty without one."""
    if not hasattr(request, "param"):
        return ""
    is_plain = isinstance(request.param, (str, int, float, bool, type(None)))
    return f"[{request.param if is_plain else request.param_index}]"  # type: ignore[attr-defined]


def _marker_of(item: pytest.Item) -> MarkerConfig:
    marker = item.get_closest_marker("stability")
    return MarkerConfig.from_marker(marker.args, marker.kwargs, item.nodeid) if marker else MarkerConfig()


def _marker_errors(item: pytest.Item) -> list[str]:
    try:
        _marker_of(item)
    except UsageError as error:
        return [str(error)]
    return []


def _without_own_frames(error: BaseException) -> BaseException:
    """Let a failure show the user's code, unless it is a bug in ours."""
    ours = isinstance(error, StabilityError)
    entries, entry = [], error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    theirs = [entry for entry in entries if not is_ours(entry.tb_frame)]
    if not theirs or len(theirs) == len(entries) or not (ours or theirs[-1] is entries[-1]):
        return error
    if ours:
        error.__cause__, error.__suppress_context__ = None, True  # the message says what it was
    following = None
    for entry in reversed(theirs):
        following = TracebackType(following, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return error.with_traceback(following)


def _properties(summaries: list[dict[str, Any]]) -> list[tuple[str, object]]:
    """JUnit properties: every metric's value, numbered by study where a test has several."""
    properties: list[tuple[str, object]] = []
    for number, summary in enumerate(summaries, start=1):
        prefix = "stability_" if len(summaries) == 1 else f"stability_{number}_"
        properties += [(f"{prefix}runs", summary["runs"]), (f"{prefix}verdict", summary["verdict"] or "none")]
        values = {name: estimate["value"] for name, estimate in summary["metrics"].items()}
        properties += [(prefix + name, "undefined" if value is None else value) for name, value in values.items()]
    return properties
