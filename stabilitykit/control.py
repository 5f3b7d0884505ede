"""The control: proof, before any number is shown, that what should be held is held."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch

from .errors import IsolationError, ProtocolError, UsageError
from .protocol import NoiseProtocol
from .run import TRACED_EPOCHS, StateDigest, combined_digest
from .seeding import GeneratorStates, seed_generators
from .training import UNSEEDED, Trainer

#: "auto": the first epochs twice, one full repeat where the loop cannot be stopped, nothing for a black box;
#: "full": one full repeat in any case.
ControlMode: TypeAlias = Literal["auto", "full"]


def check_mode(mode: object) -> None:
    """Raise `ProtocolError` for anything else."""
    if mode not in get_args(ControlMode):
        raise ProtocolError(f"Expected control='auto' or control='full' but got control={mode!r}.")


@dataclass(frozen=True)
class Control:
    """What was trained twice, and found bit-identical."""

    proven: bool
    scope: str  #: in words, for the report
    trace: tuple[str, ...] = ()  #: sha256 of the state after each epoch, to compare with the run of the study

    def to_json(self) -> dict[str, Any]:
        """Return every field, by name."""
        return {"proven": self.proven, "scope": self.scope, "trace": list(self.trace)}


def prove_isolation(trainer: Trainer, protocol: NoiseProtocol, mode: ControlMode = "auto") -> Control:
    """Train the first plan of ``protocol`` twice and compare the weights bit for bit.

    Raises `IsolationError` naming the first epoch and tensor that differ. Around the second, the process's own
    generators are seeded anew, so that a draw which escaped its stream would be seen.
    """
    if not trainer.task.isolates and mode == "auto":
        return Control(False, "not proven: a black box varies everything; control='full' trains one seed twice")
    plan = protocol.plans()[0]
    native = trainer.low_level(plan) in UNSEEDED
    if native:  # it has no seed to repeat: held for the control, so that everything else is proven
        plan = replace(plan, low_level=None)
    epochs = TRACED_EPOCHS if mode == "auto" else None
    try:
        first = trainer.rehearse(plan, epochs)
        with _scrambled_generators(trainer.device):
            second = trainer.rehearse(plan, epochs)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the run of this plan will say it, with its traceback
        return Control(False, f"not proven: the training raised {type(error).__name__}")
    _compare(first.trace, second.trace)
    stopped = epochs is not None and first.trained_epochs
    trained = f"the first {first.trained_epochs} epoch{'s' * (first.trained_epochs > 1)}" if stopped else "one run"
    scope = f"{trained} twice, bit-identical"
    # The runs of the study vary natively from the first step on, and the logits of a rehearsal are not in a trace.
    comparable = [] if native else [digest for digest in first.trace if "logits" not in digest]
    return Control(True, scope, tuple(map(combined_digest, comparable)))


@contextlib.contextmanager
def _scrambled_generators(device: torch.device) -> Iterator[None]:
    before = GeneratorStates.now(device)
    seed_generators(secrets.randbits(32), device)
    try:
        yield
    finally:
        before.put_back(device)


def _compare(first: list[StateDigest], second: list[StateDigest]) -> None:
    for epoch, (one, other) in enumerate(zip(first, second, strict=True)):
        differing = [name for name in one if one[name] != other.get(name)] or [
            name for name in other if name not in one
        ]
        if differing:
            in_logits = differing == ["logits"]
            place = "in the test logits" if in_logits else f"in {differing[0]!r} after epoch {epoch} (from 0)"
            more = f" and {len(differing) - 1} more tensors" if len(differing) > 1 else ""
            raise IsolationError(
                f"Expected two trainings under one plan to be bit-identical, but they differ {place}{more}. Something "
                f"that is held is not: a generator of its own (np.random.default_rng(), torch.Generator()), a call of "
                f"torch.seed(), state kept between runs, time, or threads. Take its seed from run.stream(...), or make "
                f"it anew inside the model or dataset."
            )
