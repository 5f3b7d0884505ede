"""The floor under an accuracy SD, which flips of single test examples give."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy.typing as npt

from .estimate import Estimate, Pivot
from .intervals import pairwise_estimate
from .metrics import excess_of, floor_of_churn


def floor_estimate(churn: npt.ArrayLike, examples: int) -> Estimate:
    """Estimate the SD of accuracy that N test examples have when they flip independently, in percentage points.

    `churn` ``[R, R]`` in percent in. The floor's square is the mean churn over pairs, divided by 2N; its bounds are
    those of that mean, from three runs on.

    >>> print(floor_estimate([[0, 10, 12, 9], [10, 0, 11, 10], [12, 11, 0, 13], [9, 10, 13, 0]], examples=500))
    1.04 [0.90, 1.17]
    """
    mean = pairwise_estimate(churn, percent_of=examples, least=0, most=100)
    value, low, high = (_root(percent, examples) for percent in (mean.value, mean.low, mean.high))
    return replace(mean, value=value, low=low, high=high, pivot=mean.pivot and FloorOfChurn(mean.pivot, examples))


@dataclass(frozen=True)
class FloorOfChurn(Pivot):
    """The distribution behind the interval of a flip floor: the root of the churn's."""

    churn: Pivot
    examples: int  #: N

    def low(self, error: float) -> float:
        return _root(self.churn.low(error), self.examples)

    def high(self, error: float) -> float:
        return _root(self.churn.high(error), self.examples)

    def after(self, runs: int) -> FloorOfChurn:
        return replace(self, churn=self.churn.after(runs))


def training_sd_estimate(accuracy_sd: Estimate, floor: Estimate, examples: int) -> Estimate:
    """Estimate the SD of accuracy on an endless test set, in points; 0 where the runs show none.

    The accuracy SD has the floor taken off, as squares are; its bounds come from those of the accuracy SD, since the
    floor is known far better. From few runs they are far apart: this explains a spread, and is nothing to judge it by.

    >>> floor = Estimate(0.20, 0.19, 0.21, runs=10, method="jackknife over runs")
    >>> print(training_sd_estimate(Estimate(0.30, 0.22, 0.49, runs=10, method="chi-square"), floor, examples=10_000))
    0.22 [0.09, 0.45]
    """
    if examples < 2:
        return Estimate.undefined(accuracy_sd.runs, "one test example cannot tell flips from training")
    share = examples / (examples - 1)
    bounds = (accuracy_sd.value, accuracy_sd.low, accuracy_sd.high)
    value, low, high = (math.sqrt(max(0.0, (sd**2 - floor.value**2) * share)) for sd in bounds)
    return Estimate(value, low, high, accuracy_sd.runs, "what is left of the accuracy SD above the flip floor")


def where_from(accuracy_sd: Estimate, floor: Estimate, examples: int) -> str:
    """Say how much of an accuracy SD comes from flips of single examples, and how much from better or worse models.

    >>> floor = Estimate(0.20, 0.19, 0.21, runs=10, method="jackknife over runs")
    >>> print(where_from(Estimate(0.30, 0.22, 0.49, runs=10, method="chi-square"), floor, examples=10_000))
    accuracy SD 0.30 points: 10000 test examples that flip independently give 0.20, and models that are better or \
worse as a whole add 0.22 (squares add; from flips alone an SD as large has probability 0.016)
    """
    training = training_sd_estimate(accuracy_sd, floor, examples)
    chance = excess_of(accuracy_sd.value, floor.value, accuracy_sd.runs)
    return (
        f"accuracy SD {accuracy_sd.value:.2f} points: {examples} test examples that flip independently give "
        f"{floor.value:.2f}, and models that are better or worse as a whole add {training.value:.2f} (squares add; "
        f"from flips alone an SD as large has probability {chance:.2g})"
    )


def _root(percent: float, examples: int) -> float:
    return floor_of_churn(percent, examples) if math.isfinite(percent) else percent
