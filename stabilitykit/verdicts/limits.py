"""Limits on the spread of one measure, and the judgement of an estimate by its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import MeasureKind, kind_of
from ..estimates.search import fewest
from .judgement import Judgement, Outcome
from .undecided import advice


@dataclass(frozen=True)
class Limit:
    """The most spread of one measure that is accepted, or the least likeness.

    FAIL says that the spread is above ``value``, PASS that it is below ``ratio`` times that; each errs as its bound.

    >>> Limit("accuracy_sd", 0.30).excluded, round(Limit("correlation", 0.90).excluded, 3)
    (0.6, 0.875)
    """

    metric: str
    value: float  #: in the unit of the measure
    ratio: float = math.nan  #: 2 for SDs and 1.25 for means over pairs, if not given

    def __post_init__(self) -> None:
        if math.isnan(self.ratio):
            object.__setattr__(self, "ratio", self.kind.ratio)

    @property
    def kind(self) -> MeasureKind:
        """What the measure is."""
        return kind_of(self.metric)

    @property
    def excluded(self) -> float:
        """The value that a PASS excludes, in the unit of the measure."""
        return self.kind.value_of(self.ratio * self.kind.spread(self.value))

    def judge(self, estimate: Estimate, alpha: float, beta: float) -> LimitJudgement:
        """Judge an estimate by bounds that err in ``alpha`` of studies for FAIL, and in ``beta`` for PASS."""
        return LimitJudgement(self, estimate, alpha, beta, self.decide(estimate, alpha, beta))

    def decide(self, estimate: Estimate, alpha: float, beta: float) -> Outcome:
        """Return the outcome alone."""
        if estimate.is_undefined:
            return Outcome.FAIL
        limit = self.kind.spread(self.value)
        value, low, high = self._spread(estimate, alpha, beta)
        if limit == 0 and not self.kind.is_delta:  # no difference is accepted: one that was seen is not to be doubted
            return Outcome.PASS if value <= 0 else Outcome.FAIL
        if low > limit:
            return Outcome.FAIL
        is_shown = value <= limit if estimate.is_exact else high < self.ratio * limit
        return Outcome.PASS if is_shown else Outcome.UNDECIDED

    def _spread(self, estimate: Estimate, alpha: float, beta: float) -> tuple[float, float, float]:
        """Return value, lower and upper bound of the spread: more is worse."""
        kind = self.kind
        if kind.is_likeness:
            likeness = estimate.at(lower=beta, upper=alpha)
            return 1 - likeness.value, 1 - likeness.high, 1 - max(likeness.low, kind.least)
        if kind.is_delta:
            sure, wide = estimate.at(alpha, alpha), estimate.at(beta, beta)
            return abs(estimate.value), max(sure.low, -sure.high), min(max(wide.high, -wide.low), kind.most)
        spread = estimate.at(lower=alpha, upper=beta)
        return spread.value, spread.low, min(spread.high, kind.most)


@dataclass(frozen=True)
class LimitJudgement:
    """The outcome of one limit, with its reason."""

    of: Limit
    measured: Estimate
    alpha: float  #: error rate of the bound against FAIL
    beta: float  #: error rate of the bound against PASS
    outcome: Outcome
    advice: str = ""  #: how many runs would settle it, from a gate that knows the levels of its later looks
    is_relative: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name of the measure."""
        return self.of.metric

    metric = name

    @property
    def limit(self) -> float:
        """The limit, in the unit of the estimate."""
        return self.of.value

    @property
    def runs(self) -> int:
        """Number of runs behind the estimate."""
        return self.measured.runs

    @property
    def estimate(self) -> Estimate:
        """The estimate with the bounds that were judged by."""
        kind = self.of.kind
        is_mirrored = kind.is_likeness or (kind.is_delta and self.measured.value < 0)
        return self.measured.at(self.beta, self.alpha) if is_mirrored else self.measured.at(self.alpha, self.beta)

    @property
    def runs_to_settle(self) -> int | None:
        """The fewest runs whose interval around the same value would decide it; None where 1000 would not, or it is."""
        estimate = self.measured
        if self.outcome is not Outcome.UNDECIDED:
            return None
        if estimate.pivot is None:
            return 3 if math.isinf(estimate.low) else None  # one pair shows no spread between pairs
        return fewest(lambda runs: self.would_be_settled(runs, self.alpha, self.beta), estimate.runs + 1)

    def would_be_settled(self, runs: int, alpha: float, beta: float) -> bool:
        """Whether bounds of these error rates around the same value, over ``runs``, would decide it."""
        return self.of.decide(self.measured.after(runs), alpha, beta) is not Outcome.UNDECIDED

    @property
    def reason(self) -> str:
        """One sentence with the numbers, and what to do next."""
        estimate, unit, is_likeness = self.estimate, self.of.kind.unit, self.of.kind.is_likeness
        budget = f"{'at least ' if is_likeness else ''}{self.limit:g}{unit}"
        measured = f"{self.metric} {estimate}{unit} over {self.runs} runs"
        excluded = f"{'above' if is_likeness else 'below'} {self.of.excluded:.4g}{unit}"
        if estimate.is_undefined:
            return f"{self.metric} is undefined ({estimate.method}), and what cannot be measured cannot pass."
        if self.outcome is Outcome.PASS and estimate.is_exact:
            # R - 1 runs equal the first. Would a share p of runs differ, this had probability (1 - p)^(R - 1).
            differs = f"P(a run differs) <= {1 - 0.05 ** (1 / (self.runs - 1)):.1%} at 95 % confidence"
            exactly = f"{self.metric} is exactly {estimate.value:g}{unit}"
            return f"{exactly}: all {self.runs} runs are equal in it, so {differs}."
        if self.outcome is Outcome.PASS:
            return f"{measured} is shown to be {excluded} (budget {budget}, ratio {self.of.ratio:g})."
        if self.outcome is Outcome.UNDECIDED:
            more = self.advice or advice(self.runs_to_settle, "at least" if math.isinf(self.measured.low) else "about")
            return f"{measured} is neither shown to be beyond the budget of {budget} nor to be {excluded}; {more}."
        if self.of.excluded == self.limit:
            return f"{measured} is beyond the budget of {budget}, which allows no difference at all."
        return f"{measured} is beyond the budget of {budget}, and so is its whole interval."

    def to_json(self) -> dict[str, Any]:
        """Return what was asked and found, as JSON's types."""
        return _json(self, self.limit, self.of.ratio)


@dataclass(frozen=True)
class FailedRuns(Judgement):
    """The judgement on the number of failed runs, which the intervals of the other runs cannot show.

    >>> print(FailedRuns(failed=0, runs=20, limit=0).reason)
    0 of 20 runs failed, within the 0 that may: P(a run fails) <= 13.9% at 95 % confidence.
    """

    failed: int
    runs: int
    limit: int  #: how many may fail
    name: ClassVar[str] = "failed_runs"
    runs_to_settle: ClassVar[None] = None
    is_relative: ClassVar[bool] = False

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

        from ..estimates.distributions import beta_quantile

        share = 1.0 if self.failed == self.runs else beta_quantile(0.95, self.failed + 1, self.runs - self.failed)
        return f"{counted}, within the {self.limit} that may: P(a run fails) <= {share:.1%} at 95 % confidence."

    def to_json(self) -> dict[str, Any]:
        return _json(self, self.limit, None)


def _json(judgement: LimitJudgement | FailedRuns, limit: float, ratio: float | None) -> dict[str, Any]:
    asked = {"metric": judgement.name, "limit": limit, "ratio": ratio, "runs": judgement.runs}
    return {**asked, "outcome": judgement.outcome.value, "reason": judgement.reason}
