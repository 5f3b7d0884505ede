"""The control: one plan trained twice, compared bit for bit, before any number is shown."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor

from ..errors import IsolationError, ProtocolError, StoreError, UsageError
from ..isolation.streams import Stream
from ..protocol import RunPlan
from ..store.fingerprint import tensor_digest
from ..store.record import RunRecord
from .run import TRACED_EPOCHS, combined_digest
from .scores import results_digest
from .trainer import OUTPUTS, UNSEEDED, Trainer

#: "auto" trains the base run twice, whole, after a first look at its first epochs; "first" leaves it at that look;
#: "full" is "auto" for a black box too, of which one seed is trained twice.
ControlMode: TypeAlias = Literal["auto", "first", "full"]

#: Calls ``function(trainer, *arguments)`` where runs are trained, as `Executor.call` does.
Call: TypeAlias = Callable[..., Any]

#: The usual causes of two trainings that differ, and how to mend them.
LEAK = (
    "Something that is held is not: a generator of its own (np.random.default_rng(), torch.Generator(), those of "
    "loader processes), a call of torch.seed(), data changed in place, state kept between runs, environment variables, "
    "time, or threads. Take its seed from run.stream(...), or make it anew inside the model or dataset."
)


#: The usual cause of a second training that did not train.
CACHE = "(does the function return something that an earlier training left, a checkpoint or a cache?)"


def check_mode(mode: object) -> None:
    """Raise `ProtocolError` for anything but a `ControlMode`."""
    if mode not in get_args(ControlMode):
        raise ProtocolError(f"Expected control='auto', 'first' or 'full' but got control={mode!r}.")


@dataclass(frozen=True)
class Rehearsal:
    """What one training of a plan left, whole or cut after its first epochs: no model, hashes alone."""

    trace: tuple[Mapping[str, str], ...]  #: hash of each tensor after each of the first epochs, and of the outputs
    epochs: int  #: that were trained and vary; 0 in a training that cannot be stopped
    planned_epochs: int  #: that all loops asked for
    is_cut: bool  #: whether the training would have gone on
    is_idle: bool  #: whether no optimizer of torch's made a step
    from_epoch: int  #: the first epoch that varies
    resumed_at: int  #: the epoch of the stored state that it went on from
    variables: tuple[str, ...] = ()  #: environment variables that it has set, which are put back after it

    @property
    def tensors(self) -> list[Mapping[str, str]]:
        """The hash of each tensor of the model after each of the first epochs."""
        return [digests for digests in self.trace if OUTPUTS not in digests]

    @property
    def states(self) -> tuple[str, ...]:
        """One hash of the model after each of the first epochs, as a `RunRecord` has them."""
        return tuple(combined_digest(dict(digests)) for digests in self.tensors)

    @property
    def outputs(self) -> str:
        """The hash of the outputs."""
        return self.trace[-1][OUTPUTS]


@dataclass(frozen=True)
class Control:
    """The outcome of the control: which epochs were trained twice, and whether that proved anything."""

    proven: bool
    scope: str  #: in words, for the report
    trace: tuple[str, ...] = ()  #: sha256 of the state after each epoch, to compare with the run of the plan
    outputs: str = ""  #: sha256 of the outputs after these epochs
    planned_epochs: int = 0  #: epochs of a whole run; 0 where it does not count them
    is_cut: bool = False  #: whether a whole run is longer than what was trained twice


def rehearse(
    trainer: Trainer, plan: RunPlan, epochs: int | None, from_start: bool = False, reseeds: bool = False
) -> Rehearsal:
    """Train ``plan`` for its first ``epochs`` and return what that left; whole if None.

    With ``reseeds`` the process's own generators are seeded anew around it, so that a draw outside of all streams
    would be noticed.
    """
    seed = secrets.randbits(32) if reseeds else plan.stochastic
    with Stream(seed, trainer.device):
        run = trainer.rehearse(plan, epochs, from_start=from_start)
    epochs = max(0, run.trained_epochs - plan.first_varied_epoch)
    return Rehearsal(
        tuple(run.trace),
        epochs,
        run.planned_epochs,
        run.is_cut,
        run.is_idle,
        plan.first_varied_epoch,
        run.resumed_at,
        tuple(sorted(run.variables)),
    )


def rehearsal_of(run: RunRecord) -> Rehearsal:
    """Return what a rehearsal of a run would have left that has no epochs, and so no weights to compare."""
    outputs = {OUTPUTS: results_digest(run.logits, run.scores)}
    return Rehearsal((outputs,), 0, 0, is_cut=False, is_idle=run.idle, from_epoch=0, resumed_at=0)


def prove_isolation(call: Call, trainer: Trainer, plan: RunPlan, epochs: int | None = TRACED_EPOCHS) -> Control:
    """Train the first ``epochs`` of ``plan`` twice, whole if None, and compare weights and outputs bit for bit.

    ``call`` trains; ``trainer`` only says what is trained. Raises `IsolationError` naming the first epoch and tensor
    that differ. A training that raises proves nothing: the run of this plan will say it, with its traceback.
    """
    native = trainer.low_level(plan) in UNSEEDED
    if native and trainer.task.isolates:  # it has no seed to repeat: it is held here, which proves the other sources
        plan = replace(plan, low_level=None)
    # Once a task the first is trained from the start: a training from a stored state must have its bits.
    proves = trainer.prefixes is not None and not trainer.prefixes.is_proven
    try:
        first = call(rehearse, plan, epochs, proves)
        second = call(rehearse, plan, epochs, False, True)
    except (UsageError, StoreError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001
        return Control(False, f"not proven: the training raised {type(error).__name__}")
    _compare(first, second)
    if trainer.prefixes is not None and proves and second.resumed_at:
        trainer.prefixes.note_proof()
    # The runs of the study vary natively from the first step on, so none has this trace.
    comparable = () if native else first.states
    scope = f"{_in_words(first, epochs)} twice, bit-identical"
    return Control(True, scope, comparable, first.outputs, first.planned_epochs, first.is_cut)


def _in_words(rehearsal: Rehearsal, epochs: int | None) -> str:
    if epochs is None or not rehearsal.epochs:
        return "one run"
    onset = rehearsal.from_epoch
    which = f"{rehearsal.epochs} epoch{'s' * (rehearsal.epochs > 1)}"
    return f"the first {which}{f' from epoch {onset} on' * bool(onset)}"


def _compare(first: Rehearsal, second: Rehearsal) -> None:
    place = _place_of_difference(first, second)
    if not place:
        return
    if first.resumed_at != second.resumed_at:
        raise IsolationError(
            f"Expected a training that goes on from its stored first epochs to have the bits of one from the start, "
            f"but {place}. {LEAK} Or a state goes on from epoch to epoch that is in no tensor of the model or its "
            f"optimizer: keep it in a buffer of the model, or write train(run), whose runs are all trained from the "
            f"start."
        )
    raise IsolationError(
        f"Expected two trainings under one plan to be bit-identical, but {place}. {LEAK}{_of_variables(first, second)}"
    )


def _of_variables(*rehearsals: Rehearsal) -> str:
    if names := sorted({name for one in rehearsals for name in one.variables}):
        return (
            f" Or an environment variable that it sets, and that is put back after each training: {', '.join(names)}."
        )
    return ""


def _place_of_difference(first: Rehearsal, second: Rehearsal) -> str:
    for epoch, (one, other) in enumerate(zip(first.tensors, second.tensors, strict=False), first.from_epoch):
        differing = [name for name in {**one, **other} if one.get(name) != other.get(name)]
        if differing:
            more = f" and {len(differing) - 1} more tensors" if len(differing) > 1 else ""
            return f"they differ in {differing[0]!r} after epoch {epoch} (from 0){more}"
    if first.epochs != second.epochs:
        return f"one completed {first.epochs} epoch{'s' * (first.epochs != 1)}, the other {second.epochs} {CACHE}"
    if first.is_idle != second.is_idle:
        return f"an optimizer made steps in one, and none in the other {CACHE}"
    return "" if first.outputs == second.outputs else "they differ in the test outputs or scores"


def difference(one: RunRecord, other: RunRecord) -> str:
    """Return where two runs of one plan first differ, in words; empty if every bit that they left is equal."""
    if apart := epochs_apart(one.trace, other.trace):
        return apart
    if one.idle != other.idle:
        return f"an optimizer made steps in one, and none in the other {CACHE}"
    if len(one.curve) != len(other.curve):
        return f"one trained {len(one.curve)} epochs, the other {len(other.curve)}"
    if one.fingerprint != other.fingerprint:
        if one.trace:
            return f"their final weights differ{begins_later(one.trace)}"
        return scores_apart(one, other) or "their outputs differ"
    if not _equal(one.logits, other.logits):
        return (
            "their test outputs differ, and their final weights do not: is something drawn at test time, or is a "
            "network trained that run.perturb(...) does not name?"
        )
    if apart := scores_apart(one, other):
        return f"{apart}, and their final weights do not: is something drawn while the scores are taken?"
    if one.further_weights != other.further_weights:
        return (
            "their outputs are equal, but not the weights of a network that run.perturb(...) does not name and an "
            "optimizer stepped"
        )
    return "" if list(one.curve) == list(other.curve) else "their scores after an epoch differ"


def scores_apart(one: RunRecord, other: RunRecord) -> str:
    """Return the first score that two runs differ in, in words; empty if all are equal."""
    for name in {**one.scores, **other.scores}:
        mine, theirs = one.scores.get(name), other.scores.get(name)
        if mine != theirs:
            return f"their scores differ: {name} is {mine} in one and {theirs} in the other"
    return ""


def epochs_apart(one: Sequence[str], other: Sequence[str]) -> str:
    """Return where two traces first differ, or that one has fewer epochs, in words; empty if they are equal."""
    for epoch, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return f"their weights differ after epoch {epoch} (from 0)"
    if len(one) == len(other):
        return ""
    return f"one completed {len(one)} of the first {TRACED_EPOCHS} epochs, the other {len(other)} {CACHE}"


def begins_later(trace: Sequence[str]) -> str:
    """Return the end of a sentence on final weights that differ after equal traces."""
    return f", though not in the first {len(trace)} epochs: what differs begins later" if trace else ""


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and tensor_digest(one) == tensor_digest(other))
