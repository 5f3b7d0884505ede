"""The sentence that tells a user how many runs would settle an UNDECIDED judgement."""

from __future__ import annotations

from ..errors import setting
from ..estimates.search import MOST_RUNS


def advice(runs: int | None, roughly: str = "about", of: str = "") -> str:
    """Say how many ``runs`` (``of`` which studies) would settle an UNDECIDED judgement; None: over `MOST_RUNS`."""
    if runs is None:
        return f"not even {MOST_RUNS} runs would settle it, so move the budget"
    return f"{roughly} {runs} runs would settle it: {setting('runs', runs)}{of}"
