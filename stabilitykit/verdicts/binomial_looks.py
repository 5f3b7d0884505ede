"""The looks of a gate that counts runs: how few may miss a threshold, at each look, to show that few runs do."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np

from ..estimates.distributions import Floats, binomial


def most_shown(looks: Iterable[tuple[int, float]], chance: float, error: float) -> int:
    """Return the largest count of runs, at the last look, that shows a chance of less than ``chance`` a run; else -1.

    Each look is at a number of runs, and spends a share of the ``error`` rate; what a look leaves of its share, since
    counts come in steps, later ones may spend. All looks together err in ``error`` of studies at most, exactly, for
    runs that are independent. One look is the bound of Clopper and Pearson (1934).

    >>> most_shown([(5, 1.0)], 0.5, 0.05), most_shown([(4, 1.0)], 0.5, 0.05)  # 0.5^5 is 0.03
    (0, -1)
    >>> most_shown([(29, 1.0)], 0.1, 0.05), most_shown([(28, 1.0)], 0.1, 0.05)  # 0.9^29 is 0.047
    (0, -1)
    """
    return _counts(tuple(looks), chance, error)[-1]


@functools.cache
def _counts(looks: tuple[tuple[int, float], ...], chance: float, error: float) -> tuple[int, ...]:
    going: Floats = np.ones(1)  # how likely each count is, in studies in which no look has shown anything
    spent, erred, before, found = 0.0, 0.0, 0, []
    for runs, share in looks:
        going = np.convolve(going, binomial(runs - before, chance))
        spent, before = spent + share * error, runs
        below = np.cumsum(going)
        count = int(np.searchsorted(below, spent - erred, side="right")) - 1
        if count >= 0:
            erred += float(below[count])
            going[: count + 1] = 0
        found.append(count)
    return tuple(found)
