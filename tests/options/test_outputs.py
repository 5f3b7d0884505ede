"""outputs=, and what a study says of its outputs: in its notes, the table and the JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

TESTS = """
    import sys

    def probabilities(run):
        return train(run).softmax(-1)

    def one_logit(run):
        z = train(run)
        return z[:, 1:] - z[:, :1]

    def guesses(run):
        return torch.randn(64, 2, generator=torch.Generator().manual_seed(run.plan.init))

    def moving(run):
        return train(run), Y.roll(run.index)

    def test_probabilities(stability):
        study = stability.measure(probabilities, labels=Y, vary="init", runs=3)
        logits = stability.measure(train, labels=Y, vary="init", runs=3)
        assert abs(study.cross_entropy.value - logits.cross_entropy.value) < 1e-5
        stability.check(probabilities, labels=Y, outputs="probabilities", vary="init", runs=3,
                        budget=Budget(cross_entropy_sd=2))

    def test_one_logit(stability):
        study = stability.measure(one_logit, labels=Y.float()[:, None], vary="init", runs=3)
        logits = stability.measure(train, labels=Y, vary="init", runs=3)
        assert abs(study.cross_entropy.value - logits.cross_entropy.value) < 1e-5
        assert stability.measure(one_logit, labels=Y.float(), outputs="values", vary="init", runs=3).rmse.value > 0

    def test_several_labels(stability):
        labels = torch.stack([Y, 1 - Y], 1) | (X[:, :1] > 0)
        stability.check(train, labels=labels, outputs="multi_label", vary="init", runs=3, budget=Budget(f1_micro_sd=1))

    def test_guesses(stability):
        stability.measure(guesses, labels=Y, vary="init", runs=3)

    def test_contradicts(stability):
        stability.measure(train, labels=Y, outputs="probabilities", vary="init", runs=3)

    def test_moving(stability):
        stability.measure(moving, labels=Y, vary="init", runs=3)
"""

PROBABILITIES = "the outputs are probabilities, each row in [0, 1] with the sum 1"


@pytest.mark.slow
def test_what_outputs_are_taken_for_is_said_and_what_is_stated_is_held(project: Project) -> None:
    project.tests(TESTS)
    result, report = project.study()
    result.assert_outcomes(passed=4, failed=2)
    text = result.stdout.str()
    assert "Expected outputs in [0, 1] and each row with the sum 1, since outputs='probabilities' says so" in text
    assert "Expected run 1 to return the test labels of the study beside its outputs but got " in text
    notes = {}
    for study in report["studies"]:
        notes.setdefault(study["test"].partition("::")[2], []).append(" ".join(study["notes"]))
    assert [PROBABILITIES in said for said in notes["test_probabilities"]] == [True, False, False]
    assert "all labels are 0.0 or 1.0" in notes["test_one_logit"][0]
    assert "accuracy is at chance in all 3 runs" in notes["test_guesses"][0]
    assert f"note: {PROBABILITIES}" in text
    several = next(study for study in report["studies"] if study["test"].endswith("test_several_labels"))
    assert several["kind"] == "multi_label"
    assert {"subset_accuracy", "f1_micro_sd", "label_disagreement"} <= several["metrics"].keys()
    assert "f1_micro_sd" in [judgement["metric"] for judgement in several["judgements"]]
    assert "subset acc. %" in text
