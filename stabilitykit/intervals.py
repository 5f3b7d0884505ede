"""Intervals for what R runs show: a mean, an SD, and the mean of a measure over all pairs of runs.

Bounds are one-sided 5 % bounds each. Which interval for which statistic, and the error rates that were measured for
each, is docs/statistics.md.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special  # and not scipy.stats, whose import costs a second

from .errors import ProtocolError
from .estimate import IDENTICAL_RUNS, Estimate

Floats: TypeAlias = npt.NDArray[np.float64]

#: Error rate of each bound.
_LEVEL = 0.05

#: Of the bootstrap behind the "±" of the paper's tables.
_RESAMPLES = 10_000

#: Runs beyond which planning gives up: the estimate lies on the budget.
_MOST_RUNS = 1000


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
    mean = values[0] + _deviations(values).mean()
    if (values == values[0]).all():
        return Estimate(mean, mean, mean, runs, IDENTICAL_RUNS)
    margin = float(_t(runs - 1)) * _sd(values) / math.sqrt(runs)
    return Estimate(mean, mean - margin, mean + margin, runs, "Student t")


def sd_estimate(values: npt.ArrayLike, *, robust: bool = False) -> Estimate:
    """Estimate the SD of a score between runs (``ddof=1``), with the chi-square interval.

    Values ``[R]`` in; the estimate has their unit. The SD of R equal numbers is exactly 0.

    ``robust`` is for scores with heavy tails, such as cross-entropy: from four runs on, it lets the sample's excess
    kurtosis take away degrees of freedom, which widens the interval (Shoemaker, 2003; docs/statistics.md).
    ``sd_of_sd`` is the bootstrap figure that the paper prints. It is too small for a gate when R is 30 or less.

    >>> print(sd_estimate([90.1, 90.4, 89.9, 90.0, 90.3]))
    0.21 [0.13, 0.49]
    """
    values = _of_runs(values)
    runs = len(values)
    if not np.isfinite(values).all():
        return Estimate.undefined(runs, "a run's value is not finite")
    sd = _sd(values)
    if sd == 0:
        return Estimate(0, 0, 0, runs, IDENTICAL_RUNS, sd_of_sd=0)
    adjusted = robust and runs >= 4
    df = _kurtosis_df(values) if adjusted else runs - 1.0
    low, high = (sd * float(_sd_factor(df, upper=upper)) for upper in (False, True))
    method = "chi-square, kurtosis df" if adjusted else "chi-square"
    return Estimate(sd, low, high, runs, method, sd_of_sd=_sd_of_sd(values))


def pairwise_estimate(pairs: npt.ArrayLike, *, percent_of: int | None = None) -> Estimate:
    """Estimate the mean of a measure over all pairs of runs, with a jackknife over runs.

    Symmetric ``[R, R]`` in, whose diagonal is what a run scores with itself; the estimate has the unit of the entries.
    Pairs share runs, so they are not independent: each run in turn is left out, never a pair
    (docs/statistics.md). Two runs are one pair, which shows no spread between pairs: the bounds are then -inf and inf.

    ``percent_of`` is N where an entry is a percentage of N test examples, as disagreement is. It keeps the standard
    error above what so coarse a measure can show when few runs happen to tie.

    >>> print(pairwise_estimate([[0, 10, 12, 9], [10, 0, 11, 10], [12, 11, 0, 13], [9, 10, 13, 0]]))
    10.8 [8.0, 13.6]
    """
    pairs = np.asarray(pairs, dtype=np.float64)
    runs = len(_of_runs(pairs.diagonal()))
    if not np.isfinite(pairs).all():
        return Estimate.undefined(runs, "a pair of runs has no value, such as the correlation of constant outputs")
    if (pairs == pairs[0, 0]).all():  # every pair scores what a run scores with itself
        return Estimate(pairs[0, 0], pairs[0, 0], pairs[0, 0], runs, IDENTICAL_RUNS)
    of_run = pairs[~np.eye(runs, dtype=bool)].reshape(runs, runs - 1).mean(axis=1)
    mean = of_run.mean()
    if runs == 2:
        return Estimate(mean, -math.inf, math.inf, runs, "one pair, no interval")
    error = 2 / (runs - 2) * math.sqrt((runs - 1) / runs * np.square(of_run - mean).sum())
    if percent_of is not None:
        error = max(error, _error_floor(mean, runs, percent_of))
    margin = float(_t(runs - 1)) * error
    return Estimate(mean, mean - margin, mean + margin, runs, "jackknife over runs")


def runs_to_settle_sd(estimate: Estimate, budget: float) -> int | None:
    """Find the fewest runs at which the interval around the same SD would exclude the budget.

    None where even 1000 runs would not: the SD is as good as on the budget.

    >>> runs_to_settle_sd(sd_estimate([90.1, 90.4, 89.9, 90.0, 90.3]), budget=0.15)
    10
    """
    if estimate.value == 0:
        return estimate.runs
    # A robust interval has fewer degrees of freedom than R - 1. The same tails would cost later runs the same share.
    share = _sd_df(estimate) / (estimate.runs - 1)
    runs = np.arange(2.0, _MOST_RUNS + 1)
    exceeds = estimate.value > budget
    bound = estimate.value * _sd_factor(share * (runs - 1), upper=not exceeds)
    return _first(runs, bound > budget if exceeds else bound < budget)


def runs_to_settle_pairwise(estimate: Estimate, budget: float) -> int | None:
    """Find the fewest runs at which the interval around the same mean would exclude the budget.

    The standard error of a mean over pairs falls with the root of R. Two runs have none to go by; three are then the
    answer. None where even 1000 runs would not do: the mean is as good as on the budget.

    >>> runs_to_settle_pairwise(Estimate(10.8, 8.1, 13.6, runs=4, method="jackknife over runs"), budget=9.0)
    7
    """
    if math.isinf(estimate.low):
        return 3
    # The wider side: the other may have been cut at the end of the measure's range.
    margin = max(estimate.value - estimate.low, estimate.high - estimate.value)
    spread = margin / _t(estimate.runs - 1) * math.sqrt(estimate.runs)
    runs = np.arange(3.0, _MOST_RUNS + 1)
    return _first(runs, _t(runs - 1) * spread / np.sqrt(runs) < abs(estimate.value - budget))


def _of_runs(values: npt.ArrayLike) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ProtocolError(
            f"Expected runs >= 2 but got runs={len(values)}. A spread is between runs, so it needs two; ten is a usual "
            "start: --stability-runs 10."
        )
    return values


def _deviations(values: Floats) -> Floats:
    # From the first value, because a mean is rounded: equal numbers would then deviate from it.
    deviations: Floats = values - values[0]
    return deviations


def _sd(values: Floats) -> float:
    return float(_deviations(values).std(ddof=1))


def _kurtosis_df(values: Floats) -> float:
    count = len(values)
    scaled = _deviations(values) / _sd(values)  # fourth powers of small numbers underflow
    moments = [np.mean((scaled - scaled.mean()) ** power) for power in (2, 4)]
    biased = moments[1] / moments[0] ** 2 - 3
    excess = (count - 1) / ((count - 2) * (count - 3)) * ((count + 1) * biased + 6)  # Fisher's G2, unbiased
    return float((count - 1) / (1 + max(excess, 0) / 2))


def _sd_of_sd(values: Floats) -> float:
    draws = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    resamples = np.sort(_deviations(values))[draws]  # sorted, so that the order of runs does not matter
    return float(resamples.std(axis=1, ddof=1).std(ddof=1))


def _sd_factor(df: float | Floats, *, upper: bool) -> Floats:
    """What to multiply an SD with to get its bound."""
    quantile = special.chdtri(df, 1 - _LEVEL if upper else _LEVEL)
    return np.asarray(np.sqrt(df / quantile))


def _sd_df(estimate: Estimate) -> float:
    """Degrees of freedom behind an SD's interval, read off the interval: R - 1, or 1 and more if it is robust."""
    candidates = np.linspace(1, estimate.runs - 1, 500, dtype=np.float64)
    return float(np.interp(estimate.low / estimate.value, _sd_factor(candidates, upper=False), candidates))


def _error_floor(percent: float, runs: int, examples: int) -> float:
    share = percent / 100
    return 100 * math.sqrt(max(share, 1 / examples) * (1 - share) / examples) / runs


def _t(df: float | Floats) -> Floats:
    return np.asarray(-special.stdtrit(df, _LEVEL))


def _first(runs: Floats, settled: npt.NDArray[np.bool_]) -> int | None:
    return int(runs[settled.argmax()]) if settled.any() else None
