"""The front door without pytest: `measure` trains the runs of a protocol and returns them as a `Study`."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .budgets import Budget, Verdict, check_is_budget
from .conditioning import ConditionNumber, condition_number_of
from .control import Control, ControlMode, check_mode, prove_isolation
from .environment import resolve_device
from .errors import BudgetExceededError, IsolationError, RunsFailedError, TaskError
from .estimate import Estimate
from .executor import Executor, InProcess, ProcessDied
from .fingerprint import CannotFingerprint, fingerprint
from .flips import Flips, check_has_flips
from .growth import Growth, growth_of
from .limits import FailedRuns
from .measures import Measures, Metric, check_metrics
from .metrics import ensemble_of, vanilla_groups
from .planning import objections
from .protocol import NoiseProtocol
from .record import RunRecord
from .reduction import Reduction
from .runner import Progress, Runner
from .similarity import Similarity, similarity_of
from .stopping import Stop
from .store import Experiment, RunStore
from .task import Task, as_task
from .training import Trainer
from .watch import Watch

#: Where a run trains: in the process that asks, in a child forked from a server, or in a new interpreter.
Isolation: TypeAlias = Literal["none", "process", "spawn"]


def fail_undecided(message: str) -> None:
    """Raise `BudgetExceededError`: what cannot be shown to be within its budget is not."""
    raise BudgetExceededError(message)


def judge_only(study: Study, budget: Budget) -> None:
    """Leave a judged study at its verdict."""


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """R records of one protocol on one task, and every number that follows from them.

    Units: accuracy, its SD, disagreement and ensemble delta in percent (points); cross-entropy in nats; correlation
    without a unit. Each number is an `Estimate`: value, and a bound on either side.
    """

    task: str  #: name of what was trained
    protocol: NoiseProtocol
    records: tuple[RunRecord, ...]  #: in the order of their index
    labels: Tensor
    control: Control
    metrics: Mapping[str, Metric] = field(default_factory=dict)  #: the user's own, by name
    recipe: Task | None = None  #: what was trained; None where the records are no runs of it, as those of ensembles
    most_runs: int | None = None  #: R of a check, which trains no more than its verdict takes
    max_failed_runs: int = 0  #: how many of the runs may leave nothing to measure
    private: str = ""  #: why its runs are not kept for another test or session; empty if they are
    on_undecided: Callable[[str], None] = fail_undecided  #: told what the interval leaves open; may raise, skip or pass
    on_judged: Callable[[Study, Budget], None] = judge_only  #: told what did not fail, to try its gate; may raise
    remarks: list[str] = field(default_factory=list)  #: what was seen while its runs were gathered, and since
    verdicts: list[Verdict] = field(default_factory=list)  #: every judgement that was asserted on this study
    selftests: list[str] = field(default_factory=list)  #: what its gates have proved, in a sentence each
    similarities: list[Similarity] = field(default_factory=list)  #: what `cka` gave

    def __repr__(self) -> str:
        """Name the question, as tables do: test failures show it."""
        return f"Study({self.task!r}, vary={self.protocol.name!r}, runs={len(self.records)})"

    def __getitem__(self, name: str) -> Estimate:
        """Return an estimate by name: ``study["f1_sd"]``, ``study["pearson"]``."""
        if name not in self.measures:
            raise TaskError(f"Expected a measure of this study but got {name!r}. It has {', '.join(self.measures)}.")
        return self.measures[name]

    @cached_property
    def measures(self) -> Measures:
        """Every estimate by name, computed when first asked for."""
        if self.recipe is None:
            return Measures(self._outputs, self.labels, self.metrics)
        return self.recipe.measures(self.trained, self.metrics)

    @cached_property
    def flips(self) -> Flips:
        """The test examples and classes whose prediction changes most between runs; print it."""
        check_has_flips(self.labels)
        return Flips(self.measures.predicted, self.labels)

    @property
    def outputs(self) -> Tensor:
        """Logits of all runs, ``[R, N, ..., C]``, or regression outputs ``[R, N, ...]``; a copy each time."""
        return torch.stack(self._outputs)

    @property
    def _outputs(self) -> list[Tensor]:
        """Those of each run as its record has them, mapped from a file it may be: what is computed copies no more."""
        return [record.logits for record in self.trained if record.logits is not None]

    @property
    def accuracy(self) -> Estimate:
        """Mean accuracy over runs, percent."""
        return self["accuracy"]

    @property
    def accuracy_sd(self) -> Estimate:
        """SD of the accuracy over runs, percentage points (ddof=1)."""
        return self["accuracy_sd"]

    @property
    def flip_floor(self) -> Estimate:
        """SD of accuracy that the test examples would give if they flipped independently, percentage points."""
        return self["flip_floor"]

    @property
    def training_sd(self) -> Estimate:
        """SD of accuracy that would be left on test data without end, percentage points: a diagnosis, never judged."""
        return self["training_sd"]

    @property
    def cross_entropy(self) -> Estimate:
        """Mean cross-entropy over runs, nats."""
        return self["cross_entropy"]

    @property
    def cross_entropy_sd(self) -> Estimate:
        """SD of the cross-entropy over runs, nats (ddof=1)."""
        return self["cross_entropy_sd"]

    @property
    def perplexity(self) -> Estimate:
        """Mean perplexity over runs, of a language model."""
        return self["perplexity"]

    @property
    def perplexity_sd(self) -> Estimate:
        """SD of the perplexity over runs (ddof=1), of a language model."""
        return self["perplexity_sd"]

    @property
    def rmse(self) -> Estimate:
        """Mean root mean squared error over runs, in the unit of the targets."""
        return self["rmse"]

    @property
    def rmse_sd(self) -> Estimate:
        """SD of the root mean squared error over runs, in the unit of the targets (ddof=1)."""
        return self["rmse_sd"]

    @property
    def disagreement(self) -> Estimate:
        """Test examples on which two runs predict different classes, percent, mean over pairs."""
        return self["disagreement"]

    @property
    def correlation(self) -> Estimate:
        """Spearman's rank correlation of the outputs of two runs, mean over pairs."""
        return self["correlation"]

    @property
    def ensemble_delta(self) -> Estimate:
        """Accuracy (RMSE, perplexity) that averaging the outputs of two runs gains, mean over pairs: equation (1)."""
        return self[self.main_delta]

    @property
    def trained(self) -> tuple[RunRecord, ...]:
        """The runs that every number is about: all, but for those that failed where the budget lets some."""
        check_runs(self)
        return tuple(record for record in self.records if record.status == "ok")

    @property
    def main_delta(self) -> str:
        """Name of the ensemble delta of accuracy, of RMSE in a regression, of perplexity in a language model."""
        return self.measures.main_delta

    @property
    def failed(self) -> tuple[RunRecord, ...]:
        """The runs that left nothing to measure."""
        return tuple(record for record in self.records if record.status != "ok")

    @property
    def is_whole(self) -> bool:
        """Whether no more runs failed than may, and there are two between which something can vary."""
        return len(self.failed) <= min(self.max_failed_runs, len(self.records) - 2)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know beside the numbers."""
        notes = [] if self.control.proven else [f"isolation {self.control.scope}"]
        if self.private:
            notes.append(f"runs not kept: {self.private}")
        kinds = {record.low_level for record in self.records} - {"deterministic", "not isolated"}
        if kinds:
            notes.append(f"low-level source: {', '.join(sorted(kinds))}")
        if (
            not self.failed
            and self.protocol.name != "none"
            and len({record.fingerprint for record in self.records}) == 1 < len(self.records)
        ):
            notes.append(f"all runs are bit-identical: {self.protocol.name} never reaches the weights of this task")
        if self.failed and self.is_whole:  # else it has no numbers, and its test has failed
            notes.append(
                f"{len(self.failed)} of {len(self.records)} runs failed, as max_failed_runs={self.max_failed_runs} "
                f"allows; the numbers are about the others"
            )
        return (*notes, *self.remarks, *self.selftests)

    def judge(self, budget: Budget) -> Verdict:
        """Hold every limit of the budget against its estimate, once, over all runs."""
        check_is_budget(budget)
        failures = FailedRuns(len(self.failed), len(self.records), budget.max_failed_runs)
        return budget.judge(self.measures).beside(failures)

    def cka(
        self, layers: Iterable[str] | None = None, examples: int = 2000, batch_size: int | None = None
    ) -> Similarity:
        """Return how alike each layer represents the test examples in two runs, for a Recipe(keep_weights=True).

        Names of ``layers`` are the model's modules'; None takes up to eight. See `compare_layers` for the arguments.
        """
        self.similarities.append(similarity_of(self.recipe, self.trained, layers, examples, batch_size))
        return self.similarities[-1]

    def ensembles(self, size: int) -> Study:
        """Return vanilla ensembles of ``size`` runs each as a study: disjoint groups of this one's, their mean logits.

        Disjoint groups share no run, so the R // size ensembles are independent as runs are, and the intervals hold.
        Source: Summers & Dinneen, section 5, table 5.
        """
        groups = vanilla_groups(len(self.trained), size)
        if len(groups) < 2:
            raise TaskError(
                f"Expected at least two ensembles but {len(self.trained)} runs make {len(groups)} of size={size}. "
                f"Train {2 * size} runs or more, or ask for smaller ensembles."
            )
        if not self._outputs:
            raise TaskError(f"Expected runs that keep their outputs, to average, but those of {self.task} do not.")
        outputs = ensemble_of(self._outputs, groups)
        records = tuple(self._ensemble(i, group, outputs[i]) for i, group in enumerate(groups))
        name = f"{self.task}, ensembles of {size}"
        return dataclasses.replace(self, task=name, records=records, recipe=None, most_runs=None, similarities=[])

    def _ensemble(self, index: int, members: Iterable[int], logits: Tensor) -> RunRecord:
        runs = [self.trained[i] for i in members]
        fingerprint = hashlib.sha256("".join(run.fingerprint for run in runs).encode()).hexdigest()
        seconds = sum(run.seconds for run in runs)
        # What only one run has of its own, the ensemble has not.
        return dataclasses.replace(
            runs[0],
            index=index,
            logits=logits,
            weights=None,
            fingerprint=fingerprint,
            seconds=seconds,
            curve=(),
            perturbation=None,
        )

    def growth(self, score: str) -> Growth:
        """Return how a score spreads over runs after each epoch, of a Recipe with ``curve=True``; print it."""
        return growth_of(self.trained, score, self.task, self.protocol.name)

    def condition_number(self, score: str) -> ConditionNumber:
        """Return how much training magnifies one weight's step, at least; ``perturb="ulp"`` and nothing else varies."""
        note = "" if self.control.proven else f"isolation {self.control.scope}"
        values = self.measures.of_runs(score).tolist()
        return condition_number_of(self.trained, self.protocol, score, values, note)

    def reduction_against(self, baseline: Study) -> Reduction:
        """Return how much less this study varies than ``baseline``: the paper's variability reduction (section 5)."""
        return Reduction.between(self.measures, baseline.measures)


class Session:
    """Where a study trains and whom it tells: the defaults are those of a script, the plugin brings its own."""

    def __init__(
        self,
        store: RunStore,
        rootdir: Path,
        *,
        device: str = "auto",
        slot: int = 0,
        workers_per_device: int = 1,
        threads: int = 1,
        isolation: Isolation = "none",
        workers: int = 1,
        run_timeout: float | None = None,
        stop: Stop | None = None,
        also: Iterable[Path] = (),
        scope: str = "",
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_study: Callable[[Study], None] = lambda study: None,
        on_undecided: Callable[[str], None] = fail_undecided,
        on_judged: Callable[[Study, Budget], None] = judge_only,
    ) -> None:
        self.store = store
        self.rootdir = rootdir
        self.device = device
        self.slot = slot  #: of this worker among the session's; decides between several GPUs
        self.workers_per_device = workers_per_device
        self.threads = threads
        self.isolation = isolation
        self.workers = workers  #: runs that train at once, each in a child process
        self.run_timeout = run_timeout  #: seconds
        self.stop = stop or Stop()
        self.also = tuple(also)  #: further source files that count for the key
        self.scope = scope  #: whose the runs are where they cannot be shared
        self.on_progress = on_progress
        self.on_study = on_study
        self.on_undecided = on_undecided
        self.on_judged = on_judged
        self.remarks: list[str] = []  #: what was seen while the runs were gathered, for the report
        self._private = itertools.count()

    def private_scope(self) -> str:
        """Return a name for runs that nothing else may share: the session's, and which of its private studies it is."""
        return f"{self.store.session} {self.scope} {next(self._private)}"

    def device_for(self, child: int = 0) -> str:
        """Return the device that this worker trains on, or one of the children that train for it at once."""
        return resolve_device(self.device, self.slot + child, self.workers_per_device)

    def executor(self, trainer: Trainer) -> Executor:
        """Return where runs train: in children where that was asked for, and the task can be sent to them."""
        if self.isolation != "none":
            from .children import ChildProcesses
            from .payload import CannotSend

            try:
                return ChildProcesses(
                    trainer,
                    self.rootdir,
                    self.store.session_folder / "tasks",
                    devices=[self.device_for(child) for child in range(self.workers)],
                    time_limit=self.run_timeout,
                    method="forkserver" if self.isolation == "process" else "spawn",
                )
            except CannotSend as error:
                self.remarks.append(f"trained in the test's own process, since no other can have the task: {error}")
        return InProcess(trainer, self.run_timeout)

    #: Whether a gate's looks are written down here.
    keeps_looks = True

    def gather(self, runner: Runner) -> list[RunRecord]:
        """Return the records of a study; helpers of a test do it their own way."""
        return runner.gather()

    def control(
        self, experiment: Experiment, mode: ControlMode, prove: Callable[[ControlMode], Control]
    ) -> Control | None:
        """Return the control of an experiment: stored, or proven now."""
        stored = experiment.read_control()
        if stored is not None and stored.get("mode") in (mode, "full"):
            return Control(stored["proven"], stored["scope"], tuple(stored["trace"]))
        try:
            control = prove(mode)
        except ProcessDied as death:  # the run of this plan will say it
            return Control(False, f"not proven: {str(death).splitlines()[0]}")
        if control.proven:
            experiment.write_control(control.to_json() | {"mode": mode})
        return control


def measure(
    task: Task | Callable[..., Any],
    protocol: NoiseProtocol,
    *,
    labels: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    control: ControlMode = "auto",
    budget: Budget | None = None,
    session: Session | None = None,
) -> Study:
    """Train ``task`` R times under ``protocol`` and return the runs as a `Study`.

    ``task`` is a `Recipe`, a ``train(run)`` returning test logits ``[N, C]``, or a ``train(seed)``; the functions need
    the test ``labels`` ``[N]`` beside them. ``metrics`` are functions of one run's logits and the labels, by name. A
    ``budget`` is only checked here, before anything trains, to name measures that the task has; its
    ``max_failed_runs`` may fail.

    Raises `UsageError` before anything trains, `IsolationError` if the control fails, `RunsFailedError` if more runs
    than may leave nothing to measure, and `IncompleteStudyError` if the session stops before all runs are there.
    """
    return _study(task, protocol, labels, metrics, control, budget, session or _script_session(), stops_early=False)


def check(
    task: Task | Callable[..., Any],
    protocol: NoiseProtocol,
    *,
    budget: Budget,
    labels: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    control: ControlMode = "auto",
    session: Session | None = None,
) -> Study:
    """Train ``task`` at most R times under ``protocol``, until the verdict on ``budget`` stands; see `Gate`.

    Return the runs that it rests on as a `Study`, whose ``verdicts`` ends with it. It is the same whichever run ends
    first, and another session that asks again gets it without training. Arguments and errors are those of `measure`.
    """
    return _study(task, protocol, labels, metrics, control, budget, session or _script_session(), stops_early=True)


def _study(
    task: Task | Callable[..., Any],
    protocol: NoiseProtocol,
    labels: Any,
    metrics: Mapping[str, Metric] | None,
    control: ControlMode,
    budget: Budget | None,
    session: Session,
    *,
    stops_early: bool,
) -> Study:
    task, metrics = as_task(task, labels), metrics or {}
    trainer = Trainer(task, session.device_for(), session.threads, session.rootdir)
    check_metrics(metrics, task.labels)
    check_mode(control)
    names = task.measure_names(metrics)
    if budget is not None:
        check_is_budget(budget)
        budget.check_names(names)
    experiment, private = _experiment(session, task, protocol, trainer)
    watch = None
    if budget is not None and stops_early:
        measures_of = functools.partial(task.measures, metrics=metrics)
        watch = Watch(experiment, budget, protocol.runs, measures_of, keeps=session.keeps_looks)
        if watch.most_runs > protocol.runs:
            session.remarks.append(f"judged at {watch.most_runs} runs before, which R = {protocol.runs} does not undo")
            protocol = protocol.extended_to(watch.most_runs)
    records, shown = _gather(session, task, protocol, trainer, experiment, control, watch)
    study = Study(
        task=task.name,
        protocol=protocol,
        records=tuple(records),
        labels=task.labels,
        control=shown,
        metrics=dict(metrics),
        recipe=task,
        most_runs=protocol.runs if stops_early else None,
        max_failed_runs=budget.max_failed_runs if budget else 0,
        private=private,
        remarks=[*(objections(budget.limits, task.examples) if budget else ()), *task.remarks, *session.remarks],
        on_undecided=session.on_undecided,
        on_judged=session.on_judged,
    )
    if watch is not None:
        study.verdicts.append(watch.verdict)
    if study.is_whole:
        built_in = task.measure_names()
        study.measures.compute(name for name in study.measures if name not in built_in)
    session.on_study(study)
    check_runs(study)
    check_trace(study)
    return study


def _gather(
    session: Session,
    task: Task,
    protocol: NoiseProtocol,
    trainer: Trainer,
    experiment: Experiment,
    mode: ControlMode,
    watch: Watch | None,
) -> tuple[list[RunRecord], Control]:
    """Prove that what is held is held, and return the runs: all of the protocol, or those that the gate takes."""
    executor: Executor = InProcess(trainer)
    runner = Runner(
        experiment,
        protocol.plans(),
        executor,
        study=f"{task.name} {protocol.name}",
        stop=session.stop,
        settled=None if watch is None else watch.settled,
        on_progress=session.on_progress,
    )
    if not runner.is_finished():
        task.check(protocol, trainer.device)  # costs a model; one whose runs are there has passed it
        runner.executor = executor = session.executor(trainer)
    control: Control | None = None
    with contextlib.closing(executor):
        runner.check_not_stopped()
        with session.stop.interrupts():
            control = session.control(experiment, mode, lambda mode: executor.call(prove_isolation, protocol, mode))
        records = session.gather(runner)
    if control is None:  # a helper leaves it to the owner of the test
        control = Control(False, "checked by the test's own worker")
    return records, control


def check_is_study(given: object) -> None:
    """Raise `TaskError` for a task in the place of its study; what stands for a study, in a plan, is one."""
    if not hasattr(given, "protocol"):
        raise TaskError(
            f"Expected a study but got {given!r}. Train it first, as in study = stability.measure(recipe, vary='init')."
        )


def listed(studies: Iterable[Study]) -> list[Study]:
    """Return several studies as a list; raise `TaskError` for one alone, or for what is none."""
    if hasattr(studies, "protocol"):
        raise TaskError(f"Expected several studies but got {studies!r} alone. Write [study, another].")
    if not isinstance(studies, Iterable):
        raise TaskError(f"Expected several studies but got {studies!r}. Write [study, another].")
    studies = list(studies)
    for study in studies:
        check_is_study(study)
    return studies


def check_runs(study: Study) -> None:
    """Raise `RunsFailedError` if a run of the study left nothing to measure."""
    if study.is_whole:
        return
    first = study.failed[0]
    indices = ", ".join(str(record.index) for record in study.failed)
    raise RunsFailedError(
        f"Expected {len(study.records)} trained models but {len(study.failed)} of {study.task} [{study.protocol.name}] "
        f"failed: run {indices}. A study is never computed without them, since runs that fail are part of the spread. "
        f"Run {first.index} ({first.status}; seeds {dict(first.seeds)}) said:\n\n{first.error}"
    )


def _experiment(session: Session, task: Task, protocol: NoiseProtocol, trainer: Trainer) -> tuple[Experiment, str]:
    """Return the place in the store for these runs, and why it is private if it is."""
    about, private = identity(session, task, protocol, trainer)
    about = about | {"fingerprint": session.private_scope()} if private else about
    if protocol.onset:
        shared = about | {"protocol": _identity(protocol.before_onset)}
        trainer.prefixes = session.store.prefixes(key_of(shared), {"task": task.name, **shared}, private=bool(private))
    return session.store.experiment(key_of(about), {"task": task.name, **about}, private=bool(private)), private


def identity(session: Session, task: Task, protocol: NoiseProtocol, trainer: Trainer) -> tuple[dict[str, Any], str]:
    """Return what tells these runs from all others, and why nothing does if it is so: they are then private."""
    about = {"protocol": _identity(protocol), "environment": trainer.environment.must_match, "fingerprint": ""}
    try:
        return about | {"fingerprint": fingerprint(task.content(), session.rootdir, session.also)}, ""
    except CannotFingerprint as error:
        return about, str(error)


def key_of(about: Mapping[str, Any]) -> str:
    """Return the name of the experiment that these runs belong to."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _identity(protocol: NoiseProtocol) -> dict[str, Any]:
    """What a run depends on; R is left out, so that 30 runs extend 10."""
    return {
        "vary": sorted(source.value for source in protocol.vary),
        "perturb": dataclasses.asdict(protocol.perturb) if protocol.perturb else None,
        "seed": protocol.seed,
        "constants": {source.value: constant for source, constant in protocol.constants},
        **({"onset": protocol.onset} if protocol.onset else {}),  # not in the keys of runs that have none
    }


def check_trace(study: Study) -> None:
    """Raise `IsolationError` unless the run that the control repeated has its bits, wherever it was trained."""
    first = study.records[0]
    for epoch, (expected, got) in enumerate(zip(study.control.trace, first.trace, strict=False), study.protocol.onset):
        if expected != got:
            raise IsolationError(
                f"Expected run 0, trained by process {first.trained_by.get('pid')}, to have the control's weights bit "
                f"for bit, but they differ after epoch {epoch} (from 0). The two ran in different processes or at "
                f"different times: look for the order of a set (PYTHONHASHSEED), files, or state kept between runs."
            )


@functools.cache
def _script_session() -> Session:
    """The session of a script: its store is here, and its own code lies here too, or where the script does."""
    here = Path.cwd()
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or here / "none").resolve()
    store = RunStore(here / ".stabilitykit", secrets.token_hex(8))
    atexit.register(store.end_session)
    return Session(store, here if here in script.parents else script.parent)
