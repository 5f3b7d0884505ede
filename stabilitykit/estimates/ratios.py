"""Ratios of two spreads (two SDs, or two means over pairs of runs), with a bound on either side.

Each bound has an error rate of its own. Which ratio is judged how, with which error rates, is docs/comparing.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .distributions import f_quantile, t_quantile
from .estimate import Estimate, Pivot
from .intervals import ChiSquare, StudentT
from .measure_kinds import kind_of


def spread_of(metric: str, estimate: Estimate) -> Estimate:
    """Turn an estimate so that more is more variability: 1 - correlation, and the size of an ensemble delta.

    >>> print(spread_of("correlation", Estimate(0.875, 0.8125, 0.9375, runs=10, method="jackknife over runs")))
    0.12 [0.06, 0.19]
    """
    kind = kind_of(metric)
    if kind.is_likeness:
        return _mirrored(estimate, 1.0)
    return _mirrored(estimate, 0.0) if kind.is_delta and estimate.value < 0 else estimate


@dataclass(frozen=True)
class Ratio(Pivot):
    """One spread by another, of two studies whose runs are independent.

    The bounds of two SDs are those of the F distribution, with the degrees of freedom that their own intervals have:
    fewer than R - 1 where tails are heavy. Those of two means are Fieller's, with Student's t and Satterthwaite's
    degrees of freedom: the ratios that a Welch test would not reject. They are wide open, unlike those of a
    logarithm, where the lower of the two is not shown to be above 0.

    A ratio of 0 to 0 is 1, and a ratio of more to exactly 0 is infinite. Source: Fieller, 1954.

    >>> from stabilitykit.estimates.intervals import sd_estimate
    >>> wide, narrow = sd_estimate([90.1, 90.4, 89.9, 90.0, 90.3]), sd_estimate([90.1, 90.2, 90.0, 90.1, 90.2])
    >>> ratio = Ratio(wide, narrow)
    >>> f"{ratio.value:.2f} [{ratio.low(0.05):.2f}, {ratio.high(0.05):.2f}]"
    '2.48 [0.98, 6.26]'
    """

    above: Estimate  #: the spread above the line, as `spread_of` turns it
    below: Estimate  #: the spread below the line, as `spread_of` turns it

    @property
    def value(self) -> float:
        """The ratio of the two values; NaN where either has none."""
        above, below = self.above.value, self.below.value
        if below == 0:
            return 1.0 if above == 0 else math.inf * above
        return above / below

    @property
    def is_undefined(self) -> bool:
        """Whether either spread has no value."""
        return self.above.is_undefined or self.below.is_undefined

    @property
    def is_exact(self) -> bool:
        """Whether all runs of either study are equal, which leaves nothing to chance."""
        return self.above.is_exact or self.below.is_exact

    @property
    def has_interval(self) -> bool:
        """Whether both spreads have bounds: two runs are one pair, which shows no spread between pairs."""
        return self.is_exact or (self.above.pivot is not None and self.below.pivot is not None)

    @property
    def runs(self) -> int:
        """R of the study with fewer runs."""
        return min(self.above.runs, self.below.runs)

    def low(self, error: float) -> float:
        return self._bounds(error)[0]

    def high(self, error: float) -> float:
        return self._bounds(error)[1]

    def after(self, runs: int) -> Ratio:
        """Return the same ratio over ``runs`` of each study; a study that has more keeps them."""
        return Ratio(*(of if of.runs >= runs else of.after(runs) for of in (self.above, self.below)))

    def _bounds(self, error: float) -> tuple[float, float]:
        above, below = self.above.pivot, self.below.pivot
        if self.is_exact or self.is_undefined:
            return self.value, self.value
        if isinstance(above, ChiSquare) and isinstance(below, ChiSquare):
            return _of_sds(above, below, error)
        if isinstance(above, StudentT) and isinstance(below, StudentT):
            return _of_means(above, below, error)
        return 0.0, math.inf


def welch(of_x: float, of_y: float, runs_x: int, runs_y: int) -> tuple[float, float]:
    """Return the variance of a difference, from the variances of its parts, and Satterthwaite's degrees of freedom."""
    variance = of_x + of_y
    if variance == 0:
        return 0.0, 1.0
    return variance, variance**2 / (of_x**2 / (runs_x - 1) + of_y**2 / (runs_y - 1))


def fieller(below: float, above: float, below_error: float, above_error: float) -> tuple[float, float]:
    """Return the least and greatest r >= 0 for which (above - r below)^2 <= above_error^2 + (r below_error)^2.

    All four are 0 or more. No difference of squares is taken: it loses digits where ``below`` is close to its error.

    >>> fieller(2.0, 4.0, 0.0, 1.0)
    (1.5, 2.5)
    """
    # The ends are the roots of leading r^2 - 2 below above r + constant: constant / total and total / leading.
    leading = (below - below_error) * (below + below_error)
    constant = (above - above_error) * (above + above_error)
    if leading <= 0 and constant <= 0:  # both may be 0, as far as their runs show
        return 0.0, math.inf
    if leading > 0:
        total = below * above + math.hypot(above_error * math.sqrt(leading), above * below_error)
        return max(0.0, constant) / total if total > 0 else 0.0, total / leading
    total = below * above + math.hypot(below_error * math.sqrt(constant), below * above_error)
    return (constant / total if total > 0 else math.inf), math.inf


def _of_sds(above: ChiSquare, below: ChiSquare, error: float) -> tuple[float, float]:
    value = above.sd / below.sd
    low = value / math.sqrt(f_quantile(1 - error, above.df, below.df))
    high = value * math.sqrt(f_quantile(1 - error, below.df, above.df))
    return min(value, low), max(value, high)  # F is skewed: at a rate near one half a bound could cross the value


def _of_means(above: StudentT, below: StudentT, error: float) -> tuple[float, float]:
    # The degrees of freedom at the ratio that is seen: there the parts of the variance are (m_b e_a)^2, (m_a e_b)^2.
    parts = (below.mean * above.error) ** 2, (above.mean * below.error) ** 2
    t = abs(t_quantile(error, welch(*parts, above.runs, below.runs)[1]))
    if below.mean == 0 and above.mean == 0:  # neither is shown to be anything
        return 0.0, math.inf
    return fieller(below.mean, above.mean, t * below.error, t * above.error)


def _mirrored(estimate: Estimate, at: float) -> Estimate:
    pivot = estimate.pivot
    if isinstance(pivot, StudentT):
        pivot = replace(pivot, mean=at - pivot.mean, least=at - pivot.most, most=at - pivot.least)
    value, low, high = at - estimate.value, at - estimate.high, at - estimate.low
    return replace(estimate, value=value, low=low, high=high, pivot=pivot)
