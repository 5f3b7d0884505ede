"""The pairwise measures against plain loops and SciPy, and their laws."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.estimates.metrics import disagreement, pairwise, pearson, spearman

RUNS = range(2, 13)


def rows_with_ties(runs: int, length: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(runs)
    shared, own = torch.randn(length, generator=generator), torch.randn(runs, length, generator=generator)
    return (2 * (shared + own)).round() / 2


#: [R, M] of few distinct values, so that ties, equal rows and constant rows are common.
matrices = arrays.arrays(np.int64, st.tuples(st.integers(2, 6), st.integers(2, 12)), elements=st.integers(-3, 3)).map(
    torch.from_numpy
)


@pytest.mark.parametrize("runs", RUNS)
def test_disagreement_agrees_with_plain_loops(runs):
    predictions = rows_with_ties(runs).long()
    got = disagreement(predictions)
    for i in range(runs):
        for j in range(runs):
            differing = [a != b for a, b in zip(predictions[i].tolist(), predictions[j].tolist(), strict=True)]
            assert got[i, j].item() == pytest.approx(100 * sum(differing) / len(differing), rel=1e-10)


@pytest.mark.parametrize("runs", RUNS)
def test_spearman_agrees_with_scipy(runs):
    outputs = rows_with_ties(runs)
    got = spearman(outputs)
    for i in range(runs):
        for j in range(runs):
            expected = scipy.stats.spearmanr(outputs[i].numpy(), outputs[j].numpy()).statistic
            assert got[i, j].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("runs", RUNS)
def test_pearson_agrees_with_the_standard_library(runs):
    outputs = rows_with_ties(runs)
    got = pearson(outputs)
    for i in range(runs):
        for j in range(runs):
            expected = statistics.correlation(outputs[i].tolist(), outputs[j].tolist())
            assert got[i, j].item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("correlation", [spearman, pearson])
def test_many_outputs_are_added_in_double_precision(correlation):
    outputs = torch.stack([torch.arange(100_001) // 2, torch.arange(100_001) ** 2 % 7919]).float()
    reference = {spearman: scipy.stats.spearmanr, pearson: scipy.stats.pearsonr}[correlation]
    expected = reference(*outputs.double().numpy()).statistic
    assert correlation(outputs)[0, 1].item() == pytest.approx(expected, rel=1e-10)


@given(matrices)
@settings(deadline=None, max_examples=50)
def test_disagreement_is_a_distance_in_percent(predictions):
    matrix = disagreement(predictions)
    assert torch.equal(matrix, matrix.T)
    assert not matrix.diagonal().any()
    assert 0 <= matrix.min() <= matrix.max() <= 100
    through_another = (matrix[:, :, None] + matrix[None, :, :]).amin(dim=1)
    assert (matrix <= through_another + 1e-9).all()


@pytest.mark.parametrize("correlation", [spearman, pearson])
@given(matrices)
@settings(deadline=None, max_examples=50)
def test_correlation_is_symmetric_with_ones_on_the_diagonal_and_nan_for_constant_models(correlation, outputs):
    matrix = correlation(outputs)
    constant = (outputs == outputs[:, :1]).all(dim=1)
    assert torch.equal(matrix.isnan(), constant[:, None] | constant[None, :])
    varying = matrix[~constant][:, ~constant]
    assert torch.equal(varying, varying.T)
    assert (varying.diagonal() == 1).all()
    assert (varying.abs() <= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("measure", [disagreement, spearman, pearson])
@given(matrices, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_the_order_of_runs_does_not_matter(measure, outputs, random):
    order = random.sample(range(len(outputs)), len(outputs))
    torch.testing.assert_close(
        measure(outputs[order]), measure(outputs)[order][:, order], rtol=1e-12, atol=1e-14, equal_nan=True
    )


@pytest.mark.parametrize("transform", [lambda x: 3 * x + 1, lambda x: x**3, torch.exp])
@given(matrices)
@settings(deadline=None, max_examples=25)
def test_spearman_sees_only_the_order_of_outputs(transform, outputs):
    torch.testing.assert_close(spearman(transform(outputs.double())), spearman(outputs), rtol=0, atol=0, equal_nan=True)


@given(matrices, st.floats(0.1, 10), st.floats(-5, 5))
@settings(deadline=None, max_examples=25)
def test_pearson_sees_neither_scale_nor_shift(outputs, scale, shift):
    assume(not (outputs == outputs[:, :1]).all(dim=1).any())
    torch.testing.assert_close(pearson(outputs * scale + shift), pearson(outputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("correlation", [spearman, pearson])
@pytest.mark.parametrize("length", [3, 1_001, 50_003])
def test_models_with_the_same_bits_correlate_by_exactly_one(correlation, length):
    outputs = torch.randn(1, length, generator=torch.Generator().manual_seed(0)).expand(7, -1)
    assert (correlation(outputs) == 1).all()


def test_rounding_never_takes_a_correlation_beyond_one():
    for seed in range(20):  # about half of them would
        row = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert pearson(torch.stack([row, 3 * row, -0.7 * row])).abs().max() == 1


def test_a_reversed_model_correlates_by_minus_one():
    outputs = torch.tensor([[0.1, 0.2, 0.7, 1.5], [1.5, 0.7, 0.2, 0.1]])
    assert spearman(outputs)[0, 1].item() == pytest.approx(-1, abs=1e-15)


@pytest.mark.parametrize("correlation", [spearman, pearson])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -7.3])
def test_a_constant_model_has_no_correlation(correlation, value):
    constant = torch.full((18,), value, dtype=torch.float64)  # the mean of 18 times 0.1 is not 0.1
    matrix = correlation(torch.stack([constant, torch.arange(18.0, dtype=torch.float64)]))
    assert [[math.isnan(entry) for entry in row] for row in matrix.tolist()] == [[True, True], [True, False]]


def test_spearman_of_more_models_than_there_is_room_for_is_the_same(monkeypatch):
    outputs = rows_with_ties(11)
    outputs[7] = outputs[2]
    expected = spearman(outputs)
    monkeypatch.setattr(pairwise, "_RANKS_BYTES", 1)
    monkeypatch.setattr(pairwise, "_BLOCK_BYTES", 8 * 11 * 13)
    assert torch.equal(spearman(outputs), expected)
    assert expected[2, 7] == 1


def test_pearson_agrees_whatever_the_blocks(monkeypatch):
    outputs = rows_with_ties(5) / 3
    expected = pearson(outputs)
    monkeypatch.setattr(pairwise, "_BLOCK_BYTES", 8 * 5 * 7)
    torch.testing.assert_close(pearson(outputs), expected, rtol=1e-13, atol=1e-15)


def test_models_of_equal_ranks_correlate_by_exactly_one():
    outputs = torch.randn(1, 999, generator=torch.Generator().manual_seed(0))
    assert (spearman(torch.cat([outputs, 3 * outputs, outputs.exp()])) == 1).all()


def test_a_model_with_a_nan_has_no_rank_correlation_and_others_keep_theirs():
    outputs = rows_with_ties(4)
    expected = spearman(outputs)
    outputs[1, 5] = torch.nan
    got = spearman(outputs)
    assert got[1].isnan().all()
    assert got[:, 1].isnan().all()
    others = torch.tensor([0, 2, 3])
    assert torch.equal(got[others][:, others], expected[others][:, others])


@pytest.mark.parametrize("classes", [2, 200, 300, 70_000])
def test_classes_are_told_apart_however_many_there_are(classes):
    predictions = torch.tensor([[0, classes - 1, 1], [0, classes - 2, 1], [-1, classes - 1, 1]])
    assert (disagreement(predictions) * 3 / 100).round().tolist() == [[0, 1, 1], [1, 0, 2], [1, 2, 0]]
