"""From estimates to a verdict: the most spread that a user accepts, and whether the runs show more."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from numbers import Real
from types import MappingProxyType

from .errors import BudgetError
from .estimate import Estimate

#: Measures of likeness: their budget is the least that is accepted.
_AT_LEAST = frozenset({"correlation", "pearson"})


class Outcome(Enum):
    """What the runs say about a limit."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


_WORST_FIRST = (Outcome.FAIL, Outcome.UNDECIDED, Outcome.PASS)


@dataclass(frozen=True)
class _Scale:
    """Where the values of a metric can lie, and in what unit."""

    low: float = 0.0
    high: float = math.inf
    unit: str = ""  #: as it follows a number
    why: str = "It limits a spread, and no spread is negative"
    example: str = "0.30"


_POINTS = "It is in percentage points, and the SD of numbers from 0 to 100 is 50 at most"
_SHARE = "It is in percent of the test examples, from 0 to 100"
_GAIN = "It is in percentage points of accuracy, and its size is limited, whichever its sign"
_LIKENESS = "It is a correlation coefficient, without a unit, and the limit is the least that is accepted"

_SCALES = {
    "accuracy_sd": _Scale(high=50, unit=" points", why=_POINTS),
    "cross_entropy_sd": _Scale(unit=" nats", why="It is in nats, and no SD is negative", example="0.008"),
    "disagreement": _Scale(high=100, unit=" %", why=_SHARE, example="11.0"),
    "correlation": _Scale(low=-1, high=1, why=_LIKENESS, example="0.87"),
    "pearson": _Scale(low=-1, high=1, why=_LIKENESS, example="0.87"),
    "ensemble_delta": _Scale(high=100, unit=" points", why=_GAIN, example="2.0"),
    "cross_entropy_ensemble_delta": _Scale(unit=" nats", why="It is in nats, and its size is limited", example="0.05"),
}


@dataclass(frozen=True)
class Judgement:
    """What the runs say about one limit, and why."""

    metric: str
    estimate: Estimate
    limit: float  #: in the unit of the estimate
    outcome: Outcome
    reason: str  #: one sentence with the numbers, and what to do next
    runs_to_settle: int | None = None  #: if UNDECIDED: R that would decide it; None where 1000 would not


@dataclass(frozen=True)
class Verdict:
    """The judgements of a budget, in its order."""

    judgements: tuple[Judgement, ...]

    @property
    def outcome(self) -> Outcome:
        """FAIL if any judgement is FAIL, else UNDECIDED if any is, else PASS."""
        return min((judgement.outcome for judgement in self.judgements), key=_WORST_FIRST.index)

    def summary(self) -> str:
        """Write each judgement with its reason on a line of its own, the worst first."""
        worst_first = sorted(self.judgements, key=lambda judgement: _WORST_FIRST.index(judgement.outcome))
        return "\n".join(f"{judgement.outcome.name:<9}  {judgement.reason}" for judgement in worst_first)


@dataclass(frozen=True, init=False, repr=False)
class Budget:
    """The most spread between runs that is accepted, metric by metric; the least likeness, for a correlation.

    Units are the paper's: percentage points for ``accuracy_sd`` and ``ensemble_delta``, percent of test examples for
    ``disagreement``, nats for ``cross_entropy_sd``, the unit of the targets for ``rmse_sd``, and none for
    ``correlation``. A custom metric is limited under its name: ``Budget(f1_sd=0.01)``.

    >>> Budget(accuracy_sd=0.30, disagreement=11.0)
    Budget(accuracy_sd=0.3, disagreement=11.0)
    >>> spread = Estimate(0.35, 0.26, 0.54, runs=10, method="chi-square")
    >>> print(Budget(accuracy_sd=0.30).judge({"accuracy_sd": spread}).summary())  # doctest: +NORMALIZE_WHITESPACE
    UNDECIDED  accuracy_sd 0.35 [0.26, 0.54] points is beyond the budget of 0.3 points, but its interval is not;
      about 49 runs would settle it: --stability-runs 49.
    """

    _limits: tuple[tuple[str, float], ...]

    def __init__(
        self,
        *,
        accuracy_sd: float | None = None,
        cross_entropy_sd: float | None = None,
        disagreement: float | None = None,
        correlation: float | None = None,
        ensemble_delta: float | None = None,
        rmse_sd: float | None = None,
        **custom: float | None,
    ) -> None:
        """Take the limits that are not None."""
        limits = {
            "accuracy_sd": accuracy_sd,
            "cross_entropy_sd": cross_entropy_sd,
            "disagreement": disagreement,
            "correlation": correlation,
            "ensemble_delta": ensemble_delta,
            "rmse_sd": rmse_sd,
            **custom,
        }
        given = tuple((name, _checked(name, limit)) for name, limit in limits.items() if limit is not None)
        if not given:
            raise BudgetError(
                "Expected at least one limit but got Budget(). Without a limit every model passes. Name what may vary "
                "and by how much, as in Budget(accuracy_sd=0.30, disagreement=11.0)."
            )
        object.__setattr__(self, "_limits", given)

    @property
    def limits(self) -> Mapping[str, float]:
        """Limit by metric, the paper's metrics first and in its order."""
        return MappingProxyType(dict(self._limits))

    def check_names(self, available: Collection[str]) -> None:
        """Raise BudgetError for a limit on a metric that the task does not have; no run is needed to know that."""
        for name, _ in self._limits:
            if f"{name}_sd" in available:
                raise BudgetError(
                    f"Expected a limit on a spread but got Budget({name}=...), a mean over runs, and a budget does not "
                    f"know whether more is better. Write {name}_sd, or a plain assert on study[{name!r}].low or .high."
                )
            if name not in available:
                close = difflib.get_close_matches(name, available, n=1)
                guess = f" Did you mean {close[0]}?" if close else ""
                raise BudgetError(
                    f"Expected a limit on a metric of this task but got Budget({name}=...), which would never be "
                    f"judged.{guess} The task has {', '.join(sorted(available))}."
                )

    def judge(self, estimates: Mapping[str, Estimate]) -> Verdict:
        """Judge each limit: FAIL where the lower bound exceeds it, PASS where the estimate does not, else UNDECIDED.

        The estimates are of spread, not means of scores; those without a limit are left aside.
        """
        self.check_names(estimates.keys())
        return Verdict(tuple(_judge(name, estimates[name], limit) for name, limit in self._limits))

    def __repr__(self) -> str:
        """Write it as it was made."""
        return f"Budget({', '.join(f'{name}={limit!r}' for name, limit in self._limits)})"


def _checked(name: str, limit: object) -> float:
    scale = _SCALES.get(name, _Scale())
    advice = f"{scale.why}; write {name}={scale.example}, for example."
    if isinstance(limit, bool) or not isinstance(limit, Real) or not math.isfinite(limit):
        raise BudgetError(f"Expected {name} to be a finite number but got {name}={limit!r}. {advice}")
    number = float(limit)
    if not scale.low <= number <= scale.high:
        wanted = f"{name} >= {scale.low:g}" if number < scale.low else f"{name} <= {scale.high:g}"
        raise BudgetError(f"Expected {wanted} but got {name}={limit!r}. {advice}")
    return number


def _judge(metric: str, estimate: Estimate, limit: float) -> Judgement:
    outcome, needed = _decide(metric, estimate, limit)
    return Judgement(metric, estimate, limit, outcome, _reason(metric, estimate, limit, outcome, needed), needed)


def _decide(metric: str, estimate: Estimate, limit: float) -> tuple[Outcome, int | None]:
    facing = _small_is_good(metric, estimate)
    ceiling = -limit if metric in _AT_LEAST else limit
    if estimate.is_undefined or facing.low > ceiling:
        return Outcome.FAIL, None
    if facing.value <= ceiling:
        return Outcome.PASS, None
    return Outcome.UNDECIDED, _runs_to_settle(metric, facing, ceiling)


def _small_is_good(metric: str, estimate: Estimate) -> Estimate:
    """Turn the estimate so that less is better: a likeness always, an ensemble delta where it is negative."""
    # The deltas of losses are negative. An interval that straddles 0 keeps a lower bound below 0, and never fails.
    if metric in _AT_LEAST or (metric.endswith("ensemble_delta") and estimate.value < 0):
        return replace(estimate, value=-estimate.value, low=-estimate.high, high=-estimate.low)
    return estimate


def _runs_to_settle(metric: str, estimate: Estimate, ceiling: float) -> int | None:
    from . import intervals  # brings scipy.stats, a second that only an undecided verdict pays

    if metric.endswith("_sd"):
        return intervals.runs_to_settle_sd(estimate, ceiling)
    return intervals.runs_to_settle_pairwise(estimate, ceiling)


def _reason(metric: str, estimate: Estimate, limit: float, outcome: Outcome, needed: int | None) -> str:
    unit = _SCALES.get(metric, _Scale()).unit
    budget = f"{'at least ' if metric in _AT_LEAST else ''}{limit:g}{unit}"
    measured = f"{metric} {estimate}{unit}"
    if estimate.is_undefined:
        return f"{metric} is undefined ({estimate.method}), and what cannot be measured cannot pass."
    if outcome is Outcome.FAIL:
        return f"{measured} is beyond the budget of {budget}, and so is its whole interval."
    if outcome is Outcome.UNDECIDED:
        return f"{measured} is beyond the budget of {budget}, but its interval is not; {_advice(estimate, needed)}."
    if estimate.is_exact:
        return f"{metric} is exactly {estimate.value:g}{unit}: {_all_equal(estimate.runs)}."
    return f"{measured} is within the budget of {budget}."


def _advice(estimate: Estimate, needed: int | None) -> str:
    if needed is None:
        return "not even 1000 runs would settle it, so move the budget"
    roughly = "at least" if math.isinf(estimate.low) else "about"
    return f"{roughly} {needed} runs would settle it: --stability-runs {needed}"


def _all_equal(runs: int) -> str:
    # R - 1 runs equal the first. Would a share p of runs differ, this had probability (1 - p)^(R - 1).
    share = 1 - 0.05 ** (1 / (runs - 1))
    return f"all {runs} runs are equal in it, so P(a run differs) <= {share:.1%} at 95 % confidence"
