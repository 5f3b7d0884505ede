"""How much less one study varies than another: the paper's variability reduction, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import TaskError
from ..estimates.distributions import Floats, t_quantile
from ..estimates.estimate import IDENTICAL_RUNS, Estimate, Pivot
from ..estimates.measure_kinds import kind_of
from ..estimates.measures import Measures
from ..estimates.ratios import Ratio, spread_of
from ..estimates.search import fewest
from ..public import public
from ..verdicts.judgement import Judgement, Outcome
from ..verdicts.undecided import advice

#: Error rate of each bound, and of either verdict.
_LEVEL = 0.05


@public
@dataclass(frozen=True)
class Reduction:
    """Relative drops of the five measures of variability, with correlation taken as 1 - rho, and their mean.

    All are in percent, negative where variability grew. The runs of both studies are taken as independent of each
    other. Source: Summers & Dinneen, ICML 2021, section 5.

    >>> import torch
    >>> from stabilitykit.testing import fake_study
    >>> labels, noise = torch.arange(90) % 3, torch.randn(8, 90, 3, generator=torch.Generator().manual_seed(0))
    >>> sure = 2.0 * torch.nn.functional.one_hot(labels, 3)
    >>> plain, calmer = fake_study(sure + noise, labels), fake_study(sure + 0.5 * noise, labels)
    >>> reduction = calmer.reduction_against(plain)
    >>> print(f"{reduction.estimate:.0f}", reduction.decide(at_least=0))
    75 [67, 81] Outcome.PASS
    """

    estimate: Estimate  #: mean of the drops, percent; its interval is a jackknife's over the runs of both studies
    parts: Mapping[str, Estimate]  #: each drop, percent, by measure

    @property
    def value(self) -> float:
        """Mean of the drops, percent."""
        return self.estimate.value

    @property
    def drops(self) -> Mapping[str, float]:
        """Each drop without its interval, percent, by measure."""
        return {name: part.value for name, part in self.parts.items()}

    @classmethod
    def between(cls, measures: Measures, baseline: Measures) -> Reduction:
        """Compare two studies of one task."""
        if measures.main_delta != baseline.main_delta:
            raise TaskError("Expected two studies of one task, but one is a classification and the other is not.")
        names = [name for name in baseline.of_variability if name in measures]
        ratios = {name: Ratio(*(spread_of(name, of[name]) for of in (measures, baseline))) for name in names}
        still = [name for name, ratio in ratios.items() if ratio.below.value == 0]
        if still:
            raise TaskError(
                f"Expected a baseline that varies, but it has no variability of {', '.join(still)} that could be "
                f"reduced. Vary a source in it, or train more runs."
            )
        parts = {name: _drop(ratio) for name, ratio in ratios.items()}
        return cls(_mean_drop(measures, baseline, ratios), parts)

    def decide(self, at_least: float) -> Outcome:
        """Return PASS where the mean drop is shown to be ``at_least`` percent, FAIL where less; each errs in 5 %."""
        return Outcome.FAIL if self.estimate.is_undefined else _decide(self.estimate, at_least)

    def reason(self, at_least: float) -> str:
        """Give the outcome in one sentence, with the numbers and what to do next."""
        estimate = f"mean reduction {self.estimate} % over {self.estimate.runs} runs"
        outcome = self.decide(at_least)
        if self.estimate.is_undefined:
            return f"mean reduction is undefined ({self.estimate.method}), and what cannot be measured cannot pass."
        if outcome is Outcome.PASS:
            return f"{estimate} is shown to be at least {at_least:g} %."
        if outcome is Outcome.FAIL:
            return f"{estimate} is below the {at_least:g} % that are wanted, and so is its whole interval."
        roughly = "at least" if self.estimate.pivot is None else "about"
        more = advice(self.runs_to_settle(at_least), roughly, ", of both studies")
        return f"{estimate} is neither shown to be at least {at_least:g} % nor to be less; {more}."

    def reach(self, at_least: float) -> float:
        """Return the variability that is left, in multiples of the most that may be; a self-test drives it to 2."""
        return (100 - self.value) / (100 - at_least) if at_least < 100 else math.inf

    def to_json(self) -> dict[str, Any]:
        """Return the mean and its parts as JSON's types."""
        return {"mean": self.estimate.to_json(), "parts": {name: part.to_json() for name, part in self.parts.items()}}

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {part:.0f}" for name, part in self.parts.items())
        return f"{self.estimate:.0f} % less variability ({parts})"

    def runs_to_settle(self, at_least: float) -> int | None:
        """Return the fewest runs of both studies that would decide it; None if decided, or 1000 runs would not do."""
        if self.decide(at_least) is not Outcome.UNDECIDED:
            return None
        estimate, more = self.estimate, self.estimate.runs + 1
        if estimate.pivot is None:
            return max(3, more)
        return fewest(lambda runs: _decide(estimate.after(runs), at_least) is not Outcome.UNDECIDED, more)


@dataclass(frozen=True)
class ReductionJudgement(Judgement):
    """Whether a study varies less than a baseline by as much as a test asks for."""

    found: Reduction
    at_least: float  #: percent
    baseline: str  #: name of the baseline's task
    name: ClassVar[str] = "reduction"
    is_relative: ClassVar[bool] = True

    @property
    def outcome(self) -> Outcome:
        """FAIL where the mean drop is shown to be less, PASS where it is shown to be that much."""
        return self.found.decide(self.at_least)

    @property
    def reason(self) -> str:
        return self.found.reason(self.at_least)

    @property
    def runs_to_settle(self) -> int | None:
        return self.found.runs_to_settle(self.at_least)

    def to_json(self) -> dict[str, Any]:
        asked = {"outcome": self.outcome.value, "baseline": self.baseline, "at_least": self.at_least}
        return {"kind": self.name, **asked, **self.found.to_json(), "reason": self.reason}


@dataclass(frozen=True)
class Drop(Pivot):
    """The distribution behind the interval of a drop, which is 100 (1 - ratio) percent."""

    ratio: Ratio

    def low(self, error: float) -> float:
        return 100 * (1 - self.ratio.high(error))

    def high(self, error: float) -> float:
        return 100 * (1 - self.ratio.low(error))

    def after(self, runs: int) -> Drop:
        return Drop(self.ratio.after(runs))


@dataclass(frozen=True)
class MeanDrop(Pivot):
    """The distribution behind the interval of a mean of drops: the logarithm of the mean ratio is Student's t.

    No drop can exceed 100 %, and a ratio of SDs is skewed: on its own scale the upper tail errs too often.
    """

    ratio: float  #: mean of the ratios
    error: float  #: standard error of its logarithm
    runs: int  #: of the study that has fewer

    def low(self, error: float) -> float:
        return 100 * (1 - self.ratio * self._factor(error))

    def high(self, error: float) -> float:
        return 100 * (1 - self.ratio / self._factor(error))

    def after(self, runs: int) -> MeanDrop:
        return replace(self, error=self.error * math.sqrt(self.runs / runs), runs=runs)

    def _factor(self, error: float) -> float:
        return math.exp(min(700.0, -t_quantile(error, self.runs - 1) * self.error))  # exp(710) overflows


def _decide(estimate: Estimate, at_least: float) -> Outcome:
    drop = estimate.at(_LEVEL, _LEVEL)
    if drop.low >= at_least:
        return Outcome.PASS
    return Outcome.FAIL if drop.high < at_least else Outcome.UNDECIDED


def _drop(ratio: Ratio) -> Estimate:
    value = 100 * (1 - ratio.value)
    if ratio.is_undefined:
        return Estimate.undefined(ratio.runs, "a pair of runs has no value")
    if ratio.is_exact:  # the baseline varies, so it is the study whose runs are equal
        return Estimate(value, value, value, ratio.runs, IDENTICAL_RUNS)
    if not ratio.has_interval:
        return Estimate(value, -math.inf, math.inf, ratio.runs, "one pair, no interval")
    drop = Drop(ratio)
    return Estimate(value, drop.low(_LEVEL), drop.high(_LEVEL), ratio.runs, "ratio of spreads", pivot=drop)


def _mean_drop(measures: Measures, baseline: Measures, ratios: Mapping[str, Ratio]) -> Estimate:
    ratio = sum(ratio.value for ratio in ratios.values()) / len(ratios)
    runs = min(ratio.runs for ratio in ratios.values())
    if math.isnan(ratio):
        return Estimate.undefined(runs, "a pair of runs has no value")
    value = 100 * (1 - ratio)
    if ratio == 0:
        return Estimate(value, value, value, runs, IDENTICAL_RUNS)
    without = [[_without_each_run(of, name) for name in ratios] for of in (measures, baseline)]
    above, below = zip(*((of.above.value, of.below.value) for of in ratios.values()), strict=True)
    error = log_ratio_error(without[0], without[1], above, below)
    if not math.isfinite(error):
        return Estimate(value, -math.inf, math.inf, runs, "without one run nothing varies, no interval")
    pivot = MeanDrop(ratio, error, runs)
    return Estimate(value, pivot.low(_LEVEL), pivot.high(_LEVEL), runs, "jackknife over the runs of both", pivot=pivot)


def log_ratio_error(
    above_without: list[Floats], below_without: list[Floats], above: Sequence[float], below: Sequence[float]
) -> float:
    """Return the standard error of the logarithm of a mean of ratios, by a jackknife over two samples of runs.

    ``above`` and ``below`` are the spreads of both studies, a number a measure; those ``_without`` each run in turn
    are ``[R]`` a measure. The two variances are added, as the runs of one study are independent of the other's. NaN or
    infinite where a study of two runs leaves none to compare, or where nothing varies without some run.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        without_above = np.mean([spread / base for spread, base in zip(above_without, below, strict=True)], axis=0)
        without_below = np.mean([spread / base for spread, base in zip(above, below_without, strict=True)], axis=0)
        logarithms = np.log(without_above), np.log(without_below)
        squares = ((len(logs) - 1) / len(logs) * float(np.square(logs - logs.mean()).sum()) for logs in logarithms)
        return math.sqrt(sum(squares))


def _without_each_run(measures: Measures, name: str) -> Floats:
    """Return a spread without each run in turn, ``[R]``; NaN where two runs are one pair."""
    kind = kind_of(name)
    if kind.is_sd:
        return sds_without_each_run(measures.of_runs(kind.score).numpy())
    pairs = measures.pairs(name).numpy()
    means = means_without_each_run(1 - pairs if kind.is_likeness else pairs)
    return np.abs(means)


def sds_without_each_run(scores: Floats) -> Floats:
    """Return the SDs of R scores ``[R]`` without each in turn, ``[R]``.

    >>> sds_without_each_run(np.array([1.0, 2.0, 4.0])).round(2).tolist()
    [1.41, 2.12, 0.71]
    """
    runs = len(scores)
    if runs < 3:
        return np.full(runs, math.nan)
    left = np.broadcast_to(scores, (runs, runs))[~np.eye(runs, dtype=bool)].reshape(runs, runs - 1)
    sds: Floats = (left - left[:, :1]).std(axis=1, ddof=1)  # the SD of equal numbers is exactly 0
    return sds


def means_without_each_run(pairs: Floats) -> Floats:
    """Return the means over pairs ``[R, R]`` without each run in turn, ``[R]``.

    >>> means_without_each_run(np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])).tolist()
    [3.0, 2.0, 1.0]
    """
    runs = len(pairs)
    if runs < 3:
        return np.full(runs, math.nan)
    of_run = np.where(np.eye(runs, dtype=bool), 0.0, pairs).sum(axis=1)
    means: Floats = (of_run.sum() - 2 * of_run) / ((runs - 1) * (runs - 2))
    return means
