"""Equation (1) of the paper against plain loops, its laws, and the ensembles that it is compared with."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.errors import UsageError
from stabilitykit.estimates.metrics import (
    accuracy,
    accuracy_ensemble_delta,
    cross_entropy,
    cross_entropy_ensemble_delta,
    ensemble_delta,
    ensemble_of,
    predictions,
    rmse,
    vanilla_groups,
)
from stabilitykit.estimates.metrics import ensembles as module

RUNS = range(2, 13)


def logits_with_ties(runs: int, seed: int = 0, examples: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(runs, examples, 4, generator=generator)).round() / 2
    return logits, torch.randint(4, (examples,), generator=generator)


def softmax(row: list[float]) -> list[float]:
    total = math.fsum(map(math.exp, row))
    return [math.exp(logit) / total for logit in row]


def naive_score(scores: list[list[float]], labels: list[int], name: str) -> float:
    if name == "accuracy":
        return 100 * sum(row.index(max(row)) == label for row, label in zip(scores, labels, strict=True)) / len(labels)
    return math.fsum(-math.log(softmax(row)[label]) for row, label in zip(scores, labels, strict=True)) / len(labels)


def naive_delta(one: list[list[float]], two: list[list[float]], labels: list[int], name: str) -> float:
    both = [[(a + b) / 2 for a, b in zip(*rows, strict=True)] for rows in zip(one, two, strict=True)]
    return naive_score(both, labels, name) - (naive_score(one, labels, name) + naive_score(two, labels, name)) / 2


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("score", [accuracy, cross_entropy])
def test_agrees_with_plain_loops(score, runs):
    logits, labels = logits_with_ties(runs)
    got = ensemble_delta(logits, labels, score)
    for i, j in itertools.combinations(range(runs), 2):
        expected = naive_delta(logits[i].tolist(), logits[j].tolist(), labels.tolist(), score.__name__)
        assert got[i, j].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("runs", RUNS)
def test_regression_agrees_with_plain_loops(runs):
    outputs, _ = logits_with_ties(runs)
    targets = torch.zeros(outputs.shape[1:])
    got = ensemble_delta(outputs, targets, rmse)
    for i, j in itertools.combinations(range(runs), 2):
        alone = [math.sqrt(outputs[k].double().square().mean().item()) for k in (i, j)]
        together = math.sqrt(((outputs[i] + outputs[j]).double() / 2).square().mean().item())
        assert got[i, j].item() == pytest.approx(together - sum(alone) / 2, rel=1e-10)


@pytest.mark.parametrize("score", [accuracy, cross_entropy])
@given(seed=st.integers(0, 2**31), runs=st.integers(2, 6))
@settings(deadline=None, max_examples=20)
def test_is_symmetric_zero_on_the_diagonal_and_blind_to_the_order_of_runs(score, seed, runs):
    logits, labels = logits_with_ties(runs, seed, examples=7)
    matrix = ensemble_delta(logits, labels, score)
    assert matrix.dtype == torch.float64
    assert torch.equal(matrix, matrix.T)
    assert not matrix.diagonal().any()
    order = torch.randperm(runs, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(ensemble_delta(logits[order], labels, score), matrix[order][:, order])


@pytest.mark.parametrize("score", [accuracy, cross_entropy])
def test_models_with_the_same_bits_gain_exactly_nothing(score):
    logits, labels = logits_with_ties(1)
    logits = logits / 3  # not a multiple of a power of two, so that sums are rounded
    assert not ensemble_delta(logits.expand(5, -1, -1), labels, score).any()


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_an_ensemble_of_two_never_has_a_higher_cross_entropy_than_the_two(seed):
    logits, labels = logits_with_ties(4, seed)  # cross-entropy is convex in logits
    assert (ensemble_delta(logits, labels, cross_entropy) <= 1e-12).all()


def test_the_inputs_are_left_alone():
    logits, labels = logits_with_ties(4)
    logits = logits.double()
    before = logits.clone()
    ensemble_delta(logits, labels, accuracy)
    ensemble_of(logits, [(0, 1)])
    assert torch.equal(logits, before)


def test_pairs_are_scored_in_bounded_chunks_with_the_same_result(monkeypatch):
    logits, labels = logits_with_ties(7)
    expected = ensemble_delta(logits, labels, cross_entropy)
    sizes = []

    def counting(outputs, labels):
        sizes.append(len(outputs))
        return cross_entropy(outputs, labels)

    monkeypatch.setattr(module, "_CHUNK_BYTES", 2 * 8 * logits[0].numel())
    assert torch.equal(ensemble_delta(logits, labels, counting), expected)
    assert max(sizes) == 2
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    assert torch.equal(ensemble_delta(logits, labels, cross_entropy), expected)


def test_ensemble_of_averages_the_logits_of_each_group():
    logits, _ = logits_with_ties(5)
    got = ensemble_of(logits, [(0, 3), (4,), (1, 2, 4)])
    assert got.dtype == torch.float64
    for members, mean in zip([(0, 3), (4,), (1, 2, 4)], got, strict=True):
        torch.testing.assert_close(mean, sum(logits[k].double() for k in members) / len(members), rtol=1e-12, atol=0)


def test_a_pair_scored_alone_confirms_its_delta():
    logits, labels = logits_with_ties(3)
    alone, together = accuracy(logits, labels), accuracy(ensemble_of(logits, [(0, 2)]), labels)
    assert ensemble_delta(logits, labels, accuracy)[0, 2] == together[0] - (alone[0] + alone[2]) / 2


@given(runs=st.integers(0, 40), size=st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_vanilla_groups_are_disjoint_full_and_as_many_as_fit(runs, size):
    groups = vanilla_groups(runs, size)
    members = list(itertools.chain.from_iterable(groups))
    assert members == list(range(len(members)))
    assert {len(group) for group in groups} <= {size}
    assert len(groups) == runs // size


def test_an_ensemble_without_members_is_refused():
    with pytest.raises(UsageError, match="Expected size >= 1 but got size=0"):
        vanilla_groups(10, 0)


@pytest.mark.parametrize("runs", RUNS)
def test_the_fast_ways_agree_with_plain_loops_and_with_ties(runs):
    logits, labels = logits_with_ties(runs, seed=runs)
    fast = {
        "accuracy": accuracy_ensemble_delta(logits, labels),
        "cross_entropy": cross_entropy_ensemble_delta(logits),
    }
    for (name, got), (i, j) in itertools.product(fast.items(), itertools.combinations(range(runs), 2)):
        expected = naive_delta(logits[i].tolist(), logits[j].tolist(), labels.tolist(), name)
        assert got[i, j].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
        assert got[j, i] == got[i, j]


def test_the_fast_ways_give_equal_models_exactly_nothing():
    logits, labels = logits_with_ties(3)
    twice = torch.cat([logits * 1.37, logits * 1.37])
    for delta in (accuracy_ensemble_delta(twice, labels), cross_entropy_ensemble_delta(twice)):
        assert delta.diagonal(3).tolist() == [0, 0, 0]
        assert delta.diagonal().tolist() == [0] * 6


def test_cross_entropy_of_models_with_nothing_in_common_does_not_underflow():
    logits = 1000 * torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    slow = ensemble_delta(logits, torch.zeros(6, dtype=torch.long), cross_entropy)
    assert slow.min() < -400
    torch.testing.assert_close(cross_entropy_ensemble_delta(logits), slow, rtol=1e-10, atol=0)


def test_the_fast_ways_agree_whatever_the_chunks_of_examples(monkeypatch):
    logits, labels = logits_with_ties(5)
    whole = accuracy_ensemble_delta(logits, labels), cross_entropy_ensemble_delta(logits)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 8 * 5 * 5 * 7)
    torch.testing.assert_close(accuracy_ensemble_delta(logits, labels), whole[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(cross_entropy_ensemble_delta(logits), whole[1], rtol=1e-12, atol=1e-15)


@given(
    seed=st.integers(0, 2**31),
    runs=st.integers(2, 6),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(deadline=None, max_examples=60)
def test_the_fast_way_counts_like_equation_1_at_every_scale_and_however_close(seed, runs, scale, dtype):
    logits, labels = logits_with_ties(runs, seed, examples=40)
    nearly = 1 + 1e-7 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    logits = logits.to(dtype) * scale * nearly  # sums that are all but level, where a float32 alone cannot say
    expected = ensemble_delta(logits, labels, accuracy)
    torch.testing.assert_close(accuracy_ensemble_delta(logits, labels), expected, rtol=0, atol=1e-9)
    known = predictions(logits, dtype=torch.uint8)
    torch.testing.assert_close(accuracy_ensemble_delta(logits, labels, known), expected, rtol=0, atol=1e-9)


def test_a_class_that_is_masked_out_does_no_harm():
    logits, labels = logits_with_ties(4)
    logits[:, :, 3] = -torch.inf
    torch.testing.assert_close(
        accuracy_ensemble_delta(logits, labels), ensemble_delta(logits, labels, accuracy), rtol=0, atol=1e-9
    )
    labels = labels % 3
    torch.testing.assert_close(
        cross_entropy_ensemble_delta(logits), cross_entropy_ensemble_delta(logits[..., :3]), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("runs", RUNS)
def test_the_fast_way_of_cross_entropy_agrees_where_sixteen_overlaps_underflow_and_one_does_not(runs):
    logits = 60 * torch.randn(runs, 40, 3, generator=torch.Generator().manual_seed(runs), dtype=torch.float64)
    expected = ensemble_delta(logits, torch.zeros(40, dtype=torch.long), cross_entropy)
    torch.testing.assert_close(cross_entropy_ensemble_delta(logits), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("examples", [1, 2, 3, 15, 16, 17, 31, 33])
def test_folded_overlaps_leave_out_no_example(examples):
    logits, labels = logits_with_ties(3, examples=examples)
    expected = ensemble_delta(logits, labels, cross_entropy)
    torch.testing.assert_close(cross_entropy_ensemble_delta(logits), expected, rtol=1e-10, atol=1e-14)


def test_models_that_always_agree_gain_exactly_nothing():
    logits, labels = logits_with_ties(1)
    assert not accuracy_ensemble_delta(torch.cat([logits, 2 * logits, logits + 1]), labels).any()


@pytest.mark.parametrize("classes", [2, 3, 10, 33])
def test_equal_models_gain_exactly_nothing_whatever_a_matrix_product_rounds(classes):
    alone = torch.randn(1, 301, classes, generator=torch.Generator().manual_seed(classes))
    other = torch.randn(1, 301, classes, generator=torch.Generator().manual_seed(0))
    delta = cross_entropy_ensemble_delta(torch.cat([*[alone] * 6, other, *[alone] * 6]))
    assert delta[6].unique().numel() == 2  # the same against each of those equal, and 0 against itself
    same = [i for i in range(13) if i != 6]
    assert not delta[same][:, same].any()
