"""Measures of performance and of diversity: pure functions of tensors.

Each takes the outputs of R models as one tensor ``[R, ...]`` or as a sequence of R tensors, and gives the same bits.

They know no store, study or budget. Everything is computed in float64. Accuracy, disagreement and the ensemble delta of
accuracy are in percent, cross-entropy is in nats, correlation has no unit.
"""

# Each name is written once: what is imported here is what the room gives.
# mypy: implicit-reexport
# ruff: noqa: F401

from __future__ import annotations

from .curves import central_range, runs_to_reach_inside, share_inside
from .ensembles import (
    Overlaps,
    accuracy_ensemble_delta,
    cross_entropy_ensemble_delta,
    ensemble_delta,
    ensemble_of,
    perplexity_ensemble_delta,
    vanilla_groups,
)
from .pairwise import disagreement, pearson, spearman
from .representation import cka
from .runs import Runs, class_type
from .scores import (
    IGNORED_LABEL,
    Score,
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    flatten_examples,
    percent_right,
    predictions,
    rmse,
    subset_accuracy,
)
from .streaming import TokenScores, sampled_places, token_scores
from .variance import churn, correctness, excess_of, floor_of_churn
