"""Budgets: the spread that a user accepts, how often the answer may be wrong, and the verdict on a study."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..errors import BudgetError, check_count, number_of
from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import (
    DISAGREEMENT,
    Form,
    is_built_in,
    kind_of,
    most_beside_disagreement,
    sd_name,
    why_missing,
)
from ..public import public
from .judgement import WORST_FIRST, Judgement, Outcome, worst
from .limits import FailedRuns, Limit, LimitJudgement
from .thresholds import Looks, Threshold, ThresholdJudgement, ThresholdLimit

#: How alike a name is to that of a measure which the task has, from which on it is taken for a misspelling of it.
_MISSPELT = 0.8


@public
@dataclass(frozen=True)
class Verdict:
    """Judgements of one study: on each limit of a budget in its order, on failed runs, or beside other studies."""

    judgements: tuple[Judgement, ...]
    alpha: float = 0.05  #: share of studies of a model within all limits that FAIL, at most
    beta: float = 0.05  #: share of studies of a model beyond the ratio times a limit that PASS, at most

    @property
    def outcome(self) -> Outcome:
        """FAIL if any judgement is FAIL, else UNDECIDED if any is, else PASS."""
        return worst(judgement.outcome for judgement in self.judgements)

    @property
    def beyond(self) -> tuple[LimitJudgement, ...]:
        """The judgements on limits of spreads that are not kept."""
        limits = (judgement for judgement in self.judgements if isinstance(judgement, LimitJudgement))
        return tuple(judgement for judgement in limits if judgement.outcome is not Outcome.PASS)

    def summary(self) -> str:
        """Write each judgement with its reason on a line of its own, the worst first."""
        worst_first = sorted(self.judgements, key=lambda judgement: WORST_FIRST.index(judgement.outcome))
        return "\n".join(f"{judgement.outcome.name:<9}  {judgement.reason}" for judgement in worst_first)

    def beside(self, failures: FailedRuns) -> Verdict:
        """Return the verdict with the judgement on failed runs."""
        return replace(self, judgements=(*self.judgements, failures))

    def error_rates(self) -> str:
        """Write how often such a verdict is wrong."""
        is_of_scores = any(isinstance(judgement, ThresholdJudgement) for judgement in self.judgements)
        return (
            f"error rates: a model within its budget fails in {100 * self.alpha:.3g} % of studies at most, one beyond "
            f"the ratio times it passes in {100 * self.beta:.3g} % at most"
            f"{'; a limit on a score has rates of its own' * is_of_scores}"
        )


@public
@dataclass(frozen=True, init=False, repr=False)
class Budget:
    """The most spread between runs that is accepted, metric by metric; the least likeness, for a correlation.

    Units are the paper's: percentage points for ``accuracy_sd`` and ``ensemble_delta``, percent of test examples for
    ``disagreement``, nats for ``cross_entropy_sd``, the unit of the targets for ``rmse_sd``, and none for
    ``correlation``. A custom metric is limited under its name: ``Budget(f1_sd=0.01)``.

    A model within all limits fails in ``alpha`` of studies at most. One whose spread is beyond ``ratio`` times a limit
    passes in ``beta`` at most; the ratio is 2 for SDs and 1.25 for means over pairs, or a number for all limits, or a
    mapping by metric. A study with more than ``max_failed_runs`` runs that leave nothing to measure fails.

    >>> Budget(accuracy_sd=0.30, disagreement=11.0)
    Budget(accuracy_sd=0.3, disagreement=11.0)
    >>> from stabilitykit.estimates.intervals import sd_estimate
    >>> spread = sd_estimate([90.1, 90.9, 89.9, 90.2, 90.3])
    >>> verdict = Budget(accuracy_sd=0.30).judge({"accuracy_sd": spread})
    >>> print(verdict.summary())  # doctest: +NORMALIZE_WHITESPACE, +ELLIPSIS
    UNDECIDED  accuracy_sd 0.38 [0.24, 0.89] points over 5 runs is neither shown to be beyond the budget of 0.3 points
      nor to be below 0.6 points; about 12 runs would settle it: ...
    """

    _limits: tuple[Limit | ThresholdLimit, ...]
    alpha: float
    beta: float
    max_failed_runs: int

    def __init__(
        self,
        *,
        accuracy_sd: float | None = None,
        cross_entropy_sd: float | None = None,
        disagreement: float | None = None,
        correlation: float | None = None,
        ensemble_delta: float | None = None,
        rmse_sd: float | None = None,
        alpha: float = 0.05,
        beta: float = 0.05,
        ratio: float | Mapping[str, float] | None = None,
        max_failed_runs: int = 0,
        **custom: float | Threshold | None,
    ) -> None:
        limits = {
            "accuracy_sd": accuracy_sd,
            "cross_entropy_sd": cross_entropy_sd,
            "disagreement": disagreement,
            "correlation": correlation,
            "ensemble_delta": ensemble_delta,
            "rmse_sd": rmse_sd,
            **custom,
        }
        thresholds = {name: limit for name, limit in limits.items() if isinstance(limit, Threshold)}
        spreads = {name: limit for name, limit in limits.items() if limit is not None and name not in thresholds}
        given = {name: _checked(name, limit) for name, limit in spreads.items()}
        if not (given or thresholds):
            raise BudgetError(
                "Expected at least one limit but got Budget(). Without a limit every model passes. Name what may vary "
                "and by how much, as in Budget(accuracy_sd=0.30, disagreement=11.0)."
            )
        for name in thresholds:
            _check_is_score(name)
        _check_consistent(given)
        why = "It is how many runs of a study may fail; 0 is usual."
        check_count(BudgetError, "max_failed_runs", max_failed_runs, 0, why)
        ratios = _ratios(ratio, given)
        by_spread = (Limit(name, limit, ratios[name]) for name, limit in given.items())
        by_score = (ThresholdLimit(name, threshold) for name, threshold in thresholds.items())
        object.__setattr__(self, "_limits", (*by_spread, *by_score))
        object.__setattr__(self, "alpha", _error_rate("alpha", alpha))
        object.__setattr__(self, "beta", _error_rate("beta", beta))
        object.__setattr__(self, "max_failed_runs", max_failed_runs)

    @property
    def limits(self) -> Mapping[str, float]:
        """Limit of each spread by metric: the paper's metrics first, in the paper's order."""
        return MappingProxyType({limit.metric: limit.value for limit in self._spreads})

    @property
    def thresholds(self) -> Mapping[str, Threshold]:
        """What scores must reach, by metric."""
        scores = (limit for limit in self._limits if isinstance(limit, ThresholdLimit))
        return MappingProxyType({limit.metric: limit.threshold for limit in scores})

    @property
    def names(self) -> tuple[str, ...]:
        """The measures that are limited: spreads, then scores."""
        return tuple(limit.metric for limit in self._limits)

    @property
    def _spreads(self) -> tuple[Limit, ...]:
        return tuple(limit for limit in self._limits if isinstance(limit, Limit))

    @property
    def ratios(self) -> Mapping[str, float]:
        """Ratio of the spread that a PASS excludes to the limit, by metric."""
        return MappingProxyType({limit.metric: limit.ratio for limit in self._spreads})

    @property
    def alpha_each(self) -> float:
        """Alpha of each limit: the limits share the budget's (Bonferroni), since one that fails fails the budget."""
        return self.alpha / len(self._limits)

    def check_names(self, available: Collection[str], *, may_have_more: bool = False) -> None:
        """Raise BudgetError for a limit on a metric that the task does not have; no run is needed to know that.

        A task ``may_have_more`` than is ``available`` before its first run returns its scores.
        """
        for name in self.names:
            if kind_of(name).is_diagnosis:
                raise BudgetError(
                    f"Expected a limit on a measure of spread but got Budget({name}=...), which only explains one: "
                    f"few runs leave it open. Limit accuracy_sd, or flip_floor for the flips of single examples."
                )
            if name not in self.thresholds and sd_name(name) in available:
                raise BudgetError(
                    f"Expected a limit on a spread but got Budget({name}=...), a mean over runs, and a budget does not "
                    f"know whether more is better. Write {name}_sd, or {name}=at_most(...) or at_least(...)."
                )
            if name not in available:
                close = difflib.get_close_matches(name, available, n=1, cutoff=_MISSPELT if may_have_more else 0.6)
                if may_have_more and not close and not is_built_in(name):
                    continue
                guess = f" Did you mean {close[0]}?" if close else ""
                raise BudgetError(
                    f"Expected a limit on a metric of this task but got Budget({name}=...), which would never be "
                    f"judged.{guess} The task has {', '.join(sorted(available))}.{why_missing(name, available)}"
                )

    def judge(self, estimates: Mapping[str, Estimate], failed: int = 0) -> Verdict:
        """Judge each limit once, over all runs: FAIL where the lower bound exceeds it, PASS where the upper bound is
        below the ratio times it, else UNDECIDED.

        Estimates without a limit are left aside. ``failed`` runs have none, and did not reach a threshold. A study that
        is judged again as it grows needs a `Gate` instead.
        """
        self.check_names(estimates.keys())

        def judge(name: str) -> LimitJudgement | ThresholdJudgement:
            once = [(estimates[name].runs + failed, 1.0)]
            return self.judge_one(name, estimates[name], self.alpha_each, self.beta, once, failed)

        return Verdict(tuple(map(judge, self.names)), self.alpha, self.beta)

    def judge_one(
        self, metric: str, estimate: Estimate, alpha: float, beta: float, looks: Looks, failed: int
    ) -> LimitJudgement | ThresholdJudgement:
        """Judge one limit of a spread by bounds of these error rates, one of a score by the last of these looks."""
        limit = next(limit for limit in self._limits if limit.metric == metric)
        if isinstance(limit, Limit):
            return limit.judge(estimate, alpha, beta)
        return limit.judge(estimate, failed, self.alpha_each, looks)

    def __repr__(self) -> str:
        given: dict[str, object] = {**self.limits, **self.thresholds}
        given |= {name: value for name in ("alpha", "beta") if (value := getattr(self, name)) != 0.05}
        usual = {limit.metric: Limit(limit.metric, limit.value).ratio for limit in self._spreads}
        given |= {"ratio": dict(self.ratios)} if self.ratios != usual else {}
        given |= {"max_failed_runs": self.max_failed_runs} if self.max_failed_runs else {}
        return f"Budget({', '.join(f'{name}={value!r}' for name, value in given.items())})"


def check_is_budget(given: object) -> None:
    """Raise BudgetError for anything but a `Budget`."""
    if not isinstance(given, Budget):
        raise BudgetError(
            f"Expected a Budget but got {given!r}. Name what may vary and by how much, as in Budget(accuracy_sd=0.30, "
            f"disagreement=11.0)."
        )


def _checked(name: str, limit: object) -> float:
    kind = kind_of(name)
    advice = f"{kind.why}; write {name}={kind.example}, for example."
    number = number_of(limit)
    if not math.isfinite(number):
        raise BudgetError(f"Expected {name} to be a finite number but got {name}={limit!r}. {advice}")
    if not kind.least <= number <= kind.most:
        wanted = f"{name} >= {kind.least:g}" if number < kind.least else f"{name} <= {kind.most:g}"
        raise BudgetError(f"Expected {wanted} but got {name}={limit!r}. {advice}")
    return number


def _check_is_score(name: str) -> None:
    """Raise BudgetError for a threshold on a measure that is no mean of a score over runs."""
    if kind_of(name).form is not Form.MEAN:
        raise BudgetError(
            f"Expected at_most(...) or at_least(...) for a score but got Budget({name}=...), which says how far runs "
            f"differ. Its limit is a number, as in Budget({name}={kind_of(name).example})."
        )


def _check_consistent(limits: Mapping[str, float]) -> None:
    """Raise BudgetError for a limit that another one keeps from ever being used up."""
    disagreement = limits.get(DISAGREEMENT)
    if disagreement is None:
        return
    for name, bound in most_beside_disagreement(disagreement).items():
        if limits.get(name, 0) > bound:
            raise BudgetError(
                f"Expected budgets that do not contradict each other but got {name}={limits[name]:g} beside "
                f"{DISAGREEMENT}={disagreement:g}: runs that disagree so little have {name} <= {bound:.3g}, so that "
                f"limit could never matter. Lower it, leave it out, or raise {DISAGREEMENT}."
            )


def _ratios(ratio: float | Mapping[str, float] | None, limits: Mapping[str, float]) -> dict[str, float]:
    given = ratio if isinstance(ratio, Mapping) else {} if ratio is None else dict.fromkeys(limits, ratio)
    for name, value in given.items():
        if name not in limits:
            raise BudgetError(
                f"Expected ratio= to name limits of this budget but got {name!r}. It has {', '.join(limits)}."
            )
        if not 1 < number_of(value) < math.inf:
            raise BudgetError(
                f"Expected ratio > 1 but got ratio={value!r} for {name}. A PASS says that the spread is below ratio "
                f"times the budget; the closer to 1, the more runs it takes. 2 is usual for SDs, 1.25 for the others."
            )
    return {name: number_of(given.get(name)) for name in limits}


def _error_rate(name: str, value: object) -> float:
    if not 0 < number_of(value) < 0.5:
        raise BudgetError(
            f"Expected {name} between 0 and 0.5 but got {name}={value!r}. It is how often the verdict may be wrong; "
            f"0.05 is usual, 0.01 where many tests gate one merge."
        )
    return number_of(value)
