"""Doubts are raised where the numbers give reason to, at the stated rate, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from stabilitykit.estimates.doubts import axis_doubt, chance_doubt
from stabilitykit.estimates.meaning import Meaning
from stabilitykit.estimates.reading import Reading

DRAWS = torch.Generator().manual_seed(0)
LABELS = torch.arange(300) % 10


def guesses(runs: int, labels: torch.Tensor = LABELS, generator: torch.Generator = DRAWS) -> torch.Tensor:
    """Predictions of models that are right on another order of the test set each."""
    return torch.stack([labels[torch.randperm(len(labels), generator=generator)] for _ in range(runs)])


def right(runs: int, share: float, labels: torch.Tensor = LABELS) -> torch.Tensor:
    """Predictions that are right on a share of the examples, and guesses on the others."""
    kept = torch.rand(runs, len(labels), generator=DRAWS) < share
    return torch.where(kept, labels, guesses(runs, labels))


class TestChance:
    def test_a_test_set_that_moves_is_asked_about_with_the_figures(self):
        said = chance_doubt(guesses(4), LABELS)
        assert said.startswith("accuracy is at chance in all 4 runs: ")
        assert "dealing out the same predictions at random gives 10 % (binomial bound, error rate 1 %)" in said
        assert said.endswith("Is the test set the same in every run, and in the order of the labels?")

    @pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
    def test_models_that_know_something_are_not_doubted(self, share):
        assert chance_doubt(right(10, share), LABELS) == ""

    def test_labels_in_another_order_give_runs_that_agree_and_another_question(self):
        others = guesses(1)[0]
        said = chance_doubt(right(4, 0.9, others), LABELS)
        assert said.endswith("Are the labels in the order of the outputs, or has training learnt nothing yet?")

    def test_the_same_prediction_everywhere_is_chance_whatever_the_shares(self):
        labels = (torch.arange(300) % 10 == 0).long()  # 90 % in one class
        assert "at chance in all 3 runs: 90 to 90 %" in chance_doubt(torch.zeros(3, 300).long(), labels)
        assert chance_doubt(labels.expand(3, -1), labels) == ""

    def test_one_run_that_has_the_labels_test_set_does_not_hide_the_others(self):
        predicted = torch.cat([right(1, 0.95), guesses(3)])
        said = chance_doubt(predicted, LABELS)
        assert said.startswith("accuracy is at chance in 3 of 4 runs (run 1, 2, 3): ")
        assert said.endswith("Is the test set the same in every run, and in the order of the labels?")

    def test_single_runs_that_diverged_are_part_of_the_spread(self):
        diverged = torch.zeros(2, 300).long()
        assert chance_doubt(torch.cat([right(8, 0.9), diverged]), LABELS) == ""
        assert chance_doubt(torch.cat([right(3, 0.9), guesses(1)]), LABELS) == ""

    @pytest.mark.parametrize("examples", [1, 2, 4, 10])
    def test_too_few_examples_can_tell_nothing(self, examples):
        labels = torch.arange(examples) % 2
        assert chance_doubt(guesses(5, labels), labels) == ""

    def test_runs_at_chance_stay_below_the_bound_at_the_stated_rate(self):
        draws = torch.Generator().manual_seed(3)
        labels = torch.arange(200) % 4
        studies = [guesses(5, labels, draws) for _ in range(400)]
        missed = sum("in all 5 runs" not in chance_doubt(study, labels) for study in studies)
        # 1 % of 400 and no more than chance allows: P(more than 13) < 0.0001.
        assert missed <= 13


def images(classes: int, runs: int = 3) -> tuple[list[torch.Tensor], torch.Tensor]:
    labels = torch.randint(classes, (6, classes, classes), generator=DRAWS)
    sure = 3.0 * torch.nn.functional.one_hot(labels, classes)
    return [sure + torch.randn(sure.shape, generator=DRAWS) for _ in range(runs)], labels


class TestAxis:
    def test_classes_second_are_found_where_the_shape_cannot_tell(self):
        runs, labels = images(8)
        said = axis_doubt(Reading([run.movedim(-1, 1) for run in runs], Meaning.of(labels)))
        assert said.startswith(
            "the classes seem to be on axis 1 of the outputs [6, 8, 8, 8], where torch's losses want"
        )
        assert said.endswith("If so, return outputs.movedim(1, -1)")

    def test_classes_last_are_not_doubted(self):
        runs, labels = images(8)
        assert axis_doubt(Reading(runs, Meaning.of(labels))) == ""

    def test_all_runs_have_to_say_so(self):
        runs, labels = images(8)
        assert axis_doubt(Reading([runs[0], *(run.movedim(-1, 1) for run in runs[1:])], Meaning.of(labels))) == ""

    def test_models_that_know_nothing_are_not_doubted_for_their_axes(self):
        labels = images(8)[1]
        runs = [torch.randn(6, 8, 8, 8, generator=DRAWS) for _ in range(40)]
        assert not any(axis_doubt(Reading([run], Meaning.of(labels))) for run in runs)

    @pytest.mark.parametrize(
        ("labels", "shape", "may"),
        [((5,), (5, 3), False), ((5, 3), (5, 3, 3), True), ((5, 3), (5, 3, 4), False), ((5, 3, 3), (5, 3, 3, 3), True)],
    )
    def test_only_level_axes_leave_it_open(self, labels, shape, may):
        meaning = Meaning.of(torch.zeros(labels).long())
        assert Reading([torch.zeros(shape)], meaning).may_have_other_axis is may
