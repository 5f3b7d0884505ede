"""A language model's sources, and one ulp, do as much as one another (sections 3.3 and 4.1, tables 2 and 4)."""

from functools import partial
from pathlib import Path

import pytest
import torch

from stabilitykit import Corpus, LanguageRecipe, assert_alike, warmup_cosine
from stabilitykit.corpus import python_topics
from stabilitykit.zoo.qrnn import QRNN

ROWS = {
    "init": ("table 2", "Parameter initialization"),
    "stochastic": ("table 2", "Stochastic operations"),
    "all": ("table 2", "All sources"),
}

#: Widths of embedding and hidden layers, epochs, and pieces of text side by side.
SIZES = {"tiny": (16, 24, 2, 40), "small": (64, 128, 8, 20), "paper": (256, 512, 500, 20)}


@pytest.fixture(scope="session")
def language_model(scale):
    """A QRNN on Penn Treebank's text where a folder ``data/ptb`` has it, else on Python's own documentation."""
    embedding, hidden, epochs, pieces = SIZES[scale.name]
    folder = Path("data/ptb")
    corpus = Corpus.of_folder(folder) if folder.is_dir() else python_topics(least=20 if scale.name == "tiny" else 2)
    return LanguageRecipe(
        model=partial(QRNN, len(corpus), embedding=embedding, hidden=hidden),
        corpus=corpus,
        epochs=epochs,
        batch_size=pieces,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=20, weight_decay=1.2e-6),
        schedule=warmup_cosine(0.5),
        name="QRNN",
    )


@pytest.mark.parametrize("source", ROWS)
def test_each_source_makes_models_differ(stability, scale, language_model, findings, source):
    study = stability.measure(language_model, vary=source, runs=scale.few)
    findings.row(*ROWS[source], study)
    assert study["perplexity_sd"].low > 0
    assert study["perplexity_ensemble_delta"].value < 0  # averaging two models helps


def test_one_ulp(stability, scale, language_model, findings):
    ulp = stability.measure(language_model, perturb="ulp", runs=scale.few)
    findings.row("table 4", "Random bit change", ulp)
    assert ulp["perplexity_sd"].value > 0


def test_no_source_differs_from_another_by_a_factor_of_two(stability, scale, language_model):
    studies = [stability.measure(language_model, vary=source, runs=scale.few) for source in ROWS]
    ulp = stability.measure(language_model, perturb="ulp", runs=scale.few)
    assert_alike([*studies, ulp], within=2, measures=["disagreement", "perplexity_sd"])
