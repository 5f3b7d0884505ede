"""Where a spread beyond its limit comes from, as far as the numbers of a study tell."""

from __future__ import annotations

from ..estimates.flip_floor import where_from
from ..estimates.measure_kinds import FLOOR, FLOORED
from ..estimates.measures import Measures
from .budgets import Verdict
from .judgement import Outcome
from .limits import LimitJudgement
from .unreachable import unreachable


def explanation(verdict: Verdict, measures: Measures) -> tuple[str, ...]:
    """Return a paragraph each on a limit of the accuracy SD that is not kept; none for other measures, and for PASS."""
    limits = [judgement for judgement in verdict.judgements if isinstance(judgement, LimitJudgement)]
    for judgement in limits:
        if judgement.name == FLOORED and judgement.outcome is not Outcome.PASS:
            spread, floor, examples = measures[FLOORED], measures[FLOOR], measures.examples
            never = unreachable(judgement.limit, floor, examples)
            why = f"why: {where_from(spread, floor, examples)}"
            return (why, str(never)) if never else (why,)
    return ()
