"""The fewest runs that would do."""

from __future__ import annotations

from collections.abc import Callable

#: Runs beyond which planning gives up.
MOST_RUNS = 1000


def fewest(shows: Callable[[int], bool], low: int, high: int = MOST_RUNS) -> int | None:
    """Return the least number from ``low`` to ``high`` for which ``shows`` is true; None where there is none.

    By bisection: ``shows`` must be true for all numbers above one for which it is true.

    >>> fewest(lambda runs: runs * runs > 50, 2, 100)
    8
    >>> fewest(lambda runs: runs > 100, 2, 100) is None
    True
    """
    if low > high or not shows(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle + 1, high)
    return low
