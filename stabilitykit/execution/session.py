"""The front door without pytest: `measure` and `check` train the runs of a protocol and return them as a `Study`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..estimates.measures import Metric
from ..protocol import NoiseProtocol
from ..public import public
from ..store.catalog import Catalog
from ..store.differences import UNEXPLAINED
from ..store.history import difference_to_last
from ..store.key import key_of, protocol_ingredients
from ..store.layout import ABOUT, STORE, TASKS
from ..store.record import RunRecord
from ..store.run_store import Experiment, RunStore
from ..study.journal import Journal
from ..study.study import Policy, Study, check_trained
from ..training.control import Control, ControlMode, prove_isolation
from ..training.task import Task
from ..training.trainer import Trainer
from ..verdicts.budgets import Budget
from ..verdicts.unreachable import objections
from .executor import Executor, InProcess, ProcessDied
from .question import Prepared, Question
from .runner import Progress, Runner, Wanted
from .stop import Stop
from .watch import Watch
from .where import Where


class Session:
    """Trains the runs that questions ask for: the defaults are those of a script, the plugin brings its own."""

    #: Whether this session writes the looks of a gate to the store.
    keeps_looks = True

    def __init__(
        self,
        store: RunStore,
        rootdir: Path,
        where: Where | None = None,
        policy: Policy | None = None,
        *,
        stop: Stop | None = None,
        also: Iterable[Path] = (),
        scope: str = "",
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """Keep runs in ``store``; code below ``rootdir`` and in the files ``also`` counts for their key.

        ``scope`` names the test that asks: runs that cannot be shared are kept under it.
        """
        self.store, self.rootdir, self.where = store, rootdir, where or Where()
        self.policy = policy or Policy()
        self.stop = stop or Stop()
        self.also, self.scope = tuple(also), scope
        self.on_progress = on_progress
        self._private = itertools.count()

    def prepare(self, question: Question) -> Prepared:
        """Return a question at the place where this session trains; nothing is trained yet."""
        return Prepared(question, self.where, self.rootdir, self.also)

    def answer(self, question: Question) -> Study:
        """Return the study of a question; raise `RunsFailedError` or `IsolationError` where it means nothing."""
        asked = self.prepare(question)
        study = self.train(asked)
        check_trained(study)
        return study

    def train(self, asked: Prepared, remarks: Sequence[str] = ()) -> Study:
        """Train the runs that the store does not have, and return their study with ``remarks`` in its journal.

        The study may hold failed runs: `check_trained` raises for those.
        """
        question, journal = asked.question, Journal([*remarks])
        experiment = self._experiment(asked)
        self._say_why_anew(experiment, asked, journal)
        task, protocol, budget = question.task, question.protocol, question.budget
        watch = None
        if budget is not None and question.stops_early:
            watch = Watch(experiment, budget, protocol.runs, question.measures, keeps=self.keeps_looks)
        if watch is not None and watch.most_runs > protocol.runs:
            journal.remark(f"judged at {watch.most_runs} runs before, which R = {protocol.runs} does not undo")
            protocol = protocol.extended_to(watch.most_runs)
        wanted = Wanted(experiment, protocol.plans(), None if watch is None else watch.settled)
        records, control = self._gather(asked, wanted, protocol, journal)
        unreachable = objections(budget.limits, task.examples) if budget else ()
        journal.remarks[:0] = [*unreachable, *task.remarks]
        if watch is not None:
            journal.verdicts.append(watch.verdict)
        study = Study(
            task=task.name,
            protocol=protocol,
            records=tuple(records),
            labels=task.labels,
            control=control,
            metrics=dict(question.metrics),
            recipe=task,
            most_runs=protocol.runs if question.stops_early else None,
            max_failed_runs=budget.max_failed_runs if budget else 0,
            private=asked.private,
            policy=self.policy,
            journal=journal,
        )
        if study.is_whole:
            built_in = task.measure_names()
            study.measures.compute(name for name in study.measures if name not in built_in)
        return study

    def _experiment(self, asked: Prepared) -> Experiment:
        """Open the experiment of these runs, and let the trainer know where the epochs before an onset are kept."""
        private, about = bool(asked.private), dict(asked.about)
        asked.trainer.stamps = {} if private else asked.ingredients.stamps
        if private:  # the content has no hash, so the key gets a name of this session's own
            about["fingerprint"] = f"{self.store.session} {self.scope} {next(self._private)}"
        question = asked.question
        if question.protocol.onset:
            shared = about | {"protocol": protocol_ingredients(question.protocol.before_onset)}
            described = {"task": question.task.name, **shared}
            asked.trainer.prefixes = self.store.prefixes(key_of(shared), described, private=private)
        asker = {"task": question.task.name, "asked_by": self.scope, "session": self.store.session}
        return self.store.experiment(key_of(about), asker | about, private=private)

    def _say_why_anew(self, experiment: Experiment, asked: Prepared, journal: Journal) -> None:
        """Remark what differs from the last session, if one was answered this study and this one trains it."""
        if asked.private or self.store.cache != "auto" or (experiment.folder / ABOUT).exists():
            return
        difference = difference_to_last(Catalog(self.store.folder), experiment.about)
        if difference:
            # An edit explains itself; data that nobody seeds belong to the study.
            place = journal.remarks if UNEXPLAINED in difference else journal.anew
            place.append(f"no run of the last session was reused: {difference}")

    def _gather(
        self, asked: Prepared, wanted: Wanted, protocol: NoiseProtocol, journal: Journal
    ) -> tuple[list[RunRecord], Control]:
        """Prove that what is held is held, and return the runs: all of the protocol, or those that the gate takes."""
        executor: Executor = InProcess(asked.trainer)
        if not wanted.is_finished():
            asked.check()  # stored runs have passed it
            executor = self._executor(asked.trainer, journal)
        name = f"{asked.question.task.name} {protocol.name}"
        runner = Runner(wanted, executor, study=name, stop=self.stop, on_progress=self.on_progress)
        with contextlib.closing(executor):
            runner.check_not_stopped()
            with self.stop.interrupts():
                control = self.control(wanted.experiment, executor, protocol, asked.question.control)
            return self.gather(runner, journal), control

    def _executor(self, trainer: Trainer, journal: Journal) -> Executor:
        """Return the executor: child processes if they were asked for and the task can be sent, else this process."""
        where = self.where
        if where.isolation != "none":
            from .child_processes import ChildProcesses
            from .payload import CannotSend

            try:
                return ChildProcesses(
                    trainer,
                    self.rootdir,
                    self.store.session_folder / TASKS,
                    devices=[where.device_for(child) for child in range(where.workers)],
                    time_limit=where.run_timeout,
                    method="forkserver" if where.isolation == "process" else "spawn",
                )
            except CannotSend as error:
                journal.remark(
                    f"trained in the test's own process, since the task cannot be sent to another one: {error}"
                )
        return InProcess(trainer, where.run_timeout)

    def gather(self, runner: Runner, journal: Journal) -> list[RunRecord]:
        """Return the records of a study; sessions under pytest-xdist override this."""
        return runner.gather()

    def control(
        self, experiment: Experiment, executor: Executor, protocol: NoiseProtocol, mode: ControlMode
    ) -> Control:
        """Return the control of an experiment: stored, or proven now."""
        stored = experiment.read_control()
        if stored is not None and stored.get("mode") in (mode, "full"):
            return Control(stored["proven"], stored["scope"], tuple(stored["trace"]))
        try:
            control: Control = executor.call(prove_isolation, protocol, mode)
        except ProcessDied as death:  # the study's run 0 will tell the same
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

    Args:
        task: A `Recipe`, a ``train(run)`` that returns test logits ``[N, C]``, or a ``train(seed)``.
        protocol: What varies, over how many runs.
        labels: The test labels ``[N]``, beside a train function; a `Recipe` has its own.
        metrics: Functions of one run's logits and the labels, by name.
        control: "auto" trains the first epochs that vary twice, "full" one whole run, before any number is shown.
        budget: Checked before anything trains, to name measures that the task has; its ``max_failed_runs`` may fail.
        session: Where to train and what to keep; left out, a store ``.stabilitykit`` in the current folder.

    Raises `UsageError` before anything trains, `IsolationError` if the control fails, `RunsFailedError` if more runs
    than may leave nothing to measure, and `IncompleteStudyError` if the session stops before all runs are there.
    """
    question = Question.of(task, protocol, labels=labels, metrics=metrics, budget=budget, control=control)
    return (session or _script_session()).answer(question)


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
    first, and another session that asks again gets it without training.

    Args:
        task: As in `measure`, and so are ``labels``, ``metrics``, ``control``, ``session`` and the errors.
        protocol: What varies, and R, the most runs that are trained.
        budget: The limits that end the training once it is known whether they are kept.
    """
    question = Question.of(
        task, protocol, labels=labels, metrics=metrics, budget=budget, control=control, stops_early=True
    )
    return (session or _script_session()).answer(question)


@functools.cache
def _script_session() -> Session:
    """Return a script's session: its store is in the current folder, and its code there or beside the script."""
    here = Path.cwd()
    script = Path(getattr(sys.modules["__main__"], "__file__", None) or here / "none").resolve()
    store = RunStore(here / STORE)
    atexit.register(store.end_session)
    return Session(store, here if here in script.parents else script.parent)
