"""What a test gets as ``stability``: it asks a question of a task and gets a `Study`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from .asserts import assert_within
from .board import Announcement, Board
from .budgets import Budget
from .config import MarkerConfig, StabilityConfig
from .control import Control, ControlMode
from .errors import StabilityError
from .measures import Metric
from .protocol import NoiseProtocol
from .record import RunRecord
from .runner import Progress, Runner
from .sources import Perturbation, Source, Vary
from .store import CacheMode, Experiment, RunStore
from .study import Session, Study, measure
from .task import Task


class HelperLeaves(BaseException):
    """A helper has trained what was free in the test that it entered, and ends its pass through the test.

    Not an Exception, so that a test's own ``except Exception`` lets it through.
    """


class TestContext:
    """The test that asks: its name and number, its marker, and what it has asked so far."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(self, name: str, number: int, marker: MarkerConfig, conftests: tuple[Path, ...]) -> None:
        self.name = name
        self.number = number
        self.marker = marker
        self.conftests = conftests
        self.studies: list[Study] = []
        self.calls = 0


class Stability:
    """The fixture ``stability``: trains a task R times and returns what differs.

    R, the base seed, the device and the threads come from the command line, the ini file and the test's marker; an
    argument here goes before the marker, the marker before the command line.
    """

    def __init__(
        self,
        config: StabilityConfig,
        rootdir: Path,
        session: str,
        *,
        current_test: Callable[[], TestContext],
        on_progress: Callable[[TestContext, Progress], None],
        on_undecided: Callable[[str], None],
        board: Board | None = None,
        is_helping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config, self._rootdir = config, rootdir
        self._store = RunStore(rootdir / ".stabilitykit", session, cast(CacheMode, config.cache))
        self._current_test, self._on_progress, self._on_undecided = current_test, on_progress, on_undecided
        self._board, self._is_helping = board, is_helping

    def measure(
        self,
        task: Task | Callable[..., Any],
        *,
        vary: Vary | None = None,
        perturb: str | Perturbation | None = None,
        runs: int | None = None,
        labels: Any = None,
        metrics: Mapping[str, Metric] | None = None,
        constants: Mapping[str | Source, int] | None = None,
        control: ControlMode = "auto",
        budget: Budget | None = None,
    ) -> Study:
        """Train ``task`` R times while ``vary`` varies, or one weight is moved, and return the runs as a `Study`.

        ``task`` is a `Recipe`, or a function ``train(run)`` or ``train(seed)`` with the test ``labels`` beside it.
        ``vary`` names sources (``"init"``, ``"shuffle+augment"``, a list, ``"all"``, ``"none"``); left out, everything
        varies, or nothing but the weight that ``perturb`` (``"ulp"``, ``"bit"``, a `Perturbation`) moves. ``metrics``
        are further functions of logits and labels, by name; ``constants`` chooses other seeds for held sources;
        ``control="full"`` repeats a whole run where the first epochs would do.
        """
        __tracebackhide__ = True
        test = self._current_test()
        if vary is None:
            vary = test.marker.vary if test.marker.vary is not None else "all" if perturb is None else "none"
        wanted = runs if runs is not None else test.marker.runs or self._config.runs
        try:
            protocol = NoiseProtocol(vary, perturb, wanted, self._config.seed, constants)
            more = {"labels": labels, "metrics": metrics, "control": control, "budget": budget}
            return measure(task, protocol, **more, session=self._session(test))
        except StabilityError as error:
            # Its message says everything; the frames between the test and here would only push it out of sight.
            raise error.with_traceback(None) from None

    def check(self, task: Task | Callable[..., Any], *, budget: Budget, **question: Any) -> Study:
        """Measure as `measure` does, with the same arguments, and fail unless every limit of ``budget`` is kept."""
        __tracebackhide__ = True
        study = self.measure(task, budget=budget, **question)
        assert_within(study, budget)
        return study

    def _session(self, test: TestContext) -> Session:
        call, test.calls = test.calls, test.calls + 1
        kind = _SharedSession if self._board is not None else Session
        session = kind(
            self._store,
            self._rootdir,
            device=self._config.device,
            threads=self._config.threads,
            also=test.conftests,
            scope=f"{test.name} {call}",
            on_progress=lambda progress: self._on_progress(test, progress),
            on_study=test.studies.append,
            on_undecided=self._on_undecided,
        )
        if isinstance(session, _SharedSession) and self._board is not None:
            session.share(self._board, test.number, call, helping=self._is_helping())
        return session


class _SharedSession(Session):
    """A study under xdist: announced to the other workers, and gathered as owner or as helper of its test."""

    def share(self, board: Board, test: int, call: int, *, helping: bool) -> None:
        self._board, self._test, self._call, self._helping = board, test, call, helping

    def gather(self, runner: Runner) -> list[RunRecord]:
        announcement = Announcement(self._call, str(runner.experiment.folder), len(runner.plans))
        self._board.announce(self._test, announcement)
        if self._helping:
            while runner.train_free(is_wanted=lambda: not self._board.is_done(self._test)):
                pass
            if all(known.call <= self._call for known in self._board.announced(self._test)):
                raise HelperLeaves
            # The test is known to go on to another study: wait for this one, and go along.
        return super().gather(runner)

    def control(self, experiment: Experiment, prove: Callable[[], Control]) -> Control | None:
        # The owner proves it while the helpers already train; if it fails, so does the test.
        return None if self._helping else super().control(experiment, prove)
