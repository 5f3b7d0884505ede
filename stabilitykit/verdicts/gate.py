"""One budget, judged again and again while runs come in, until its verdict stands."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import ConfigError
from ..estimates.estimate import Estimate
from ..estimates.search import MOST_RUNS, fewest
from .budgets import Budget, Verdict
from .judgement import Outcome
from .limits import LimitJudgement
from .power import COARSE
from .sequential_levels import FIRST_LOOK, crossing, levels, looks
from .thresholds import Looks, ThresholdJudgement
from .undecided import advice


@dataclass(frozen=True)
class Look:
    """A number of runs at which a budget is judged, and the error rates of the bounds there."""

    runs: int
    alpha: float  #: of each limit's bound against FAIL
    beta: float  #: of each limit's bound against PASS
    spent: float  #: share of the error rate of a threshold that is spent here


class Gate:
    """Judges a budget at each scheduled number of runs; the first verdict on each limit is final.

    A limit FAILs as soon as its lower bound exceeds it, else PASSes as soon as its upper bound is below the ratio times
    it, at levels that spend alpha and beta over all looks (`sequential`). The budget FAILs with its first limit, and
    PASSes when all have; what is open after ``runs`` is UNDECIDED. The looks count runs in the order of their index:
    the first that finish may be unlike the others.

    >>> from stabilitykit.estimates.intervals import sd_estimate
    >>> gate, scores = Gate(Budget(accuracy_sd=1.0), runs=20), [90.1, 90.4, 89.9, 90.0, 90.3, 90.2]
    >>> while gate.next_look:
    ...     gate.look({"accuracy_sd": sd_estimate(scores[: gate.next_look])})
    >>> gate.verdict.outcome.name, gate.runs
    ('PASS', 4)
    """

    def __init__(self, budget: Budget, runs: int, taken: Iterable[Look] = ()) -> None:
        """Judge at most ``runs`` runs; ``taken`` are the looks of an earlier session, which stay as they were.

        Where they went beyond ``runs``, none is added to them: a look that was not scheduled could turn FAIL to PASS.
        """
        if runs < FIRST_LOOK:
            raise ConfigError(
                f"Expected at least {FIRST_LOOK} runs for a check but got {runs}, too few for its first look. "
                f"R is only the most that it trains: it stops as soon as it knows.",
                runs=20,
            )
        self.budget = budget
        fresh = _schedule(budget, looks(runs))
        earlier = tuple(taken)
        later = (look for look in fresh if not earlier or look.runs > earlier[-1].runs)
        self.schedule = _within_spending((*(look for look in earlier if look.runs <= runs), *later))
        self._is_as_planned = self.schedule == fresh
        self._taken = 0
        self._found: dict[str, LimitJudgement | ThresholdJudgement] = {}  #: the last judgement of each limit

    @property
    def next_look(self) -> int | None:
        """Number of runs at the next look; None once the verdict stands."""
        return None if self._is_settled() else self.schedule[self._taken].runs

    @property
    def taken(self) -> tuple[Look, ...]:
        """The looks so far."""
        return self.schedule[: self._taken]

    @property
    def runs(self) -> int:
        """Number of runs at the last look; 0 before the first."""
        return self.taken[-1].runs if self._taken else 0

    @property
    def open(self) -> tuple[str, ...]:
        """The limits that have no verdict yet."""
        return tuple(name for name in self.budget.names if not self._has_verdict(name))

    @property
    def verdict(self) -> Verdict:
        """The judgement of each limit, with the error rates of all scheduled looks."""
        judged = (self._found[name] for name in self.budget.names if name in self._found)
        return Verdict(tuple(map(self._advised, judged)), *self._error_rates())

    def look(self, estimates: Mapping[str, Estimate], failed: int = 0) -> None:
        """Judge the open limits by estimates over the first `next_look` runs, of which so many ``failed``."""
        look = self.schedule[self._taken]
        looks = _as_looks(self.schedule[: self._taken + 1])
        for name in self.open:
            self._found[name] = self.budget.judge_one(name, estimates[name], look.alpha, look.beta, looks, failed)
        self._taken += 1

    def pass_over(self) -> None:
        """Take a look without judging a limit: too few runs are whole."""
        self._taken += 1

    def _advised(self, judgement: LimitJudgement | ThresholdJudgement) -> LimitJudgement | ThresholdJudgement:
        """Add to an UNDECIDED judgement how many runs would settle it, at the levels of later looks."""
        can_tell = isinstance(judgement, ThresholdJudgement) or judgement.measured.pivot is not None
        is_open = judgement.outcome is Outcome.UNDECIDED and can_tell
        if not is_open or not self._is_settled():
            return judgement
        if self._has_failed():
            return replace(judgement, advice="the check ended before it was settled, with what failed")

        def settles(runs: int) -> bool:
            schedule = _schedule(self.budget, looks(runs), cells=COARSE)
            if isinstance(judgement, ThresholdJudgement):
                return judgement.would_be_settled(_as_looks(schedule))
            return judgement.would_be_settled(runs, schedule[-1].alpha, schedule[-1].beta)

        later = [runs for runs in looks(MOST_RUNS) if runs > self.runs]
        found = fewest(lambda look: settles(later[look]), 0, len(later) - 1)
        return replace(judgement, advice=advice(None if found is None else later[found]))

    def _has_verdict(self, name: str) -> bool:
        return name in self._found and self._found[name].outcome is not Outcome.UNDECIDED

    def _is_settled(self) -> bool:
        return self._has_failed() or not self.open or self._taken == len(self.schedule)

    def _has_failed(self) -> bool:
        return any(judgement.outcome is Outcome.FAIL for judgement in self._found.values())

    def _error_rates(self) -> tuple[float, float]:
        """Alpha and beta, or the error rates that a schedule spends which an earlier session began with other looks."""
        if self._is_as_planned:
            return self.budget.alpha, self.budget.beta
        runs = [look.runs for look in self.schedule]
        alpha = len(self.budget.names) * crossing(runs, [look.alpha for look in self.schedule])
        return alpha, crossing(runs, [look.beta for look in self.schedule])


def _schedule(budget: Budget, runs: tuple[int, ...], **precision: int) -> tuple[Look, ...]:
    fail_levels, pass_levels = (levels(runs, error, **precision) for error in (budget.alpha_each, budget.beta))
    df = [look - 1 for look in runs]
    spent = [(now - before) / df[-1] for before, now in itertools.pairwise([0, *df])]
    return tuple(map(Look, runs, fail_levels, pass_levels, spent))


def _within_spending(schedule: Sequence[Look]) -> tuple[Look, ...]:
    """Let the looks of a schedule that was changed spend no more than there is."""
    left, found = 1.0, []
    for look in schedule:
        found.append(replace(look, spent=min(look.spent, max(left, 0.0))))
        left -= look.spent
    return tuple(found)


def _as_looks(schedule: Iterable[Look]) -> Looks:
    return [(look.runs, look.spent) for look in schedule]
