"""The measures of language models, whose outputs are computed again from weights when a measure is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from .estimate import Estimate
from .measures import Measures, Score
from .metrics import Runs, TokenScores, percent_right, perplexity_ensemble_delta
from .scores import TaskKind


class LanguageMeasures(Measures):
    """Estimates by name over R language models, from the token scores that are kept of their logits.

    >>> from stabilitykit.estimates.metrics import cross_entropy_ensemble_delta, sampled_places, token_scores
    >>> logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    >>> targets = torch.tensor([0, 1])
    >>> measures = LanguageMeasures(
    ...     targets,
    ...     scores=lambda: [token_scores([run], targets, sampled_places(4, size=4)) for run in logits],
    ...     overlaps=lambda: cross_entropy_ensemble_delta(logits),
    ... )
    >>> round(measures["perplexity"].value, 3), measures["disagreement"].value
    (1.751, 50.0)
    """

    def __init__(self, labels: Tensor, scores: Callable[[], list[TokenScores]], overlaps: Callable[[], Tensor]) -> None:
        """Take targets ``[N]``, and functions for the R scores and for cross-entropy's ensemble delta ``[R, R]``."""
        self._get_scores, self._get_overlaps = scores, overlaps
        by_name: dict[str, Score] = {
            "perplexity": lambda outputs, labels: self._each("perplexity"),
            "cross_entropy": lambda outputs, labels: self._each("cross_entropy"),
            "accuracy": lambda outputs, labels: percent_right(self.predicted, labels),
        }
        self.reading, self._own = None, frozenset()  # no outputs are there, and no metrics of the user's own
        self._begin(TaskKind.LANGUAGE, labels, by_name)

    @cached_property
    def predicted(self) -> Tensor:
        """Most likely tokens ``[R, N]``, in as few bytes as they fit into."""
        return torch.stack([scores.predicted for scores in self._tokens])

    @cached_property
    def _tokens(self) -> list[TokenScores]:
        return self._get_scores()

    @cached_property
    def _overlaps(self) -> Tensor:
        return self._get_overlaps()

    def _each(self, score: str) -> Tensor:
        return torch.tensor([getattr(scores, score) for scores in self._tokens], dtype=torch.float64)

    def _computations(self) -> dict[str, Callable[[], Estimate]]:
        compute = super()._computations()
        del compute["ensemble_delta"]  # of accuracy: every pair's logits would have to be added, and searched
        return compute

    @property
    def _numbers(self) -> Runs:
        return [scores.sample for scores in self._tokens]

    def _ensemble_delta(self, name: str) -> Tensor:
        if name == "perplexity":
            return perplexity_ensemble_delta(self.of_runs("cross_entropy"), self._overlaps)
        return self._overlaps
