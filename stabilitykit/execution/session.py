"""The front door without pytest: `measure` and `check` train the runs of a protocol and return them as a `Study`."""

from __future__ import annotations

import atexit
import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..estimates.meaning import Outputs
from ..estimates.measures import Metric
from ..protocol import NoiseProtocol
from ..public import public
from ..store.catalog import Catalog
from ..store.differences import UNEXPLAINED
from ..store.history import difference_to_last
from ..store.key import key_of, protocol_ingredients
from ..store.layout import ABOUT, INPUTS, ROLE, STORE, TASKS
from ..store.ownership import move, remove
from ..store.record import RunRecord
from ..store.run_store import Experiment, RunStore
from ..store.traced_inputs import Inputs, write
from ..study.journal import Journal
from ..study.study import Policy, Study, check_trained
from ..tracing.tracing import traced
from ..training.certificate import check_alive, from_onset
from ..training.control import ControlMode
from ..training.task import Task
from ..training.trainer import Trainer
from ..verdicts.budgets import Budget
from ..verdicts.unreachable import objections
from .certifier import Certifier
from .executor import Executor, InProcess
from .question import Prepared, Question
from .runner import Progress, Runner, Wanted
from .stop import Stop
from .watch import Standing, Watch
from .where import Where
from .workplace import Workplace

#: What is said, before the names of what differs, where runs were stored of other inputs alone.
_NOW = "no stored run read what is there now: "


class Session:
    """Trains the runs that questions ask for: the defaults are those of a script, the plugin brings its own."""

    #: Whether this session writes the looks of a gate, and FAILs, to the store.
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
        unshared = f"{self.store.session} {self.scope} {next(self._private)}"
        return Prepared(question, self.where, self.rootdir, self.also, self.store.folder_of, unshared)

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
        journal = Journal([*remarks])
        make = partial(self._executor, asked.trainer, journal)
        with Workplace(asked, make, self.stop, self.on_progress).closing() as place:
            settled = self._settled(asked, place, journal)
            place.move_to(settled)
            return self._train(settled, place, journal)

    def _train(self, asked: Prepared, place: Workplace, journal: Journal) -> Study:
        question = asked.question
        experiment, base = self._experiments(asked)
        if asked.inputs and asked.edited and not (experiment.folder / ABOUT).exists():
            write(experiment.folder, asked.inputs)  # no run 0 read all of it: `stabilitykit why` finds it here
            if self.store.cache == "auto":
                journal.remark(f"{_NOW}{', '.join(asked.edited)}")
        self._say_why_anew(experiment, asked, journal)
        task, protocol, budget = question.task, question.protocol, question.budget
        watch, standing = None, Standing(experiment, question.metrics, self.rootdir, keeps=self.keeps_looks)
        if budget is not None and question.stops_early:
            watch = Watch(standing, budget, protocol.runs, question.measures)
        if watch is not None and watch.most_runs > protocol.runs:
            journal.remark(f"judged at {watch.most_runs} runs before, which R = {protocol.runs} does not undo")
            protocol = protocol.extended_to(watch.most_runs)
        settled = None if watch is None else watch.settled
        if settled is None and not task.has_epochs and not (budget and budget.max_failed_runs):
            settled = partial(_first_failure, experiment, protocol.runs)
        wanted = Wanted(experiment, protocol.plans(), settled)
        certifier = self._certifier(asked, base, place)
        records = self._gather(certifier, wanted, place, journal)
        certificate = from_onset(certifier.certificate(records), protocol, records)
        if question.stops_early:
            check_alive(protocol, certificate)
        untraced: tuple[str, ...] = ()
        if asked.inputs is not None:
            untraced = _untraced(asked.inputs, asked.later(asked.inputs) if place.is_open else asked.stored_later)
        unreachable = objections(budget.limits, task.examples) if budget else ()
        journal.remarks[:0] = [*unreachable, *untraced, *task.remarks]
        if watch is not None:
            journal.verdicts.append(watch.verdict)
        study = Study(
            task=task.name,
            protocol=protocol,
            records=tuple(records),
            labels=task.labels,
            certificate=certificate,
            metrics=dict(question.metrics),
            recipe=task,
            most_runs=protocol.runs if question.stops_early else None,
            max_failed_runs=budget.max_failed_runs if budget else 0,
            private=asked.private,
            policy=replace(self.policy, standing=standing.beside),
            journal=journal,
            stated=task.outputs,
        )
        if study.is_whole:
            study.note_meaning()
            built_in = task.measure_names()
            study.measures.compute(name for name in study.measures if name not in built_in)
        return study

    def _settled(self, asked: Prepared, place: Workplace, journal: Journal) -> Prepared:
        """Return the question with what its training reads, which is part of its key.

        Where no stored entry says so, run 0 is trained and traced: which experiment it belongs to is known after.
        """
        if asked.private or asked.inputs is not None:
            return asked
        if asked.entries and self.store.cache == "auto":
            nearest = min((entry.changed(self.rootdir) for entry in asked.entries), key=len)
            journal.remark(f"{_NOW}{', '.join(nearest)}")
        # A place of this question's own: another one, of the same task, may read other settings at the same time.
        unknown = {ROLE: "base run", **asked.about, "provisional": asked.unshared}
        return self.settle(asked, self._certifier(asked, self._open(unknown, private=True), place))

    def settle(self, asked: Prepared, certifier: Certifier) -> Prepared:
        """Train and trace run 0, and move it to its experiment; sessions under pytest-xdist override this."""
        # Here too, since what a module keeps in memory is read by the first training of this process.
        with traced(self.rootdir, self.store.folder) as trace:
            certifier.look()
        first = certifier.first_record
        inputs = trace.inputs().beside(first.inputs if first else {})
        settled = asked.with_inputs(inputs)
        experiment, base = self._experiments(settled)
        certifier.proofs.copy_to(base)
        adopt(base if certifier.needs_base else experiment, certifier.base)
        if first is not None and first.status == "ok":
            # Last: helpers go on from it, and must find the base run.
            self._keep(inputs, asked)
        else:  # it may not have come to what it would read, and other inputs may train
            remove(certifier.base.folder)
        return settled

    def _keep(self, inputs: Inputs, asked: Prepared) -> None:
        role = "base run" if inputs.are_none else INPUTS  # a base run that reads nothing has the same key
        place = self._open_task(asked, role)
        place.describe()
        write(place.folder, inputs)

    def _certifier(self, asked: Prepared, base: Experiment, place: Workplace) -> Certifier:
        question, runner = asked.question, partial(place.runner, name="base run")
        return Certifier(
            base,
            partial(self._open_task, asked),
            lambda name: self._open({**asked.about_base, name: asked.unshared}, private=True),
            question.protocol,
            question.control,
            asked.trainer,
            place.call,
            runner,
        )

    def _experiments(self, asked: Prepared) -> tuple[Experiment, Experiment]:
        """Open the experiments of these runs and of the base run.

        The trainer is told where the epochs before an onset are kept.
        """
        about, protocol = dict(asked.about), asked.question.protocol
        of_base, private = about | {"protocol": protocol_ingredients(protocol.base)}, bool(asked.private)
        base = self._open({ROLE: "base run", **of_base}, private=private)
        experiment = self._open(about, private=private)
        for one in (experiment, base):
            one.count(asked.inputs, base)
        if protocol.onset:
            asked.trainer.prefixes = self.store.prefixes(base.folder.name, base.about, private=private)
        return experiment, base

    def _open_task(self, asked: Prepared, role: str = "base run") -> Experiment:
        """Open the place of what is known of a task before one is trained: what its trainings read, and leaks."""
        return self._open({ROLE: role, **asked.about_base}, private=bool(asked.private))

    def _open(self, about: Mapping[str, Any], *, private: bool) -> Experiment:
        asker = {"asked_by": self.scope, "session": self.store.session}
        return self.store.experiment(key_of(about), {**asker, **about}, private=private)

    def _say_why_anew(self, experiment: Experiment, asked: Prepared, journal: Journal) -> None:
        """Remark what differs from the last session, if one was answered this study and this one trains it."""
        if asked.private or self.store.cache != "auto" or (experiment.folder / ABOUT).exists():
            return
        difference = difference_to_last(Catalog(self.store.folder), experiment.about)
        if difference:
            # An edit explains itself; data that nobody seeds belong to the study.
            place = journal.remarks if UNEXPLAINED in difference else journal.anew
            place.append(f"no run of the last session was reused: {difference}")

    def _gather(self, certifier: Certifier, wanted: Wanted, place: Workplace, journal: Journal) -> list[RunRecord]:
        """Prove what the study claims, and return its runs: all of the protocol, or those that the gate takes."""
        question = place.asked.question
        is_answered, name = wanted.is_finished() and certifier.is_whole, question.protocol.name
        self.open(wanted)
        if not is_answered:
            place.runner(wanted, name).check_not_stopped()
            self.certify(certifier, wanted)
        if question.stops_early:  # stored runs, too, may be those of a study that was only measured
            check_alive(question.protocol, certifier.certificate())
        if not is_answered and question.protocol.begins_with_base:
            adopt(wanted.experiment, certifier.base)
        if question.task.score_names is None and wanted.experiment.is_finished(0):
            question.check_first(wanted.experiment.load(0))
        records = self.gather(place.runner(wanted, name), journal)
        if not is_answered:
            certifier.end(records[0])
        return records

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

    def open(self, wanted: Wanted) -> None:
        """Tell other workers of a study; sessions under pytest-xdist override this, and the two methods below."""

    def certify(self, certifier: Certifier, wanted: Wanted) -> None:
        """Prove what must be known before runs are trained."""
        certifier.begin()

    def gather(self, runner: Runner, journal: Journal) -> list[RunRecord]:
        """Return the records of a study."""
        return runner.gather()


def _first_failure(experiment: Experiment, runs: int) -> int | None:
    """Return how many runs there are up to the first that failed; None where none did.

    What is wrong in a command, or in how its scores are read, is wrong in all of its runs: more of them cost hours, and
    change nothing.
    """
    for index in range(runs):
        if not experiment.is_finished(index):
            return None
        if experiment.status(index) != "ok":
            return index + 1
    return None


def _untraced(inputs: Inputs, later: Iterable[Inputs]) -> tuple[str, ...]:
    """Return what the runs of a study have read that is not traced, in sentences."""
    return functools.reduce(Inputs.merged, later, inputs).untraced


def adopt(experiment: Experiment, base: Experiment) -> None:
    """Take the base run for run 0 of an experiment whose plan 0 is that of the base run."""
    if experiment.folder == base.folder or not base.is_finished(0):
        return
    claim = experiment.claim(0)
    if claim is not None:
        record, log, place = base.load(0), base.log_file(0), experiment.log_file(0)
        try:
            if log.exists() and not place.exists():
                place.parent.mkdir(exist_ok=True)
                move(log, place)
                record = replace(record, error=record.error.replace(str(log), str(place)))
            experiment.publish(claim, record)
        finally:
            experiment.release(claim)


@public
def measure(
    task: Task | Callable[..., Any],
    protocol: NoiseProtocol,
    *,
    labels: Any = None,
    outputs: Outputs | None = None,
    intercept: bool | None = None,
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
        outputs: What a train function returns, where its numbers do not tell: "logits", "probabilities",
            "log_probabilities", "multi_label" (a logit for each label of an example) or "values" (a regression).
        intercept: Whether what the code of a train function draws by itself is taken to its source: left out, in
            every ``train(run)``, and in a ``train(seed)`` where less than everything varies.
        metrics: Functions of one run's logits and the labels, by name.
        control: "auto" trains the base run twice, after a look at its first epochs; "first" leaves it at that look, for
            runs that cost hours; "full" trains one seed of a black box twice.
        budget: Checked before anything trains, to name measures that the task has; its ``max_failed_runs`` may fail.
        session: Where to train and what to keep; left out, a store ``.stabilitykit`` in the current folder.

    Raises `UsageError` before anything trains, `IsolationError` if the control fails, `RunsFailedError` if more runs
    than may leave nothing to measure, and `IncompleteStudyError` if the session stops before all runs are there.
    """
    question = Question.of(
        task,
        protocol,
        labels=labels,
        outputs=outputs,
        metrics=metrics,
        budget=budget,
        control=control,
        intercept=intercept,
    )
    return (session or _script_session()).answer(question)


@public
def check(
    task: Task | Callable[..., Any],
    protocol: NoiseProtocol,
    *,
    budget: Budget,
    labels: Any = None,
    outputs: Outputs | None = None,
    intercept: bool | None = None,
    metrics: Mapping[str, Metric] | None = None,
    control: ControlMode = "auto",
    session: Session | None = None,
) -> Study:
    """Train ``task`` at most R times under ``protocol``, until the verdict on ``budget`` stands; see `Gate`.

    Return the runs that it rests on as a `Study`, whose ``verdicts`` ends with it. It is the same whichever run ends
    first, and another session that asks again gets it without training.

    Args:
        task: As in `measure`, and so are the arguments that are not named here, and the errors.
        protocol: What varies, and R, the most runs that are trained.
        budget: The limits that end the training once it is known whether they are kept.
    """
    question = Question.of(
        task,
        protocol,
        labels=labels,
        outputs=outputs,
        metrics=metrics,
        budget=budget,
        control=control,
        stops_early=True,
        intercept=intercept,
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
