"""Intervals for what R runs show: a mean, an SD, and the mean of a measure over all pairs of runs.

Bounds are one-sided 5 % bounds each; `Estimate.at` gives those of any other error rate. Which interval for which
statistic, and the error rates that were measured for each, is docs/statistics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import ProtocolError
from .distributions import Floats, chi2_upper_quantile, t_cdf, t_quantile
from .estimate import IDENTICAL_RUNS, Estimate, Pivot

#: Error rate of each bound of an estimate, before a gate asks for another.
_LEVEL = 0.05

#: Resamples of the bootstrap behind the "±" of the paper's tables.
_RESAMPLES = 10_000


def mean_estimate(values: npt.ArrayLike) -> Estimate:
    """Estimate the mean of a score over runs, with Student's t interval.

    Values ``[R]`` in; the estimate has their unit.

    >>> print(mean_estimate([90.1, 90.4, 89.9, 90.0, 90.3]))
    90.14 [89.94, 90.34]
    """
    values = _of_runs(values)
    runs = len(values)
    if not np.isfinite(values).all():
        return Estimate.undefined(runs, "a run's value is not finite")
    mean, of_runs = values[0] + _deviations(values).mean(), tuple(values.tolist())
    if (values == values[0]).all():
        return Estimate(mean, mean, mean, runs, IDENTICAL_RUNS, of_runs=of_runs)
    pivot = StudentT(mean, exact_sd(values) / math.sqrt(runs), runs)
    return replace(_estimate(mean, pivot, runs, "Student t"), of_runs=of_runs)


def p_above(values: npt.ArrayLike) -> float:
    """Return a one-sided p-value against a mean of 0 or less: the larger of Student's and of Johnson's.

    Values ``[R]`` of three runs or more in. Johnson's statistic takes the skewness of the sample into account (Johnson,
    1978, *Modified t tests and confidence intervals for asymmetrical populations*); Student's alone errs in 16 % of
    exponential samples of five.

    >>> round(p_above([0.2, 0.5, -0.1, 0.3, 0.4]), 3)  # Student's alone: 0.032
    0.108
    """
    values = _of_runs(values)
    runs, mean, sd = len(values), float(values.mean()), exact_sd(values)
    if sd == 0:
        return 0.0 if mean > 0 else 1.0
    third = float(((values - mean) ** 3).sum()) * runs / ((runs - 1) * (runs - 2))
    skewed = mean + third / (6 * sd**2 * runs) + third * mean**2 / (3 * sd**4)
    return max(t_cdf(-shift * math.sqrt(runs) / sd, runs - 1) for shift in (mean, skewed))


def sd_estimate(values: npt.ArrayLike, *, robust: bool = False, resamples: int | None = None) -> Estimate:
    """Estimate the SD of a score between runs (``ddof=1``), with the chi-square interval.

    Values ``[R]`` in; the estimate has their unit. The SD of R equal numbers is exactly 0.

    ``robust`` is for scores with heavy tails, such as cross-entropy: from four runs on, it lets the sample's excess
    kurtosis take away degrees of freedom, which widens the interval (Shoemaker, 2003; docs/statistics.md). ``sd_of_sd``
    is the bootstrap figure that the paper prints, from ``resamples`` (10,000 if not given). With 0 it is None, which is
    a hundred times as fast. The figure is too small for a gate when R is 30 or less.

    >>> print(sd_estimate([90.1, 90.4, 89.9, 90.0, 90.3]))
    0.21 [0.13, 0.49]
    """
    values = _of_runs(values)
    runs = len(values)
    if not np.isfinite(values).all():
        return Estimate.undefined(runs, "a run's value is not finite")
    sd = exact_sd(values)
    if sd == 0:
        return Estimate(0, 0, 0, runs, IDENTICAL_RUNS, sd_of_sd=0)
    adjusted = robust and runs >= 4
    df = _kurtosis_df(values) if adjusted else runs - 1.0
    method = "chi-square, kurtosis df" if adjusted else "chi-square"
    resamples = _RESAMPLES if resamples is None else resamples  # read now: simulations set it
    spread = _sd_of_sd(values, resamples) if resamples else None
    return _estimate(sd, ChiSquare(sd, df, runs), runs, method, sd_of_sd=spread)


def pairwise_estimate(
    pairs: npt.ArrayLike, *, percent_of: int | None = None, least: float = -math.inf, most: float = math.inf
) -> Estimate:
    """Estimate the mean of a measure over all pairs of runs, with a jackknife over runs.

    Symmetric ``[R, R]`` in, whose diagonal is what a run scores with itself; the estimate has the unit of the entries.
    Pairs share runs, so they are not independent: each run in turn is left out, never a pair
    (docs/statistics.md). Two runs are one pair, which shows no spread between pairs: the bounds are then -inf and inf.

    ``percent_of`` is N where an entry is a percentage of N test examples, as disagreement is: the standard error then
    has a floor, since few runs can tie in it by chance. Bounds are cut at ``least`` and ``most``, where it ends.

    >>> print(pairwise_estimate([[0, 10, 12, 9], [10, 0, 11, 10], [12, 11, 0, 13], [9, 10, 13, 0]]))
    10.8 [8.0, 13.6]
    """
    pairs = np.asarray(pairs, dtype=np.float64)
    runs = len(_of_runs(pairs.diagonal()))
    if not np.isfinite(pairs).all():
        return Estimate.undefined(runs, "a pair of runs has no value, such as the correlation of constant outputs")
    if is_constant(pairs):
        return Estimate(pairs[0, 0], pairs[0, 0], pairs[0, 0], runs, IDENTICAL_RUNS)
    of_run = means_with_others(pairs)
    mean = of_run.mean()
    if runs == 2:
        return Estimate(mean, -math.inf, math.inf, runs, "one pair, no interval")
    error = 2 / (runs - 2) * math.sqrt((runs - 1) / runs * np.square(of_run - mean).sum())
    if percent_of is not None:
        error = max(error, error_floor(mean, runs, percent_of))
    return _estimate(mean, StudentT(mean, error, runs, least, most), runs, "jackknife over runs")


@dataclass(frozen=True)
class ChiSquare(Pivot):
    """The distribution behind the interval of an SD of normal scores: df SD² / truth² is chi-square.

    It is skewed, so bounds of a rate near one half could lie on the wrong side of the SD; they then are the SD.

    >>> sd = ChiSquare(sd=1.0, df=9, runs=10)
    >>> round(sd.low(0.05), 3), round(sd.high(0.05), 3)
    (0.729, 1.645)
    """

    sd: float
    df: float  #: R - 1, or fewer where tails are heavy
    runs: int

    def low(self, error: float) -> float:
        return min(self.sd, self.sd * math.sqrt(self.df / chi2_upper_quantile(error, self.df)))

    def high(self, error: float) -> float:
        return max(self.sd, self.sd * math.sqrt(self.df / chi2_upper_quantile(1 - error, self.df)))

    def after(self, runs: int) -> ChiSquare:
        """Return the distribution of the same SD over ``runs``; its tails cost the same share of degrees of freedom."""
        return replace(self, df=self.df / (self.runs - 1) * (runs - 1), runs=runs)


@dataclass(frozen=True)
class StudentT(Pivot):
    """The distribution behind the interval of a mean with an estimated standard error, cut where the measure ends."""

    mean: float
    error: float  #: standard error of the mean
    runs: int
    least: float = -math.inf
    most: float = math.inf

    def low(self, error: float) -> float:
        return max(self.mean - self._margin(error), self.least)

    def high(self, error: float) -> float:
        return min(self.mean + self._margin(error), self.most)

    def after(self, runs: int) -> StudentT:
        """Return the distribution of the same mean over ``runs``: its standard error falls with their root."""
        return replace(self, error=self.error * math.sqrt(self.runs / runs), runs=runs)

    def _margin(self, error: float) -> float:
        return -t_quantile(error, self.runs - 1) * self.error


def _estimate(
    value: float, pivot: ChiSquare | StudentT, runs: int, method: str, sd_of_sd: float | None = None
) -> Estimate:
    return Estimate(value, pivot.low(_LEVEL), pivot.high(_LEVEL), runs, method, pivot=pivot, sd_of_sd=sd_of_sd)


def _of_runs(values: npt.ArrayLike) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ProtocolError(
            f"Expected runs >= 2 but got runs={len(values)}. A spread is between runs, so it needs two; ten is a usual "
            "start.",
            runs=10,
        )
    return values


def _deviations(values: Floats) -> Floats:
    # From the first value, because a mean is rounded: equal numbers would then deviate from it.
    deviations: Floats = values - values[0]
    return deviations


def exact_sd(values: Floats) -> float:
    """Return the SD of numbers (``ddof=1``), which is exactly 0 where they are equal.

    >>> exact_sd(np.array([0.1, 0.1, 0.1])), exact_sd(np.array([1.0, 3.0]))
    (0.0, 1.4142135623730951)
    """
    return float(_deviations(values).std(ddof=1))


def means_with_others(pairs: Floats) -> Floats:
    """Return the mean over each run's pairs with the others, ``[R]``, of a symmetric ``[R, R]``."""
    runs = len(pairs)
    means: Floats = pairs[~np.eye(runs, dtype=bool)].reshape(runs, runs - 1).mean(axis=1)
    return means


def is_constant(pairs: Floats) -> bool:
    """Whether each pair of runs scores what a run scores with itself: all runs are equal."""
    return bool((pairs == pairs[0, 0]).all())


def tail_share(columns: Floats) -> float:
    """Return the share of the degrees of freedom that heavy tails leave, on average over columns ``[R, K]`` that vary.

    >>> tail_share(np.array([[1.0], [2.0], [4.0], [5.0]]))  # no tails to speak of
    1.0
    """
    if len(columns) < 4:
        return 1.0
    return float(np.mean([_kurtosis_df(column) for column in columns.T])) / (len(columns) - 1)


def _kurtosis_df(values: Floats) -> float:
    count = len(values)
    scaled = _deviations(values) / exact_sd(values)  # fourth powers of small numbers underflow
    moments = [np.mean((scaled - scaled.mean()) ** power) for power in (2, 4)]
    biased = moments[1] / moments[0] ** 2 - 3
    excess = (count - 1) / ((count - 2) * (count - 3)) * ((count + 1) * biased + 6)  # Fisher's G2, unbiased
    return float((count - 1) / (1 + max(excess, 0) / 2))


def _sd_of_sd(values: Floats, resamples: int) -> float:
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    drawn = np.sort(_deviations(values))[draws]  # sorted, so that the order of runs does not matter
    return float(drawn.std(axis=1, ddof=1).std(ddof=1))


def error_floor(percent: float, runs: int, examples: int) -> float:
    """Return the least standard error that a mean over pairs may have, in percent, where it counts N test examples."""
    share = percent / 100
    return 100 * math.sqrt(max(share, 1 / examples) * (1 - share) / examples) / runs
