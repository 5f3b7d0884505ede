"""The numbers of language models from what is kept of their logits: against those of the whole logits."""

from __future__ import annotations

import pytest
import torch

from stabilitykit.estimates.language_measures import LanguageMeasures
from stabilitykit.estimates.measures import Measures
from stabilitykit.estimates.metrics import cross_entropy_ensemble_delta, sampled_places, token_scores

R, N, C = 4, 50, 7
TARGETS = torch.arange(N) % C
LOGITS = torch.randn(R, N, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_every_number_is_that_of_the_whole_logits():
    places = sampled_places(N * C, size=N * C)
    kept = LanguageMeasures(
        TARGETS,
        scores=lambda: [token_scores(run.split(8), TARGETS, places) for run in LOGITS],
        overlaps=lambda: cross_entropy_ensemble_delta(LOGITS),
    )
    whole = Measures(LOGITS, TARGETS)
    assert set(whole) - set(kept) == {"ensemble_delta", "brier", "brier_sd"}, "they need whole logits"
    for name in set(whole) & set(kept):
        for end in ("value", "low", "high"):
            expected = pytest.approx(getattr(whole[name], end), rel=1e-9, abs=1e-12, nan_ok=True)
            assert getattr(kept[name], end) == expected, (name, end)
    alone = torch.nn.functional.cross_entropy(LOGITS.movedim(-1, 1), TARGETS.expand(R, -1), reduction="none")
    assert kept.of_runs("perplexity").tolist() == pytest.approx(alone.mean(-1).exp().tolist())
