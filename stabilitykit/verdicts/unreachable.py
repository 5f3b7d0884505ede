"""Budgets that no training can keep: below the flip floor, or under two test examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import DISAGREEMENT, FLOORED
from ..estimates.metrics import floor_of_churn


@dataclass(frozen=True)
class Unreachable:
    """A budget for an accuracy SD that lies below its flip floor."""

    budget: float  #: of the accuracy SD, points
    floor: Estimate  #: points
    examples: int  #: N
    needed: int | None  #: N of a test set on which flips alone would keep the budget; None for a budget of 0

    def __str__(self) -> str:
        larger = "no larger test set" if self.needed is None else f"N >= {self.needed}"
        return (
            f"the budget of {self.budget:g} points is unreachable on {self.examples} examples unless errors are "
            f"negatively correlated: flips of single examples alone give {self.floor} points; "
            f"{larger} would make it reachable"
        )


def unreachable(budget: float, floor: Estimate, examples: int) -> Unreachable | None:
    """Return the objection if the flip floor, with its error, shows that no training can keep an accuracy SD's budget.

    Budget and floor in percentage points, N test examples. None where it may come down to it, and for two runs.

    >>> floor = Estimate(0.20, 0.19, 0.21, runs=10, method="jackknife over runs")
    >>> unreachable(0.10, floor, examples=1000).needed  # the floor falls with the root of N
    4000
    >>> unreachable(0.20, floor, examples=1000) is None
    True
    """
    if not floor.low > budget:
        return None
    needed = math.ceil(round(examples * (floor.value / budget) ** 2, 6)) if budget else None
    return Unreachable(budget, floor, examples, needed)


def under_two_examples(limits: Mapping[str, float], examples: int) -> str | None:
    """Return a warning if a budget's ``accuracy_sd`` (points) is less than two of N test examples."""
    limit = limits.get(FLOORED)
    if not limit or limit * examples >= 200:  # a budget of 0 is about bits, and any difference is beyond it
        return None
    return (
        f"{FLOORED}={limit:g} points are {limit * examples / 100:.2g} of {examples} test examples, and an SD under "
        f"two examples cannot be told from none: equal scores are then common by chance. Budget {200 / examples:.2g} "
        f"points or more, or take {math.ceil(200 / limit)} test examples or more."
    )


def objections(limits: Mapping[str, float], examples: int, floor: Estimate | None = None) -> tuple[str, ...]:
    """Say what makes a budget's ``accuracy_sd`` (points) unreachable or meaningless on N test examples.

    ``floor`` is the flip floor in points, where runs have shown it; else the budget's own limit on disagreement bounds
    it: two models can disagree where both are wrong, but not be right on different examples without that.

    >>> print(*objections({"accuracy_sd": 0.05}, examples=1000))  # doctest: +NORMALIZE_WHITESPACE
    accuracy_sd=0.05 points are 0.5 of 1000 test examples, and an SD under two examples cannot be told from none: equal
    scores are then common by chance. Budget 0.2 points or more, or take 4000 test examples or more.
    """
    limit = limits.get(FLOORED)
    if not limit:
        return ()
    coarse = under_two_examples(limits, examples)
    said = [coarse] if coarse else []
    if floor is not None:
        shown = unreachable(limit, floor, examples)
        return (*said, *([f"{FLOORED}: {shown}"] if shown else []))
    at_budget = floor_of_churn(limits.get(DISAGREEMENT, 0.0), examples)
    if at_budget > limit:
        said.append(
            f"{FLOORED}={limit:g} points are unreachable on {examples} test examples unless errors are negatively "
            f"correlated: a disagreement at its own budget of {limits[DISAGREEMENT]:g} % brings up to "
            f"{at_budget:.2g} points. N >= {math.ceil(examples * (at_budget / limit) ** 2)} test examples make it "
            f"reachable."
        )
    return tuple(said)
