"""What a test gets as ``stability``: it asks a question of a task and gets a `Study`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

from ..errors import BudgetError, IncompleteStudyError, IsolationError, StabilityError, TaskError
from ..estimates.measures import Metric
from ..execution.forecast import Question, summarize_plan
from ..execution.notice_board import Board
from ..execution.runner import Progress
from ..execution.session import Session, check, measure
from ..execution.sharing import HelperSession, OwnerSession
from ..execution.stop import Stop
from ..protocol import NoiseProtocol, Perturbation, Source, Vary
from ..store.run_store import CacheMode, RunStore
from ..study.asserts import demand_pass
from ..study.comparison import Comparison, check_alike
from ..study.planned_study import PlannedStudy
from ..study.study import Study
from ..study.summary import summarize
from ..training.control import ControlMode
from ..training.environment import current_environment
from ..training.task import Task, as_task
from ..verdicts.budgets import Budget
from ..verdicts.calibration import Calibration, calibrated, environment_line, propose
from ..verdicts.sequential_levels import FIRST_LOOK
from .baselines import Baselines
from .budget_file import BudgetFile, Entry
from .findings import CALIBRATIONS, COMPARISONS, PLANS, STUDIES
from .options import BUDGETS, MarkerConfig, StabilityConfig


class TestContext:
    """The test that asks: its name and number, its marker, and what it has asked so far."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(self, name: str, number: int, marker: MarkerConfig, conftests: tuple[Path, ...]) -> None:
        self.name = name
        self.number = number
        self.marker = marker
        self.conftests = conftests
        self.studies: list[Study] = []
        self.comparisons: list[Comparison] = []
        self.questions: list[Question] = []  #: noted in place of studies, with ``--stability-plan``
        self.went_no_further = ""  #: why a plan of it may not be all of it
        self.calls = 0
        self.checks = 0
        self.entry: Entry | None = None  #: of the check that is asked now, where its budget is from the file
        self.calibrations: list[Calibration] = []

    def found(self, runs_at_once: int) -> dict[str, list[dict[str, Any]]]:
        """Return its findings by kind, as JSON's types."""
        notes = {"notes": [self.went_no_further] if self.went_no_further else []}
        return {
            STUDIES: [summarize(study, self.name) for study in self.studies],
            COMPARISONS: [comparison.to_json() for comparison in self.comparisons],
            PLANS: [summarize_plan(question, self.name, runs_at_once) | notes for question in self.questions],
            CALIBRATIONS: [calibration.to_json() for calibration in self.calibrations],
        }


class Stability:
    """The fixture ``stability``: trains a task R times and returns what differs.

    R, the base seed, the device and the threads come from the command line, the ini file and the test's marker; an
    argument here goes before the marker, the marker before the command line.
    """

    def __init__(
        self,
        config: StabilityConfig,
        rootdir: Path,
        store: Path,
        session: str,
        *,
        worker: str = "main",
        slot: int = 0,
        stop: Stop | None = None,
        current_test: Callable[[], TestContext],
        on_progress: Callable[[TestContext, Progress], None],
        on_undecided: Callable[[str], None],
        on_incomplete: Callable[[str], None],
        board: Board | None = None,
        is_helping: Callable[[], bool] = lambda: False,
        on_plan_end: Callable[[str], NoReturn],
        budgets: BudgetFile | None = None,
    ) -> None:
        self._config, self._rootdir = config, rootdir
        self._store = RunStore(store, session, cast(CacheMode, config.cache), worker)
        self._slot, self._stop = slot, stop or Stop()
        #: What this session keeps, and holds against what an earlier one kept.
        self.baselines = Baselines(session, save=config.save, compare=config.compare, update=config.update)
        self._refuted: dict[tuple[str, int], str] = {}  #: controls that failed, by test and call
        self._current_test, self._on_progress = current_test, on_progress
        self._on_undecided, self._on_incomplete = on_undecided, on_incomplete
        self._board, self._is_helping = board, is_helping
        self._budgets = budgets or BudgetFile(rootdir / "none")
        self._on_plan_end = on_plan_end

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
        onset: int = 0,
        control: ControlMode = "auto",
        budget: Budget | None = None,
    ) -> Study:
        """Train ``task`` R times while ``vary`` varies, or one weight is moved, and return the runs as a `Study`.

        ``task`` is a `Recipe`, or a function ``train(run)`` or ``train(seed)`` with the test ``labels`` beside it.
        ``vary`` names sources (``"init"``, ``"shuffle+augment"``, a list, ``"all"``, ``"none"``); left out, everything
        varies, or nothing but the weight that ``perturb`` (``"ulp"``, ``"bit"``, a `Perturbation`) moves. ``metrics``
        are further functions of logits and labels, by name; ``constants`` chooses other seeds for held sources;
        ``onset`` is the epoch from which on they vary, where the epochs before are to be the same in all runs, and are
        trained once; ``control="full"`` repeats a whole run where the first epochs would do.
        """
        __tracebackhide__ = True
        protocol = self._protocol(vary, perturb, runs, constants, onset)
        return self._ask(measure, task, protocol, labels=labels, metrics=metrics, control=control, budget=budget)

    def check(
        self,
        task: Task | Callable[..., Any],
        *,
        budget: Budget | None = None,
        vary: Vary | None = None,
        perturb: str | Perturbation | None = None,
        runs: int | None = None,
        labels: Any = None,
        metrics: Mapping[str, Metric] | None = None,
        constants: Mapping[str | Source, int] | None = None,
        onset: int = 0,
        control: ControlMode = "auto",
    ) -> Study:
        """Train ``task`` until it is known whether ``budget`` is kept, R times at most, and fail unless it is.

        The arguments are those of `measure`. Return the runs that the verdict rests on. Without a ``budget`` the limits
        are those of ``stability-budgets.toml``, which ``--stability-calibrate`` writes.
        """
        __tracebackhide__ = True
        test, protocol = self._current_test(), self._protocol(vary, perturb, runs, constants, onset)
        test.checks += 1
        more = {"labels": labels, "metrics": metrics, "control": control}
        is_new = self._budgets.find(test.name, test.checks) is None
        if budget is None and self._config.calibrate and (is_new or self._config.update):
            return self._calibrate(task, protocol, **more)
        if budget is None:
            test.entry, budget = self._budgets.require(test.name, test.checks)
            test.entry.check_varies(protocol.name)
        else:
            self._budgets.check_agrees(test.name, test.checks, budget)
        try:
            study = self._ask(check, task, protocol, **more, budget=budget)
        except BudgetError as error:
            raise (error if test.entry is None else BudgetError(f"In {test.entry.place}: {error}")) from None
        finally:
            test.entry = None
        if not isinstance(study, PlannedStudy):
            demand_pass(study, study.verdicts[-1])
            study.on_judged(study, budget)
        return study

    def compare(
        self, baseline: Task | Callable[..., Any], candidate: Task | Callable[..., Any], **question: Any
    ) -> Comparison:
        """Measure two tasks as `measure` does, with the same arguments for both, and return their `Comparison`.

        Run i of both has the same seeds. The comparison is reported, and fails nothing: a test asserts on it, as in
        ``assert stability.compare(old, new).is_better``.
        """
        __tracebackhide__ = True
        if "budget" in question:
            raise BudgetError("Expected no budget in a comparison: it limits the spread of one study. Use check().")
        for given in (baseline, candidate):
            if hasattr(given, "protocol"):
                raise TaskError(
                    f"Expected two tasks to train but got {given!r}, which is trained. Studies that are there are "
                    f"compared by stabilitykit.compare(baseline_study, candidate_study)."
                )
        labels = question.pop("labels", None)  # a Recipe has them
        old, new = (as_task(task, None if isinstance(task, Task) else labels) for task in (baseline, candidate))
        check_alike(old.labels, new.labels)
        test = self._current_test()
        studies = self.measure(old, **question), self.measure(new, **question)
        if self._config.plan:
            self._on_plan_end("a comparison")
        comparison = Comparison.between(*studies)
        test.comparisons.append(comparison)
        return comparison

    def _protocol(
        self,
        vary: Vary | None,
        perturb: str | Perturbation | None,
        runs: int | None,
        constants: Mapping[str | Source, int] | None,
        onset: int,
    ) -> NoiseProtocol:
        """Take what an argument does not say from the marker, and what that does not say from the options."""
        __tracebackhide__ = True
        marker = self._current_test().marker
        if vary is None:
            vary = marker.vary if marker.vary is not None else "all" if perturb is None else "none"
        wanted = runs if runs is not None else marker.runs or self._config.runs
        return NoiseProtocol(vary, perturb, wanted, self._config.seed, constants, onset)

    def _ask(
        self, ask: Callable[..., Study], task: Task | Callable[..., Any], protocol: NoiseProtocol, **more: Any
    ) -> Study:
        """Ask in this test's session: `measure`, `check`, or what a plan notes in place of them."""
        __tracebackhide__ = True
        test = self._current_test()
        question = test.name, test.calls
        if question in self._refuted:  # by an earlier try: a retry must not turn red to green
            raise IsolationError(self._refuted[question])
        session = self._session(test)
        try:
            if self._config.plan:
                return cast(Study, self._plan(test, task, protocol, ask is check, more, session))
            whole = as_task(task, more["labels"])
            kept, helping = test.comparisons.append, self._is_helping()
            self.baselines.attend(session, *question, whole, protocol, kept, is_helping=helping)
            return ask(task, protocol, **more, session=session)
        except IsolationError as error:
            self._refuted[question] = str(error)
            raise
        except IncompleteStudyError as error:
            self._on_incomplete(str(error))
            raise

    def _calibrate(self, task: Task | Callable[..., Any], protocol: NoiseProtocol, **more: Any) -> Study:
        """Train all R runs, and propose a budget for this check: nothing is judged."""
        __tracebackhide__ = True
        test = self._current_test()
        where: dict[str, Any] = {"test": test.name, "study": test.checks, "position": test.number}
        if protocol.runs < FIRST_LOOK:
            raise BudgetError(
                f"Expected {FIRST_LOOK} runs or more to calibrate from but got {protocol.runs}: two are one pair, "
                f"without an upper bound. Ten or more are usual: --stability-runs 10."
            )
        try:
            study = self._ask(measure, task, protocol, **more)
        except StabilityError as error:
            test.calibrations.append(Calibration(**where, refused=f"{str(error).partition('. ')[0]}."))
            raise
        if self._is_helping():
            return study
        estimates = study.measures
        calibration = Calibration(
            **where,
            task=study.task,
            varies=study.protocol.name,
            runs=len(study.records),
            environment=environment_line(study.records[0].environment),
            proposals=propose(estimates, examples=estimates.examples),
            undefined=tuple(name for name in calibrated(estimates) if estimates[name].is_undefined),
        )
        test.calibrations.append(calibration)
        return study

    def _plan(
        self,
        test: TestContext,
        task: Any,
        protocol: NoiseProtocol,
        stops_early: bool,
        more: Mapping[str, Any],
        session: Session,
    ) -> PlannedStudy:
        """Note the question, and give what a test can go on with to the next."""
        asked = {name: more.get(name) for name in ("labels", "metrics", "budget")}
        question = Question.of(task, protocol, **asked, stops_early=stops_early, session=session)
        test.questions.append(question)
        return PlannedStudy(
            question.task,
            question.protocol,
            question.labels,
            question.names,
            partial(self._note, question),
            self._on_plan_end,
        )

    def _note(self, question: Question, budget: Budget) -> None:
        """Note what the current test asserts on a study, which a wider fixture may have asked for in another test."""
        test = self._current_test()
        if question not in test.questions:
            test.questions.append(question)
        if budget not in question.asserted:
            question.asserted.append(budget)

    def _session(self, test: TestContext) -> Session:
        call, test.calls = test.calls, test.calls + 1
        settings: dict[str, Any] = {
            "store": self._store,
            "rootdir": self._rootdir,
            "device": self._config.device,
            "slot": self._slot,
            "workers_per_device": self._config.workers_per_device,
            "threads": self._config.threads,
            "isolation": self._config.isolation,
            "workers": self._config.workers,
            "run_timeout": self._config.run_timeout,
            "stop": self._stop,
            "also": test.conftests,
            "scope": f"{test.name} {call}",
            "on_progress": lambda progress: self._on_progress(test, progress),
            "on_study": test.studies.append,
            "on_undecided": self._on_undecided,
        }
        if self._config.selftest and not self._is_helping():
            from ..study.selftest import selftest

            settings["on_judged"] = partial(selftest, undecided_is_red=self._config.undecided == "fail")
        if self._board is None:
            session = Session(**settings)
        else:
            kind = HelperSession if self._is_helping() else OwnerSession
            session = kind(self._board, test.number, call, **settings)
        session.remarks += self._remarks(test, session)
        return session

    def _remarks(self, test: TestContext, session: Session) -> list[str]:
        """Say that a budget of the file is not renewed, or that it was measured in another environment."""
        if test.entry is None:
            return []
        if self._config.calibrate:
            return [f"judged by its entry in {BUDGETS}, which --stability-update would renew"]
        if test.entry.environment is None:
            return []
        here = environment_line(current_environment(session.device_for(), session.threads, self._rootdir).to_json())
        there = test.entry.environment
        return [] if here == there else [f"budget calibrated on {there}; here {here}"]
