"""Where a spread beyond its limit comes from, as far as the numbers of a study tell."""

from __future__ import annotations

from ..estimates.flip_floor import where_from
from ..estimates.measure_kinds import FLOOR, FLOORED
from ..estimates.measures import Measures
from .budgets import Verdict
from .unreachable import unreachable


def explanation(verdict: Verdict, measures: Measures) -> tuple[str, ...]:
    """Return a paragraph each on a limit of the accuracy SD that is not kept; none for other measures, and for PASS."""
    for limit in verdict.beyond:
        if limit.name == FLOORED:
            floor, examples = measures[FLOOR], measures.examples
            never = unreachable(limit.limit, floor, examples)
            why = f"why: {where_from(measures[FLOORED], floor, examples)}"
            return (why, str(never)) if never else (why,)
    return ()
