"""Budgets as they are written on a command line: ``val_loss_sd<=0.01``, ``reward>=450 share=0.9``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import BudgetError
from ..estimates.measure_kinds import kind_of
from ..verdicts.budgets import Budget
from ..verdicts.thresholds import Threshold, at_least, at_most

_LIMIT = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=)\s*(\S+)((?:\s+\S+)*)\s*")


def budget_of(texts: Sequence[str]) -> Budget | None:
    """Return the budget of some limits; None without any. Raises `BudgetError` for what is no limit.

    >>> budget_of(["val_loss_sd<=0.01", "val_loss <= 3.28 alpha=0.01", "reward>=450 share=0.9"])
    Budget(val_loss_sd=0.01, val_loss=at_most(3.28, alpha=0.01), reward=at_least(450.0, share=0.9))
    """
    limits: dict[str, Any] = {}
    for text in texts:
        name, limit = _limit(text)
        if name in limits:
            raise BudgetError(f"Expected one --budget for {name} but got two.")
        limits[name] = limit
    return Budget(**limits) if limits else None


def _limit(text: str) -> tuple[str, float | Threshold]:
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise _wrong(text, "is no name, sign and number")
    name, sign, value, words = found.groups()
    number = _number(value, text)
    if not kind_of(name).is_sd:
        return name, (at_most if sign == "<=" else at_least)(number, **_settings(words.split(), text))
    if sign == ">=" or words:
        raise _wrong(text, "is no upper limit on a spread")
    return name, number


def _settings(words: Sequence[str], text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if word == "mean":
            found["mean"] = True
        elif sign and name in ("share", "alpha"):
            found[name] = _number(value, text)
        else:
            raise _wrong(text, f"ends with {word!r}, which is not mean, share= or alpha=")
    return found


def _number(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise _wrong(text, f"has {value!r} for a number") from None


def _wrong(text: str, why: str) -> BudgetError:
    return BudgetError(
        f"Expected a limit such as 'val_loss_sd<=0.01', 'val_loss<=3.28 alpha=0.01' or 'reward>=450 share=0.9' but got "
        f"{text!r}, which {why}."
    )
