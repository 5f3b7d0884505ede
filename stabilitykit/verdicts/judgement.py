"""The shape of every answer: a name, an outcome, a reason, and the runs that would settle it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Protocol

from ..public import public


@public
class Outcome(Enum):
    """The answer to a question about runs."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


#: The first of these that is among several outcomes is that of all of them.
WORST_FIRST = (Outcome.FAIL, Outcome.UNDECIDED, Outcome.PASS)


class Judgement(Protocol):
    """An answer: of a limit, of failed runs, or of a study beside others."""

    @property
    def name(self) -> str:
        """Name of the measure that was judged, or of the question, as in "failed_runs"."""

    @property
    def outcome(self) -> Outcome:
        """PASS, FAIL or UNDECIDED."""

    @property
    def reason(self) -> str:
        """One sentence with the numbers, and what to do next."""

    @property
    def runs_to_settle(self) -> int | None:
        """The fewest runs that would decide an UNDECIDED one; None if it is decided, or 1000 runs would not do."""

    @property
    def is_relative(self) -> bool:
        """Whether it holds a study against others; reports list those apart."""

    def to_json(self) -> dict[str, Any]:
        """Return what was asked and found, as JSON's types."""


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return FAIL if any outcome is FAIL, else UNDECIDED if any is, else PASS."""
    return min(outcomes, key=WORST_FIRST.index, default=Outcome.PASS)
