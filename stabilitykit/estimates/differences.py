"""Differences between two samples of runs: of means, of spreads, and of means over pairs of runs.

Each is candidate against baseline, with a one-sided bound on either side, and two one-sided p-values. Which test for
which question, and the error rates that were measured for each, is docs/comparing.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .distributions import Floats, f_cdf, f_quantile, f_tail, noncentral_t_cdf, normal_quantile, t_cdf, t_quantile
from .estimate import finite
from .intervals import error_floor, exact_sd, is_constant, means_with_others
from .ratios import fieller, welch
from .search import MOST_RUNS, fewest

#: Chance with which `Difference.runs_needed` would show a difference of the size that was seen.
_POWER = 0.90

#: Runs of each model from which on Brown-Forsythe has power enough to be preferred to the F test.
_ENOUGH_FOR_BROWN_FORSYTHE = 10

#: The method of a difference between two samples in which all runs are equal.
EQUAL = "all runs equal"


@dataclass(frozen=True)
class Difference:
    """Candidate minus baseline (or divided by it, for spreads), with bounds and p-values.

    ``low`` is above the truth in a share ``alpha`` of comparisons, and ``high`` is below the truth in as many. The
    difference is shown to be positive exactly where ``low`` is.
    """

    value: float  #: candidate minus baseline, or candidate / baseline where `none` is 1; NaN if undefined
    low: float
    high: float
    p_more: float  #: one-sided p-value against "not more than the baseline"; NaN where the runs say nothing
    p_less: float  #: one-sided p-value against "not less than the baseline"; NaN where the runs say nothing
    alpha: float  #: error rate of each bound
    method: str  #: for a report
    none: float = 0.0  #: the value of no difference
    runs_needed: int | None = None  #: runs of each model that show this size with power 0.9; None if shown, or >1000
    examples_needed: int | None = None  #: test examples that would show it, where no number of runs would

    @property
    def is_more(self) -> bool:
        """Whether the candidate is shown to have more."""
        return self.p_more < self.alpha

    @property
    def is_less(self) -> bool:
        """Whether the candidate is shown to have less."""
        return self.p_less < self.alpha

    def to_json(self) -> dict[str, float | int | str | None]:
        """Return every number by name; null stands for what is undefined or infinite."""
        numbers = {name: finite(float(getattr(self, name))) for name in ("value", "low", "high", "p_more", "p_less")}
        return numbers | {name: getattr(self, name) for name in ("method", "runs_needed", "examples_needed")}


def mean_difference(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, *, paired: bool = False, alpha: float = 0.05
) -> Difference:
    """Return the difference of two means over runs: Welch's t, or Student's of the differences where runs are paired.

    Scores ``[R]`` in; the unit of the scores out.

    >>> difference = mean_difference([90.1, 90.4, 89.9], [90.9, 91.2, 90.8])
    >>> f"{difference.value:.2f} [{difference.low:.2f}, {difference.high:.2f}]", difference.is_more
    ('0.83 [0.43, 1.24]', True)
    """
    x, y = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    value, variance, df, method = _mean_error(x, y, paired)
    needed = _runs_needed(value, _variance_a_run(x, y, paired), paired, alpha)
    return _judged_by_t(value, math.sqrt(variance), df, alpha, method, needed)


def distribution_difference(
    baseline: npt.ArrayLike,
    candidate: npt.ArrayLike,
    examples: tuple[Floats, Floats],
    *,
    paired: bool = False,
    alpha: float = 0.05,
) -> Difference:
    """Return the difference of two means on any test set from the distribution of this one.

    Scores ``[R]`` in, and what each example adds to them, ``[R, N]``, whose mean over examples the score is, or
    changes by. To the variance over runs comes that of the N examples (`variance_of_test_set`). The statistic goes by
    Student's t with Satterthwaite's degrees of freedom: they are many where the examples make the most of the variance,
    and with three runs that do, a normal quantile would err in 9 % of comparisons.
    """
    x, y = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    value, variance, df, method = _mean_error(x, y, paired)
    of_examples = variance_of_test_set(*examples, paired=paired)
    total, count = variance + of_examples, examples[0].shape[1]
    if total > 0:
        df = total**2 / (variance**2 / df + of_examples**2 / max(count - 1, 1))
    difference = _judged_by_t(value, math.sqrt(total), df, alpha, f"{method} + test set", None)
    if difference.is_more or difference.is_less or value == 0 or total == 0:
        return difference
    # The variance at which a difference of this size is shown.
    wanted = (value / (normal_quantile(alpha) + normal_quantile(1 - _POWER))) ** 2
    if wanted <= of_examples:
        return replace(difference, examples_needed=math.ceil(of_examples * count / wanted))
    runs = math.ceil(_variance_a_run(x, y, paired) / (wanted - of_examples))
    return replace(difference, runs_needed=runs if 0 < runs <= MOST_RUNS else None)


def variance_of_test_set(baseline: Floats, candidate: Floats, *, paired: bool) -> float:
    """Return the variance of a difference of scores that comes from which N examples the test set has.

    What each example adds to each run's score, ``[R, N]``, in. The variance over examples of the difference of mean
    runs, less what the finite number of runs adds to it; never below 0. Source: docs/comparing.md.
    """
    count = int(baseline.shape[1])
    if count < 2:
        return 0.0
    of_example = candidate.mean(axis=0) - baseline.mean(axis=0)
    if paired:
        noise = float((candidate - baseline).var(axis=0, ddof=1).mean()) / len(baseline)
    else:
        noise = sum(float(part.var(axis=0, ddof=1).mean()) / len(part) for part in (baseline, candidate))
    return max(0.0, float(of_example.var(ddof=1)) - noise) / count


def spread_ratio(
    baseline: npt.ArrayLike,
    candidate: npt.ArrayLike,
    *,
    alpha: float = 0.05,
    rounding: tuple[float, float] = (0.0, 0.0),
) -> Difference:
    """Return the ratio of the candidate's spread over runs to the baseline's.

    Scores ``[R]`` in. From ten runs of each model on, it is the ratio of mean absolute deviations from the median, and
    the bounds are where Brown and Forsythe's test would reject. With fewer runs it is the ratio of SDs, with the bounds
    of the F test, which assumes normal scores; ``rounding`` is then the least SD that each model is taken to have where
    scores come in steps, because a few runs can be equal by chance.

    >>> ratio = spread_ratio([90.1, 90.4, 89.9, 90.2], [90.9, 93.2, 88.8, 90.1])
    >>> f"{ratio.value:.1f} [{ratio.low:.1f}, {ratio.high:.1f}]", ratio.method
    ('8.9 [2.9, 27.0]', 'F, assumes normal')
    """
    x, y = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return undefined("a score is not finite", alpha, none=1.0)
    if exact_sd(x) == exact_sd(y) == 0:
        return no_ratio(alpha, "no spread in either")
    if min(len(x), len(y)) >= _ENOUGH_FOR_BROWN_FORSYTHE:
        return _brown_forsythe(x, y, alpha)
    sds = [max(exact_sd(scores), floor) for scores, floor in zip((x, y), rounding, strict=True)]
    return _f_test(sds[0], sds[1], len(x) - 1, len(y) - 1, alpha)


def pairwise_difference(
    baseline: npt.ArrayLike,
    candidate: npt.ArrayLike,
    *,
    paired: bool = False,
    alpha: float = 0.05,
    percent_of: int | None = None,
) -> Difference:
    """Return the difference of two means over all pairs of runs, such as two disagreements, by jackknifes over runs.

    Symmetric ``[R, R]`` each in; the unit of the entries out. Jackknife-Welch, or where run i of both had the same
    seeds, the jackknife of the matrix of differences. ``percent_of`` is N where entries are percentages of N test
    examples: see `pairwise_estimate`, which has the same floor under its standard error.
    """
    x, y = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return undefined("a pair of runs has no value", alpha)
    (mean_x, of_x), (mean_y, of_y) = _jackknife(x, percent_of), _jackknife(y, percent_of)
    value = mean_y - mean_x
    if (is_constant(x) and is_constant(y)) or (paired and np.array_equal(x, y)):
        return _judged_by_t(value, 0.0, 1.0, alpha, "", None)
    if min(len(x), len(y)) < 3:
        return Difference(value, -math.inf, math.inf, math.nan, math.nan, alpha, "one pair, no interval")
    if paired:
        floor = sum(error_floor(mean, len(x), percent_of) ** 2 for mean in (mean_x, mean_y)) if percent_of else 0.0
        variance, df, method = max(_jackknife(y - x, None)[1], floor), len(x) - 1.0, "jackknife of paired runs"
    else:
        variance, df = welch(of_x, of_y, len(x), len(y))
        method = "jackknife over runs, Welch"
    of_a_run = variance * len(x) if paired else of_x * len(x) + of_y * len(y)
    needed = _runs_needed(value, of_a_run, paired, alpha, least=3)
    return _judged_by_t(value, math.sqrt(variance), df, alpha, method, needed)


def no_ratio(alpha: float, method: str = EQUAL) -> Difference:
    """Return the ratio of two equal spreads, which is 1."""
    return Difference(1, 1, 1, 1, 1, alpha, method, none=1.0)


def undefined(why: str, alpha: float, none: float = 0.0) -> Difference:
    """Return the difference of two measures of which one has no value, such as the correlation of a constant model."""
    nan = math.nan
    return Difference(nan, nan, nan, nan, nan, alpha, f"undefined: {why}", none)


def _judged_by_t(value: float, error: float, df: float, alpha: float, method: str, runs: int | None) -> Difference:
    if math.isnan(value):
        return undefined("a score is not finite", alpha)
    if error == 0:  # nothing varies, so the value is exact
        return Difference(value, value, value, float(value <= 0), float(value >= 0), alpha, EQUAL)
    margin = -t_quantile(alpha, df) * error
    p_more, p_less = t_cdf(-value / error, df), t_cdf(value / error, df)
    needed = None if min(p_more, p_less) < alpha else runs
    return Difference(value, value - margin, value + margin, p_more, p_less, alpha, method, runs_needed=needed)


def _mean_error(x: Floats, y: Floats, paired: bool) -> tuple[float, float, float, str]:
    """Difference of the means, its variance over runs with its degrees of freedom, and the method's name."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan, 0.0, 1.0, ""
    value = float(y[0] - x[0] + (y - y[0]).mean() - (x - x[0]).mean())  # equal numbers must differ by exactly 0
    if paired:
        return value, exact_sd(y - x) ** 2 / len(x), len(x) - 1.0, "paired t"
    return value, *welch(exact_sd(x) ** 2 / len(x), exact_sd(y) ** 2 / len(y), len(x), len(y)), "Welch t"


def _variance_a_run(x: Floats, y: Floats, paired: bool) -> float:
    """Variance of the difference of two single runs; the variance with R runs each is an R-th of it."""
    return exact_sd(y - x) ** 2 if paired else exact_sd(x) ** 2 + exact_sd(y) ** 2


def _f_test(sd_x: float, sd_y: float, df_x: int, df_y: int, alpha: float) -> Difference:
    method = "F, assumes normal"
    if sd_x == 0:
        return Difference(math.inf, math.inf, math.inf, 0, 1, alpha, method, none=1.0)
    ratio = sd_y / sd_x
    low = ratio / math.sqrt(f_quantile(1 - alpha, df_y, df_x))
    high = ratio * math.sqrt(f_quantile(1 - alpha, df_x, df_y))
    p_more, p_less = f_tail(ratio**2, df_y, df_x), f_cdf(ratio**2, df_y, df_x)
    needed = None if min(p_more, p_less) < alpha else _runs_for_ratio(ratio, alpha)
    return Difference(ratio, low, high, p_more, p_less, alpha, method, none=1.0, runs_needed=needed)


def _brown_forsythe(x: Floats, y: Floats, alpha: float) -> Difference:
    """Student's t of the absolute deviations from the median; the bounds are the ratios at which it would reject."""
    of_x, of_y = (np.abs(scores - np.median(scores)) for scores in (x, y))
    mean_x, mean_y = float(of_x.mean()), float(of_y.mean())
    df = len(x) + len(y) - 2
    share = (1 / len(x) + 1 / len(y)) / df
    # Variance of mean_y - r * mean_x is own + r^2 * other, as r scales the baseline's deviations.
    own, other = (float(((part - part.mean()) ** 2).sum() * share) for part in (of_y, of_x))
    error = math.sqrt(own + other)
    more = mean_y - mean_x
    statistic = more / error if error else math.copysign(math.inf, more) if more else 0.0
    p_more, p_less = t_cdf(-statistic, df), t_cdf(statistic, df)
    t = abs(t_quantile(alpha, df))
    ratio = mean_y / mean_x if mean_x else math.inf
    low, high = fieller(mean_x, mean_y, t * math.sqrt(other), t * math.sqrt(own))
    needed = None if min(p_more, p_less) < alpha else _runs_for_ratio(ratio, alpha)
    return Difference(ratio, low, high, p_more, p_less, alpha, "Brown-Forsythe", none=1.0, runs_needed=needed)


def _jackknife(pairs: Floats, percent_of: int | None) -> tuple[float, float]:
    """Mean over pairs, and its variance over runs; the variance of one pair is NaN."""
    runs, of_run = len(pairs), means_with_others(pairs)
    mean = float(of_run.mean())
    if runs < 3:
        return mean, math.nan
    if is_constant(pairs):
        return mean, 0.0
    variance = 4 * (runs - 1) / (runs * (runs - 2) ** 2) * float(np.square(of_run - mean).sum())
    return mean, max(variance, error_floor(mean, runs, percent_of) ** 2) if percent_of else variance


def _runs_needed(value: float, of_a_run: float, paired: bool, alpha: float, least: int = 2) -> int | None:
    """Fewest runs of each model with which a t test shows a difference of this size in 9 of 10 comparisons."""
    size = abs(value)
    if not size > 0 or of_a_run == 0:
        return None
    samples = 1 if paired else 2

    def shows(runs: int) -> bool:
        df = samples * (runs - 1)
        centre = size * math.sqrt(runs / of_a_run)
        # The noncentral t's function fails so far from 0, where the power is 1.
        return centre > 37 or 1 - noncentral_t_cdf(t_quantile(1 - alpha, df), df, centre) >= _POWER

    return fewest(shows, least)


def _runs_for_ratio(ratio: float, alpha: float) -> int | None:
    """Fewest runs of each model with which an F test shows this ratio; Brown-Forsythe needs up to a fifth more."""
    larger = max(ratio, 1 / ratio) if ratio > 0 else math.inf

    def shows(runs: int) -> bool:
        df = runs - 1
        return f_tail(f_quantile(1 - alpha, df, df) / larger**2, df, df) >= _POWER

    return fewest(shows, 2)
