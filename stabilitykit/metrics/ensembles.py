"""What it brings to average models: the ensemble delta of every pair, and vanilla ensembles from independent runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import UsageError
from .pairwise import first_copies
from .scores import Score

#: What an ensemble averages. The paper averages logits.
Average: TypeAlias = Literal["logits", "probabilities"]

#: Of averaged outputs held at once. Averaging probabilities takes about six times as much for a moment.
_CHUNK_BYTES = 8 * 2**20

#: Below this a float64 has lost digits.
_UNDERFLOW = 1e-290


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


def accuracy_ensemble_delta(logits: Tensor, labels: Tensor) -> Tensor:
    """`ensemble_delta` of accuracy, many times faster: percentage points, for every pair.

    Logits ``[R, N, C]`` and classes ``[N]`` in, float64 ``[R, R]`` out. The sum of two models is right where no class
    leads the label, and leads add up: so the label's logit is subtracted once a model, and not once a pair.

    >>> logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    >>> accuracy_ensemble_delta(logits, torch.tensor([0, 1]))
    tensor([[ 0., 50.],
            [50.,  0.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, equation (1), before its mean over pairs.
    """
    runs, examples, classes = logits.shape
    right = logits.new_zeros(runs, runs, dtype=torch.float64)
    size = max(1, _CHUNK_BYTES // (8 * runs * classes))
    for some, label in zip(torch.split(logits, size, dim=1), torch.split(labels, size), strict=True):
        leads, wins_ties = _leads(some.double().permute(2, 0, 1), label)
        for i in range(runs):
            of_pairs = leads[:, i, None] + leads[:, i:]
            best = of_pairs.amax(dim=0)
            label_wins = best < 0
            if (best == 0).any():
                label_wins |= (best == 0) & ~((of_pairs == 0) & wins_ties).any(dim=0)
            right[i, i:] += label_wins.sum(dim=1)
    percent = 100 * right / examples
    alone = percent.diagonal()
    delta = (percent - (alone[:, None] + alone) / 2).triu(diagonal=1)
    return delta + delta.T


def _leads(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """How far each class leads the label, ``[C, R, N]``, and whether it would win a tie: the lower class does."""
    own = label.expand(1, *logits.shape[1:])
    leads = (logits - logits.gather(0, own)).scatter_(0, own, -torch.inf)
    wins_ties = (torch.arange(len(logits), device=label.device)[:, None] < label)[:, None]
    return leads, wins_ties


def cross_entropy_ensemble_delta(logits: Tensor) -> Tensor:
    r"""`ensemble_delta` of cross-entropy, many times faster: nats, for every pair; labels cancel out of it.

    .. math:: \frac{1}{N} \sum_n \log \sum_c \sqrt{p_{nc} \, q_{nc}}

    which is minus the mean Bhattacharyya distance between the two models' probabilities, and so never above 0. Logits
    ``[R, N, C]`` in, float64 ``[R, R]`` out; a matrix product for each example, in bounded memory.

    >>> cross_entropy_ensemble_delta(torch.tensor([[[0.0, 0.0]], [[0.0, 2.0]]]))
    tensor([[ 0.0000, -0.0968],
            [-0.0968,  0.0000]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, equation (1), before its mean over pairs.
    """
    runs, examples, _ = logits.shape
    total = logits.new_zeros(runs, runs, dtype=torch.float64)
    for some in torch.split(logits, max(1, _CHUNK_BYTES // (8 * runs * runs)), dim=1):
        halves = some.double().transpose(0, 1).log_softmax(dim=-1) / 2
        roots = halves.exp()
        overlap = torch.bmm(roots, roots.mT)
        if overlap.min() > _UNDERFLOW:
            total += overlap.clamp_(max=1.0).log_().sum(dim=0)
        else:  # two models have nothing in common, hundreds of nats apart
            total += torch.stack([torch.logsumexp(halves + one[:, None], dim=-1).sum(0) for one in halves.unbind(1)])
    delta = (total / examples).triu(diagonal=1)
    same = first_copies(logits)  # equal models gain exactly nothing, whatever a matrix product rounds
    return (delta + delta.T)[same][:, same]


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
