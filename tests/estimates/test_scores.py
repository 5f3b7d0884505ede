"""The scores beyond the paper's against plain loops, their laws, and how far each gets by its formula alone."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit import Budget, Outcome
from stabilitykit.errors import BudgetError
from stabilitykit.estimates.scores import brier
from stabilitykit.render.study_table import study_table
from stabilitykit.study.summary import summarize
from stabilitykit.testing import fake_study


def some_runs(runs: int, examples: int = 40, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(runs)
    logits = (6 * torch.randn(runs, examples, classes, generator=generator)).round() / 2
    return logits, torch.randint(classes, (examples,), generator=generator)


def naive_brier(logits: list[list[float]], labels: list[int]) -> float:
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        odds = [math.exp(logit) for logit in row]
        for number, odd in enumerate(odds):
            total += (odd / math.fsum(odds) - (number == label)) ** 2
    return total / len(labels)


class TestBrier:
    @pytest.mark.parametrize("runs", range(2, 8))
    def test_agrees_with_plain_loops(self, runs):
        logits, labels = some_runs(runs)
        for run in logits:
            assert brier(run, labels) == pytest.approx(naive_brier(run.tolist(), labels.tolist()), rel=1e-12)

    def test_agrees_with_plain_loops_over_many_blocks(self, monkeypatch):
        monkeypatch.setattr("stabilitykit.estimates.scores._BLOCK", 15)  # three examples at a time
        (run, _), labels = some_runs(2)
        assert brier(run, labels) == pytest.approx(naive_brier(run.tolist(), labels.tolist()), rel=1e-12)

    def test_who_is_sure_has_0_or_2(self):
        assert brier(torch.tensor([[900.0, 0.0]]), torch.tensor([0])) == 0
        assert brier(torch.tensor([[900.0, 0.0]]), torch.tensor([1])) == 2

    def test_a_model_that_knows_nothing_has_1_less_a_share(self):
        assert brier(torch.zeros(3, 4), torch.tensor([0, 1, 3])) == pytest.approx(1 - 1 / 4)

    @settings(deadline=None, max_examples=25)
    @given(st.permutations(range(5)), st.floats(-50, 50))
    def test_neither_the_order_of_classes_nor_a_shift_of_logits_matters(self, order, shift):
        (run, _), labels = some_runs(2)
        renamed = torch.tensor([order.index(label) for label in labels.tolist()])
        assert brier(run[:, order] + shift, renamed) == pytest.approx(
            brier(run, labels), rel=1e-5
        )  # logits are float32

    def test_a_model_without_numbers_has_no_score(self):
        logits, labels = some_runs(3)
        logits[1, 2, 3] = math.nan
        assert fake_study(logits, labels)["brier_sd"].is_undefined


class TestAFurtherScoreIsAMeasure:
    logits, labels = some_runs(6)

    def test_with_a_mean_and_an_sd_over_runs(self):
        study = fake_study(self.logits, self.labels)
        each = [naive_brier(run.tolist(), self.labels.tolist()) for run in self.logits]
        assert study["brier"].value == pytest.approx(statistics.mean(each))
        assert study["brier_sd"].value == pytest.approx(statistics.stdev(each))
        assert "brier_ensemble_delta" not in study.measures

    def test_of_every_pixel_that_has_a_label(self):
        labels = self.labels.reshape(8, 5).clone()
        labels[0] = -100
        study = fake_study(self.logits.reshape(6, 8, 5, 5), labels)
        assert study["brier"].value == pytest.approx(
            statistics.mean(naive_brier(run[5:].tolist(), self.labels[5:].tolist()) for run in self.logits)
        )

    def test_with_the_same_bits_it_has_no_spread(self):
        assert fake_study(self.logits[:1].expand(4, -1, -1), self.labels)["brier_sd"].value == 0

    def test_that_a_budget_can_limit(self):
        study = fake_study(self.logits, self.labels)
        assert study.judge(Budget(brier_sd=0.9)).outcome is Outcome.PASS
        assert study.judge(Budget(brier_sd=0.001)).outcome is Outcome.FAIL
        with pytest.raises(BudgetError, match=r"Expected brier_sd <= 1 but got brier_sd=1.5."):
            Budget(brier_sd=1.5)

    def test_that_the_report_has_and_the_table_has_not(self):
        summary = summarize(fake_study(self.logits, self.labels), "t.py::test")
        assert {"brier", "brier_sd"} <= set(summary["metrics"])
        assert summary["records"][0]["brier"] == pytest.approx(
            naive_brier(self.logits[0].tolist(), self.labels.tolist())
        )
        assert "brier" not in "\n".join(study_table([summary]))
