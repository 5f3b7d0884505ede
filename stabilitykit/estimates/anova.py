"""Variance components of a two-way table without replication, and ratios of spreads in its columns.

``[R, K]`` in: a score of R runs (rows) under K constants (columns), y = mean + row + column + rest, each of the last
three normal with a variance of its own. Bounds are one-sided, of 5 % each: see docs/analyses.md.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .distributions import Floats, chi2_upper_quantile, f_quantile, t_quantile
from .estimate import IDENTICAL_RUNS, Estimate
from .intervals import tail_share

#: Error rate of each bound.
_LEVEL = 0.05


@dataclass(frozen=True)
class MeanSquare:
    """A sum of squares divided by its degrees of freedom; df · value / expectation is chi-square."""

    value: float
    df: int


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of a table ``[R, K]``; their expectations are rest + K row, rest + R column, and rest."""

    rows: MeanSquare
    columns: MeanSquare
    rest: MeanSquare  #: interaction and residual, which one run a cell cannot tell apart

    @classmethod
    def of(cls, scores: npt.ArrayLike) -> MeanSquares:
        """Split a table's sum of squares.

        >>> found = MeanSquares.of([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> found.rows.value, found.columns.value, found.rest.value
        (8.0, 1.5, 0.0)
        """
        table = np.asarray(scores, np.float64)
        table = table - table[0, 0]  # a mean is rounded: equal scores must have no variance at all
        rows, columns = table.shape
        of_row, of_column = table - table[:, :1], table - table[:1]
        rest = of_row - of_row[:1]  # exactly 0 where rows and columns add up
        rest = rest - rest.mean(axis=1, keepdims=True) - rest.mean(axis=0) + rest.mean()
        across = of_column.mean(axis=1)  # mean of each row, less that of the first
        down = of_row.mean(axis=0)
        df = (rows - 1) * (columns - 1)
        return cls(
            MeanSquare(columns * float(across.var(ddof=1)), rows - 1),
            MeanSquare(rows * float(down.var(ddof=1)), columns - 1),
            MeanSquare(float(np.square(rest).sum()) / df, df),
        )


def variance_estimate(square: MeanSquare, runs: int) -> Estimate:
    """Estimate the expectation of a mean square, a variance, with the exact chi-square interval."""
    if square.value == 0:
        return Estimate(0, 0, 0, runs, IDENTICAL_RUNS)
    low, high = (square.value / _chi2(square.df, rate) for rate in (1 - _LEVEL, _LEVEL))
    return Estimate(square.value, low, max(high, square.value), runs, "chi-square")


def difference_estimate(more: MeanSquare, less: MeanSquare, times: int, runs: int) -> Estimate:
    """Estimate (E[more] - E[less]) / times, a variance: modified large-sample bounds, cut at 0.

    ``low`` is above 0 exactly where the F test of the two mean squares rejects. Source: Ting, Burdick, Graybill,
    Jeyaratnam & Lu, *Confidence intervals on linear combinations of variance components that are unrestricted in sign*
    (1990); Burdick & Graybill, *Confidence Intervals on Variance Components* (1992), section 3.3.

    >>> print(difference_estimate(MeanSquare(8.0, 9), MeanSquare(1.0, 18), times=2, runs=10))
    3.5 [1.6, 10.3]
    """
    if more.value == less.value == 0:
        return Estimate(0, 0, 0, runs, IDENTICAL_RUNS)
    difference = more.value - less.value
    low = difference - math.sqrt(_square(more, less, 1 - _LEVEL, _LEVEL))
    high = difference + math.sqrt(_square(more, less, _LEVEL, 1 - _LEVEL))
    value, low, high = (max(0.0, number) / times for number in (difference, low, high))
    return Estimate(value, min(low, value), max(high, value), runs, "modified large sample")


def mean_estimate_of_squares(rows: MeanSquare, rest: MeanSquare, columns: int, runs: int) -> Estimate:
    """Estimate the variance of a score under one constant, on average over K of them: Graybill and Wang's bounds.

    It is (E[rows] + (K - 1) E[rest]) / K. Source: Graybill & Wang, *Confidence intervals on nonnegative linear
    combinations of variances* (1980).
    """
    parts = [(rows.value / columns, rows.df), ((columns - 1) * rest.value / columns, rest.df)]
    value = sum(part for part, _ in parts)
    if value == 0:
        return Estimate(0, 0, 0, runs, IDENTICAL_RUNS)
    below = sum(((1 - 1 / _chi2(df, 1 - _LEVEL)) * part) ** 2 for part, df in parts)
    above = sum(((1 / _chi2(df, _LEVEL) - 1) * part) ** 2 for part, df in parts)
    return Estimate(value, max(0.0, value - math.sqrt(below)), value + math.sqrt(above), runs, "modified large sample")


def largest_ratio(scores: npt.ArrayLike, *, robust: bool = False) -> Estimate:
    """Estimate the largest ratio of two columns' true SDs.

    Runs of one row share a seed, so columns are correlated: Pitman and Morgan's exact bounds of a paired ratio for each
    pair of columns. ``low`` is the largest lower bound, of error rate 5 % over all pairs and both orders (Bonferroni):
    where it is above 1, the SD is shown to depend on the constant. ``high`` is the largest upper bound, of 5 % each:
    that of the pair with the largest true ratio is among them. ``robust`` is for heavy tails, as in `sd_estimate`.

    >>> print(largest_ratio([[1.0, 2.1], [3.0, 4.4], [5.0, 5.8], [4.0, 5.2], [2.0, 3.1]]))
    1.04 [1.00, 1.25]
    """
    table = np.asarray(scores, np.float64)
    runs, columns = table.shape
    table = table - table[:1]
    sds = table.std(axis=0, ddof=1)
    if (sds == 0).all():
        return Estimate(1, 1, 1, runs, IDENTICAL_RUNS)
    if (sds == 0).any():
        return Estimate.undefined(runs, "under one constant all runs are equal, and under another they are not")
    value = float(sds.max() / sds.min())
    if runs < 3:
        return Estimate(value, 1, math.inf, runs, "two runs, no interval")
    pairs = list(itertools.permutations(range(columns), 2))
    df = (runs - 2) * (tail_share(table / sds) if robust else 1.0)
    low = high = 1.0
    for one, other in pairs:
        ratio = float(sds[one] / sds[other])
        unexplained = _unexplained(table[:, one] / sds[one], table[:, other] / sds[other])
        low = max(low, ratio / _factor(unexplained, df, _LEVEL / len(pairs)))
        high = max(high, ratio * _factor(unexplained, df, _LEVEL))
    method = f"Pitman-Morgan{', kurtosis df' if robust else ''}, {len(pairs) // 2} pair(s)"
    return Estimate(value, min(low, value), max(high, value), runs, method)


def _factor(unexplained: float, df: float, rate: float) -> float:
    """The upper bound of a paired ratio of SDs over the ratio: Pitman and Morgan's test of variances, inverted."""
    k = 1 + 2 * unexplained * t_quantile(rate, df) ** 2 / df
    return math.sqrt(k + math.sqrt(k * k - 1))


def _unexplained(one: Floats, other: Floats) -> float:
    """1 - r² of two columns with SD 1, which is exactly 0 where they differ by a constant."""
    return min(1.0, float((one - other).var(ddof=1) * (one + other).var(ddof=1)) / 4)


def _square(more: MeanSquare, less: MeanSquare, share: float, other: float) -> float:
    """The square of a bound's distance, at the quantiles ``share`` of `more` and ``other`` of `less`."""
    f = f_quantile(share, more.df, less.df)
    g, h = 1 - 1 / _chi2(more.df, share), 1 - 1 / _chi2(less.df, other)
    both = ((f - 1) ** 2 - (g * f) ** 2 - h**2) / f
    return max(0.0, (g * more.value) ** 2 + (h * less.value) ** 2 + both * more.value * less.value)


def _chi2(df: int, share: float) -> float:
    """The quantile of chi-square divided by its degrees of freedom."""
    return chi2_upper_quantile(1 - share, df) / df
