"""A FAIL that an earlier session came to, which stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .judgement import Judgement, Outcome


@dataclass(frozen=True)
class StandingFail(Judgement):
    """The judgement that the same budget failed before, at runs of the same code, data and seeds.

    >>> print(StandingFail(20, "accuracy_sd 0.7 points over 20 runs is beyond the budget.", "2024-02-01").reason)
    the same budget failed on 2024-02-01 at 20 runs of this very experiment, and that stands: accuracy_sd 0.7 points \
over 20 runs is beyond the budget.
    """

    runs: int  #: behind the FAIL
    said: str  #: its reason
    date: str
    name: ClassVar[str] = "earlier_fail"
    outcome: ClassVar[Outcome] = Outcome.FAIL
    runs_to_settle: ClassVar[None] = None
    is_relative: ClassVar[bool] = False

    @property
    def reason(self) -> str:
        """One sentence with the reason of the earlier FAIL."""
        where = f"on {self.date} at {self.runs} runs of this very experiment"
        return f"the same budget failed {where}, and that stands: {self.said}"

    def to_json(self) -> dict[str, Any]:
        """Return what was found, as JSON's types."""
        asked = {"metric": self.name, "limit": None, "ratio": None, "runs": self.runs}
        return {**asked, "outcome": self.outcome.value, "reason": self.reason}
