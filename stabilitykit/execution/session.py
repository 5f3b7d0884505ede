"""The front door without pytest: `measure` and `check` train the runs of a protocol and return them as a `Study`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..estimates.measures import Metric, check_metrics
from ..protocol import NoiseProtocol
from ..public import public
from ..store.record import RunRecord
from ..store.run_store import Experiment, RunStore
from ..study.study import Judged, Study, check_runs, check_trace, fail_undecided, judge_only
from ..training.control import Control, ControlMode, check_mode, prove_isolation
from ..training.environment import resolve_device
from ..training.task import Task, as_task
from ..training.trainer import Trainer
from ..verdicts.budgets import Budget, check_is_budget
from ..verdicts.unreachable import objections
from .executor import Executor, InProcess, ProcessDied
from .identity import identity, key_of, protocol_identity
from .runner import Progress, Runner
from .stop import Stop
from .watch import Watch

#: Where a run trains: in the process that asks, in a child forked from a server, or in a new interpreter.
Isolation: TypeAlias = Literal["none", "process", "spawn"]


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
        on_judged: Judged = judge_only,
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
            from .child_processes import ChildProcesses
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


@public
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


@public
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


def _experiment(session: Session, task: Task, protocol: NoiseProtocol, trainer: Trainer) -> tuple[Experiment, str]:
    """Return the place in the store for these runs, and why it is private if it is."""
    about, private = identity(task, protocol, trainer.environment, session.rootdir, session.also)
    about = about | {"fingerprint": session.private_scope()} if private else about
    if protocol.onset:
        shared = about | {"protocol": protocol_identity(protocol.before_onset)}
        trainer.prefixes = session.store.prefixes(key_of(shared), {"task": task.name, **shared}, private=bool(private))
    return session.store.experiment(key_of(about), {"task": task.name, **about}, private=bool(private)), private


@functools.cache
def _script_session() -> Session:
    """The session of a script: its store is here, and its own code lies here too, or where the script does."""
    here = Path.cwd()
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or here / "none").resolve()
    store = RunStore(here / ".stabilitykit")
    atexit.register(store.end_session)
    return Session(store, here if here in script.parents else script.parent)
