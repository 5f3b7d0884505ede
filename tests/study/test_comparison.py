"""Two studies against each other: what is compared, what is refused, and what is said."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor

import stabilitykit
from stabilitykit.errors import RunsFailedError, TaskError
from stabilitykit.estimates.metrics import disagreement
from stabilitykit.study.comparison import Comparison, Sample, compare
from stabilitykit.study.study import Study
from stabilitykit.testing import FakeTask, fake_study

EXAMPLES = 300
LABELS = torch.arange(EXAMPLES) % 3


def study(
    seed: int, *, runs: int = 10, lead: float = 2.0, noise: float = 0.5, of_run: float = 0.0, labels: Tensor = LABELS
) -> Study:
    """Models that lead by ``lead`` with the right class, up to what all share, what examples and what runs draw."""
    draw = torch.Generator().manual_seed(seed)
    right = torch.nn.functional.one_hot(LABELS, 3)
    mean = torch.randn(EXAMPLES, 3, generator=torch.Generator().manual_seed(99)) + lead * right
    own = (
        noise * torch.randn(runs, EXAMPLES, 3, generator=draw)
        + of_run * torch.randn(runs, 1, 1, generator=draw) * right
    )
    return fake_study(mean + own, labels, task=f"net {seed}")


def reseeded(study: Study, base: int = 1) -> Study:
    """The same runs, as from another base seed."""
    records = [dataclasses.replace(r, seeds={"init": base * 1000 + r.index}) for r in study.records]
    return dataclasses.replace(study, records=tuple(records))


def regression(seed: int, *, runs: int = 6, noise: float = 0.1, shape: tuple[int, ...] = (40,)) -> Study:
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return fake_study(targets + noise * torch.randn(runs, *shape, generator=draw), targets)


class TestQuestions:
    def test_a_better_model_is_better_and_the_worse_one_worse(self):
        old, new = study(0), study(1, lead=2.6)
        forth, back = Comparison.between(old, new), Comparison.between(new, old)
        assert forth.is_better
        assert back.is_worse
        assert not forth.is_worse
        assert not back.is_better
        assert forth.mean.value == pytest.approx(new.accuracy.value - old.accuracy.value)
        assert (forth.mean.low, forth.mean.high) == pytest.approx((-back.mean.high, -back.mean.low))
        assert forth.mean_on_distribution.low < forth.mean.low

    def test_a_larger_spread_and_more_disagreement_are_told_apart(self):
        base = study(0)
        spread = Comparison.between(base, study(1, of_run=0.8))
        assert spread.is_spread_larger
        noisy = Comparison.between(base, study(2, noise=1.0))
        assert noisy.is_disagreement_larger
        assert not noisy.is_spread_larger
        back = Comparison.between(study(2, noise=1.0), base)
        assert back.is_disagreement_smaller
        assert not back.is_disagreement_larger
        assert Comparison.between(study(1, of_run=0.8), base).is_spread_smaller

    def test_numbers_of_each_side_are_those_of_its_study(self):
        old, new = study(0), study(1, runs=12)
        comparison = compare(old, new)
        for side, of in ((comparison.baseline, old), (comparison.candidate, new)):
            assert side.mean == of.accuracy.value
            assert side.sd == of.accuracy_sd.value
            assert side.differing == of.disagreement.value
        assert comparison.candidate.runs == 12

    def test_studies_that_are_trained_compare_too(self, ask):
        comparison = stabilitykit.compare(
            ask(FakeTask(noise=1.0), "all", runs=5), ask(FakeTask(noise=3.0), "all", runs=5)
        )
        assert comparison.paired
        assert comparison.is_worse
        assert comparison.is_disagreement_larger

    @pytest.mark.slow
    @pytest.mark.parametrize("paired", [False, True])
    def test_two_samples_of_one_model_differ_in_no_question_more_often_than_in_five_percent(self, paired):
        """The model's examples are few, so scores come in steps, and runs tie."""
        draw = torch.Generator().manual_seed(0)
        mean = torch.randn(60, 3, generator=draw)
        labels = torch.arange(60) % 3
        claims = dict.fromkeys(("is_better", "is_worse", "is_spread_larger", "is_disagreement_larger"), 0)
        for _ in range(500):
            shared = torch.randn(5, 60, 3, generator=draw)
            logits = (mean + 0.3 * (paired * shared + torch.randn(5, 60, 3, generator=draw)) for _ in range(2))
            one, other = (fake_study(of, labels) for of in logits)
            comparison = Comparison.between(one, other if paired else reseeded(other))
            assert comparison.paired == paired
            for name in claims:
                claims[name] += getattr(comparison, name)
        # 5 % of 500 with three Monte-Carlo errors; the F test has a little more, on scores that come in steps.
        assert all(count <= 25 + 3 * 4.9 for count in claims.values()), claims

    def test_a_smaller_alpha_asks_for_more(self):
        old, new = study(0), study(1, lead=2.15)
        usual = Comparison.between(old, new)
        strict = Comparison.between(old, new, alpha=usual.mean.p_more / 2)
        assert usual.is_better
        assert not strict.is_better
        assert strict.mean.low < 0 < usual.mean.low


class TestPairing:
    def test_run_i_is_paired_where_the_seeds_are_the_same(self):
        assert Comparison.between(study(0), study(1)).paired
        assert not Comparison.between(study(0), reseeded(study(1))).paired
        assert not Comparison.between(study(0), study(1, runs=9)).paired, "all runs count, and 9 of 10 pair none"
        other = dataclasses.replace(study(1), protocol=dataclasses.replace(study(1).protocol, vary=frozenset()))
        assert not Comparison.between(study(0), other).paired

    def test_churn_is_the_share_of_examples_that_a_run_of_each_see_differently(self):
        old, new = study(0, runs=4), reseeded(study(1, runs=3))
        predicted = [outputs.argmax(-1) for outputs in (old.outputs, new.outputs)]
        pairs = [(a != b).double().mean() for a in predicted[0] for b in predicted[1]]
        assert Comparison.between(old, new).churn == pytest.approx(100 * np.mean(pairs))

    def test_churn_of_a_model_with_itself_is_its_disagreement(self):
        old = study(0)
        assert Comparison.between(old, old).churn == pytest.approx(old.disagreement.value)

    def test_the_same_runs_twice_leave_nothing_to_judge(self):
        comparison = Comparison.between(study(0), study(0))
        assert comparison.identical
        answers = [name for name in comparison.to_json() if name.startswith("is_")]
        assert len(answers) == 8
        assert not any(getattr(comparison, name) for name in answers)
        assert (comparison.spread.low, comparison.spread.value, comparison.spread.high) == (1, 1, 1)
        assert comparison.conclusion == "Run for run, both give the same answers: there is no difference to judge."


class TestEdges:
    def test_models_without_randomness_are_compared_as_they_are(self):
        still = [fake_study(study(seed, runs=2).outputs[:1].expand(3, -1, -1), LABELS, vary="none") for seed in (0, 5)]
        same, other = Comparison.between(still[0], still[0]), Comparison.between(*still)
        assert same.identical
        assert not other.identical
        assert other.mean.value != 0
        assert other.is_better != other.is_worse
        assert not other.is_spread_larger
        assert "accuracy of neither varies" in other.conclusion
        assert not other.is_better_on_distribution, "one test set is not all"
        assert not other.is_worse_on_distribution

    def test_randomness_that_comes_in_is_a_larger_spread(self):
        still = fake_study(study(0, runs=2).outputs[:1].expand(9, -1, -1), LABELS, vary="none")
        comparison = Comparison.between(still, study(0, runs=9))
        assert comparison.is_spread_larger
        assert comparison.is_disagreement_larger
        assert "varies from run to run, which the baseline does not" in comparison.conclusion

    def test_two_runs_each_are_enough_for_means_and_not_for_pairs(self):
        comparison = Comparison.between(study(0, runs=2), study(1, runs=2, lead=5))
        assert comparison.is_better
        assert not comparison.is_disagreement_smaller
        assert "cannot be compared: one pair, no interval" in comparison.conclusion

    def test_ignored_labels_and_several_labels_an_example(self):
        labels = LABELS.clone()
        labels[::3] = -100
        left_out = Comparison.between(study(0, labels=labels), study(1, lead=2.3, labels=labels))
        kept = [fake_study(s.outputs[:, labels >= 0], labels[labels >= 0]) for s in (study(0), study(1, lead=2.3))]
        alone = Comparison.between(*kept)
        assert left_out.mean == alone.mean
        assert left_out.churn == alone.churn
        assert left_out.disagreement == alone.disagreement
        assert left_out.mean_on_distribution.p_more == pytest.approx(alone.mean_on_distribution.p_more, rel=0.1)
        sample = Sample.of(study(0, labels=labels))
        assert sample.of_examples()[:, 0] == pytest.approx(sample.scores), "an example without a label moves nothing"
        # 300 labels as 60 examples of 5: the scores stay, and there are fewer examples to draw anew.
        grouped = [fake_study(s.outputs.reshape(-1, 60, 5, 3), LABELS.reshape(60, 5)) for s in (study(0), study(1))]
        comparison = Comparison.between(*grouped)
        assert comparison.mean == Comparison.between(study(0), study(1)).mean
        assert Sample.of(grouped[0]).of_examples().shape == (10, 60)
        assert Sample.of(grouped[0]).of_examples().mean(1) == pytest.approx(Sample.of(grouped[0]).scores)

    def test_more_than_256_classes(self):
        logits = torch.zeros(2, 2, 400)
        logits[:, :, 399] = 1
        assert Sample.of(fake_study(logits, [399, 143])).scores.tolist() == [50, 50], "143 is 399 in a byte"

    def test_regression(self):
        old, new = regression(0), regression(1, noise=0.02)
        comparison = Comparison.between(old, new)
        assert comparison.metric == "rmse"
        assert comparison.mean.value == pytest.approx(new.rmse.value - old.rmse.value)
        assert comparison.is_better
        assert comparison.is_better_on_distribution
        assert comparison.mean.value < 0
        assert comparison.is_disagreement_smaller, "its runs correlate more"
        assert comparison.churn is None
        back = Comparison.between(new, old)
        assert back.is_worse
        assert back.is_worse_on_distribution
        assert "The candidate is worse by 0.0" in back.conclusion
        wide = Comparison.between(regression(0, shape=(20, 2)), regression(1, shape=(20, 2)))
        assert wide.mean.value == pytest.approx(comparison.mean.value, abs=0.1)

    def test_influence_of_an_example_on_rmse(self):
        """Against leaving each out in turn, which is the jackknife's estimate of it."""
        sample = Sample.of(regression(3, runs=1 + 1, shape=(200,)))
        errors = (sample.answers - sample.labels).square().double().numpy()[0]
        without = np.array([np.sqrt(np.delete(errors, n).mean()) for n in range(200)])
        assert sample.of_examples()[0] == pytest.approx(199 * (sample.scores[0] - without), abs=0.005)

    def test_a_constant_model_has_no_correlation(self):
        flat = fake_study(torch.zeros(3, 40), regression(0).labels)
        comparison = Comparison.between(regression(0), flat)
        assert not comparison.is_disagreement_larger
        assert "cannot be compared" in comparison.conclusion
        json.dumps(comparison.to_json(), allow_nan=False)


class TestRefusals:
    def test_other_test_sets_are_refused_with_the_reason(self):
        other = LABELS.clone()
        other[:4] = (other[:4] + 1) % 3
        cases = [
            (fake_study(torch.zeros(3, 20, 3), LABELS[:20]), r"labels of shape \[300\], the candidate \[20\]"),
            (study(1, labels=other), "4 of 300 test labels differ"),
            (fake_study(torch.zeros(3, EXAMPLES), LABELS.float()), "labels are classes, the candidate's regression"),
        ]
        for candidate, reason in cases:
            with pytest.raises(TaskError, match=f"Expected two models of one test set but .*{reason}"):
                Comparison.between(study(0), candidate)

    def test_a_failed_run_is_never_left_out(self):
        old = study(0)
        failed = dataclasses.replace(old.records[2], status="failed", logits=None, error="boom")
        broken = dataclasses.replace(old, records=(*old.records[:2], failed, *old.records[3:]))
        for pair in ((old, broken), (broken, old)):
            with pytest.raises(RunsFailedError, match="boom"):
                Comparison.between(*pair)

    @pytest.mark.parametrize("alpha", [0, 0.5, 2, float("nan")])
    def test_alpha(self, alpha):
        with pytest.raises(TaskError, match=r"Expected 0 < alpha < 0\.5"):
            Comparison.between(study(0), study(1), alpha=alpha)


class TestWords:
    def test_each_question_is_answered_in_a_sentence(self):
        text = Comparison.between(study(0), study(1, lead=2.6, of_run=1.0)).conclusion
        assert "The candidate is better by " in text or "That the candidate is better" in text
        assert "It varies more from run to run, " in text
        assert "times the baseline's spread of accuracy (p " in text
        assert "Two runs, one of each, predict different classes on " in text

    def test_what_is_shown_here_need_not_be_shown_elsewhere(self):
        old = study(0, noise=0.01)
        logits, right = old.outputs, (old.outputs[0].argmax(-1) == LABELS).nonzero().flatten()
        wrong = (old.outputs[0].argmax(-1) != LABELS).nonzero().flatten()
        for few, sees in ((wrong[:8], LABELS), (right[:5], (LABELS + 1) % 3)):  # better on some, worse on fewer
            logits[:, few] += 9 * torch.nn.functional.one_hot(sees[few], 3)
        new = fake_study(logits, LABELS)
        comparison = Comparison.between(old, new)
        assert comparison.is_better
        assert not comparison.is_better_on_distribution
        assert "on other test sets of this kind that is not shown (p = " in comparison.conclusion
        assert "no number of runs would show one of that size, about" in comparison.conclusion

    def test_undecided_says_how_many_runs_would_show_it(self):
        comparison = Comparison.between(study(0, runs=4), reseeded(study(12, runs=4, lead=2.05)))
        needed = comparison.mean.runs_needed
        assert not comparison.is_better
        assert comparison.mean.value > 0
        assert f"about {needed} runs of each would show a difference of that size" in comparison.conclusion

    def test_the_table_has_a_row_for_each_question(self):
        lines = str(Comparison.between(study(0), study(1, lead=2.6))).splitlines()
        starts = ["", "runs", "mean accuracy %", "  on other test sets", "SD of accuracy %", "disagreement %", "churn"]
        assert len(lines) == len(starts) + 2
        assert all(line.startswith(start) for line, start in zip(lines, starts, strict=False))
        assert "baseline (net 0 [all])" in lines[0]
        assert "better (p < 0.001, paired t)" in lines[2]

    def test_json_holds_what_a_reader_needs(self):
        comparison = Comparison.between(study(0), study(1))
        told = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
        assert told["baseline"]["runs"] == 10
        assert told["mean"]["value"] == comparison.mean.value
        assert told["is_better"] == comparison.is_better
        assert told["conclusion"] == comparison.conclusion


def test_a_sample_is_small_and_counts_as_the_study_does():
    old = study(0)
    sample = Sample.of(old)
    assert sample.answers.dtype == torch.uint8
    assert np.array_equal(sample.pairs, disagreement(old.outputs.argmax(-1)).numpy())
    assert np.array_equal(sample.scores, old.measures.of_runs("accuracy").numpy())
