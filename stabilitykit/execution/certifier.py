"""Makes the certificate of a task: the base run twice, each source moved alone, and what a process shows to join."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from ..errors import IsolationError, StoreError, UsageError
from ..protocol import NoiseProtocol, RunPlan, Source
from ..store import layout
from ..store.record import RunRecord
from ..store.run_store import Experiment
from ..training.certificate import Certificate, named
from ..training.control import (
    LEAK,
    Call,
    Control,
    ControlMode,
    Rehearsal,
    difference,
    epochs_apart,
    prove_isolation,
    rehearsal_of,
    rehearse,
)
from ..training.scores import results_digest
from ..training.trainer import UNSEEDED, Trainer
from .proofs import Proofs
from .runner import Runner, Wanted

#: What the base run is called among what was trained twice.
_BASE = "base run"

#: The first epoch of each base run that this process, or its children, have shown to compute.
_shown: dict[Path, Rehearsal] = {}


class Certifier:
    """Proves what a study claims, and keeps the proofs beside the base run, where the next study finds them."""

    def __init__(
        self,
        base: Experiment,
        task: Callable[[], Experiment],
        repetition: Callable[[str], Experiment],
        protocol: NoiseProtocol,
        mode: ControlMode,
        trainer: Trainer,
        call: Call,
        runner: Callable[[Wanted], Runner],
    ) -> None:
        """Certify studies of ``trainer``'s task under ``protocol``, whose base run lies in the experiment ``base``.

        ``task`` opens the place of what is known of the task before a training, where leaks are remembered.
        ``repetition`` opens the place of a run's repetition, by name, which ends with the session.
        ``call`` and ``runner`` train at the place of the study's runs; ``trainer`` only says what is trained.
        """
        self.base, self.protocol, self.mode, self.trainer = base, protocol, mode, trainer
        self._open_task, self._open_repetition, self._call, self.runner = task, repetition, call, runner
        self.proofs = Proofs(base)
        self._plan = protocol.base.plans()[0]

    @property
    def is_whole(self) -> bool:
        """Whether everything that this study claims is proven already."""
        return not self._lacks_look and not self.lacks_held and not self._unknown

    def can_join(self) -> bool:
        """Whether a process that proves nothing itself finds what it must reproduce: it reads the proofs again."""
        self.proofs = Proofs(self.base)
        return self.base.is_finished(0) if self.needs_base else self._look is not None

    def certificate(self, records: Iterable[RunRecord] = ()) -> Certificate:
        """What is proven by now, as far as it concerns a study of these runs."""
        look = self._look
        if self._held:
            proven, scope = True, self._held
        elif look is None:
            proven, scope = False, "not proven"
        else:
            proven, scope = look.proven, look.scope
            if self.mode == "first" and look.is_cut:
                scope = f"only {scope}, of {look.planned_epochs} epochs"
        base = self._base_record if self.needs_base else None
        trace, fingerprint = ((), "") if base is None else (base.trace, base.fingerprint)
        alive = {name: seen for name, seen in self.proofs.alive.items() if name in self._named}
        inputs = {} if self.base.inputs is None else self.base.inputs.told()
        whole = self.proofs.trained_by(self._held_name)
        joined = {_trainer(record) for record in records if record.status == "ok"}.difference(whole)
        return Certificate(proven, scope, tuple(trace), fingerprint, alive, inputs, len(joined) if self._held else 0)

    def look(self) -> None:
        """Take the first look, and train run 0 at a place where it is not known which experiment it belongs to."""
        with self._remembering_leaks():
            if self._lacks_look and not self.protocol.onset:  # of an onset it shows that stored epochs change no bit
                self._take_look()
            self._train_base()

    def begin(self) -> None:
        """Prove what must be known before the runs are trained: a look, the base run, and that sources act."""
        with self._remembering_leaks():
            if self._lacks_look:
                self._take_look()
            if self.needs_base:
                self._train_base()
        if self.needs_base and not self.trainer.task.has_epochs and self._base_record is not None:
            self.end(self._base_record)  # no look has come before: a leak must not be found after all runs
        if self.trainer.task.isolates:
            self.join()
            for name in self._unknown:
                self._see_alive(name)

    def end(self, first: RunRecord) -> None:
        """Train the base run a second time, after the runs of the study, and compare the two.

        Where every source varies, that is run 0 of the study, its ``first``. A repetition that another process trained
        meanwhile shows nothing of what runs leave in this one: another is then trained.
        """
        one = self._base_record if self.needs_base else first
        if not self.lacks_held or one is None or one.status != "ok":
            return
        is_early = self.repeated.is_finished()
        others = [self._trained_again(self.repeated)]
        if is_early:
            others.append(self._trained_again(self._run_of(self._open_repetition("last repetition"))))
        with self._remembering_leaks():
            for other in others:
                if found := difference(one, other):
                    where = self.trainer.task.leak or f"{_two_processes(one, other)}{LEAK}"
                    raise IsolationError(f"{self._expected_twice} {found}. {where}")
        whole = "the whole run" if self.needs_base else "run 0 of all sources"
        trainers = sorted({_trainer(run) for run in (one, *others)})
        self.proofs.keep_held(self._held_name, f"{whole} twice, bit-identical", trainers)

    def _trained_again(self, repeated: Wanted) -> RunRecord:
        (other,) = self.runner(repeated).gather()
        if other.status != "ok":  # which proves nothing, and is no leak: a file was edited, or memory was short
            raise IsolationError(f"{self._expected_twice} the second failed: {other.error}")
        return other

    @property
    def _expected_twice(self) -> str:
        what = "the base run" if self.needs_base else "run 0"
        return f"Expected {what}, trained twice under one plan, to be bit-identical, but"

    @contextlib.contextmanager
    def _remembering_leaks(self) -> Iterator[None]:
        """Keep the leak that a block finds beside the task, and raise one that was kept: chance may hide it."""
        if self.is_whole or not self.trainer.task.isolates:
            yield
            return
        task = self._open_task()
        leak = task.verdicts.fail(layout.LEAK)
        if leak is not None and leak.session != self.base.session:
            date, key = time.strftime("%Y-%m-%d", time.gmtime(leak.time)), task.folder.name
            raise IsolationError(
                f"Expected no leak in this task, but on {date} there was one, which equal runs later do not undo: "
                f"{leak.reason} The mended task is another one. If something beside it was mended: "
                f"stability-cache prune --key {key}"
            )
        try:
            yield
        except IsolationError as error:
            task.verdicts.keep_fail(layout.LEAK, 2, str(error), self.base.session)
            raise

    @cached_property
    def _named(self) -> dict[str, list[RunPlan]]:
        """What the study claims to move, but for kernels that vary natively: these need no proof, and have no seed."""
        if not self.trainer.task.isolates:
            return {}
        plans = named(self.protocol, self.trainer.task.sources)
        return {name: moved for name, moved in plans.items() if self.trainer.low_level(moved[0]) not in UNSEEDED}

    @property
    def _unknown(self) -> list[str]:
        return [name for name in self._named if name not in self.proofs.alive]

    # The look

    @property
    def _look(self) -> Control | None:
        return self.proofs.look(self._look_name)

    @property
    def _look_name(self) -> str:
        if not self.trainer.task.isolates:
            return f"a black box, {self.mode}"
        return f"onset {self.protocol.onset}"

    @property
    def _lacks_look(self) -> bool:
        """Whether a first look is to come; a task without epochs has none to look at before its base run is whole."""
        return self._look is None and (self.trainer.task.has_epochs or not self.needs_base)

    def _take_look(self) -> None:
        if not self.trainer.task.isolates and self.mode != "full":
            control = Control(False, "not proven: a black box varies everything; control='full' trains one seed twice")
        else:
            # With an onset, what is repeated are the first epochs that vary.
            first = self.protocol if self.protocol.onset or not self.trainer.task.isolates else self.protocol.base
            epochs = {"epochs": None} if not self.trainer.task.isolates else {}
            control = prove_isolation(self._call, self.trainer, first.plans()[0], **epochs)
        self.proofs.keep_look(self._look_name, control)

    # The base run

    @property
    def needs_base(self) -> bool:
        """Whether something is held, and a run of it may be trained twice."""
        if not self.trainer.task.isolates or self.mode == "first":
            return False
        is_open = self._look is not None and not self._look.proven  # a whole run decides what a rehearsal could not
        return self.protocol.vary != frozenset(Source) or is_open

    @property
    def lacks_held(self) -> bool:
        """Whether no run has been trained twice, whole, and one can be."""
        is_seeded = self.trainer.low_level(self.protocol.plans()[0]) not in UNSEEDED
        can_repeat = self.needs_base or (self.trainer.task.isolates and self.mode != "first" and is_seeded)
        return can_repeat and not self._held

    @property
    def _held(self) -> str:
        """What was trained twice, whole."""
        if not self.trainer.task.isolates or self.mode == "first":
            return ""
        return self.proofs.held(self._held_name)

    @property
    def _held_name(self) -> str:
        return _BASE if self.needs_base else self.protocol.name

    @property
    def _base_record(self) -> RunRecord | None:
        """The base run; None before it is trained, and where it failed."""
        if self._base is None and self.base.is_finished(0) and self.base.status(0) == "ok":
            self._base = self.base.load(0)
        return self._base

    _base: RunRecord | None = None

    def missing(self) -> Iterator[Wanted]:
        """Yield the base run and its repetition, as far as they are not trained."""
        base = [self._run_of(self.base)] if self.needs_base else []
        for wanted in (*base, *([self.repeated] if self.lacks_held else [])):
            if not wanted.is_finished():
                yield wanted

    def _run_of(self, experiment: Experiment) -> Wanted:
        plan = self._plan if self.needs_base else self.protocol.plans()[0]  # with nothing held, run 0 is no base run
        return Wanted(experiment, [plan])

    @property
    def repeated(self) -> Wanted:
        """The repetition of the base run, or of run 0 where every source varies."""
        return self._run_of(self._repetition)

    @cached_property
    def _repetition(self) -> Experiment:
        return self._open_repetition("repetition")

    @property
    def first_record(self) -> RunRecord | None:
        """Run 0 as it was trained, if it was."""
        return self.base.load(0) if self.base.is_finished(0) else None

    def _train_base(self) -> None:
        """Train the base run; where another process trains it, its repetition meanwhile."""
        wanted = self._run_of(self.base)
        self.runner(wanted).train_free()
        if not wanted.is_finished() and self.lacks_held:
            self.runner(self.repeated).train_free()
        self.runner(wanted).gather()
        base, look = self._base_record, self._look
        if base is not None and look is not None and look.proven and self.needs_base and not self.protocol.onset:
            check_begins(base, look.trace)

    # Joining

    def join(self) -> None:
        """Show that this process, or its children, compute the first bits of the base run, unless they have."""
        if self.base.folder in _shown:
            return
        base, look = self._base_record, self._look
        if base is not None and self._is_shown_by(base):
            _shown[self.base.folder] = rehearsal_of(base)
            return
        shown = self._rehearse(self._plan, 1)
        if shown is None:
            return  # it raised, as the runs of the study will say
        expected = (
            base.trace if base is not None else look.trace if look is not None and not self.protocol.onset else ()
        )
        if expected and not shown.states:
            raise IsolationError(cannot_join(self.base, "it completed no epoch"))
        if epochs_apart(expected[: len(shown.states)], shown.states[: len(expected)]):
            raise IsolationError(cannot_join(self.base, "its first epoch gives other weights"))
        whole = "" if base is None or shown.is_cut else results_digest(base.logits, base.scores)
        if whole and shown.outputs != whole:
            raise IsolationError(cannot_join(self.base, "it gives other outputs"))
        _shown[self.base.folder] = shown

    def _is_shown_by(self, base: RunRecord) -> bool:
        """Whether a base run that this session has trained shows as much as its rehearsal would, which is as long."""
        return not self.trainer.task.has_epochs and base.trained_by.get("session") == self.base.session

    # What varies varies

    def _see_alive(self, name: str) -> None:
        """Move one source alone for an epoch, and for a whole training where the first epoch shows nothing."""
        still = _shown.get(self.base.folder)
        moves, where = self._moves(name, still, 1), "in the first epoch"
        if moves is False and still is not None and still.is_cut:
            moves, where = self._moves(name, self._whole, None), "in a whole run"
        if moves is not None:  # else a training raised: the runs of the study will say it, with their traceback
            self.proofs.keep_alive(name, where if moves else "")

    def _moves(self, name: str, still: Rehearsal | None, epochs: int | None) -> bool | None:
        """Whether one source alone leads elsewhere than ``still``; None where a training raises.

        A perturbation must reach the outputs, for it differs from the start in a weight.
        """
        for plan in self._named[name]:
            moved = None if still is None else self._rehearse(plan, epochs)
            if still is None or moved is None:
                return None
            if still.outputs != moved.outputs or (plan.perturbation is None and still.trace != moved.trace):
                return True
        return False

    @cached_property
    def _whole(self) -> Rehearsal | None:
        """What a whole base run leaves."""
        return self._rehearse(self._plan, None)

    def _rehearse(self, plan: RunPlan, epochs: int | None) -> Rehearsal | None:
        try:
            rehearsal: Rehearsal = self._call(rehearse, plan, epochs)
        except (UsageError, StoreError, IsolationError):
            raise
        except (Exception, SystemExit):  # noqa: BLE001
            return None
        return rehearsal


def check_begins(run: RunRecord, trace: tuple[str, ...]) -> None:
    """Raise `IsolationError` unless a run has the weights that its rehearsal had after the first epochs."""
    found = epochs_apart(trace, run.trace)
    if found:
        raise IsolationError(
            f"Expected the base run, trained by process {run.trained_by.get('pid')}, to have the bits of its "
            f"rehearsal, but {found}. {LEAK}"
        )


def cannot_join(base: Experiment, but: str) -> str:
    """Return why a process may train no run of an experiment: it does not compute the base run's first bits."""
    by = base.finished().get(0, {}).get("trained_by", {})
    trainer = f"worker {by.get('worker', 'main')} as process {by.get('pid', '?')}"
    return (
        f"Expected this process to compute the bits of the base run, trained by {trainer}, but {but}: no run of this "
        f"process may join that study. Code, data and kernels are equal by their hashes. Look for the order of a set, "
        f"which PYTHONHASHSEED moves from process to process, for the time, or for a call of torch.seed()."
    )


def _trainer(record: RunRecord) -> str:
    """Return the worker of a session in which a run was trained, by it or a child of it."""
    return f"{record.trained_by.get('session')} {record.trained_by.get('worker')}"


def _two_processes(one: RunRecord, other: RunRecord) -> str:
    pids = [record.trained_by.get("pid") for record in (one, other)]
    if pids[0] == pids[1]:
        return ""
    return (
        f"They were trained by processes {pids[0]} and {pids[1]}: look first for the order of a set (PYTHONHASHSEED), "
        f"files and variables. "
    )
