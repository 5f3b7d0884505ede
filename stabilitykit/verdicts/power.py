"""The power of a gate, before anything trains: how many runs a budget needs, and what a gate finds with them.

A gate is asked to tell a model at its budget from one at ``ratio`` times the budget. All this is about one limit: the
rate ``alpha`` is P(FAIL) for a model at the budget, ``beta`` is P(PASS) for one at ``ratio`` times it. ``cv`` says
which kind of limit: None for an SD, whose precision follows from R alone if scores are normal; for a mean over pairs of
runs its standard error times the root of R over its value, which only runs can tell (`cv_of`).
Formulas and their error rates are in docs/statistics.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..estimates.distributions import Floats, chi2_upper_quantile, t_quantile
from ..estimates.search import fewest
from .sequential_levels import FIRST_LOOK, levels, looks

#: Simulated studies behind a `Prospect`: its probabilities have a standard error of 0.35 points at most.
REPLICATES = 20_000

#: Runs beyond which a search gives up: the ratio asks for more runs than can be trained.
_MOST_RUNS, _MOST_SEQUENTIAL = 10_000, 500

#: Cells of the levels that a search goes by: on its way, and at its end.
COARSE, _FINE = 80, 300

#: Runs of one block of simulated studies: it bounds their memory to some 30 MB, whatever R is.
_BLOCK = 500_000


@dataclass(frozen=True)
class Prospect:
    """The outcomes of a gate on a model of known spread."""

    truth: float  #: the model's true spread, in budgets
    passes: float  #: P(PASS)
    fails: float  #: P(FAIL), the power of the gate where the truth is beyond the budget
    undecided: float  #: P(UNDECIDED), after the last look
    runs: float  #: mean number of runs at the verdict; of UNDECIDED ones, all


def cv_of(value: float, low: float, high: float, runs: int) -> float | None:
    """Return the CV of a mean over pairs, √R · se / value, from its 90 % interval over a pilot of R runs.

    None where the pilot cannot tell: fewer than three runs, or a value that is not above 0.

    >>> round(cv_of(10.8, 8.0, 13.6, runs=4), 3)
    0.22
    """
    margin = max(value - low, high - value)  # the wider side: the other may have been cut at the end of the range
    if runs < 3 or not value > 0 or not math.isfinite(margin):
        return None
    return margin / -t_quantile(0.05, runs - 1) * math.sqrt(runs) / value


def resolution(runs: npt.ArrayLike, alpha: float, beta: float, cv: float | None = None) -> Floats:
    """Return the smallest ratio that ``runs`` can tell from 1 without leaving anything UNDECIDED.

    >>> resolution([14, 35], 0.05, 0.05).round(2).tolist()
    [1.95, 1.5]
    """
    runs = np.asarray(runs, dtype=np.float64)
    df = runs - 1
    if cv is None:
        return np.asarray(np.sqrt(chi2_upper_quantile(alpha, df) / chi2_upper_quantile(1 - beta, df)))
    both = -t_quantile(alpha, df) - t_quantile(beta, df)
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.maximum(1 - both * cv / np.sqrt(runs), 0))  # both * cv * ratio / √R <= ratio - 1


def runs_needed(ratio: float, alpha: float = 0.05, beta: float = 0.05, cv: float | None = None) -> int | None:
    """Return the smallest fixed R that leaves nothing UNDECIDED; None where 10,000 would not do.

    >>> runs_needed(2), runs_needed(1.5), runs_needed(1.25, cv=0.1)
    (14, 35, 5)
    """
    runs = np.arange(2 if cv is None else 3, _MOST_RUNS + 1)
    enough = resolution(runs, alpha, beta, cv) <= ratio
    return int(runs[enough.argmax()]) if enough.any() else None


@functools.cache
def most_runs_needed(ratio: float, alpha: float = 0.05, beta: float = 0.05, cv: float | None = None) -> int | None:
    """Return the smallest R_max of a sequential gate that leaves nothing UNDECIDED; None where 500 would not do.

    It is larger than the fixed R, and hardly ever used up: `prospects` has the runs that are expected.

    >>> most_runs_needed(2), most_runs_needed(3)
    (20, 10)
    """

    def resolves(runs: int, cells: int = _FINE) -> bool:
        schedule = looks(runs)
        fail_level, pass_level = (levels(schedule, error, cells)[-1] for error in (alpha, beta))
        return bool(resolution(runs, fail_level, pass_level, cv) <= ratio)

    fixed = runs_needed(ratio, alpha, beta, cv)
    if fixed is None or fixed > _MOST_SEQUENTIAL // 2:
        return None
    found = _search(lambda runs: resolves(runs, COARSE), max(fixed, FIRST_LOOK), 2 * fixed + FIRST_LOOK)
    while resolves(found - 1) and found > max(fixed, FIRST_LOOK):  # the coarse grid is off by one, or two
        found -= 1
    while not resolves(found):
        found += 1
    return found


def _search(resolves: Callable[[int], bool], least: int, most: int) -> int:
    """Return the smallest R from ``least`` on that resolves, by bisection; ``most`` does."""
    found = fewest(resolves, least, most) or most
    # More runs resolve more, but for those right after a look: little is left to spend there, so that look may do.
    look = max((look for look in looks(found) if look < found), default=0)
    return _search(resolves, least, look) if look >= least and resolves(look) else found


def prospects(
    truths: Sequence[float],
    looks: Sequence[int],
    ratio: float,
    alpha: float = 0.05,
    beta: float = 0.05,
    cv: float | None = None,
) -> tuple[Prospect, ...]:
    """Return what a gate with these ``looks`` does with models whose true spreads are ``truths`` times the budget.

    20,000 studies are simulated with a fixed seed, and go through the levels of the gate: for an SD the sums of squares
    of normal scores, for a mean over pairs a normal share of each run in it, with a CV that is the same whatever the
    truth. One look is a study of fixed R.

    >>> at_half, at_budget, at_twice = prospects((0.5, 1, 2), looks(20), ratio=2)
    >>> print(f"{at_half.runs:.1f} {at_budget.runs:.1f} {at_twice.runs:.1f} runs, power {at_twice.fails:.2f}")
    5.8 11.2 7.1 runs, power 0.95
    """
    low, high = _relative_bounds(np.asarray(looks), levels(tuple(looks), alpha), levels(tuple(looks), beta), cv)
    return tuple(_prospect(truth, truth * low > 1, truth * high < ratio, np.asarray(looks)) for truth in truths)


def _prospect(truth: float, fails: npt.NDArray[np.bool_], passes: npt.NDArray[np.bool_], looks: Floats) -> Prospect:
    ends = fails | passes
    is_decided = ends.any(axis=1)
    last = np.where(is_decided, ends.argmax(axis=1), len(looks) - 1)
    has_failed = np.take_along_axis(fails, last[:, None], axis=1)[:, 0]  # FAIL goes before PASS
    shares = (is_decided & ~has_failed).mean(), has_failed.mean(), 1 - is_decided.mean(), looks[last].mean()
    return Prospect(truth, *map(float, shares))


def _relative_bounds(
    looks: Floats, fail_levels: Sequence[float], pass_levels: Sequence[float], cv: float | None
) -> tuple[Floats, Floats]:
    """Simulate the bounds at each look, ``[studies, looks]``, of a model whose true value is 1."""
    random = np.random.default_rng(0)
    df = np.asarray(looks, dtype=np.float64) - 1
    if cv is None:
        steps = np.diff(df, prepend=0)
        sums = random.chisquare(steps, size=(REPLICATES, len(steps))).cumsum(axis=1)  # Helmert: they are independent
        upper, lower = chi2_upper_quantile(fail_levels, df), chi2_upper_quantile(1 - np.asarray(pass_levels), df)
        return np.sqrt(sums / upper), np.sqrt(sums / lower)
    block = max(_BLOCK // int(looks[-1]), 1)
    parts = [
        _mean_and_error(random.standard_normal((min(block, REPLICATES - done), int(looks[-1]))), looks)
        for done in range(0, REPLICATES, block)
    ]
    mean, error = (cv * np.concatenate(part) for part in zip(*parts, strict=True))
    return 1 + mean + t_quantile(fail_levels, df) * error, 1 + mean - t_quantile(pass_levels, df) * error


def _mean_and_error(draws: Floats, looks: Floats) -> tuple[Floats, Floats]:
    """Mean of the first R numbers of each row, and its standard error, at each look."""
    at = np.asarray(looks, dtype=np.int64) - 1
    mean = draws.cumsum(axis=1)[:, at] / looks
    squares = np.square(draws).cumsum(axis=1)[:, at] - looks * mean**2
    return mean, np.sqrt(squares / (looks - 1) / looks)
