"""Limits on the scores themselves: most runs, or their mean, reach a number; and the judgement by such a limit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

from ..errors import BudgetError, number_of
from ..estimates.estimate import Estimate
from ..estimates.search import MOST_RUNS
from ..public import public
from .judgement import Outcome
from .undecided import advice

#: The looks of a study so far: how many runs each is at, and the share of an error rate that is spent there.
Looks: TypeAlias = Sequence[tuple[int, float]]

#: The fewest runs whose mean is judged: fewer show nothing of the tails of the scores.
_FEWEST = 5


@dataclass(frozen=True)
class Threshold:
    """A number that a score must reach, in a share of all runs or in the mean over them; `at_most` makes one."""

    value: float
    is_most: bool  #: whether a score reaches it from below
    share: float | None  #: of all runs that must reach it; None for the mean
    alpha: float  #: error rate of a PASS, and of a FAIL

    def __repr__(self) -> str:
        which = {"mean": True} if self.share is None else {} if self.share == _HALF else {"share": self.share}
        more = which | ({} if self.alpha == _ALPHA else {"alpha": self.alpha})
        arguments = ", ".join([repr(self.value), *(f"{name}={given!r}" for name, given in more.items())])
        return f"{'at_most' if self.is_most else 'at_least'}({arguments})"

    def __str__(self) -> str:
        return f"at {'most' if self.is_most else 'least'} {self.value:g}"

    def reached_by(self, scores: Iterable[float]) -> int:
        """Return how many of the scores reach it."""
        return sum(score <= self.value if self.is_most else score >= self.value for score in scores)


_HALF, _ALPHA = 0.5, 0.05


@public
def at_most(value: float, *, share: float | None = None, mean: bool = False, alpha: float = _ALPHA) -> Threshold:
    """Return a limit on a score: runs come to ``value`` or less, as in ``Budget(val_loss=at_most(3.28))``.

    PASS says that at least a ``share`` of all runs that could be trained do (half of them, if not given), FAIL that
    fewer do. Each is wrong in ``alpha`` of studies at most, whatever the distribution of the scores: runs are counted.
    A failed run counts as one that does not.

    With ``mean=True`` it is the mean over all runs that is shown to be below or above ``value``. No finite number of
    runs bounds a mean whatever the distribution, so this assumes scores without rare outliers; docs/outputs.md has the
    error rates that were measured.

    >>> from stabilitykit import Budget
    >>> Budget(val_loss=at_most(3.28, alpha=0.01), reward=at_least(450, share=0.9))
    Budget(val_loss=at_most(3.28, alpha=0.01), reward=at_least(450.0, share=0.9))
    """
    return _threshold("at_most", value, share, mean, alpha)


@public
def at_least(value: float, *, share: float | None = None, mean: bool = False, alpha: float = _ALPHA) -> Threshold:
    """Return a limit on a score: runs come to ``value`` or more; see `at_most`.

    ``Budget(reward=at_least(450, share=0.9))`` is "90 % of runs reach 450".
    """
    return _threshold("at_least", value, share, mean, alpha)


def _threshold(name: str, value: object, share: object, mean: object, alpha: object) -> Threshold:
    number = number_of(value)
    if not math.isfinite(number):
        raise BudgetError(f"Expected {name}(...) of a finite number but got {name}({value!r}).")
    if not isinstance(mean, bool) or (mean and share is not None):
        raise BudgetError(
            f"Expected {name}(...) of a share of the runs, or of their mean, but got share={share!r} and "
            f"mean={mean!r}. Leave one of them out."
        )
    if share is not None and not 0 < number_of(share) < 1:
        raise BudgetError(
            f"Expected 0 < share < 1 but got {name}({value!r}, share={share!r}): 0.9 is nine runs of ten. That all "
            f"runs reach it, no number of runs can show."
        )
    if not 0 < number_of(alpha) < 0.5:
        raise BudgetError(
            f"Expected alpha between 0 and 0.5 but got {name}({value!r}, alpha={alpha!r}). It is how often the verdict "
            f"may be wrong; 0.05 is usual."
        )
    wanted = None if mean else _HALF if share is None else number_of(share)
    return Threshold(number, name == "at_most", wanted, number_of(alpha))


def fewest_runs(threshold: Threshold) -> int:
    """Return the fewest runs in one look that can pass: all of them reach the threshold.

    >>> fewest_runs(at_most(3.28)), fewest_runs(at_least(450, share=0.9)), fewest_runs(at_most(3.28, mean=True))
    (5, 29, 5)
    """
    if threshold.share is None:
        return _FEWEST
    return math.ceil(math.log(threshold.alpha) / math.log(threshold.share))


@dataclass(frozen=True)
class ThresholdLimit:
    """A threshold for the scores of one name."""

    metric: str
    threshold: Threshold

    def judge(self, estimate: Estimate, failed: int, alpha: float, looks: Looks) -> ThresholdJudgement:
        """Judge the mean of a score over runs beside which so many failed; ``alpha`` is the most that a FAIL may err.

        The last look is now.
        """
        judged = ThresholdJudgement(self, estimate, failed, alpha, tuple(looks), Outcome.UNDECIDED)
        return judged.decided()


@dataclass(frozen=True)
class ThresholdJudgement:
    """The outcome of one threshold, with its reason."""

    of: ThresholdLimit
    measured: Estimate  #: the mean of the score over the runs that did not fail
    failed: int
    alpha: float  #: error rate of a FAIL, at most: the limits of a budget share it
    looks: tuple[tuple[int, float], ...]
    outcome: Outcome
    advice: str = ""  #: how many runs would settle it, from a gate that knows its later looks
    is_relative: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name of the score."""
        return self.of.metric

    metric = name

    @property
    def runs(self) -> int:
        """Number of runs, the failed ones among them."""
        return self.measured.runs + self.failed

    @property
    def reached(self) -> int:
        """How many runs reached the threshold."""
        return self.of.threshold.reached_by(self.measured.of_runs)

    def decided(self) -> ThresholdJudgement:
        """Return the judgement with its outcome."""
        by = self._of_mean if self.of.threshold.share is None else self._of_share
        outcome = by(self.measured.of_runs, self.failed, self.looks)
        return replace(self, outcome=outcome)

    def _of_share(self, scores: Sequence[float], failed: int, looks: Looks) -> Outcome:
        reached = self.of.threshold.reached_by(scores)
        return self._of_counts(reached, len(scores) + failed - reached, looks)

    def _of_counts(self, reached: int, missed: int, looks: Looks) -> Outcome:
        from .binomial_looks import most_shown  # making a budget loads no SciPy

        share = self.of.threshold.share or _HALF
        if reached <= most_shown(looks, share, self._fail_level):
            return Outcome.FAIL
        return Outcome.PASS if missed <= most_shown(looks, 1 - share, self.of.threshold.alpha) else Outcome.UNDECIDED

    def _of_mean(self, scores: Sequence[float], failed: int, looks: Looks) -> Outcome:
        from ..estimates.intervals import p_above  # as above

        sign, spent = 1 if self.of.threshold.is_most else -1, looks[-1][1]
        beyond = [sign * (score - self.of.threshold.value) for score in scores]
        if len(beyond) < _FEWEST:
            return Outcome.UNDECIDED
        if p_above(beyond) < self._fail_level * spent:
            return Outcome.FAIL
        # A failed run has no score, and what the mean over all runs is, nobody knows.
        is_shown = not failed and p_above([-excess for excess in beyond]) < self.of.threshold.alpha * spent
        return Outcome.PASS if is_shown else Outcome.UNDECIDED

    @property
    def _fail_level(self) -> float:
        return min(self.alpha, self.of.threshold.alpha)

    @property
    def runs_to_settle(self) -> int | None:
        """The fewest runs in one look that would decide it, if as many of them reach it; None if decided, or >1000."""
        if self.outcome is not Outcome.UNDECIDED:
            return None
        more = range(self.runs + 1, MOST_RUNS + 1)
        return next((runs for runs in more if self.would_be_settled(((runs, 1.0),))), None)

    def would_be_settled(self, looks: Looks) -> bool:
        """Whether runs like these, as many as there are at the last of other ``looks``, would decide it."""
        runs = looks[-1][0]
        if self.of.threshold.share is not None:
            reached = round(self.reached * runs / self.runs)
            return self._of_counts(reached, runs - reached, looks) is not Outcome.UNDECIDED
        if self.failed or self.measured.runs < _FEWEST:
            return False
        again = [*itertools.islice(itertools.cycle(self.measured.of_runs), runs)]
        return self._of_mean(again, 0, looks) is not Outcome.UNDECIDED

    @property
    def reason(self) -> str:
        """One sentence with the numbers, and what to do next."""
        limit, share = self.of.threshold, self.of.threshold.share
        rate = 100 * (self._fail_level if self.outcome is Outcome.FAIL else limit.alpha)
        more = f"; {self.advice or advice(self.runs_to_settle)}"
        failures = f" ({self.failed} failed)" if self.failed else ""
        if share is None:
            side = "below" if limit.is_most == (self.outcome is Outcome.PASS) else "above"
            measured = f"the mean of {self.name}, {self.measured} over {self.runs} runs{failures},"
            if self.outcome is Outcome.UNDECIDED:
                return f"{measured} is shown to be neither below {limit.value:g} nor above it{more}."
            return (
                f"{measured} is shown to be {side} {limit.value:g} (error rate {rate:.3g} % for scores without rare "
                f"outliers)."
            )
        counted = f"{self.name} is {limit} in {self.reached} of {self.runs} runs{failures}"
        wanted = f"in {100 * share:g} % of all runs or more"
        if self.outcome is Outcome.UNDECIDED:
            return f"{counted}, which shows neither that it is so {wanted} nor that it is not{more}."
        return f"{counted}: shown {'not ' * (self.outcome is Outcome.FAIL)}to be so {wanted} (error rate {rate:.3g} %)."

    def to_json(self) -> dict[str, Any]:
        """Return what was asked and found, as JSON's types."""
        limit = self.of.threshold
        asked = {"metric": self.name, "limit": limit.value, "ratio": None, "runs": self.runs}
        more = {"at": "most" if limit.is_most else "least", "share": limit.share, "alpha": limit.alpha}
        counts = {"reached": self.reached, "failed": self.failed}
        return {**asked, **more, **counts, "outcome": self.outcome.value, "reason": self.reason}


def threshold_of(given: Mapping[str, Any]) -> Threshold:
    """Return the threshold that a table of a budget file describes, such as ``{at_most = 3.28, alpha = 0.01}``.

    >>> threshold_of({"at_least": 450, "share": 0.9})
    at_least(450.0, share=0.9)
    """
    makers = {"at_most": at_most, "at_least": at_least}
    named = [name for name in makers if name in given]
    more = {name: value for name, value in given.items() if name not in makers}
    if len(named) != 1 or not more.keys() <= {"share", "mean", "alpha"}:
        raise BudgetError(
            f"Expected a limit such as {{at_most = 3.28, alpha = 0.01}} or {{at_least = 450, share = 0.9}} but got "
            f"{dict(given)!r}."
        )
    return makers[named[0]](given[named[0]], **more)
