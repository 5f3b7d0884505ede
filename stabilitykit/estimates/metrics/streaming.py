"""What is kept of a model whose outputs are too many to keep: they come chunk by chunk, and go.

R models on N tokens with C words to choose from give R x N x C logits; R x N of them are kept here, and a sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import TaskError
from .runs import class_type


@dataclass(frozen=True, eq=False)
class TokenScores:
    """One model on all tokens."""

    log_probabilities: Tensor  #: of the right token, float64 ``[N]`` in nats
    predicted: Tensor  #: most likely token, ``[N]``, in as few bytes as it fits into
    sample: Tensor  #: of the logits, ``[M]``, at the same places in every model

    @property
    def cross_entropy(self) -> float:
        """Mean negative log-likelihood of the right token, nats."""
        return -float(self.log_probabilities.mean())

    @property
    def perplexity(self) -> float:
        """Exponential of the cross-entropy: how many words the model hesitates between; infinite beyond 1e308."""
        return float((-self.log_probabilities.mean()).exp())


def token_scores(chunks: Iterable[Tensor], targets: Tensor, places: Tensor) -> TokenScores:
    """Score one model's logits, chunk by chunk ``[n, C]``, against tokens ``[N]``.

    ``places`` are those of the logits to keep, in order, as from `sampled_places`. In float64, like all metrics.

    >>> logits = torch.tensor([[0.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> scores = token_scores([logits[:2], logits[2:]], targets=torch.tensor([0, 1, 0]), places=torch.tensor([3, 4]))
    >>> scores.predicted.tolist(), scores.sample.tolist()
    ([0, 1, 0], [2.0, 3.0])
    """
    # What is kept has its memory from the start: pieces of it between chunks would leave holes too small for the next.
    log_probabilities = torch.empty(len(targets), dtype=torch.float64)
    predicted, sample = torch.empty(0, dtype=torch.uint8), torch.empty(0)
    start = 0
    for chunk in chunks:
        stop, classes = start + len(chunk), chunk.shape[-1]
        if stop > len(targets):
            raise TaskError(f"Expected logits of {len(targets)} tokens, as there are targets, but got more.")
        if start == 0:
            predicted = torch.empty(len(targets), dtype=class_type(classes))
            sample = torch.empty(len(places), dtype=chunk.dtype)
        exact = chunk.double()
        of_right = exact.gather(-1, targets[start:stop, None].to(chunk.device)).squeeze(-1)
        log_probabilities[start:stop] = of_right - torch.logsumexp(exact, dim=-1)
        predicted[start:stop] = chunk.argmax(dim=-1)
        first, last = torch.searchsorted(places, torch.tensor([start * classes, stop * classes])).tolist()
        kept = (places[first:last] - start * classes).to(chunk.device)
        sample[first:last] = chunk.reshape(-1).index_select(0, kept)
        start = stop
    if start != len(targets):
        raise TaskError(f"Expected logits of {len(targets)} tokens, as there are targets, but got {start}.")
    return TokenScores(log_probabilities, predicted, sample)


def sampled_places(numbers: int, size: int, seed: int = 0) -> Tensor:
    """Draw ``size`` places out of ``numbers`` in order, one at random out of each of as many equal stretches.

    All of them where they are no more than that. Evenly spaced ones would meet the same few classes in every token.

    >>> sampled_places(3, size=5)
    tensor([0, 1, 2])
    >>> places = sampled_places(10**9, size=1000)
    >>> len(places), bool((places.diff() > 0).all())
    (1000, True)
    """
    if numbers <= size:
        return torch.arange(numbers)
    ends = torch.arange(size + 1) * numbers // size
    share = torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return ends[:-1] + (share * ends.diff()).long()
