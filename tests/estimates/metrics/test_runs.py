"""Outputs that do not lie in one tensor: blocks, examples that are kept, and the same bits from either form."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.estimates.metrics import (
    accuracy,
    accuracy_ensemble_delta,
    cross_entropy,
    cross_entropy_ensemble_delta,
    disagreement,
    ensemble_delta,
    ensemble_of,
    flatten_examples,
    pearson,
    predictions,
    rmse,
    spearman,
)
from stabilitykit.estimates.metrics.runs import KeptExamples, as_array, blocks, first_copies

LOGITS = torch.randn(6, 23, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(23) % 4


@pytest.mark.parametrize(
    "measure",
    [
        lambda outputs: accuracy(outputs, LABELS),
        lambda outputs: cross_entropy(outputs, LABELS),
        lambda outputs: rmse(outputs, LOGITS[0] + 1),
        lambda outputs: disagreement(predictions(outputs)),
        spearman,
        pearson,
        lambda outputs: accuracy_ensemble_delta(outputs, LABELS),
        cross_entropy_ensemble_delta,
        lambda outputs: ensemble_delta(outputs, LABELS, cross_entropy),
        lambda outputs: ensemble_of(outputs, [(0, 2, 5), (1,)]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_runs_one_by_one_measure_the_same_bits_as_one_tensor(measure, dtype):
    logits = LOGITS.to(dtype)
    whole = measure(logits)
    assert torch.equal(measure([run.clone() for run in logits]), whole)
    assert torch.equal(measure(KeptExamples(list(logits), torch.ones(23, dtype=torch.bool))), whole)


@given(size=st.integers(1, 30), sequence=st.booleans())
@settings(deadline=None, max_examples=30)
def test_blocks_of_examples_put_together_are_all_of_them(size, sequence):
    found = list(blocks(list(LOGITS) if sequence else LOGITS, size))
    assert torch.equal(torch.cat(found, dim=1), LOGITS)
    assert {block.shape[1] for block in found[:-1]} <= {size}


@given(seed=st.integers(0, 2**31), size=st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_examples_that_are_kept_are_those_of_the_mask(seed, size):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(3, 2, 5, 4, generator=generator), torch.randint(3, (2, 5), generator=generator)
    labels[labels == 0] = -100
    expected, expected_labels = flatten_examples(logits, labels)
    kept, kept_labels = flatten_examples(list(logits), labels)
    assert torch.equal(kept_labels, expected_labels)
    assert len(kept) == 3
    assert all(torch.equal(*pair) for pair in zip(kept, expected, strict=True))
    assert torch.equal(torch.stack(kept[1:]), expected[1:])
    assert torch.equal(torch.cat([expected[:, :0], *blocks(kept, size)], dim=1), expected)
    again = torch.arange(len(kept_labels)) % 2 == 0
    assert torch.equal(torch.stack(list(KeptExamples(kept, again))), expected[:, again])


def test_runs_one_by_one_are_flattened_without_a_copy():
    logits = [torch.randn(3, 4, 5) for _ in range(2)]
    flat, labels = flatten_examples(logits, torch.zeros(3, 4, dtype=torch.long))
    assert [run.shape for run in flat] == [(12, 5), (12, 5)]
    assert [run.data_ptr() for run in flat] == [run.data_ptr() for run in logits]
    assert labels.shape == (12,)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
@settings(deadline=None, max_examples=50)
def test_first_copies_are_those_that_a_plain_loop_finds(kinds):
    distinct = torch.zeros(4, 40)
    distinct[torch.arange(4), -1] = torch.arange(4.0)  # alike but for their last number
    runs = [distinct[kind].clone() for kind in kinds]
    assert first_copies(runs) == [next(j for j in range(i + 1) if kinds[j] == kinds[i]) for i in range(len(kinds))]


def test_equal_runs_are_each_compared_once(monkeypatch):
    compared = []
    monkeypatch.setattr(torch, "equal", lambda one, other: compared.append(1) or bool((one == other).all()))
    assert first_copies([LOGITS[0].clone() for _ in range(50)]) == [0] * 50
    assert len(compared) == 49
    compared.clear()
    assert first_copies(LOGITS) == list(range(6))
    assert not compared


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.float32, torch.float64])
def test_numpy_gets_outputs_of_every_type_with_their_values(dtype):
    outputs = torch.tensor([[0.5, -3.0], [2.0, 1000.0]]).to(dtype)
    assert as_array(outputs).tolist() == outputs.tolist()


def test_a_measure_copies_no_more_than_a_few_runs_at_a_time(monkeypatch):
    taken = []
    take = torch.Tensor.index_select
    monkeypatch.setattr(
        torch.Tensor, "index_select", lambda run, dim, index: taken.append(len(index)) or take(run, dim, index)
    )
    kept = KeptExamples(list(LOGITS), torch.arange(23) != 3)
    for one, other in itertools.pairwise(blocks(kept, 5)):
        assert one.shape[0] == other.shape[0] == 6
    assert set(taken) == {5, 2}
