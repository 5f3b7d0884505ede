"""The certificate: what is proven of a task on one platform, that what is held is held and what varies varies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import IsolationError
from ..protocol import NoiseProtocol, Perturbation, RunPlan, Source
from ..store.record import RunRecord
from .control import difference


@dataclass(frozen=True)
class Certificate:
    """What is proven of a task: one for all studies of its base run, of which each shows what concerns it.

    The base run has every source at its constant. See docs/trust.md.
    """

    proven: bool  #: whether what is held is held, as far as `scope` says
    scope: str  #: what was trained twice, in words
    trace: tuple[str, ...] = ()  #: sha256 of the base run's model after each of its first epochs
    base: str = ""  #: fingerprint of the base run, once it is trained whole
    #: By source, and by what is perturbed: in which part of the training it was seen to act; "" if in none.
    alive: Mapping[str, str] = field(default_factory=dict)
    #: What a training reads: modules, files and variables with the digest of their content, and what is untraced.
    inputs: Mapping[str, Any] = field(default_factory=dict)
    #: Processes that trained runs of the study after they had shown no more than the first epoch of the base run.
    joined: int = 0

    @property
    def dead(self) -> tuple[str, ...]:
        """What was asked to vary, and moves nothing in a whole training."""
        return tuple(name for name, seen in self.alive.items() if not seen)

    def to_json(self) -> dict[str, Any]:
        """Return every field, by name."""
        return {**asdict(self), "trace": list(self.trace), "alive": dict(self.alive), "line": self.line()}

    def line(self) -> str:
        """Return the certificate in one line, for the report."""
        moved = [name for name, seen in self.alive.items() if seen]
        parts = [f"held: {self.scope}" if self.proven else self.scope]
        parts += [f"{self.joined} more process{'es' * (self.joined > 1)}: one epoch"] if self.joined else []
        parts += [f"alive: {', '.join(moved)}"] if moved else []
        parts += [f"moves nothing: {', '.join(self.dead)}"] if self.dead else []
        read = [
            f"{len(self.inputs[kind])} {kind}" for kind in ("modules", "files", "variables") if self.inputs.get(kind)
        ]
        parts += [f"traced: {', '.join(read)}"] if read else []
        return "; ".join(parts)


#: So many perturbations of one kind are tried: a training may absorb one ulp here and there.
_PERTURBATIONS = 3


def named(protocol: NoiseProtocol, sources: frozenset[Source] = frozenset(Source)) -> dict[str, list[RunPlan]]:
    """Return what a protocol names as varying, each with plans that move it alone away from the base run.

    Of ``"all"`` a task has no more than its ``sources``.

    >>> sorted(named(NoiseProtocol("init+shuffle", perturb="ulp", runs=2)))
    ['init', 'shuffle', 'ulp']
    """
    plans = {source.value: [protocol.moving_only(source)] for source in Source if source in protocol.vary & sources}
    if protocol.perturb is not None:
        alone = NoiseProtocol("none", protocol.perturb, protocol.runs, protocol.seed, dict(protocol.constants))
        plans[name_of(protocol.perturb)] = list(alone.plans()[:_PERTURBATIONS])
    return plans


def name_of(perturbation: Perturbation) -> str:
    """Return the name of a perturbation in a certificate: its kind, or all its fields where they are not the usual."""
    return perturbation.kind if perturbation == Perturbation(perturbation.kind) else repr(perturbation)


#: Where to look if something moves nothing.
_HINTS = {
    "init": "does a constructor call torch.manual_seed(...), or are all weights given?",
    "shuffle": "is all data one batch, or is its order drawn from another generator?",
    "augment": "is anything drawn for an example, and from the stream?",
    "stochastic": "has the model dropout, or another draw in a step? Is anything subsampled?",
    "low_level": "does an optimizer of torch's make the steps, with gradients? Other steps have none to round",
}


def why_dead(name: str, onset: int = 0) -> str:
    """Return the sentence about a source, or a perturbation, that moves nothing, or nothing from ``onset`` on."""
    if onset:
        return (
            f"{name} moves nothing from epoch {onset} on: is it drawn in earlier epochs only, or is the learning rate "
            f"0 by then?"
        )
    reached = "the weights" if name in _HINTS else "an output"
    hint = _HINTS.get(name, "is the weight that moves one that is used? Name another by Perturbation(parameter=...)")
    return f"{name} never reaches {reached} of this task: {hint}"


def from_onset(certificate: Certificate, protocol: NoiseProtocol, records: Iterable[RunRecord]) -> Certificate:
    """Return the certificate of a study whose runs show whether what varies moves anything from the onset on.

    A source was seen to act in the first epoch, and may no longer be used where the runs begin to differ.
    """
    trained = [record for record in records if record.status == "ok"]
    if not protocol.onset or len(trained) < 2 or any(difference(trained[0], other) for other in trained[1:]):
        return certificate
    return replace(certificate, alive={**certificate.alive, **{source.value: "" for source in protocol.vary}})


def check_alive(protocol: NoiseProtocol, certificate: Certificate) -> None:
    """Raise `IsolationError` where a verdict would be about something that moves nothing.

    A task may have nothing to augment and no dropout, so ``vary="all"`` names the sources that there are; initial
    parameters and an order every training has, and something must move.
    """
    always = {Source.INIT.value, Source.SHUFFLE.value} if protocol.vary == frozenset(Source) else None
    is_still = len(certificate.dead) == len(certificate.alive)
    dead = [name for name in certificate.dead if always is None or is_still or name in always]
    if dead:
        why = "; ".join(why_dead(name, protocol.onset) for name in dead)
        raise IsolationError(
            f"Expected everything that {protocol.name!r} names to move the training before a verdict says how far, "
            f"but {why} Mend it, or name in vary= only what this task has."
        )
