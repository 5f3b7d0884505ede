"""A language model's sources, and one ulp, do as much as one another (sections 3.3 and 4.1, tables 2 and 4)."""

from functools import partial
from pathlib import Path

import pytest

from stabilitykit import Corpus, assert_alike, python_topics, warmup_cosine
from stabilitykit.zoo import QRNN, penn_treebank

pytestmark = pytest.mark.scale("small", "paper")

ROWS = {
    "init": ("table 2", "Parameter initialization"),
    "stochastic": ("table 2", "Stochastic operations"),
    "all": ("table 2", "All sources"),
}

#: Half of the AWD family's, for the small text of the scale below the paper's.
LESS_DROPOUT = {
    f"dropout_{place}": p
    for place, p in zip(("words", "input", "hidden", "output", "weights"), (0.05, 0.2, 0.15, 0.2, 0.05), strict=True)
}


@pytest.fixture(scope="session")
def language_model(scale):
    """A QRNN on Penn Treebank's text where a folder ``data/ptb`` has it, else on Python's own documentation."""
    folder = Path("data/ptb")
    if scale.name == "paper":
        return penn_treebank(Corpus.of_folder(folder) if folder.is_dir() else python_topics())
    corpus = Corpus.of_folder(folder) if folder.is_dir() else python_topics()
    return penn_treebank(
        corpus,
        model=partial(QRNN, len(corpus), embedding=64, hidden=128, **LESS_DROPOUT),
        epochs=12,
        batch_size=8,
        schedule=warmup_cosine(0.5),
        segment=35,
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


def test_no_source_stands_out(stability, scale, language_model):
    studies = [stability.measure(language_model, vary=source, runs=scale.few) for source in ROWS]
    ulp = stability.measure(language_model, perturb="ulp", runs=scale.few)
    of_few = ["disagreement"] if scale.name != "paper" else ["disagreement", "perplexity_sd"]
    assert_alike([*studies, ulp], within=2, measures=of_few)
