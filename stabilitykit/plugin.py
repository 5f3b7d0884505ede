"""The pytest plugin: options, the fixture ``stability``, progress, the table at the end, and the JSON report.

Every session of every user loads this module, so whatever needs torch is imported where it is used.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from .config import OPTIONS, MarkerConfig, StabilityConfig
from .errors import StabilityError, UsageError
from .progress import ProgressLines

if TYPE_CHECKING:
    from .fixture import Stability, TestContext
    from .runner import Progress
    from .xdist import XdistBridge

_PACKAGE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register every option on the command line and as an ini key."""
    group = parser.getgroup("stability", "stability of training (stabilitykit)")
    for option in OPTIONS:
        more: dict[str, Any] = {"choices": option.choices} if option.choices else {"metavar": option.metavar}
        group.addoption(option.flag, dest=option.key, type=option.parse, default=None, help=option.help, **more)
        parser.addini(option.key, f"the same as {option.flag}", default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Turn the options into one value, and register what needs it."""
    config.addinivalue_line(
        "markers",
        "stability(runs=N, vary='init'): R and what varies, for the studies of this test that do not say so themselves",
    )
    given = {option.name: _given(config, option.key) for option in OPTIONS}
    try:
        values = StabilityConfig.from_values(given)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    plugin = config.stash[_PLUGIN] = StabilityPlugin(config, values)
    config.pluginmanager.register(plugin, "stabilitykit-session")
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
        pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)


def _given(config: pytest.Config, key: str) -> Any:
    option = config.getoption(key)
    return option if option is not None else config.getini(key) or None


_PLUGIN = pytest.StashKey["StabilityPlugin"]()


class StabilityPlugin:
    """One session's stability tests."""

    def __init__(self, config: pytest.Config, values: StabilityConfig) -> None:
        self.config = config
        self.values = values
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        self.session_id: str = worker["stability_session"] if worker else secrets.token_hex(8)
        self.progress = ProgressLines(config)
        self.tell: Callable[[dict[str, Any]], None] = self.progress.show
        self.xdist: XdistBridge | None = None
        self._summaries: list[dict[str, Any]] = []
        self._tests: dict[str, TestContext] = {}
        self._numbers: dict[str, int] = {}
        self._current: pytest.Item | None = None
        self._fixture: Stability | None = None

    @property
    def folder(self) -> Path:
        """Where this session's own files lie, in the run store."""
        return self.config.rootpath / ".stabilitykit" / "sessions" / self.session_id

    def fixture(self) -> Stability:
        """Return this session's one `Stability`, made when the first test asks for it."""
        if self._fixture is None:
            from .fixture import Stability

            others = self.xdist if self.is_worker else None
            self._fixture = Stability(
                self.values,
                self.config.rootpath,
                self.session_id,
                current_test=self._current_test,
                on_progress=self._progress,
                on_undecided=self._undecided,
                board=others.board if others else None,
                is_helping=lambda: bool(others and others.is_helping),
            )
        return self._fixture

    def pytest_report_header(self) -> str:
        """Name the settings that every number depends on."""
        values = self.values
        return (
            f"stability: runs {values.runs}, seed {values.seed}, device {values.device}, threads {values.threads}, "
            f"cache {values.cache}"
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Check every marker before anything runs: as an error of collection, the one that xdist's workers can tell."""
        report = yield
        errors = [
            error for item in report.result or () if isinstance(item, pytest.Item) for error in _marker_errors(item)
        ]
        if errors:
            report.outcome, report.longrepr, report.result = "failed", "\n".join(errors), []
        return report

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Number the tests: the same numbers in every worker."""
        self._numbers = {item.nodeid: number for number, item in enumerate(session.items)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Know which test asks, even where the fixture that asks has a wider scope."""
        self._current = item
        self._tests.pop(item.nodeid, None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send the test's studies along with its report: as text, which is all that crosses from a worker."""
        if call.excinfo is not None and item.nodeid in self._tests and not self.config.getoption("fulltrace", False):
            call.excinfo = pytest.ExceptionInfo.from_exception(_without_own_frames(call.excinfo.value))
        report = yield
        test = self._tests.get(item.nodeid)
        if (
            test is None
            or not test.studies
            or not (report.when == "call" or (report.when == "setup" and not report.passed))
        ):
            return report
        from .report import summarize

        summaries = [
            summarize(study, item.nodeid) | {"position": test.number, "call": call}
            for call, study in enumerate(test.studies)
        ]
        report.stability_summaries = json.dumps(summaries)  # type: ignore[attr-defined]  # a report carries what it is given
        # JUnit's reporter reads them from the teardown's report, which takes them from the item.
        others = [(name, value) for name, value in item.user_properties if not name.startswith("stability_")]
        item.user_properties = [*others, *_properties(summaries)]
        report.user_properties = list(item.user_properties)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Make room on the terminal."""
        self.progress.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the studies, in the one process that sees all reports."""
        self.progress.clear()
        if not self.is_worker:
            self._summaries += json.loads(getattr(report, "stability_summaries", "[]"))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if self._summaries:
            from .render.terminal import study_table

            terminalreporter.section("stability")
            for line in study_table(self._in_order()):
                terminalreporter.write_line(line)
            if self.values.json:
                terminalreporter.write_line(f"written: {self.values.json}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write the report, and remove what only this session needed."""
        self.progress.clear()
        if self.is_worker:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.values.json:
            from .report import document

            path = Path(self.values.json)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(document(self._in_order()), indent=1) + "\n", encoding="utf-8")

    def number_of(self, item: pytest.Item) -> int:
        """Return the test's position in the collection."""
        return self._numbers[item.nodeid]

    def _in_order(self) -> list[dict[str, Any]]:
        """The studies in the order of collection, whichever worker was first; a retried test counts once, the last."""
        latest = {(s["position"], s["test"], s["call"]): s for s in self._summaries}
        ordered = [latest[key] for key in sorted(latest)]
        return [{name: value for name, value in s.items() if name not in ("position", "call")} for s in ordered]

    def _current_test(self) -> TestContext:
        item = self._current
        if item is None:
            raise UsageError("Expected stability.measure(...) to be called while a test runs.")
        if item.nodeid not in self._tests:
            from .fixture import TestContext
            from .sourcecode import conftests_of

            conftests = conftests_of(item.path, self.config.rootpath)
            number = self._numbers.get(item.nodeid, 0)
            self._tests[item.nodeid] = TestContext(item.nodeid, number, _marker_of(item), tuple(conftests))
        return self._tests[item.nodeid]

    def _progress(self, test: TestContext, progress: Progress) -> None:
        self.tell({"test": test.name, "call": test.calls, **vars(progress), "seconds_left": progress.seconds_left})

    def _undecided(self, message: str) -> None:
        __tracebackhide__ = True
        if self.values.undecided == "skip":
            reasons = [line.strip() for line in message.splitlines() if line.startswith("UNDECIDED")]
            pytest.skip(" ".join(reasons or [message]))
        if self.values.undecided == "fail":
            from .study import fail_undecided

            fail_undecided(message)


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
    theirs = [entry for entry in entries if _PACKAGE not in Path(entry.tb_frame.f_code.co_filename).parents]
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
        properties.append((f"{prefix}runs", summary["runs"]))
        properties.append((f"{prefix}verdict", summary["verdict"] or "none"))
        values = {name: estimate["value"] for name, estimate in summary["metrics"].items()}
        properties += [(prefix + name, "undefined" if value is None else value) for name, value in values.items()]
    return properties
