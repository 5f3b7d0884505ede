"""What averaging models gains: the ensemble delta of every pair, and vanilla ensembles of independent runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...errors import UsageError
from .runs import Array, KeptExamples, Runs, as_array, blocks, first_copies
from .scores import Score, predictions

#: Bytes of averaged outputs that are held at once.
_CHUNK_BYTES = 8 * 2**20

#: Bytes that are added and compared again and again, and should stay in a core's own cache.
_CACHE_BYTES = 2**18

#: Bytes of the leads of a block of examples, where the cache would hold only a few examples of that many classes.
_LEADS_BYTES = 32 * 2**20

#: Below this a float64 has lost digits.
_UNDERFLOW = 1e-290


def ensemble_delta(outputs: Runs, labels: Tensor, score: Score) -> Tensor:
    r"""What averaging two models gains over the two alone, for every pair.

    .. math:: f\left(\frac{S_i + S_j}{2}\right) - \frac{f(S_i) + f(S_j)}{2}

    Outputs ``[R, N, ...]`` and labels ``[N, ...]`` in, float64 ``[R, R]`` in the unit of the score out; the diagonal
    is 0. More diverse models gain more: above 0 for an accuracy, below 0 for a loss.

    >>> from stabilitykit.estimates.metrics import accuracy
    >>> logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    >>> ensemble_delta(logits, torch.tensor([0, 1]), accuracy)  # each model knows one example, the pair knows both
    tensor([[ 0., 50.],
            [50.,  0.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, equation (1), before its mean over pairs.
    """
    runs, pairs_a_chunk = len(outputs), max(1, _CHUNK_BYTES // (8 * outputs[0].numel()))
    alone = torch.cat([score(run.double().unsqueeze(0), labels) for run in outputs]).double()
    delta = alone.new_zeros(runs, runs)
    for i in range(runs):
        for start in range(i + 1, runs, pairs_a_chunk):
            others = range(start, min(start + pairs_a_chunk, runs))
            of_others = torch.stack([outputs[j] for j in others]).double()
            together = score((outputs[i].double() + of_others).div_(2), labels)
            delta[i, others] = together - (alone[i] + alone[others]) / 2
    return delta + delta.T


def accuracy_ensemble_delta(logits: Runs, labels: Tensor, predicted: Tensor | None = None) -> Tensor:
    """`ensemble_delta` of accuracy, many times faster: percentage points, for every pair.

    Logits ``[R, N, C]`` and classes ``[N]`` in, float64 ``[R, R]`` out; ``predicted`` are the models' `predictions`
    ``[R, N]``, if they are known. Where all models predict one class, their sums do too and nothing is gained: those
    examples are left out. The sum of two models is right where no class leads the label, and leads add up: so the
    label's logit is subtracted once a model, and not once a pair.

    >>> logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 3.0]]])
    >>> accuracy_ensemble_delta(logits, torch.tensor([0, 1]))
    tensor([[ 0., 50.],
            [50.,  0.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, equation (1), before its mean over pairs.
    """
    runs, (examples, classes) = len(logits), logits[0].shape
    predicted = predictions(logits) if predicted is None else predicted
    disputed = (predicted != predicted[0]).any(dim=0)
    right = np.zeros((runs, runs))
    size = max(1, min(_CACHE_BYTES // (4 * runs), _LEADS_BYTES // (4 * runs * classes)))
    some = blocks(KeptExamples(logits, disputed), size)
    for block, label in zip(some, torch.split(labels[disputed], size), strict=False):  # no block, but an empty split
        right += _right_together(as_array(block), label.cpu().numpy())
    alone = right.diagonal()
    delta = torch.from_numpy(np.triu(right - (alone[:, None] + alone) / 2, k=1) * 100 / examples)
    return (delta + delta.T).to(labels.device)


def _right_together(logits: Array, labels: Array) -> Array:
    """In how many examples the sum of two models is right, for each pair i <= j; logits ``[R, N, C]`` in."""
    leads = _leads(logits, labels)
    runs = len(logits)
    right = np.zeros((runs, runs))
    room = np.empty((2, *leads.shape[1:]), np.float32)
    for i in range(runs):
        best, lead = room[:, i:]
        with np.errstate(invalid="ignore"):  # inf and -inf: looked at again below
            np.add(leads[0, i], leads[0, i:], out=best)
            for of_class in leads[1:]:
                np.add(of_class[i], of_class[i:], out=lead)
                np.maximum(best, lead, out=best)
        wins, loses = best < 0, best > 0
        right[i, i:] = [np.count_nonzero(of_pair) for of_pair in wins]
        if np.count_nonzero(wins) + np.count_nonzero(loses) < best.size:  # level, or too close for a float32 to say
            other, example = np.nonzero(~(wins | loses))
            together = logits[i, example].astype(np.float64) + logits[i + other, example]
            wins = (together.argmax(axis=-1) == labels[example]) & np.isfinite(together.max(axis=-1))
            right[i] += np.bincount(i + other, wins, minlength=runs)
    return right


def _leads(logits: Array, labels: Array) -> Array:
    """How far each class leads the label, rounded to float32 ``[C, R, N]``, and -inf for the label itself.

    Rounding keeps the order of numbers and is symmetric about 0: two rounded leads have a sum of the right sign, or 0.
    """
    runs, examples, classes = logits.shape
    leads = np.empty((classes, runs, examples), np.float32)
    each = np.arange(examples)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite logits are looked at again where it matters
        for i, run in enumerate(logits):
            np.subtract(run.T, run[each, labels], out=leads[:, i], casting="same_kind")
    leads[labels, :, each] = -np.inf
    return leads


def cross_entropy_ensemble_delta(logits: Runs) -> Tensor:
    r"""`ensemble_delta` of cross-entropy, many times faster: nats, for every pair; labels cancel out of it.

    .. math:: \frac{1}{N} \sum_n \log \sum_c \sqrt{p_{nc} \, q_{nc}}

    which is minus the mean Bhattacharyya distance between the two models' probabilities, and so never above 0. Logits
    ``[R, N, C]`` in, float64 ``[R, R]`` out; a matrix product for each example, in bounded memory.

    >>> cross_entropy_ensemble_delta(torch.tensor([[[0.0, 0.0]], [[0.0, 2.0]]]))
    tensor([[ 0.0000, -0.0968],
            [-0.0968,  0.0000]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, equation (1), before its mean over pairs.
    """
    overlaps = Overlaps(len(logits))
    overlaps.add(logits)
    return overlaps.cross_entropy_ensemble_delta()


class Overlaps:
    """What `cross_entropy_ensemble_delta` sums over examples, which need not be there all at once.

    >>> overlaps = Overlaps(runs=2)
    >>> overlaps.add(torch.tensor([[[0.0, 0.0]], [[0.0, 2.0]]]))
    >>> overlaps.add(torch.tensor([[[0.0, 0.0]], [[0.0, 0.0]]]))
    >>> overlaps.cross_entropy_ensemble_delta()
    tensor([[ 0.0000, -0.0484],
            [-0.0484,  0.0000]], dtype=torch.float64)
    """

    def __init__(self, runs: int) -> None:
        self.examples = 0  #: N so far
        self._total = torch.zeros(runs, runs, dtype=torch.float64)
        self._alike = [0] * runs  # index of the first run that is equal bit for bit so far

    def add(self, logits: Runs) -> None:
        """Count in more examples, logits ``[R, n, C]``."""
        runs, (examples, classes) = len(logits), logits[0].shape
        self._total = self._total.to(logits[0].device)
        examples_a_product = min(examples, max(1, _CHUNK_BYTES // (4 * 8 * runs * runs)))
        room = self._total.new_empty(examples_a_product, runs, runs)
        for some in blocks(logits, max(1, _CHUNK_BYTES // (4 * 8 * runs * classes))):
            halves = some.transpose(0, 1).to(torch.float64, memory_format=torch.contiguous_format)
            halves -= halves.amax(dim=-1, keepdim=True)
            for few in torch.split(halves.div_(2), examples_a_product):
                self._total += _log_overlaps(few, room[: len(few)])
        self.examples += examples
        both = list(zip(self._alike, first_copies(logits), strict=True))
        self._alike = [both.index(pair) for pair in both]

    def cross_entropy_ensemble_delta(self) -> Tensor:
        """Return the ensemble delta of every pair over all examples so far, float64 ``[R, R]``."""
        # Not yet probabilities: each model's own sum of them is on the diagonal.
        own = self._total.diagonal() / 2
        delta = ((self._total - own[:, None] - own) / self.examples).triu(diagonal=1).clamp_(max=0)
        same = self._alike  # equal models gain exactly nothing, whatever a matrix product rounds
        return (delta + delta.T)[same][:, same]


def perplexity_ensemble_delta(cross_entropy: Tensor, delta: Tensor) -> Tensor:
    """Perplexity of the mean logits of two models less the mean of their perplexities, for every pair.

    Cross-entropies ``[R]`` and their `cross_entropy_ensemble_delta`, in nats, in; float64 ``[R, R]``, 0 at most, out.

    >>> perplexity_ensemble_delta(torch.tensor([4.0, 4.0]).double(), torch.tensor([[0.0, -0.1], [-0.1, 0.0]]).double())
    tensor([[ 0.0000, -5.1957],
            [-5.1957,  0.0000]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, equation (1) and table 2.
    """
    alone = cross_entropy.exp()
    together = (delta + (cross_entropy[:, None] + cross_entropy) / 2).exp()
    return (together - (alone[:, None] + alone) / 2).clamp_(max=0)


def _log_overlaps(halves: Tensor, room: Tensor) -> Tensor:
    """Sum over examples of log sum_c exp(h_ic + h_jc), ``[R, R]``; halved logits ``[N, R, C]``, 0 at most, in.

    ``room``, ``[N, R, R]``, is memory to work in: to take it anew for every product costs more than the product.
    """
    roots = halves.exp()
    for folds in (4, 0):
        overlap = torch.bmm(roots, roots.mT, out=room)
        for _ in range(folds):  # a product of up to 16 examples costs one logarithm
            middle = len(overlap) // 2
            if middle:
                overlap[:middle] *= overlap[middle : 2 * middle]
                overlap = torch.cat([overlap[:middle], overlap[2 * middle :]]) if len(overlap) % 2 else overlap[:middle]
        if overlap.min() > _UNDERFLOW:
            return overlap.log_().sum(dim=0)
    # Two models have nothing in common, hundreds of nats apart.
    return torch.stack([torch.logsumexp(halves + one[:, None], dim=-1).sum(dim=0) for one in halves.unbind(dim=1)])


def ensemble_of(outputs: Runs, members: Sequence[Sequence[int]]) -> Tensor:
    """Mean logits of each group of models.

    Outputs ``[R, N, ...]`` and G groups of run indices in, float64 ``[G, N, ...]`` out.

    >>> ensemble_of(torch.tensor([[1.0], [3.0], [7.0]]), [(0, 1), (2,)])
    tensor([[2.],
            [7.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 5 ("Vanilla" rows of table 5).
    """
    means = outputs[0].new_zeros((len(members), *outputs[0].shape), dtype=torch.float64)
    for mean, group in zip(means, members, strict=True):
        for i in group:
            mean += outputs[i]
        mean /= len(group)
    return means


def vanilla_groups(runs: int, size: int) -> list[tuple[int, ...]]:
    """Groups of ``size`` consecutive runs that share no run; runs that fill no group are left out.

    Disjoint, so that the ensembles stay independent of each other and their SD is an honest one.

    >>> vanilla_groups(7, size=3)
    [(0, 1, 2), (3, 4, 5)]
    """
    if size < 1:
        raise UsageError(f"Expected size >= 1 but got size={size!r}. An ensemble needs members; the paper uses 1 to 5.")
    return [tuple(range(first, first + size)) for first in range(0, runs - size + 1, size)]
