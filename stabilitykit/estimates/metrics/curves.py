"""How far runs lie apart after each epoch: what the paper's figure 3 draws."""

from __future__ import annotations

import torch
from torch import Tensor


def central_range(scores: Tensor, share: float = 0.95) -> tuple[Tensor, Tensor]:
    """Return the bounds of the middle ``share`` of R runs after each of E epochs (Summers & Dinneen, figure 3).

    ``[R, E]`` in, twice float64 ``[E]`` out, in the unit of the scores: percentiles, linear between the two runs that
    they fall between. NaN after epochs in which a run has no number.

    >>> low, high = central_range(torch.tensor([[3.0], [1.0], [2.0], [5.0], [4.0]]), share=0.5)
    >>> low.item(), high.item()
    (2.0, 4.0)
    """
    outside = (1 - share) / 2
    ordered, undefined = scores.double().sort(dim=0).values, ~scores.isfinite().all(dim=0)
    low, high = (_at(ordered, place).masked_fill(undefined, torch.nan) for place in (outside, 1 - outside))
    return low, high


def share_inside(runs: int, share: float = 0.95) -> float:
    """Return the share of further runs that `central_range` of R runs holds on average.

    Less than ``share``, since few runs have not seen the tails. Exact for uniform scores, and close for normal ones.

    >>> round(share_inside(10), 3), round(share_inside(100), 3)
    (0.777, 0.931)
    """
    return share * (runs - 1) / (runs + 1)


def runs_to_reach_inside(share: float = 0.95) -> int:
    """Return R from which on `central_range` leaves out a run on either side: with fewer the outermost move it.

    >>> runs_to_reach_inside()
    41
    """
    return round(2 / (1 - share)) + 1


def _at(ordered: Tensor, share: float) -> Tensor:
    place = round(share * (len(ordered) - 1), 9)  # a place that is whole but for rounding is that run's own
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)
