"""The most spread of one measure that a user accepts, and what an estimate says about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from ..errors import setting
from ..estimates.estimate import Estimate, Pivot
from ..public import public

#: Measures of likeness: their limit is the least that is accepted, and 1 less the measure is what spreads.
_AT_LEAST = frozenset({"correlation", "pearson"})

#: How many times its limit a spread must be for a PASS to be wrong: SDs are known less well than means over pairs.
_RATIO_OF_SD, _RATIO_OF_PAIRS = 2.0, 1.25

#: Runs beyond which planning gives up.
MOST_RUNS = 1000


@public
class Outcome(Enum):
    """What the runs say about a limit."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


#: The first of these that is among several outcomes is that of all of them.
WORST_FIRST = (Outcome.FAIL, Outcome.UNDECIDED, Outcome.PASS)


@dataclass(frozen=True)
class Scale:
    """Where the values of a metric can lie, and in what unit."""

    low: float = 0.0
    high: float = math.inf
    unit: str = ""  #: as it follows a number
    why: str = "It limits a spread, and no spread is negative"
    example: str = "0.30"

    @classmethod
    def of(cls, metric: str) -> Scale:
        """Return that of a measure by name; a custom one is a spread without a unit."""
        return _SCALES.get(metric, _CUSTOM)


_POINTS = "It is in percentage points, and the SD of numbers from 0 to 100 is 50 at most"
_SHARE = "It is in percent of the test examples, from 0 to 100"
_GAIN = "It is in percentage points of accuracy, and its size is limited, whichever its sign"
_LIKENESS = "It is a correlation coefficient, without a unit, and the limit is the least that is accepted"

_CUSTOM = Scale()
_SCALES = {
    "accuracy_sd": Scale(high=50, unit=" points", why=_POINTS),
    "flip_floor": Scale(high=50, unit=" points", why=_POINTS),
    "cross_entropy_sd": Scale(unit=" nats", why="It is in nats, and no SD is negative", example="0.008"),
    "disagreement": Scale(high=100, unit=" %", why=_SHARE, example="11.0"),
    "correlation": Scale(low=-1, high=1, why=_LIKENESS, example="0.87"),
    "pearson": Scale(low=-1, high=1, why=_LIKENESS, example="0.87"),
    "ensemble_delta": Scale(high=100, unit=" points", why=_GAIN, example="2.0"),
    "cross_entropy_ensemble_delta": Scale(unit=" nats", why="It is in nats, and its size is limited", example="0.05"),
}


@dataclass(frozen=True)
class Limit:
    """The most spread of one measure that is accepted, or the least likeness.

    FAIL says that the spread is above ``value``, PASS that it is below ``ratio`` times that; each is wrong as often as
    the bound that it rests on.

    >>> Limit("accuracy_sd", 0.30).excluded, round(Limit("correlation", 0.90).excluded, 3)
    (0.6, 0.875)
    """

    metric: str
    value: float  #: in the unit of the measure
    ratio: float = math.nan  #: 2 for SDs and 1.25 for means over pairs, if not given

    def __post_init__(self) -> None:
        """Fill in the default ratio."""
        if math.isnan(self.ratio):
            object.__setattr__(self, "ratio", _RATIO_OF_SD if self.is_of_sd else _RATIO_OF_PAIRS)

    @property
    def is_of_sd(self) -> bool:
        """Whether it limits an SD over runs; else a mean over pairs of runs."""
        return self.metric.endswith("_sd")

    @property
    def excluded(self) -> float:
        """The value that a PASS excludes, in the unit of the measure."""
        return 1 - self.ratio * (1 - self.value) if self.is_of_likeness else self.ratio * self.value

    def judge(self, estimate: Estimate, alpha: float, beta: float) -> Judgement:
        """Judge it by a bound that errs in ``alpha`` of studies against FAIL, and in ``beta`` against PASS."""
        return Judgement(self, estimate, alpha, beta, self.decide(estimate, alpha, beta))

    def decide(self, estimate: Estimate, alpha: float, beta: float) -> Outcome:
        """Return the outcome alone."""
        if estimate.is_undefined:
            return Outcome.FAIL
        limit = 1 - self.value if self.is_of_likeness else self.value
        value, low, high = self._spread(estimate, alpha, beta)
        if limit == 0 and not self.is_of_delta:  # no difference is accepted: one that was seen is not to be doubted
            return Outcome.PASS if value <= 0 else Outcome.FAIL
        if low > limit:
            return Outcome.FAIL
        is_shown = value <= limit if estimate.is_exact else high < self.ratio * limit
        return Outcome.PASS if is_shown else Outcome.UNDECIDED

    @property
    def is_of_likeness(self) -> bool:
        """Whether it is the least that is accepted."""
        return self.metric in _AT_LEAST

    @property
    def is_of_delta(self) -> bool:
        """Whether it limits the size of a difference that has a sign."""
        return self.metric.endswith("ensemble_delta")

    def _spread(self, estimate: Estimate, alpha: float, beta: float) -> tuple[float, float, float]:
        """Return value, lower and upper bound of what spreads: more is worse."""
        scale = Scale.of(self.metric)
        if self.is_of_likeness:
            likeness = estimate.at(lower=beta, upper=alpha)
            return 1 - likeness.value, 1 - likeness.high, 1 - max(likeness.low, scale.low)
        if self.is_of_delta:
            sure, wide = estimate.at(alpha, alpha), estimate.at(beta, beta)
            return abs(estimate.value), max(sure.low, -sure.high), min(max(wide.high, -wide.low), scale.high)
        spread = estimate.at(lower=alpha, upper=beta)
        return spread.value, spread.low, min(spread.high, scale.high)


@dataclass(frozen=True)
class Judgement:
    """What the runs say about one limit, and why."""

    of: Limit
    measured: Estimate
    alpha: float  #: error rate of the bound against FAIL
    beta: float  #: error rate of the bound against PASS
    outcome: Outcome
    advice: str = ""  #: what would settle it, from a gate that knows the levels of its later looks

    @property
    def metric(self) -> str:
        """Name of the measure."""
        return self.of.metric

    @property
    def limit(self) -> float:
        """In the unit of the estimate."""
        return self.of.value

    @property
    def ratio(self) -> float:
        """How many times the limit a PASS excludes."""
        return self.of.ratio

    @property
    def runs(self) -> int:
        """How many runs it rests on."""
        return self.measured.runs

    @property
    def estimate(self) -> Estimate:
        """The estimate with the bounds that were judged by."""
        is_mirrored = self.of.is_of_likeness or (self.of.is_of_delta and self.measured.value < 0)
        return self.measured.at(self.beta, self.alpha) if is_mirrored else self.measured.at(self.alpha, self.beta)

    @property
    def runs_to_settle(self) -> int | None:
        """The fewest runs whose interval around the same value would decide it; None where 1000 would not, or it is."""
        estimate = self.measured
        if self.outcome is not Outcome.UNDECIDED:
            return None
        if estimate.pivot is None:
            return 3 if math.isinf(estimate.low) else None  # one pair shows no spread between pairs
        later = range(estimate.runs + 1, MOST_RUNS + 1)
        return next((runs for runs in later if self.would_be_settled(runs, self.alpha, self.beta)), None)

    def would_be_settled(self, runs: int, alpha: float, beta: float) -> bool:
        """Whether bounds of these error rates around the same value, over so many runs, would decide it."""
        if self.measured.pivot is None:
            return False
        after = _after(self.measured, self.measured.pivot, runs)
        return self.of.decide(after, alpha, beta) is not Outcome.UNDECIDED

    @property
    def reason(self) -> str:
        """One sentence with the numbers, and what to do next."""
        estimate, unit = self.estimate, Scale.of(self.metric).unit
        budget = f"{'at least ' if self.of.is_of_likeness else ''}{self.limit:g}{unit}"
        measured = f"{self.metric} {estimate}{unit} over {self.runs} runs"
        excluded = f"{'above' if self.of.is_of_likeness else 'below'} {self.of.excluded:.4g}{unit}"
        if estimate.is_undefined:
            return f"{self.metric} is undefined ({estimate.method}), and what cannot be measured cannot pass."
        if self.outcome is Outcome.PASS and estimate.is_exact:
            return f"{self.metric} is exactly {estimate.value:g}{unit}: {_all_equal(estimate.runs)}."
        if self.outcome is Outcome.PASS:
            return f"{measured} is shown to be {excluded} (budget {budget}, ratio {self.of.ratio:g})."
        if self.outcome is Outcome.UNDECIDED:
            return (
                f"{measured} is neither shown to be beyond the budget of {budget} nor to be {excluded}; "
                f"{self.advice or self._advice()}."
            )
        if self.of.excluded == self.limit:
            return f"{measured} is beyond the budget of {budget}, which allows no difference at all."
        return f"{measured} is beyond the budget of {budget}, and so is its whole interval."

    def _advice(self) -> str:
        return advice(self.runs_to_settle, "at least" if math.isinf(self.measured.low) else "about")


@dataclass(frozen=True)
class FailedRuns:
    """The judgement on how many runs left nothing to measure: no interval of the others can see them.

    >>> print(FailedRuns(failed=0, runs=20, limit=0).reason)
    0 of 20 runs failed, within the 0 that may: P(a run fails) <= 13.9% at 95 % confidence.
    """

    failed: int
    runs: int
    limit: int  #: how many may fail
    metric: ClassVar[str] = "failed_runs"
    ratio: ClassVar[None] = None

    @property
    def outcome(self) -> Outcome:
        """FAIL if more runs failed than may, else PASS."""
        return Outcome.FAIL if self.failed > self.limit else Outcome.PASS

    @property
    def reason(self) -> str:
        """One sentence with the share of runs that would fail, at most (Clopper & Pearson, 1934)."""
        counted = f"{self.failed} of {self.runs} runs failed"
        if self.outcome is Outcome.FAIL:
            return f"{counted}, and {self.limit} may."
        from scipy import special

        share = 1.0 if self.failed == self.runs else special.betaincinv(self.failed + 1, self.runs - self.failed, 0.95)
        return f"{counted}, within the {self.limit} that may: P(a run fails) <= {share:.1%} at 95 % confidence."


def advice(runs: int | None, roughly: str = "about", of: str = "") -> str:
    """Say how many runs (and ``of`` what) would settle what is UNDECIDED; None are more than anybody trains."""
    if runs is None:
        return f"not even {MOST_RUNS} runs would settle it, so move the budget"
    return f"{roughly} {runs} runs would settle it: {setting('runs', runs)}{of}"


def _after(estimate: Estimate, pivot: Pivot, runs: int) -> Estimate:
    value = estimate.value
    return Estimate(value, value, value, runs, estimate.method, pivot=pivot.after(runs))


def _all_equal(runs: int) -> str:
    # R - 1 runs equal the first. Would a share p of runs differ, this had probability (1 - p)^(R - 1).
    share = 1 - 0.05 ** (1 / (runs - 1))
    return f"all {runs} runs are equal in it, so P(a run differs) <= {share:.1%} at 95 % confidence"
