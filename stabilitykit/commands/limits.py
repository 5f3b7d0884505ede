"""Budgets as they are written on a command line: ``val_loss_sd<=0.01``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import BudgetError
from ..verdicts.budgets import Budget

_LIMIT = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*([-+.0-9eE]+)\s*")


def budget_of(texts: Sequence[str]) -> Budget | None:
    """Return the budget of some limits; None without any. Raises `BudgetError` for what is no limit.

    >>> budget_of(["val_loss_sd<=0.01", "reward_sd <= 5"])
    Budget(val_loss_sd=0.01, reward_sd=5.0)
    """
    limits: dict[str, Any] = {}
    for text in texts:
        name, limit = _limit(text)
        if name in limits:
            raise BudgetError(f"Expected one --budget for {name} but got two.")
        limits[name] = limit
    return Budget(**limits) if limits else None


def _limit(text: str) -> tuple[str, float]:
    found = _LIMIT.fullmatch(text)
    try:
        if found:
            return found[1], float(found[3])
    except ValueError:
        pass
    raise BudgetError(f"Expected a limit such as 'val_loss_sd<=0.01' but got {text!r}.")
