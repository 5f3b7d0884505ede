"""What it brings to average models: the ensemble delta of every pair, and vanilla ensembles from independent runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import UsageError
from .scores import Score

#: What an ensemble averages. The paper averages logits.
Average: TypeAlias = Literal["logits", "probabilities"]

#: Of averaged outputs held at once. Averaging probabilities takes about six times as much for a moment.
_CHUNK_BYTES = 8 * 2**20


def ensemble_delta(outputs: Tensor, labels: Tensor, score: Score, *, average: Average = "logits") -> Tensor:
    r"""What averaging two models gains over the two alone, for every pair.

    .. math:: f\left(\frac{S_i + S_j}{2}\right) - \frac{f(S_i) + f(S_j)}{2}

    Outputs ``[R, N, ...]`` and labels ``[N, ...]`` in, float64 ``[R, R]`` in the unit of the score out; the diagonal
    is 0. More diverse models gain more: above 0 for an accuracy, below 0 for a loss. With
    ``average="probabilities"`` the outputs are logits ``[R, N, C]`` and the score sees the log of the mean softmax.

    >>> from stabilitykit.metrics import accuracy
    >>> logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    >>> ensemble_delta(logits, torch.tensor([0, 1]), accuracy)  # each model knows one example, the pair knows both
    tensor([[ 0., 50.],
            [50.,  0.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, equation (1), before its mean over pairs.
    """
    if average not in ("logits", "probabilities"):
        raise UsageError(
            f"Expected average='logits' or average='probabilities' but got average={average!r}. The paper averages "
            "logits, and its tables can only be compared with those."
        )
    mean_of_two = _mean_logits if average == "logits" else _mean_probabilities
    runs, pairs_a_chunk = len(outputs), max(1, _CHUNK_BYTES // (8 * outputs[0].numel()))
    alone = torch.cat([score(run.double().unsqueeze(0), labels) for run in outputs]).double()
    delta = alone.new_zeros(runs, runs)
    for i in range(runs):
        for start in range(i + 1, runs, pairs_a_chunk):
            others = slice(start, start + pairs_a_chunk)
            together = score(mean_of_two(outputs[i].double(), outputs[others].double()), labels)
            delta[i, others] = together - (alone[i] + alone[others]) / 2
    return delta + delta.T


def ensemble_of(outputs: Tensor, members: Sequence[Sequence[int]]) -> Tensor:
    """Mean logits of each group of models.

    Outputs ``[R, N, ...]`` and G groups of run indices in, float64 ``[G, N, ...]`` out.

    >>> ensemble_of(torch.tensor([[1.0], [3.0], [7.0]]), [(0, 1), (2,)])
    tensor([[2.],
            [7.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 5 ("Vanilla" rows of table 5).
    """
    return torch.stack([outputs[list(group)].double().mean(dim=0) for group in members])


def vanilla_groups(runs: int, size: int) -> list[tuple[int, ...]]:
    """Groups of ``size`` consecutive runs that share no run; runs that fill no group are left out.

    Disjoint, so that the ensembles stay independent of each other and their SD is an honest one.

    >>> vanilla_groups(7, size=3)
    [(0, 1, 2), (3, 4, 5)]
    """
    if size < 1:
        raise UsageError(f"Expected size >= 1 but got size={size!r}. An ensemble needs members; the paper uses 1 to 5.")
    return [tuple(range(first, first + size)) for first in range(0, runs - size + 1, size)]


def _mean_logits(one: Tensor, others: Tensor) -> Tensor:
    return (one + others).div_(2)


def _mean_probabilities(one: Tensor, others: Tensor) -> Tensor:
    one, others = one.log_softmax(dim=-1), others.log_softmax(dim=-1)
    # From the larger of the two: no probability underflows, and two equal models keep their exact outputs.
    larger, smaller = torch.maximum(one, others), torch.minimum(one, others)
    return larger + ((1 + (smaller - larger).exp()) / 2).log()
