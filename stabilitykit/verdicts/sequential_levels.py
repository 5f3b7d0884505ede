"""The looks of a gate at the runs so far, and the error rate of its bounds at each: group-sequential levels.

A gate that judges again and again, at 5 % each time, is wrong in far more than 5 % of studies. So the error rate is
spent over the looks, in proportion to the degrees of freedom that each adds (linear spending; Lan & DeMets, 1983, Kim &
DeMets, 1987). The levels are exact for the SD of normal scores, whose sum of squares grows by independent chi-square
steps, and are used for every measure; docs/statistics.md has the error rates that were measured with them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np

from ..estimates.distributions import Floats, chi2_cdf, chi2_cdf_integral, chi2_upper_quantile

#: Numbers of runs at which a verdict is looked for; later ones are each 1.25 times the one before.
_LOOKS = (3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100)
_LATER = 1.25

#: The fewest runs that a sequential verdict needs.
FIRST_LOOK = _LOOKS[0]

#: Cells of the grid that carries a density from look to look, and the probability that lies above it.
_CELLS, _BEYOND = 600, 1e-12


def looks(runs: int) -> tuple[int, ...]:
    """Return the numbers of runs at which a study of at most ``runs`` is judged; the last is ``runs``.

    >>> looks(20)
    (3, 4, 5, 6, 8, 10, 12, 15, 20)
    >>> looks(14)
    (3, 4, 5, 6, 8, 10, 12, 14)
    """
    later = itertools.accumulate(itertools.repeat(_LATER), lambda look, by: round(look * by), initial=_LOOKS[-1])
    return (*itertools.takewhile(lambda look: look < runs, itertools.chain(_LOOKS[:-1], later)), runs)


@functools.cache
def levels(looks: tuple[int, ...], error: float, cells: int = _CELLS) -> tuple[float, ...]:
    """Return the error rate of a one-sided bound at each look, so that all together err in ``error`` of studies.

    The first call for a schedule takes a fraction of a second, the next ones nothing. A fifth of the ``cells`` takes a
    twentieth of that, and errs by 2 % of a level: enough for a search.

    >>> [round(level, 4) for level in levels((5, 10), 0.05)]
    [0.0222, 0.0332]
    """
    df = np.asarray(looks, dtype=np.float64) - 1
    sums, found = _SumOfSquares(cells), []
    for now, spent in zip(df, error * np.diff(df, prepend=0) / df[-1], strict=True):
        sums.grow(now)
        bound = sums.quantile(spent)
        sums.drop_below(bound)
        found.append(chi2_cdf(bound, now))
    return tuple(found)


def crossing(looks: Sequence[int], levels: Sequence[float]) -> float:
    """Return how often one-sided bounds at these levels err at any of the looks.

    It tells what a schedule spends that was changed on the way, as by a larger ``runs``.

    >>> round(crossing((5, 10), levels((5, 10), 0.05)), 4), round(crossing((5, 10), (0.05, 0.05)), 3)
    (0.05, 0.086)
    """
    sums, erred = _SumOfSquares(), 0.0
    for look, level in zip(looks, levels, strict=True):
        sums.grow(look - 1.0)
        bound = chi2_upper_quantile(1 - level, look - 1.0)
        erred += float(sums.below(np.array([bound]))[0])
        sums.drop_below(bound)
    return erred


class _SumOfSquares:
    """The distribution of a sum that grows by chi-square steps, over the studies whose bounds have not erred so far.

    Between looks it is a density that is constant in each cell of a grid.
    """

    def __init__(self, cells: int = _CELLS) -> None:
        self._cells = cells
        self._df = self._step = 0.0
        self._edges: Floats | None = None  #: None: the sum is 0
        self._mass = np.ones(1)

    def grow(self, df: float) -> None:
        """Go on to the next look, at ``df`` degrees of freedom in all."""
        self._df, self._step = df, df - self._df

    def below(self, sums: Floats) -> Floats:
        """Return the shares of all studies that have not erred so far and have a sum below each of ``sums``."""
        if self._edges is None:
            return chi2_cdf(sums, self._step)
        # A uniform cell and a chi-square step: the mean of the step's distribution function over the cell.
        integral = chi2_cdf_integral(sums[:, None] - self._edges, self._step)
        share: Floats = (integral[:, :-1] - integral[:, 1:]) / np.diff(self._edges) @ self._mass
        return share

    def quantile(self, share: float) -> float:
        """Return the sum below which a ``share`` of all studies lies."""
        low, high = 0.0 if self._edges is None else float(self._edges[0]), self._top
        for _ in range(8):  # each narrows it by 32
            sums = np.linspace(low, high, 33)
            after = int(np.clip(np.searchsorted(self.below(sums), share), 1, 32))
            low, high = float(sums[after - 1]), float(sums[after])
        return high

    def drop_below(self, bound: float) -> None:
        """Leave out the studies whose sum is below ``bound``: their bound has erred."""
        # Finer where the next bound will be.
        edges = bound + (self._top - bound) * np.linspace(0, 1, self._cells + 1) ** 2
        self._mass, self._edges = np.diff(self.below(edges)), edges

    @property
    def _top(self) -> float:
        return chi2_upper_quantile(_BEYOND, self._df)
