"""What the runs say about one thing that was asked, and why: the shape that every answer has."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Protocol

from ..errors import setting
from ..estimates.search import MOST_RUNS
from ..public import public


@public
class Outcome(Enum):
    """What the runs say about what was asked."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


#: The first of these that is among several outcomes is that of all of them.
WORST_FIRST = (Outcome.FAIL, Outcome.UNDECIDED, Outcome.PASS)


class Judgement(Protocol):
    """An answer: of a limit, of failed runs, or of a study beside others."""

    @property
    def name(self) -> str:
        """What was judged: a measure, or a word for what is no measure."""
        ...

    @property
    def outcome(self) -> Outcome:
        """PASS, FAIL or UNDECIDED."""
        ...

    @property
    def reason(self) -> str:
        """One sentence with the numbers, and what to do next."""
        ...

    @property
    def runs_to_settle(self) -> int | None:
        """The fewest runs that would decide what is UNDECIDED; None where 1000 would not, or where it is decided."""
        ...

    @property
    def is_relative(self) -> bool:
        """Whether it holds a study against others; reports list those apart."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return what was asked and found, as JSON's types."""
        ...


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return FAIL if any outcome is FAIL, else UNDECIDED if any is, else PASS."""
    return min(outcomes, key=WORST_FIRST.index, default=Outcome.PASS)


def advice(runs: int | None, roughly: str = "about", of: str = "") -> str:
    """Say how many ``runs`` (and ``of`` what) would settle what is UNDECIDED; None are more than `MOST_RUNS`."""
    if runs is None:
        return f"not even {MOST_RUNS} runs would settle it, so move the budget"
    return f"{roughly} {runs} runs would settle it: {setting('runs', runs)}{of}"
