"""How fast the runs of a study drift apart in training: SD and range of a score after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import TaskError
from ..estimates.estimate import Estimate, finite
from ..estimates.intervals import sd_estimate
from ..estimates.metrics import central_range, runs_to_reach_inside, share_inside
from ..estimates.scores import score_kind
from ..public import public
from ..render.columns import aligned
from ..store.record import RunRecord

#: Most rows of a printed table; more epochs than these are thinned, later ones more.
_ROWS = 20


@dataclass(frozen=True)
class EpochSpread:
    """A score over R runs after one epoch, in its unit: percent for accuracy, nats for cross-entropy."""

    epoch: int  #: epochs trained so far, from 1
    mean: float
    sd: Estimate  #: ddof=1
    low: float  #: 2.5th percentile over runs; NaN where a run has no number
    high: float  #: 97.5th percentile

    def to_json(self) -> dict[str, Any]:
        """Return every field by name; null stands for what is undefined."""
        numbers = {name: finite(getattr(self, name)) for name in ("mean", "low", "high")}
        return {"epoch": self.epoch, "sd": self.sd.to_json(), **numbers}


@public
@dataclass(frozen=True)
class Growth:
    """SD, mean and central 95 % range of a score after each epoch (Summers & Dinneen, figure 3, appendix C).

    Print it for a table, in which many epochs are thinned, the later ones more.
    """

    task: str
    varies: str  #: what differs between the runs, as tables name it
    score: str
    runs: int  #: R
    epochs: tuple[EpochSpread, ...]

    @property
    def peak(self) -> EpochSpread:
        """The epoch with the largest SD, the first of equals."""
        defined = [spread for spread in self.epochs if not spread.sd.is_undefined]
        return max(defined, key=lambda spread: spread.sd.value, default=self.epochs[0])

    def to_json(self) -> dict[str, Any]:
        """Return every field by name, and the share of further runs that a range over R runs holds."""
        asked = {"task": self.task, "varies": self.varies, "score": self.score, "runs": self.runs}
        epochs = [spread.to_json() for spread in self.epochs]
        return {**asked, "range_holds": share_inside(self.runs), "epochs": epochs}

    def __str__(self) -> str:
        title = f"{self.score} of {self.task} [{self.varies}], {self.runs} runs, peak SD after epoch {self.peak.epoch}"
        rows = [("epoch", "mean", "SD", "95 % range, less the mean")]
        rows += [_row(spread) for spread in _thinned(self.epochs)]
        return "\n".join([title, *aligned(rows, ">>>>"), self._about_range()])

    def _about_range(self) -> str:
        enough = runs_to_reach_inside()
        between = f" lies between the two outermost runs on either side (fewer than {enough}) and"
        return (
            f"95 % range: of {self.runs} runs it{between if self.runs < enough else ''} holds about "
            f"{100 * share_inside(self.runs):.0f} % of further runs"
        )


def growth_of(records: Sequence[RunRecord], score: str, task: str, varies: str) -> Growth:
    """Return the spread of a score after each epoch, from the runs' curves; raises `TaskError` if any has none."""
    lengths = {record.index: len(record.curve) for record in records}
    if not any(lengths.values()):
        raise TaskError(
            f"Expected runs that were scored after every epoch, but those of {task} kept no curve. "
            f"Train a Recipe or LanguageRecipe with curve=True; models from a train function, and ensembles, have none."
        )
    if len(set(lengths.values())) > 1:
        run, other = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise TaskError(
            f"Expected curves of as many epochs in every run of {task}, but run {run} has {lengths[run]} and run "
            f"{other} has {lengths[other]}: an epoch would be compared over some of the runs only."
        )
    kept = [name for name in records[0].curve[0] if all(name in point for run in records for point in run.curve)]
    if score not in kept:
        raise TaskError(
            f"Expected a score that the curves of {task} have but got {score!r}. They have {', '.join(kept)}."
        )
    scores = torch.tensor([[point[score] for point in record.curve] for record in records], dtype=torch.float64)
    lows, highs = central_range(scores)
    robust, epochs = score_kind(score).has_heavy_tails, []
    for epoch, (of_runs, low, high) in enumerate(zip(scores.T, lows, highs, strict=True), start=1):
        sd = sd_estimate(of_runs.numpy(), robust=robust, resamples=0)
        epochs.append(EpochSpread(epoch, float(of_runs.mean()), sd, float(low), float(high)))
    return Growth(task, varies, score, len(records), tuple(epochs))


def _thinned(epochs: Sequence[EpochSpread]) -> list[EpochSpread]:
    if len(epochs) <= _ROWS:
        return list(epochs)
    ratio = len(epochs) ** (1 / (_ROWS - 1))
    return [epochs[i - 1] for i in sorted({min(len(epochs), round(ratio**row)) for row in range(_ROWS)})]


def _row(spread: EpochSpread) -> tuple[str, str, str, str]:
    # Less the mean: the bounds of runs that differ by 1e-9, as those of a linear model do, would look equal.
    bounds = f"{spread.low - spread.mean:+.2g} to {spread.high - spread.mean:+.2g}"
    return str(spread.epoch), f"{spread.mean:.4g}", str(spread.sd), bounds
