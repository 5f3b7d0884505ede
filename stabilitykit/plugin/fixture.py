"""The fixture ``stability``: a test asks a question about a task and gets a `Study`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ..auditing.audit import Audit, audit
from ..auditing.knobs import Knobs
from ..errors import BudgetError, IncompleteStudyError, StabilityError, TaskError
from ..estimates.meaning import Outputs
from ..estimates.measures import Metric
from ..execution.forecast import Forecast, summarize_plan
from ..execution.notice_board import Board
from ..execution.question import Prepared, Question
from ..execution.runner import Progress
from ..execution.session import Session
from ..execution.sharing import HelperSession, OwnerSession
from ..execution.stop import Stop
from ..execution.where import Where
from ..protocol import NoiseProtocol, Perturbation, Source, Vary
from ..store.run_store import RunStore
from ..study.asserts import demand_pass
from ..study.comparison import Comparison, check_alike, comparison_of
from ..study.planned_study import PlannedStudy
from ..study.score_comparison import ScoreComparison
from ..study.study import Policy, Study, check_trained
from ..study.summary import summarize
from ..training.control import ControlMode
from ..training.task import Task, as_task
from ..verdicts.budgets import Budget
from ..verdicts.calibration import Calibration, calibrated, environment_line, propose
from ..verdicts.explanation import explanation
from ..verdicts.sequential_levels import FIRST_LOOK
from .askers import Asker, Place
from .baselines import Baselines
from .budget_file import BudgetFile, Entry
from .findings import BASELINES, CALIBRATIONS, COMPARISONS, PLANS, STUDIES
from .options import BUDGETS, MarkerConfig, StabilityConfig
from .reds import ANSWERS, Reds


@dataclass(eq=False)
class TestContext:
    """The test that asks: its name and number, its marker, and what it has asked so far."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    name: str
    number: int  #: its position in the collection
    marker: MarkerConfig
    conftests: tuple[Path, ...]  #: files that count for the keys of its runs
    studies: list[Study] = field(default_factory=list)
    comparisons: list[Comparison | ScoreComparison] = field(default_factory=list)
    forecasts: list[Forecast] = field(default_factory=list)  #: noted in place of studies, with ``--stability-plan``
    calibrations: list[Calibration] = field(default_factory=list)
    baselines: list[dict[str, Any]] = field(default_factory=list)  #: whether each study was found in the baseline
    went_no_further: str = ""  #: why a plan of it may not be all of it
    asker: Asker = field(init=False)  #: it, where no fixture of a wider scope asks in its place
    asked: dict[Place, str] = field(default_factory=dict)  #: the keys of the runs that were asked for while it ran
    reds: list[StabilityError] = field(default_factory=list)  #: the failures that answered questions while it ran
    calls: int = 0  #: studies that were asked for while it ran
    is_failed: bool = False  #: whether one of its reports says more than that it passed
    checks: int = 0  #: how many of them are judged while runs come in
    entry: Entry | None = None  #: the reviewed budget of the check that is asked now

    def __post_init__(self) -> None:
        self.asker = Asker(self.name)

    def found(self, runs_at_once: int) -> dict[str, list[dict[str, Any]]]:
        """Return its findings by kind, as JSON's types."""
        notes = {"notes": [self.went_no_further] if self.went_no_further else []}
        return {
            STUDIES: [summarize(study, self.name) for study in self.studies],
            COMPARISONS: [comparison.to_json() for comparison in self.comparisons],
            PLANS: [summarize_plan(forecast, self.name, runs_at_once) | notes for forecast in self.forecasts],
            CALIBRATIONS: [calibration.to_json() for calibration in self.calibrations],
            BASELINES: self.baselines,
        }


@dataclass(frozen=True)
class Hooks:
    """The functions by which the fixture reaches the pytest session that it serves."""

    current_test: Callable[[], TestContext]
    asker: Callable[[], Asker]  #: the fixture of a wider scope that is being set up now, else the current test
    progress: Callable[[TestContext, Progress], None]
    undecided: Callable[[str], None]  #: called with the message of an UNDECIDED verdict; may raise, skip or pass
    incomplete: Callable[[str], None]  #: called with the message of a study that lacks runs; may skip
    plan_ends: Callable[[str], NoReturn]  #: called with the number that a plan does not have; raises
    is_helping: Callable[[], bool]  #: whether this worker trains for a test of another one


class Stability:
    """The fixture ``stability``: trains a task R times and returns what differs.

    R, the base seed, the device and the threads come from the command line, the ini file and the test's marker; an
    argument here goes before the marker, the marker before the command line.
    """

    def __init__(
        self,
        config: StabilityConfig,
        rootdir: Path,
        store: RunStore,
        hooks: Hooks,
        slot: int,
        stop: Stop,
        board: Board | None,
        budgets: BudgetFile,
    ) -> None:
        """Serve one worker of a session, whose ``slot`` decides between several GPUs.

        ``board`` is where workers tell each other of their tests; None without pytest-xdist.
        """
        self._config, self._rootdir, self._store, self._hooks = config, rootdir, store, hooks
        self._stop, self._board, self._budgets = stop, board, budgets
        how = config.isolation, config.workers, config.run_timeout
        self._where = Where(config.device, slot, config.workers_per_device, config.threads, *how)
        self.baselines = Baselines(store.session, save=config.save, compare=config.compare, update=config.update)
        self._reds = Reds(store.session_folder)

    def measure(
        self,
        task: Task | Callable[..., Any],
        *,
        vary: Vary | None = None,
        perturb: str | Perturbation | None = None,
        runs: int | None = None,
        labels: Any = None,
        outputs: Outputs | None = None,
        intercept: bool | None = None,
        metrics: Mapping[str, Metric] | None = None,
        constants: Mapping[str | Source, int] | None = None,
        onset: int = 0,
        control: ControlMode = "auto",
        budget: Budget | None = None,
    ) -> Study:
        """Train ``task`` R times while ``vary`` varies, or one weight is moved, and return the runs as a `Study`.

        Args:
            task: A `Recipe`, or a function ``train(run)`` or ``train(seed)``.
            vary: Sources (``"init"``, ``"shuffle+augment"``, a list, ``"all"``, ``"none"``); left out, everything
                varies, or nothing but the weight that ``perturb`` moves.
            perturb: ``"ulp"``, ``"bit"`` or a `Perturbation`: one weight that is moved in each run.
            runs: R.
            labels: The test labels, beside a train function; a `Recipe` has its own.
            outputs: What a train function returns, where its numbers do not tell: "logits", "probabilities",
                "log_probabilities", "multi_label" (a logit for each label of an example) or "values" (a regression).
            intercept: Whether what the code of a train function draws by itself is taken to its source: left out,
                in every ``train(run)``, and in a ``train(seed)`` where less than everything varies.
            metrics: Further functions of one run's logits and the labels, by name.
            constants: Other seeds for held sources, by name.
            onset: The epoch from which on sources vary; the epochs before are the same in all runs, and trained once.
            control: "full" repeats a whole run where the first epochs would do.
            budget: Checked before anything trains, to name measures that the task has; its ``max_failed_runs`` may
                fail. It is not judged: assert on the study, or use `check`.
        """
        __tracebackhide__ = True
        protocol = self._protocol(vary, perturb, runs, constants, onset)
        given = {
            "labels": labels,
            "outputs": outputs,
            "intercept": intercept,
            "metrics": metrics,
            "budget": budget,
            "control": control,
        }
        return self._ask(Question.of(task, protocol, **given))

    def check(
        self,
        task: Task | Callable[..., Any],
        *,
        budget: Budget | None = None,
        vary: Vary | None = None,
        perturb: str | Perturbation | None = None,
        runs: int | None = None,
        labels: Any = None,
        outputs: Outputs | None = None,
        intercept: bool | None = None,
        metrics: Mapping[str, Metric] | None = None,
        constants: Mapping[str | Source, int] | None = None,
        onset: int = 0,
        control: ControlMode = "auto",
    ) -> Study:
        """Train ``task`` until it is known whether ``budget`` is kept, R times at most, and fail unless it is.

        Return the runs that the verdict rests on.

        Args:
            task: As in `measure`, and so are the arguments that are not named here.
            budget: The limits; left out, those of ``stability-budgets.toml``, which ``--stability-calibrate`` writes.
            runs: R, the most runs that are trained.
        """
        __tracebackhide__ = True
        test, protocol = self._hooks.current_test(), self._protocol(vary, perturb, runs, constants, onset)
        test.checks += 1
        given = {"labels": labels, "outputs": outputs, "intercept": intercept, "metrics": metrics, "control": control}
        ask = partial(Question.of, task, protocol, **given)
        is_new = self._budgets.find(test.name, test.checks) is None
        if budget is None and self._config.calibrate and (is_new or self._config.update):
            return self._calibrate(ask())
        if budget is None:
            test.entry, budget = self._budgets.require(test.name, test.checks)
            test.entry.check_varies(protocol.name)
        else:
            self._budgets.check_agrees(test.name, test.checks, budget)
        try:
            study = self._ask(ask(budget=budget, stops_early=True))
        except BudgetError as error:
            raise (error if test.entry is None else BudgetError(f"In {test.entry.place}: {error}")) from None
        finally:
            test.entry = None
        if not isinstance(study, PlannedStudy):
            verdict = study.verdicts[-1]
            demand_pass(study, verdict, explanation(verdict, study.measures))
            study.policy.judged(study, budget)
        return study

    def compare(
        self, baseline: Task | Callable[..., Any], candidate: Task | Callable[..., Any], **settings: Any
    ) -> Comparison | ScoreComparison:
        """Measure two tasks as `measure` does, with the same arguments for both, and return their `Comparison`.

        Tasks of scores alone are compared score by score.

        Run i of both has the same seeds. The comparison is reported, and fails nothing: a test asserts on it, as in
        ``assert stability.compare(old, new).is_better``.

        Args:
            baseline: The task that is there.
            candidate: The task that may replace it.
            settings: Arguments of `measure`.
        """
        __tracebackhide__ = True
        if "budget" in settings:
            raise BudgetError("Expected no budget in a comparison: it limits the spread of one study. Use check().")
        for given in (baseline, candidate):
            if isinstance(given, Study):
                raise TaskError(
                    f"Expected two tasks to train but got {given!r}, which is trained. Studies that are there are "
                    f"compared by stabilitykit.compare(baseline_study, candidate_study)."
                )
        words = {name: settings.pop(name, None) for name in ("labels", "outputs")}  # a Recipe has them
        old, new = (as_task(task, **({} if isinstance(task, Task) else words)) for task in (baseline, candidate))
        if (old.labels is None) != (new.labels is None):
            raise TaskError(
                f"Expected two tasks of one kind but {old.name if old.labels is None else new.name} returns scores "
                f"alone, and the other has labels. Compare outputs with outputs, or scores with scores."
            )
        check_alike(old.meaning.labels, new.meaning.labels)
        test = self._hooks.current_test()
        studies = self.measure(old, **settings), self.measure(new, **settings)
        if self._config.plan:
            self._hooks.plan_ends("a comparison")
        comparison = comparison_of(*studies)
        test.comparisons.append(comparison)
        return comparison

    def audit(
        self,
        train: Callable[..., Any],
        *,
        knobs: Knobs | None = None,
        arguments: Mapping[str, Any] | None = None,
        steps: int | None = None,
    ) -> Audit:
        """Train a few times, one seed moved at a time, and return which draws each moves: `stabilitykit.audit`.

        The audit fails nothing: assert on it, as in ``assert_seed_reaches(found, "seed", {"init", "shuffle"})``.
        """
        __tracebackhide__ = True
        if self._config.plan:
            self._hooks.plan_ends("a seed audit")
        return audit(train, knobs=knobs, arguments=arguments, steps=steps)

    def _protocol(
        self, vary: Vary | None, perturb: str | Perturbation | None, runs: int | None, constants: Any, onset: int
    ) -> NoiseProtocol:
        """Return the protocol: from the arguments, else from the test's marker, else from the options."""
        __tracebackhide__ = True
        marker = self._hooks.current_test().marker
        if vary is None:
            vary = marker.vary if marker.vary is not None else "all" if perturb is None else "none"
        wanted = runs if runs is not None else marker.runs or self._config.runs
        return NoiseProtocol(vary, perturb, wanted, self._config.seed, constants, onset)

    def _ask(self, question: Question) -> Study:
        """Answer a question of the current test with its study; with a `PlannedStudy` in a plan."""
        __tracebackhide__ = True
        test, place = self._hooks.current_test(), self._hooks.asker().next_place()
        session = self._session(test)
        test.calls += 1
        asked = session.prepare(question)
        if self._config.plan:
            return self._plan(test, asked)
        try:
            test.asked[place] = asked.key
            self._reds.check(place, asked.key)
            session.policy = self._policy(place, asked.key)
            return self._train(test, session, asked, place)
        except ANSWERS as error:
            self._note_red(place, asked.key, error)
            raise
        except IncompleteStudyError as error:
            self._hooks.incomplete(str(error))
            raise

    def note_failure(self, test: TestContext) -> None:
        """Note that a test failed, for whatever reason: a retry must ask for the same runs."""
        for place, key in test.asked.items():
            self._reds.note(place, key)

    def _note_red(self, place: Place, key: str, error: StabilityError) -> None:
        """Note how a question was answered; a helper leaves that to the owner of the test."""
        if not self._hooks.is_helping():
            self._hooks.current_test().reds.append(error)
            self._reds.note(place, key, error)

    def _train(self, test: TestContext, session: Session, asked: Prepared, place: Place) -> Study:
        """Train the runs of a question, report the study, and hold it against its baseline."""
        __tracebackhide__ = True
        awaited = self.baselines.prepare(asked, self._store.folder, place, is_helping=self._hooks.is_helping())
        study = session.train(asked, [*self._remarks(test, asked), *(awaited.remarks if awaited else ())])
        test.studies.append(study)
        if awaited is not None:
            comparison = self.baselines.receive(awaited, study, test.name)
            test.comparisons += [comparison] if comparison else []
            if self._config.compare:
                test.baselines.append({"baseline": self._config.compare, "found": awaited.kept is not None})
        check_trained(study)
        return study

    def _calibrate(self, question: Question) -> Study:
        """Train all R runs, and propose a budget for this check: nothing is judged."""
        __tracebackhide__ = True
        test, runs = self._hooks.current_test(), question.protocol.runs
        place = test.name, test.checks, test.number
        if runs < FIRST_LOOK:
            raise BudgetError(
                f"Expected {FIRST_LOOK} runs or more to calibrate from but got {runs}: two are one pair, "
                f"without an upper bound. Ten or more are usual: --stability-runs 10."
            )
        try:
            study = self._ask(question)
        except StabilityError as error:
            test.calibrations.append(Calibration(*place, refused=f"{str(error).partition('. ')[0]}."))
            raise
        if self._hooks.is_helping():
            return study
        estimates = study.measures
        calibration = Calibration(
            *place,
            task=study.task,
            varies=study.protocol.name,
            runs=len(study.records),
            environment=environment_line(study.records[0].environment),
            proposals=propose(estimates, examples=estimates.examples),
            undefined=tuple(name for name in calibrated(estimates) if estimates[name].is_undefined),
        )
        test.calibrations.append(calibration)
        return study

    def _plan(self, test: TestContext, asked: Prepared) -> PlannedStudy:
        """Note a question, and return the study with which the test goes on to its next question."""
        forecast = Forecast(asked, self._store)
        test.forecasts.append(forecast)
        task, protocol, names = asked.question.task, asked.question.protocol, asked.question.names
        on_budget, end = partial(self._note, forecast), self._hooks.plan_ends
        return PlannedStudy(task.name, protocol, task.labels, names, on_budget, end)

    def _note(self, forecast: Forecast, budget: Budget) -> None:
        """Note what the current test asserts on a study, which a wider fixture may have asked for in another test."""
        forecast.note(budget)
        test = self._hooks.current_test()
        if forecast not in test.forecasts:
            test.forecasts.append(forecast)

    def _session(self, test: TestContext) -> Session:
        """Return the session that answers the next question of a test."""
        make: Callable[..., Session] = Session
        if self._board is not None:
            kind = HelperSession if self._hooks.is_helping() else OwnerSession
            make = partial(kind, self._board, test.number, test.calls)
        scope, on_progress = f"{test.name} {test.calls}", partial(self._hooks.progress, test)
        more: dict[str, Any] = {"stop": self._stop, "also": test.conftests, "scope": scope, "on_progress": on_progress}
        return make(self._store, self._rootdir, self._where, **more)

    def _policy(self, place: Place, key: str) -> Policy:
        """Say what follows from a verdict: this worker's own tests also try their gates, if that was asked for."""
        note = partial(self._note_red, place, key)
        undecided = partial(_noting, note, self._hooks.undecided)
        if not self._config.selftest or self._hooks.is_helping():
            return Policy(undecided, failed=note)
        from ..study.selftest import selftest

        judged = partial(selftest, undecided_is_red=self._config.undecided == "fail")
        return Policy(undecided, partial(_noting, note, judged), failed=note)

    def _remarks(self, test: TestContext, asked: Prepared) -> list[str]:
        """Say that a budget of the file is not renewed, or that it was measured in another environment."""
        if test.entry is None:
            return []
        if self._config.calibrate:
            return [f"judged by its entry in {BUDGETS}, which --stability-update would renew"]
        here, there = environment_line(asked.environment.to_json()), test.entry.environment
        return [] if there in (None, here) else [f"budget calibrated on {there}; here {here}"]


def _noting(note: Callable[[StabilityError], None], act: Callable[..., None], *args: Any) -> None:
    """Call a function, and ``note`` the failure that it raises."""
    __tracebackhide__ = True
    try:
        act(*args)
    except ANSWERS as error:
        note(error)
        raise
