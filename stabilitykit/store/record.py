"""The result of one training: outputs or scores, and how it went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..public import public

if TYPE_CHECKING:
    from torch import Tensor  # reading headers needs no torch

Status = Literal["ok", "failed", "crashed", "timeout"]

#: Fields of a record that have files of their own.
ARRAYS = ("logits", "weights")

#: Fields that are written only where a run has them.
SELDOM = ("further_weights", "idle", "inputs", "intercepted", "scores")


@public
@dataclass(frozen=True, eq=False)
class RunRecord:
    """The result of one `RunPlan`: outputs on the test set, or the reason why there are none."""

    index: int  #: position in the study, from 0
    seeds: Mapping[str, int | None]  #: of each source; None if low-level operations were held deterministic
    status: Status  #: "crashed" is a process that died while it trained this run; "timeout" one that took too long
    seconds: float  #: of training and scoring
    #: ``[N, ..., C]``, or regression outputs ``[N, ...]``; None unless status is "ok", and if it left scores alone or
    #: only its weights are kept
    logits: Tensor | None = None
    weights: Mapping[str, Tensor] | None = None  #: the final state dict, each tensor read when it is asked for
    scores: Mapping[str, float] = field(default_factory=dict)  #: numbers that the training returned, by name
    fingerprint: str = ""  #: sha256 of the final state dict; of logits and scores if the model is not known
    further_weights: str = ""  #: sha256 of the weights that optimizers stepped beside those of the model; "" if none
    idle: bool = False  #: whether no optimizer of torch's made a step
    inputs: Mapping[str, Any] = field(
        default_factory=dict
    )  #: what it read while it trained, until it is published; see `Inputs`
    #: How often a draw of the user's code was taken to its source, by kind; see `Intercepted`.
    intercepted: Mapping[str, Any] = field(default_factory=dict)
    trace: tuple[str, ...] = ()  #: sha256 of the state dict after each of the first epochs
    curve: tuple[Mapping[str, float], ...] = ()  #: test metrics after each epoch
    perturbation: Mapping[str, Any] | None = None  #: the weight that was moved, see `PerturbationRecord`
    #: How low_level acts: "deterministic", "gradient rounding" (the seeded stand-in), "native" or "not isolated".
    #: " of M of N parameters" follows where the stand-in did not reach all that can be trained.
    low_level: str = "deterministic"
    error: str = ""  #: traceback of a failed run
    environment: Mapping[str, Any] = field(default_factory=dict)
    trained_by: Mapping[str, Any] = field(default_factory=dict)  #: session, worker, process, host, time, attempt

    @property
    def trained_nothing(self) -> bool:
        """Whether the run is known to have completed no epoch, and no step of an optimizer."""
        return self.idle and not self.trace

    def to_json(self) -> dict[str, Any]:
        """Return every field but logits and weights, in JSON's types."""
        values = {name: value for name, value in vars(self).items() if name not in ARRAYS}
        for name in SELDOM:
            if not values[name]:
                del values[name]
        values |= {"scores": dict(self.scores)} if self.scores else {}
        return values | {"seeds": dict(self.seeds), "trace": list(self.trace), "curve": [dict(c) for c in self.curve]}

    @classmethod
    def from_json(
        cls, values: Mapping[str, Any], logits: Tensor | None, weights: Mapping[str, Tensor] | None = None
    ) -> RunRecord:
        """Return the record that `to_json` wrote."""
        values = {**values, "trace": tuple(values["trace"]), "curve": tuple(values["curve"])}
        return cls(**values, logits=logits, weights=weights)
