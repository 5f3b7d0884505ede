"""Language models, whose helpers hand over weights and no logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

QUESTIONS = """
    from stabilitykit.zoo.qrnn import QRNN

    TEXT = "the cat sees a tree\\nthe dog hears a stone\\n" * 20
    recipe = LanguageRecipe(
        model=lambda: QRNN(vocabulary=9, embedding=4, hidden=6, layers=2),
        corpus=Corpus.of_texts(train=TEXT, valid=TEXT, test=TEXT),
        epochs=3,
        batch_size=4,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=2.0),
        segment=20,
    )

    def test_all(stability):
        study = stability.measure(recipe, vary="all", runs=4)
        assert_within(study, Budget(perplexity_sd=90, disagreement=99))

    def test_gate(stability):
        stability.check(recipe, perturb="ulp", runs=5, budget=Budget(perplexity_sd=90, disagreement=99))
"""


@pytest.mark.trains
@pytest.mark.slow
def test_the_numbers_of_a_language_model_are_the_same_with_two_workers(project: Project) -> None:
    project.tests(QUESTIONS)
    reports = {}
    for way in ("plain", "n2"):
        result, report = project.study(way=way)
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["*PPL*PPL SD*disagree %*", "test_all*", "test_gate*"])
        reports[way] = project.timeless(report)
        project.forget()
    assert reports["plain"] == reports["n2"]
    of_all, of_one_weight = reports["plain"]["studies"]
    assert of_all["certificate"]["alive"] == dict.fromkeys(["init", "stochastic", "low_level"], "in the first epoch")
    assert of_one_weight["certificate"]["alive"] == {"ulp": "in the first epoch"}
    assert of_all["metrics"]["perplexity"]["value"] > 1
    assert len({record["fingerprint"] for record in of_all["records"]}) == 4
    assert {record["perturbation"]["parameter"] for record in of_one_weight["records"]} == {"embedding"}
