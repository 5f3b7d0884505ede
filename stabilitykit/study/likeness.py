"""Whether several studies vary alike: the paper's first finding, that sources differ little, as a gate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from ..errors import BudgetError, TaskError, number_of
from ..estimates.estimate import Estimate, finite
from ..estimates.intervals import ChiSquare
from ..estimates.measure_kinds import kind_of
from ..estimates.ratios import Ratio, spread_of
from ..estimates.search import fewest
from ..public import public
from ..verdicts.judgement import WORST_FIRST, Judgement, Outcome, worst
from ..verdicts.undecided import advice
from .study import Study, listed


@dataclass(frozen=True)
class MeasureLikeness:
    """One measure of several studies: the ratio of each study's to each other's."""

    metric: str
    spreads: tuple[Estimate, ...]  #: of each study; 1 - correlation for a correlation
    studies: tuple[str, ...]  #: their names
    within: float  #: the factor that no two may differ by more than
    alpha: float  #: error rate of each bound against FAIL
    beta: float  #: error rate of each bound against PASS

    @property
    def outcome(self) -> Outcome:
        """FAIL if the interval of any ratio lies beyond the factor, PASS if all intervals lie within it."""
        return self._decide(self.ratios.values())

    @cached_property
    def ratios(self) -> dict[tuple[str, str], Ratio]:
        """Each study by each other one, so that the factor is an upper limit alone, by their two names."""
        ordered = itertools.permutations(zip(self.studies, self.spreads, strict=True), 2)
        return {(above, below): Ratio(of_above, of_below) for (above, of_above), (below, of_below) in ordered}

    @property
    def largest(self) -> tuple[str, str]:
        """The two studies that decide: the ratio that is surest to be beyond the factor, or least sure to be within."""
        is_beyond = self.outcome is Outcome.FAIL

        def reach(names: tuple[str, str]) -> float:
            ratio = self.ratios[names]
            if ratio.is_undefined:
                return math.inf
            return ratio.low(self.alpha) if is_beyond else ratio.high(self.beta)

        return max(self.ratios, key=lambda names: (reach(names), self.ratios[names].value))

    @cached_property
    def runs_to_settle(self) -> int | None:
        """The fewest runs of each study whose intervals around the same values would decide it; None beyond 1000."""
        if self.outcome is not Outcome.UNDECIDED:
            return None
        more = 1 + min(ratio.runs for ratio in self.ratios.values())
        if any(not ratio.has_interval for ratio in self.ratios.values()):
            return max(more, 3)
        ratios = self.ratios.values()
        return fewest(lambda runs: self._decide(of.after(runs) for of in ratios) is not Outcome.UNDECIDED, more)

    @property
    def reason(self) -> str:
        """One sentence with the two studies that decide, their ratio and its interval, and what to do next."""
        above, below = self.largest
        ratio, outcome, name = self.ratios[self.largest], self.outcome, kind_of(self.metric).spread_name
        if ratio.is_undefined:
            return f"{name} of {above} or {below} is undefined, and what cannot be measured cannot pass."
        if outcome is Outcome.PASS and ratio.value == 1 and ratio.is_exact:
            return f"{name} is exactly 0 in each study."
        interval = f"[{ratio.low(self.alpha):.3g}, {ratio.high(self.beta):.3g}]"
        compared = f"{name} of {above} is {ratio.value:.3g} {interval} times that of {below}"
        if outcome is Outcome.PASS:
            return f"{compared}, the largest ratio of {len(self.ratios)}: all are shown to be within {self.within:g}."
        if outcome is Outcome.FAIL:
            return f"{compared}, and so is beyond a factor of {self.within:g} with its whole interval."
        without = any(not ratio.has_interval for ratio in self.ratios.values())
        more = advice(self.runs_to_settle, "at least" if without else "about", ", in each")
        return f"{compared}, neither shown to be within a factor of {self.within:g} nor beyond it; {more}."

    @property
    def reach(self) -> float:
        """The first study's largest ratio to another, in multiples of the factor; a self-test drives it to 2."""
        first, *others = self.studies
        return max(self.ratios[first, other].value for other in others) / self.within

    def with_first(self, study: Study) -> MeasureLikeness:
        """Return the comparison with ``study`` in the place of the first one."""
        return replace(self, spreads=(_spread(study, self.metric), *self.spreads[1:]))

    def to_json(self) -> dict[str, Any]:
        """Return the ratio that decides, as JSON's types; a bound that is infinite or undefined is None."""
        ratio = self.ratios[self.largest]
        bounds = {"low": finite(ratio.low(self.alpha)), "high": finite(ratio.high(self.beta))}
        found = {"value": finite(ratio.value), **bounds, "outcome": self.outcome.value, "reason": self.reason}
        return {"metric": self.metric, "between": list(self.largest), **found}

    def _decide(self, ratios: Iterable[Ratio]) -> Outcome:
        ratios = list(ratios)
        if any(ratio.is_undefined or ratio.low(self.alpha) > self.within for ratio in ratios):
            return Outcome.FAIL
        is_shown = all(ratio.high(self.beta) <= self.within for ratio in ratios)
        return Outcome.PASS if is_shown else Outcome.UNDECIDED


@public
@dataclass(frozen=True)
class Likeness(Judgement):
    """Whether several studies vary alike: no two differ by more than a factor in any of the measures.

    Two error rates, as everywhere: FAIL is said of studies that are alike in a share ``alpha`` at most, which the
    ratios of all measures share. PASS is said of studies of which two differ by more in a share ``beta`` at most: it
    takes every interval, so their bounds need no correction.
    """

    measures: tuple[MeasureLikeness, ...]
    within: float
    alpha: float
    beta: float
    name: ClassVar[str] = "likeness"
    is_relative: ClassVar[bool] = True

    @property
    def outcome(self) -> Outcome:
        """FAIL if one measure fails, PASS if all pass."""
        return worst(of.outcome for of in self.measures)

    @property
    def reason(self) -> str:
        """The reason of the first measure with that outcome."""
        return next(of.reason for of in self.measures if of.outcome is self.outcome)

    @property
    def runs_to_settle(self) -> int | None:
        """The fewest runs of each study that would decide every measure; None beyond 1000, or where it is decided."""
        needed = [of.runs_to_settle for of in self.measures if of.outcome is Outcome.UNDECIDED]
        known = [runs for runs in needed if runs is not None]
        return max(known) if known and len(known) == len(needed) and self.outcome is Outcome.UNDECIDED else None

    def __getitem__(self, metric: str) -> MeasureLikeness:
        """Return the comparison of one measure by name."""
        found = {of.metric: of for of in self.measures}
        if metric not in found:
            raise TaskError(f"Expected a measure that was compared but got {metric!r}. They are {', '.join(found)}.")
        return found[metric]

    @property
    def error_rates(self) -> str:
        """Say how often either verdict is wrong."""
        ratios = sum(len(of.ratios) for of in self.measures)
        return (
            f"FAIL is said of studies that are alike in {100 * self.alpha:g} % of cases at most, shared by {ratios} "
            f"ratios; PASS of two that differ by more in {100 * self.beta:g} %. Runs are taken as independent."
        )

    @property
    def summary(self) -> str:
        """Give question and outcome in one line, for a note beside the studies."""
        of_outcome = {outcome: [of.metric for of in self.measures if of.outcome is outcome] for outcome in Outcome}
        found = "; ".join(f"{outcome.name} {', '.join(names)}" for outcome, names in of_outcome.items() if names)
        return f"within a factor of {self.within:g} of {', '.join(self.measures[0].studies)}: {found}"

    def to_json(self) -> dict[str, Any]:
        asked = {"within": self.within, "studies": list(self.measures[0].studies)}
        compared = [of.to_json() for of in self.measures]
        return {"kind": self.name, "outcome": self.outcome.value, **asked, "measures": compared}

    def __str__(self) -> str:
        """Write a paragraph a measure, the worst first: the ratio that decides, then the spread of each study."""
        lines = []
        for of in sorted(self.measures, key=lambda of: WORST_FIRST.index(of.outcome)):
            spreads = "; ".join(f"{name} {spread}" for name, spread in zip(of.studies, of.spreads, strict=True))
            lines += [f"{of.outcome.name:<10} {of.reason}", " " * 11 + spreads]
        return "\n".join([*lines, self.error_rates])


@public
def alike(
    studies: Iterable[Study],
    within: float = 2.0,
    measures: Sequence[str] | None = None,
    *,
    alpha: float = 0.05,
    beta: float = 0.05,
) -> Likeness:
    """Compare each study with each other: does no measure of variability differ by more than the factor ``within``?

    ``measures`` are SDs and means over pairs by name, the paper's five if None. The runs of the studies are taken as
    independent; where they share seeds and so go together, that errs on the safe side. Their labels may differ.

    Raises `TaskError` for fewer than two studies or a measure that one of them does not have, `BudgetError` for a
    factor that is not above 1, and `IsolationError` for a study in which what varies moves nothing. Source: Summers &
    Dinneen, ICML 2021, section 3.

    >>> import torch
    >>> from stabilitykit.testing import fake_study
    >>> labels = torch.arange(300) % 3
    >>> def runs(seed):
    ...     noise = torch.randn(12, 300, 3, generator=torch.Generator().manual_seed(seed))
    ...     return 2.0 * torch.nn.functional.one_hot(labels, 3) + noise
    >>> found = alike([fake_study(runs(0), labels, vary="init"), fake_study(runs(1), labels, vary="shuffle")])
    >>> {of.metric: of.outcome.value for of in found.measures if of.metric in ("disagreement", "correlation")}
    {'disagreement': 'pass', 'correlation': 'pass'}
    """
    studies = listed(studies)
    for study in studies:
        study.check_alive()
    metrics = check_asked(len(studies), within, measures, [tuple(study.measures) for study in studies])
    if metrics is None:
        of_each = [study.measures.of_variability for study in studies]
        metrics = tuple(name for name in of_each[0] if all(name in names for names in of_each))
        if not metrics:
            raise TaskError("Expected studies with a measure of variability in common, but they have none.")
    names = _names(studies)
    each = alpha / (len(studies) * (len(studies) - 1) * len(metrics))  # pairs count both ways round
    spreads = {metric: tuple(_spread(study, metric) for study in studies) for metric in metrics}
    compared = (MeasureLikeness(metric, of, names, within, each, beta) for metric, of in spreads.items())
    return Likeness(tuple(compared), within, alpha, beta)


def check_asked(
    studies: int, within: float, measures: Sequence[str] | None, names: Iterable[Sequence[str]]
) -> tuple[str, ...] | None:
    """Raise `UsageError` for studies or measures that cannot be compared, by the ``names`` of each study's measures."""
    if studies < 2:
        raise TaskError(f"Expected two studies or more to compare but got {studies}.")
    if not 1 < number_of(within) < math.inf:
        raise BudgetError(f"Expected within > 1, the factor that no two studies may differ by, but got {within!r}.")
    if measures is None:
        return None
    if not isinstance(measures, Iterable):
        raise TaskError(f"Expected measures to be names of measures, as in ['disagreement'], but got {measures!r}.")
    metrics = (measures,) if isinstance(measures, str) else tuple(dict.fromkeys(measures))
    if not metrics:
        raise TaskError("Expected measures to compare but got none. Leave them out to compare the paper's five.")
    for of_study in names:
        spreads = [name for name in of_study if kind_of(name).is_spread]
        for metric in metrics:
            if metric not in spreads:
                raise TaskError(
                    f"Expected measures of variability that each study has but got {metric!r}. "
                    f"They are {', '.join(spreads)}."
                )
    return metrics


def _spread(study: Study, metric: str) -> Estimate:
    estimate, kind = study[metric], kind_of(metric)
    if kind.is_sd and kind.counts_examples and estimate.is_exact and study.disagreement.value > 0:
        # Accuracy comes in steps of one example: runs that differ can tie by chance. The SD is that of the rounding.
        sd, runs = 100 / study.measures.examples / math.sqrt(12), estimate.runs
        pivot = ChiSquare(sd, runs - 1, runs)
        return Estimate(sd, pivot.low(0.05), pivot.high(0.05), runs, "half a test example at most", pivot=pivot)
    return spread_of(metric, estimate)


def _names(studies: Sequence[Study]) -> tuple[str, ...]:
    """Name each study as shortly as tells them apart: what varies, or what was trained, or both, or a number."""
    sources = [study.protocol.name for study in studies]
    tasks = [study.task for study in studies]
    if len(set(tasks)) == 1:
        names = sources
    elif len(set(sources)) == 1:
        names = tasks
    else:
        names = [f"{task} [{source}]" for task, source in zip(tasks, sources, strict=True)]
    return tuple(
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)
    )
