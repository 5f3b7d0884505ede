"""Where the spread of accuracy comes from: plain loops, identities, laws, and error rates by simulation."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.estimates.metrics import (
    accuracy,
    churn,
    correctness,
    disagreement,
    excess_of,
    floor_of_churn,
)
from tests.estimates.second_author import distribution_variance, excess_probability, flip_floor

#: [R, N] of right and wrong.
matrices = arrays.arrays(np.bool_, st.tuples(st.integers(2, 7), st.integers(2, 15))).map(torch.from_numpy)

laws = settings(deadline=None, max_examples=60)


def some(runs: int, examples: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + runs)
    return torch.rand(runs, examples, generator=generator) < torch.rand(examples, generator=generator)


def accuracy_sd(correct: torch.Tensor) -> float:
    return statistics.stdev([100 * statistics.fmean(map(float, run)) for run in correct.tolist()])


@pytest.mark.parametrize("runs", range(2, 9))
def test_churn_agrees_with_plain_loops(runs):
    correct = some(runs)
    got = churn(correct)
    for i, j in itertools.product(range(runs), repeat=2):
        differing = sum(a != b for a, b in zip(correct[i].tolist(), correct[j].tolist(), strict=True))
        assert got[i, j].item() == pytest.approx(100 * differing / 40, rel=1e-12)


@pytest.mark.parametrize("runs", range(2, 9))
def test_the_floor_is_the_root_of_the_summed_variances_of_examples(runs):
    correct = some(runs)
    variances = [statistics.variance(map(float, example)) for example in correct.T.tolist()]
    assert flip_floor(correct) == pytest.approx(100 * math.sqrt(sum(variances)) / 40, rel=1e-12)


@pytest.mark.parametrize("runs", range(2, 9))
def test_the_distributions_variance_is_the_mean_covariance_of_two_examples(runs):
    correct = some(runs, examples=15)
    covariances = np.cov(correct.double().numpy().T, ddof=1)
    expected = 1e4 * covariances[~np.eye(15, dtype=bool)].mean()
    assert distribution_variance(correct) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(matrices)
@laws
def test_the_floors_square_is_the_mean_churn_over_two_n(correct):
    runs, examples = correct.shape
    pairs = [churn(correct)[i, j].item() for i, j in itertools.combinations(range(runs), 2)]
    assert flip_floor(correct) == pytest.approx(floor_of_churn(statistics.fmean(pairs), examples), rel=1e-12)
    assert floor_of_churn(100.0, examples) ** 2 / 1e4 == pytest.approx(1 / (2 * examples))  # in shares


@given(matrices)
@laws
def test_an_sd_is_made_of_the_floor_and_of_the_distributions_variance(correct):
    examples = correct.shape[1]
    total = flip_floor(correct) ** 2 + distribution_variance(correct) * (examples - 1) / examples
    assert total == pytest.approx(accuracy_sd(correct) ** 2, rel=1e-9, abs=1e-9)


@given(matrices, st.randoms(use_true_random=False))
@laws
def test_neither_the_order_of_runs_nor_of_examples_nor_the_naming_of_right_matters(correct, random):
    runs = random.sample(range(len(correct)), len(correct))
    examples = random.sample(range(correct.shape[1]), correct.shape[1])
    for measure in (flip_floor, distribution_variance, excess_probability):
        expected = pytest.approx(measure(correct), rel=1e-12, abs=1e-12)
        assert measure(correct[runs][:, examples]) == expected
        assert measure(~correct) == expected
        assert measure(list(correct)) == expected


@given(matrices)
@laws
def test_equal_runs_have_no_floor_no_variance_and_no_excess(correct):
    same = correct[:1].expand(4, -1)
    assert flip_floor(same) == distribution_variance(same) == 0
    assert excess_probability(same) == 1


@given(matrices)
@laws
def test_an_example_more_that_never_flips_changes_no_count_of_flips(correct):
    runs, examples = correct.shape
    more = torch.cat([correct, torch.ones(runs, 3, dtype=torch.bool)], dim=1)
    assert flip_floor(more) * (examples + 3) == pytest.approx(flip_floor(correct) * examples, rel=1e-12)


@given(arrays.arrays(np.int64, (4, 12), elements=st.integers(0, 3)).map(torch.from_numpy))
@laws
def test_churn_is_at_most_the_disagreement_and_equal_to_it_with_two_classes(predictions):
    labels = torch.arange(12) % 4
    assert (churn(correctness(predictions, labels)) <= disagreement(predictions)).all()
    two = predictions % 2
    assert torch.equal(churn(correctness(two, labels % 2)), disagreement(two))


def test_correctness_is_what_accuracy_counts():
    logits = torch.randn(5, 30, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 4
    right = correctness(logits.argmax(-1), labels)
    assert torch.allclose(right.double().mean(1) * 100, accuracy(logits, labels))
    assert accuracy_sd(right) == pytest.approx(accuracy(logits, labels).std().item())


def test_the_excess_test_is_scipys_chi_square():
    correct = some(12)
    statistic = 11 * (accuracy_sd(correct) / flip_floor(correct)) ** 2
    assert excess_probability(correct) == pytest.approx(scipy.stats.chi2.sf(statistic, 11), rel=1e-9)
    assert excess_of(0.3, 0.2, 10) == pytest.approx(scipy.stats.chi2.sf(9 * 2.25, 9))


def test_one_example_has_no_variance_of_a_distribution():
    assert math.isnan(distribution_variance(torch.tensor([[True], [False]])))


def test_runs_that_trade_one_example_for_another_have_less_than_no_variance():
    assert distribution_variance(torch.tensor([[True, False], [False, True]])) < 0


# By simulation: examples of accuracies from a beta distribution, as those of a trained network look


def studies(runs: int, count: int, shift: float = 0.0, examples: int = 500):
    """Runs whose examples flip independently; with ``shift``, whole runs are better or worse as well."""
    draws = np.random.default_rng(0)
    chances = draws.beta(0.5, 0.1, size=examples)
    for _ in range(count):
        better = shift * draws.normal(size=(runs, 1))
        yield chances, torch.from_numpy(draws.random((runs, examples)) < np.clip(chances + better, 0, 1))


def test_flips_on_their_own_give_an_sd_equal_to_the_floor():
    got = [(flip_floor(c) ** 2, accuracy_sd(c) ** 2, distribution_variance(c)) for _, c in studies(5, 1000)]
    chances, _ = next(studies(5, 1))
    truth = 1e4 * float((chances * (1 - chances)).sum()) / 500**2
    floor, sd, distribution = np.mean(got, axis=0)
    assert floor == pytest.approx(truth, rel=0.005)
    assert sd == pytest.approx(truth, rel=3 * math.sqrt(2 / 4 / 1000))  # three errors of the mean of chi-squares
    assert abs(distribution) < 3 * truth * math.sqrt(2 / 4 / 1000)


@pytest.mark.parametrize("runs", [5, 10, 30])
def test_the_floor_is_known_far_better_than_the_sd(runs):
    floors, sds = np.array([(flip_floor(c), accuracy_sd(c)) for _, c in studies(runs, 300)]).T
    assert floors.std() / floors.mean() < 0.04
    assert sds.std() / sds.mean() > 4 * floors.std() / floors.mean()


@pytest.mark.parametrize("runs", [5, 10, 30])
def test_the_excess_test_errs_in_one_of_twenty_studies_and_finds_a_shift(runs):
    alarms = np.mean([excess_probability(c) < 0.05 for _, c in studies(runs, 1500)])
    assert alarms == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 1500))
    found = np.mean([excess_probability(c) < 0.05 for _, c in studies(runs, 100, shift=0.05)])
    assert found > 0.8
