"""CKA against the textbook's formula in plain loops, and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.estimates.metrics import cka
from stabilitykit.estimates.metrics.representation import CkaSum, packed_gram, spread_batches

laws = settings(deadline=None, max_examples=40)

#: [R, N, P] of few distinct values, so that constant and equal models are common.
activations = arrays.arrays(
    np.float64,
    st.tuples(st.integers(2, 5), st.integers(4, 13), st.integers(1, 4)),
    elements=st.integers(-3, 3).map(float),
).map(torch.from_numpy)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(runs: int = 4, examples: int = 24, features: int = 5) -> torch.Tensor:
    """Models that share a part of what they see."""
    return drawn(examples, features, seed=1) + drawn(runs, examples, features)


def hsic_1(x: list[list[float]], y: list[list[float]]) -> float:
    """Song et al. 2012, equation 5: traces and sums of Gram matrices without their diagonals."""
    n = len(x)

    def gram(rows: list[list[float]]) -> list[list[float]]:
        inner = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
        return [[0.0 if i == j else inner[i][j] for j in range(n)] for i in range(n)]

    k, m = gram(x), gram(y)
    trace = sum(k[i][j] * m[j][i] for i in range(n) for j in range(n))
    sums = sum(map(sum, k)) * sum(map(sum, m)) / ((n - 1) * (n - 2))
    product = sum(k[i][j] * m[j][q] for i in range(n) for j in range(n) for q in range(n))
    return (trace + sums - 2 / (n - 2) * product) / (n * (n - 3))


def by_loops(runs: torch.Tensor, batches: list[torch.Tensor]) -> list[list[float]]:
    def mean(i: int, j: int) -> float:
        return sum(hsic_1(runs[i][b].tolist(), runs[j][b].tolist()) for b in batches) / len(batches)

    count = range(len(runs))
    return [[mean(i, j) / math.sqrt(mean(i, i) * mean(j, j)) for j in count] for i in count]


@pytest.mark.parametrize(("examples", "batch_size"), [(4, 4), (12, 12), (13, 6), (24, 8), (11, 4)])
def test_it_agrees_with_plain_loops(examples, batch_size):
    runs = related(examples=examples)
    expected = by_loops(runs, list(spread_batches(examples, batch_size)))
    torch.testing.assert_close(cka(runs, batch_size), torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)


def test_a_single_batch_is_the_formula_to_the_last_digits():
    runs = related()
    got, expected = cka(runs), by_loops(runs, [torch.arange(24)])
    for i in range(4):
        assert got[i].tolist() == pytest.approx(expected[i], rel=1e-12)


@given(activations)
@laws
def test_it_is_symmetric_and_within_its_range(runs):
    got = cka(runs, batch_size=6)
    assert torch.equal(got.nan_to_num(9), got.T.nan_to_num(9))
    assert ((got.abs() <= 1) | got.isnan()).all()
    diagonal = got.diagonal()
    assert ((diagonal == 1) | diagonal.isnan()).all()


@given(activations, st.randoms(use_true_random=False))
@laws
def test_the_order_of_runs_does_not_matter(runs, random):
    order = random.sample(range(len(runs)), len(runs))
    torch.testing.assert_close(cka(runs[order]), cka(runs)[order][:, order], rtol=1e-9, atol=1e-9, equal_nan=True)


@given(st.integers(0, 1000), st.floats(0.01, 100))
@laws
def test_rotating_and_scaling_a_model_changes_nothing(seed, scale):
    runs = related()
    turn = torch.linalg.qr(drawn(5, 5, seed=seed)).Q
    moved = [runs[0] @ turn * scale + drawn(5, seed=seed), *runs[1:]]
    torch.testing.assert_close(cka(moved, 8), cka(runs, 8), rtol=1e-9, atol=1e-9)


@given(activations)
@laws
def test_models_with_the_same_bits_score_exactly_one(runs):
    twice = torch.cat([runs, runs.flip(0)])
    got, count = cka(twice, batch_size=5), len(runs)
    alone = cka(runs, batch_size=5)
    for i in range(count):
        other = 2 * count - 1 - i
        if not alone[i, i].isnan():
            assert got[i, other] == 1
        assert torch.equal(got[i].nan_to_num(9), got[other].nan_to_num(9))


def test_models_that_are_equal_in_one_batch_only_are_not_equal():
    one, other = related(2, 16)
    mixed = one.clone()
    mixed[1::2] = other[1::2]
    got = cka([one, mixed], batch_size=8)
    assert 0 < got[0, 1] < 0.99


@pytest.mark.parametrize("constant", [0.1, 0.3, 1.7])
@pytest.mark.parametrize("examples", [12, 47])
def test_a_model_that_gives_the_same_for_all_examples_has_no_cka(constant, examples):
    """The mean of equal numbers may be rounded, and is then not theirs."""
    runs = [drawn(examples, 3), torch.full((examples, 3), constant), drawn(examples, 3, seed=2)]
    got = cka(runs)
    assert got[1].isnan().all()
    assert got[:, 1].isnan().all()
    assert not got[0, 2].isnan()


@pytest.mark.slow
def test_independent_models_score_zero_on_average_and_the_biased_estimate_does_not():
    """The mean of 200 pairs, with its own standard error; more features than examples is where bias is worst."""
    unbiased, biased = [], []
    for seed in range(200):
        x, y = drawn(2, 16, 30, seed=seed)
        unbiased.append(float(cka([x, y], batch_size=8)[0, 1]))
        x, y = x - x.mean(0), y - y.mean(0)
        k, m = x @ x.T, y @ y.T
        biased.append(float((k * m).sum() / (k.norm() * m.norm())))
    assert abs(np.mean(unbiased)) < 3 * np.std(unbiased) / math.sqrt(200)
    assert np.mean(biased) > 0.5


def test_runs_may_have_layers_of_different_width():
    x = drawn(20, 4)
    assert cka([x, torch.cat([x, x], dim=1)])[0, 1].item() == pytest.approx(1, abs=1e-12)


def test_the_layout_of_memory_and_the_shape_of_features_do_not_matter():
    images = drawn(2, 10, 3, 4, 4)
    last = [x.contiguous(memory_format=torch.channels_last) for x in images]
    torch.testing.assert_close(cka(last), cka(images.flatten(2)), rtol=1e-12, atol=1e-12)
    assert cka([images[0], last[0]])[0, 1].item() == pytest.approx(1, abs=1e-12)


def test_more_features_than_one_block_are_summed(monkeypatch):
    runs = related(features=50)
    whole = cka(runs)
    monkeypatch.setattr("stabilitykit.estimates.metrics.representation._BLOCK_BYTES", 24 * 8 * 7)
    torch.testing.assert_close(cka(runs), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_mean_costs_no_digits(dtype):
    """Activations after a ReLU have one; without centring, float32 products of 1,000 would leave 1e-2 of noise."""
    moved = (related() * 4).round() / 4
    exact = cka(moved)
    torch.testing.assert_close(cka(moved.to(dtype)), exact, rtol=1e-5, atol=1e-6)
    if dtype is torch.float32:
        torch.testing.assert_close(cka((moved + 1000).to(dtype)), exact, rtol=1e-5, atol=1e-6)


def test_products_in_float32_are_of_numbers_about_their_mean():
    """About another point, such as the first example alone, thousands of features cost one digit or two."""
    x = drawn(100, 4000).relu().float()
    exact = packed_gram(x.double())
    assert (packed_gram(x) - exact).norm() / exact.norm() < 5e-7


def test_rows_of_a_u_centred_matrix_sum_to_zero():
    gram = torch.zeros(7, 7, dtype=torch.float64)
    above = torch.triu_indices(7, 7, offset=1)
    gram[above[0], above[1]] = packed_gram(drawn(7, 3))
    assert (gram + gram.T).sum(0).abs().max() < 1e-12


def test_batches_of_unequal_size_count_alike():
    runs = related(2, 13)
    total = CkaSum(2)
    for batch in (torch.arange(5), torch.arange(5, 13)):
        total.add(torch.stack([packed_gram(x[batch]) for x in runs]), len(batch))
    expected = by_loops(runs, [torch.arange(5), torch.arange(5, 13)])
    assert total.matrix()[0, 1].item() == pytest.approx(expected[0][1], rel=1e-12)


@given(st.integers(4, 300), st.integers(4, 50), st.integers(4, 400))
@laws
def test_batches_are_spread_evenly_and_large_enough(count, batch_size, examples):
    batches = spread_batches(count, batch_size, examples)
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 4
    assert max(sizes) <= max(batch_size, 7)
    assert max(sizes) - min(sizes) <= 1
    chosen = sorted(int(i) for batch in batches for i in batch)
    assert len(set(chosen)) == len(chosen) == min(count, examples)
    assert chosen[0] >= 0
    assert chosen[-1] < count
    assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
