"""Doubts are raised where the numbers give reason to, at the stated rate, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from stabilitykit.estimates.doubts import axis_doubt, chance_doubt, mean_doubt, shared_outputs_doubt
from stabilitykit.estimates.meaning import Meaning
from stabilitykit.estimates.metrics import rmse
from stabilitykit.estimates.reading import Reading
from stabilitykit.testing import fake_study

DRAWS = torch.Generator().manual_seed(0)
LABELS = torch.arange(300) % 10


def guesses(runs: int, labels: torch.Tensor = LABELS, generator: torch.Generator = DRAWS) -> torch.Tensor:
    """Predictions of models that are right on another order of the test set each."""
    return torch.stack([labels[torch.randperm(len(labels), generator=generator)] for _ in range(runs)])


def right(runs: int, share: float, labels: torch.Tensor = LABELS) -> torch.Tensor:
    """Predictions that are right on a share of the examples, and guesses on the others."""
    kept = torch.rand(runs, len(labels), generator=DRAWS) < share
    return torch.where(kept, labels, guesses(runs, labels))


class TestMean:
    """A regression that predicts no better than the mean of its labels."""

    TARGETS = torch.randn(200, generator=DRAWS)

    def said(self, outputs, targets=TARGETS):
        return mean_doubt(rmse(outputs, targets), targets)

    def test_a_loss_that_broadcasts_is_asked_about(self):
        x = torch.randn(200, 3, generator=DRAWS)
        targets = x.sum(1)
        outputs = torch.stack([torch.linalg.lstsq(x, targets.mean().expand(200, 1)).solution.T @ x.T for _ in range(3)])
        said = self.said(outputs[:, 0], targets)
        assert said.startswith("no run predicts better than the mean of the labels: RMSE ")
        assert "(shapes [N, 1] and [N] compare each with every label)" in said

    def test_one_run_that_has_learnt_is_enough(self):
        assert self.said(torch.stack([torch.zeros(200), 0.5 * self.TARGETS])) == ""

    def test_few_examples_and_equal_labels_tell_nothing(self):
        assert self.said(torch.ones(3, 5), self.TARGETS[:5]) == ""
        assert self.said(torch.ones(3, 200), torch.zeros(200)) == ""

    def test_a_prediction_that_has_nothing_to_do_with_the_labels_is_rarely_taken_for_a_better_one(self):
        generator = torch.Generator().manual_seed(1)
        doubted = 0
        for _ in range(300):
            targets, guess = torch.randn(2, 100, generator=generator)
            slope = (guess * targets).mean() / guess.square().mean()  # the best multiple of it
            doubted += bool(self.said(torch.stack([slope * guess]), targets))
        assert doubted >= 290, "at an error rate of 1 %, fewer are seen once in 500 times"


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


class TestScale:
    LOGITS = 2 * torch.randn(4, 300, 10, generator=DRAWS) + 4 * torch.nn.functional.one_hot(LABELS, 10)
    SHARES = LOGITS.softmax(-1)

    def said(self, runs: torch.Tensor, **stated: str) -> list[str]:
        return [remark for remark in fake_study(runs, LABELS, **stated).measures.remarks if "row sums" in remark]

    @pytest.mark.parametrize(
        "runs",
        [
            SHARES + 1e-6,
            SHARES.clamp(1e-5, 1 - 1e-5),
            (SHARES * 1000).round() / 1000,
            (LOGITS + torch.rand(8, 1, 1, 10, generator=DRAWS)).bfloat16().softmax(-1).float().mean(0),
            SHARES * 1.01,
            SHARES * 100,
            LOGITS.sigmoid(),
        ],
        ids=["epsilon", "clamp", "rounded", "mean of halves", "above 1", "percent", "one against rest"],
    )
    def test_shares_that_sum_to_1_only_nearly_are_said_to_be_taken_for_logits(self, runs):
        (said,) = self.said(runs)
        sums = runs.double().sum(-1)
        assert f"with row sums from {sums.min():.7g} to {sums.max():.7g}: taken for logits" in said
        assert "divide each row by its sum and say outputs='probabilities'" in said
        assert self.said(runs, outputs="logits") == []

    def test_what_is_advised_is_accepted_and_gives_the_numbers_of_the_logits(self):
        runs = self.SHARES + 1e-6
        mended = fake_study(runs / runs.sum(-1, keepdim=True), LABELS, outputs="probabilities")
        assert mended.cross_entropy.value == pytest.approx(
            fake_study(self.LOGITS, LABELS).cross_entropy.value, rel=0.01
        )

    @pytest.mark.parametrize(
        "runs",
        [
            LOGITS,
            LOGITS.relu(),
            SHARES,
            LOGITS.log_softmax(-1),
            SHARES * 7,
            torch.nn.functional.one_hot(LOGITS.argmax(-1), 10),
            torch.zeros_like(LOGITS),
        ],
        ids=["logits", "of relu", "shares", "log", "other sum", "one-hot", "zeros"],
    )
    def test_what_is_no_share_or_a_whole_one_is_not_doubted(self, runs):
        assert self.said(runs) == []

    def test_one_negative_number_late_in_one_run_shows_logits(self):
        runs = self.SHARES * 0.9
        runs[3, 299, 9] = -0.1
        assert self.said(runs) == []

    def test_a_single_output_and_several_labels_have_no_rows(self):
        z = torch.rand(3, 300, generator=DRAWS)
        labels = (LABELS % 2, torch.stack([LABELS % 2, LABELS % 3 % 2], -1).bool())
        for runs, of in ((z, labels[0]), (z[..., None].expand(-1, -1, 2) * 0.6, labels[1])):
            assert not [remark for remark in fake_study(runs, of).measures.remarks if "row sums" in remark]


class TestOneAnswer:
    SEVERAL = torch.rand(60, 4, generator=DRAWS) < 0.4
    Z = torch.randn(6, 60, 4, generator=DRAWS) + 3 * SEVERAL - 1.5
    LOGS = torch.nn.functional.logsigmoid(Z)

    def said(self, runs: torch.Tensor, labels: torch.Tensor = SEVERAL, **stated: str) -> list[str]:
        remarks = fake_study(runs, labels, **stated).measures.remarks
        return [remark for remark in remarks if ": the outputs are from" in remark]

    def test_log_probabilities_of_several_labels_are_named(self):
        (said,) = self.said(self.LOGS)
        assert said.startswith("no example gets a label in any of 6 runs: the outputs are from ")
        assert said.endswith("may be log-probabilities: return logits, or say outputs='log_probabilities'")
        assert self.said(self.LOGS, outputs="log_probabilities") == []

    def test_those_of_a_single_output_too(self):
        (said,) = self.said(self.LOGS[..., 0], self.SEVERAL[:, 0].long())
        assert said.startswith("every example gets class 0 in all 6 runs: ")
        assert said.endswith("outputs='log_probabilities'")
        assert self.said(self.LOGS[..., 0], self.SEVERAL[:, 0].long(), outputs="log_probabilities") == []

    def test_integer_labels_that_are_several_by_word_cannot_have_another_word(self):
        (said,) = self.said(self.LOGS, self.SEVERAL.long(), outputs="multi_label")
        assert said.endswith("return logits, or give labels.bool() and say outputs='log_probabilities'")

    def test_logits_by_word_are_no_log_probabilities_and_yet_never_a_yes(self):
        (said,) = self.said(self.LOGS, outputs="logits")
        assert said.endswith("and a logit above 0 is a yes")

    def test_every_label_and_shares_below_a_half_are_said(self):
        (said,) = self.said(self.Z.sigmoid() * 100)
        assert said.startswith("every example gets every label in all 6 runs: ")
        (said,) = self.said(self.Z.sigmoid() * 0.4)
        assert said.startswith("no example gets a label")
        assert said.endswith("and a probability above 0.5 is a yes")

    def test_one_yes_in_one_run_or_labels_that_are_all_so_raise_no_doubt(self):
        runs = self.LOGS.clone()
        runs[5, 59, 3] = 1e-6
        assert self.said(runs) == []
        assert self.said(self.LOGS, torch.zeros(60, 4).bool()) == []
        assert self.said(self.Z) == []


class TestSharedOutputs:
    ONE, OTHER = torch.randn(2, 5, 3, generator=DRAWS)

    def test_three_runs_or_more_with_other_weights_are_asked_about(self):
        said = shared_outputs_doubt([self.ONE] * 4, ["a", "b", "c", "d"])
        assert said.startswith("all 4 runs gave the same outputs bit for bit, though they trained other weights: ")
        said = shared_outputs_doubt([self.ONE, self.OTHER, *[self.OTHER.clone()] * 2], ["a", "b", "c", "d"])
        assert said.startswith("3 of 4 runs (run 1, 2, 3) gave ")

    def test_two_runs_equal_weights_and_whole_numbers_raise_no_doubt(self):
        assert shared_outputs_doubt([self.ONE, self.ONE, self.OTHER], ["a", "b", "c"]) == ""
        assert shared_outputs_doubt([self.ONE] * 3, ["a", "a", "a"]) == ""
        assert shared_outputs_doubt([self.ONE.round()] * 3, ["a", "b", "c"]) == ""
        assert shared_outputs_doubt([], []) == ""
