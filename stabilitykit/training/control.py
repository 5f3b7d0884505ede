"""The control: proof, before any number is shown, that the held sources are held."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from ..errors import IsolationError, ProtocolError, StoreError, UsageError
from ..protocol import NoiseProtocol
from .run import TRACED_EPOCHS, Run, combined_digest
from .streams import Stream
from .trainer import UNSEEDED, Trainer

#: "auto" trains the first epochs that vary twice, or one full run twice if the loop cannot be stopped, and proves
#: nothing for a black box; "full" trains one full run twice in any case.
ControlMode: TypeAlias = Literal["auto", "full"]

#: The usual causes of two trainings that differ, and how to mend them.
_LEAK = (
    "Something that is held is not: a generator of its own (np.random.default_rng(), torch.Generator()), a call of "
    "torch.seed(), state kept between runs, time, or threads. Take its seed from run.stream(...), or make it anew "
    "inside the model or dataset."
)


def check_mode(mode: object) -> None:
    """Raise `ProtocolError` for anything but a `ControlMode`."""
    if mode not in get_args(ControlMode):
        raise ProtocolError(f"Expected control='auto' or control='full' but got control={mode!r}.")


@dataclass(frozen=True)
class Control:
    """The outcome of the control: which epochs were trained twice, and whether that proved anything."""

    proven: bool
    scope: str  #: in words, for the report
    trace: tuple[str, ...] = ()  #: sha256 of the state after each epoch, to compare with the run of the study

    def to_json(self) -> dict[str, Any]:
        """Return every field, by name."""
        return {"proven": self.proven, "scope": self.scope, "trace": list(self.trace)}


def prove_isolation(trainer: Trainer, protocol: NoiseProtocol, mode: ControlMode = "auto") -> Control:
    """Train the first plan of ``protocol`` twice and compare the weights bit for bit.

    Raises `IsolationError` naming the first epoch and tensor that differ. Around the second, the process's own
    generators are seeded anew, so that a draw outside of all streams would be noticed.
    """
    if not trainer.task.isolates and mode == "auto":
        return Control(False, "not proven: a black box varies everything; control='full' trains one seed twice")
    plan = protocol.plans()[0]
    native = trainer.low_level(plan) in UNSEEDED
    if native:  # it has no seed to repeat: it is held for the control, which proves the other sources
        plan = replace(plan, low_level=None)
    epochs = TRACED_EPOCHS if mode == "auto" else None
    try:
        # Once a task the first is trained from the start: a training from a stored state must have its bits.
        proves = trainer.prefixes is not None and not trainer.prefixes.is_proven
        first = trainer.rehearse(plan, epochs, from_start=proves)
        with Stream(secrets.randbits(32), trainer.device):
            second = trainer.rehearse(plan, epochs)
    except (UsageError, StoreError):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the run of this plan will say it, with its traceback
        return Control(False, f"not proven: the training raised {type(error).__name__}")
    _compare(first, second)
    if trainer.prefixes is not None and proves and second.resumed_at:
        trainer.prefixes.note_proof()
    trained = "one run"
    if epochs is not None and first.trained_epochs:
        count, onset = first.trained_epochs - plan.first_varied_epoch, plan.first_varied_epoch
        trained = f"the first {count} epoch{'s' * (count > 1)}{f' from epoch {onset} on' * bool(onset)}"
    scope = f"{trained} twice, bit-identical"
    # The runs of the study vary natively from the first step on, and the logits of a rehearsal are not in a trace.
    comparable = [] if native else [digest for digest in first.trace if "logits" not in digest]
    return Control(True, scope, tuple(map(combined_digest, comparable)))


def _compare(first: Run, second: Run) -> None:
    for epoch, (one, other) in enumerate(zip(first.trace, second.trace, strict=False), first.plan.first_varied_epoch):
        differing = [name for name in one | other if one.get(name) != other.get(name)]
        if differing:
            in_logits = differing == ["logits"]
            place = "in the test logits" if in_logits else f"in {differing[0]!r} after epoch {epoch} (from 0)"
            more = f" and {len(differing) - 1} more tensors" if len(differing) > 1 else ""
            if first.resumed_at != second.resumed_at:
                raise IsolationError(
                    f"Expected a training that goes on from its stored first epochs to have the bits of one from the "
                    f"start, but they differ {place}{more}. {_LEAK} Or a state goes on from epoch to epoch that is in "
                    f"no tensor of the model or its optimizer: keep it in a buffer of the model, or write train(run), "
                    f"whose runs are all trained from the start."
                )
            raise IsolationError(
                f"Expected two trainings under one plan to be bit-identical, but they differ {place}{more}. {_LEAK}"
            )
    if first.trained_epochs != second.trained_epochs:
        raise IsolationError(
            f"Expected two trainings under one plan to be bit-identical, but one trained {first.trained_epochs} "
            f"epoch{'s' * (first.trained_epochs != 1)}, the other {second.trained_epochs}. {_LEAK}"
        )
