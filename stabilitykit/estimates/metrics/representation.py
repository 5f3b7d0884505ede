"""How alike R models represent the same examples: linear CKA over minibatches, for all pairs at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .pairwise import correlation
from .runs import Runs, first_copies

#: Examples that HSIC_1 needs: its denominator is n (n - 3).
FEWEST_EXAMPLES = 4

#: Bytes of the features that are centred and multiplied at once, in a copy that stays in a processor's cache.
_BLOCK_BYTES = 2 * 2**20


class CkaSum:
    """HSIC_1 of all pairs of R models, summed over minibatches: it holds an ``[R, R]`` matrix, and no activation.

    >>> runs = torch.randn(3, 40, 5)
    >>> total = CkaSum(runs=3)
    >>> for batch in (runs[:, ::2], runs[:, 1::2]):
    ...     total.add(torch.stack([packed_gram(x) for x in batch]), examples=20)
    >>> torch.equal(total.matrix(), cka(runs, batch_size=20))
    True

    Source: Nguyen, Raghu & Kornblith, ICLR 2021, section 2.2; HSIC_1 is that of Song et al., JMLR 2012, section 2.3.
    """

    def __init__(self, runs: int) -> None:
        self._hsic = torch.zeros(runs, runs, dtype=torch.float64)
        self._first = [0] * runs  #: the first run that had the same Gram matrices so far

    def add(self, grams: Tensor, examples: int) -> None:
        """Add a minibatch of n ``examples``: its `packed_gram` of each run, ``[R, n (n - 1) / 2]`` in float64."""
        # The mean over pairs, and not the sum over them, so that each batch counts alike.
        self._hsic.addmm_(grams, grams.T, alpha=2 / (examples * (examples - 3)))
        alike = list(zip(self._first, first_copies(grams), strict=True))
        self._first = [alike.index(pair) for pair in alike]

    def matrix(self) -> Tensor:
        """Return CKA of all pairs, float64 ``[R, R]``: HSIC_1(i, j) / sqrt(HSIC_1(i, i) HSIC_1(j, j))."""
        own = self._hsic.diagonal()
        # A sum over batches of inner products is one itself, so no pair can exceed 1 but by rounding.
        return correlation(self._hsic, torch.outer(own.sqrt(), own.sqrt()), self._first)


def cka(runs: Runs, batch_size: int = 100) -> Tensor:
    """Linear centered kernel alignment (CKA) of the activations of two models, unbiased over minibatches.

    Activations ``[R, N, ...]`` in, or R tensors ``[N, ...]`` whose other dimensions may differ; float64 ``[R, R]`` out,
    between -1 and 1; the diagonal is 1. It is 1 for representations that differ by a rotation and a scale, and 0 on
    average for independent ones, however many features they have. A model with the same activations for all examples
    has no CKA: its entries are NaN. N must be 4 or more; the batches are of almost one size, and no larger than
    ``batch_size`` unless that is below 8.

    >>> x = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    >>> cka([x, 3 * x.flip(1), torch.randn(100, 20, generator=torch.Generator().manual_seed(1))]).round(
    ...     decimals=1
    ... ).abs()
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 1.]], dtype=torch.float64)

    Source: Kornblith et al., ICML 2019; Nguyen, Raghu & Kornblith, ICLR 2021, section 2.2.
    """
    total = CkaSum(len(runs))
    for batch in spread_batches(len(runs[0]), batch_size):
        grams = torch.stack([packed_gram(runs[i].index_select(0, batch)) for i in range(len(runs))])
        total.add(grams, len(batch))
    return total.matrix()


def packed_gram(x: Tensor) -> Tensor:
    """Return the U-centred Gram matrix of activations ``[n, ...]``, float64 ``[n (n - 1) / 2]``, above its diagonal.

    U-centred: with a zero diagonal, each row and column then has sum 0. The inner product of two such matrices is
    HSIC_1 times n (n - 3), so that all pairs of models take one matrix product. It is symmetric: half of it will do.

    Source: Székely & Rizzo, Annals of Statistics 2014, definition 2 and proposition 1; any symmetric matrix serves.
    """
    count = len(x)
    gram = _gram(x).fill_diagonal_(0)
    rows = gram.sum(0) / (count - 2)
    gram += rows.sum() / (count - 1)
    gram -= rows
    gram -= rows[:, None]
    above = torch.triu_indices(count, count, offset=1, device=gram.device)
    return gram[above[0], above[1]]


def spread_batches(count: int, batch_size: int, examples: int | None = None) -> Sequence[Tensor]:
    """Draw ``examples`` indices below ``count``, evenly spaced, and deal them out to batches of 4 or more.

    Each batch is evenly spaced too: where examples are sorted by class, none of them has one class alone.

    >>> [batch.tolist() for batch in spread_batches(20, batch_size=5, examples=10)]
    [[0, 4, 8, 12, 16], [2, 6, 10, 14, 18]]
    """
    kept = count if examples is None else min(count, examples)
    chosen = torch.arange(kept) * count // kept
    batches = max(1, min(-(-kept // batch_size), kept // FEWEST_EXAMPLES))
    return [chosen[start::batches] for start in range(batches)]


def _gram(x: Tensor) -> Tensor:
    """X Xᵀ about the mean, which HSIC_1 does not depend on; sums of float32 products in float64."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        x = x.permute(0, 2, 3, 1)  # the order of features does not matter, and this one takes no copy
    features = x.detach().reshape(len(x), -1)
    if features.dtype is not torch.float64:
        features = features.float()
    gram = features.new_zeros(len(x), len(x), dtype=torch.float64)
    for block in torch.split(features, max(1, _BLOCK_BYTES // (features.element_size() * len(x))), dim=1):
        centred = block - block[0]  # first, so that a constant feature becomes exactly 0: its mean may be rounded
        centred -= centred.mean(0)  # the less is added up to be cancelled, the more digits are left
        gram += centred @ centred.T
    return gram
