"""The scores against plain loops, and the laws that an SD over them relies on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.errors import TaskError
from stabilitykit.estimates.metrics import accuracy, cross_entropy, flatten_examples, percent_right, predictions, rmse

RUNS = range(2, 13)


def logits_with_ties(runs: int, examples: int = 40, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(runs)
    logits = (2 * torch.randn(runs, examples, classes, generator=generator)).round() / 2
    return logits, torch.randint(classes, (examples,), generator=generator)


def naive_accuracy(logits: list[list[float]], labels: list[int]) -> float:
    right = 0
    for row, label in zip(logits, labels, strict=True):
        right += row.index(max(row)) == label
    return 100 * right / len(labels)


def naive_cross_entropy(logits: list[list[float]], labels: list[int]) -> float:
    losses = [math.log(math.fsum(map(math.exp, row))) - row[label] for row, label in zip(logits, labels, strict=True)]
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize(("score", "naive"), [(accuracy, naive_accuracy), (cross_entropy, naive_cross_entropy)])
def test_agrees_with_plain_loops(score, naive, runs):
    logits, labels = logits_with_ties(runs)
    expected = [naive(run.tolist(), labels.tolist()) for run in logits]
    assert score(logits, labels).tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("runs", RUNS)
def test_rmse_agrees_with_plain_loops(runs):
    outputs, _ = logits_with_ties(runs)
    targets = outputs[0] + 0.25
    for run, got in zip(outputs, rmse(outputs, targets).tolist(), strict=True):
        squares = [(a - b) ** 2 for a, b in zip(run.flatten().tolist(), targets.flatten().tolist(), strict=True)]
        assert got == pytest.approx(math.sqrt(math.fsum(squares) / len(squares)), rel=1e-10)


@pytest.mark.parametrize("score", [accuracy, cross_entropy])
def test_scores_are_float64_one_a_run(score):
    logits, labels = logits_with_ties(3)
    assert score(logits, labels).shape == (3,)
    assert score(logits, labels).dtype == torch.float64


def test_level_classes_predict_the_lower_one():
    assert predictions(torch.tensor([[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]])).tolist() == [[1, 0]]


@pytest.mark.parametrize("score", [accuracy, cross_entropy])
@given(seed=st.integers(0, 2**31), runs=st.integers(2, 9), examples=st.integers(1, 33))
@settings(deadline=None, max_examples=40)
def test_a_model_scores_the_same_bits_wherever_it_stands(score, seed, runs, examples):
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(runs, examples, 3, generator=generator), torch.zeros(examples, dtype=torch.int64)
    order = torch.randperm(runs, generator=generator)
    assert torch.equal(score(logits[order], labels), score(logits, labels)[order])
    assert score(logits[:1].expand(runs, -1, -1), labels).unique().numel() == 1


@given(shift=st.floats(-50, 50), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_cross_entropy_does_not_see_a_constant_added_to_all_logits(shift, seed):
    logits = torch.randn(2, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(9) % 4
    assert cross_entropy(logits + shift, labels).tolist() == pytest.approx(cross_entropy(logits, labels).tolist())


def test_cross_entropy_of_a_certain_model_keeps_its_digits():
    # A log-sum-exp minus the logit would leave rounding noise of the size of 1020.
    got = cross_entropy(torch.tensor([[[1020.0, 1000.0]]]), torch.tensor([0]))
    assert got.item() == pytest.approx(math.log1p(math.exp(-20)), rel=1e-6, abs=0)


def test_flatten_examples_makes_every_position_an_example():
    logits, labels = torch.randn(2, 3, 4, 5, 6), torch.randint(6, (3, 4, 5))
    flat, flat_labels = flatten_examples(logits, labels)
    assert flat.shape == (2, 60, 6)
    assert torch.equal(flat[:, 27], logits[:, 1, 1, 2])
    assert flat_labels[27] == labels[1, 1, 2]
    assert flat.data_ptr() == logits.data_ptr()


def test_flatten_examples_leaves_out_ignored_labels():
    logits, labels = torch.randn(2, 2, 3, 4), torch.tensor([[0, -100, 1], [-100, -100, 3]])
    flat, flat_labels = flatten_examples(logits, labels)
    assert flat_labels.tolist() == [0, 1, 3]
    assert torch.equal(flat, torch.stack([logits[:, 0, 0], logits[:, 0, 2], logits[:, 1, 2]], dim=1))


@pytest.mark.parametrize(
    ("score", "outputs", "labels"),
    [
        (accuracy, torch.zeros(2, 5, 3), torch.zeros(4)),
        (cross_entropy, torch.zeros(2, 5, 3), torch.zeros(1)),
        (rmse, torch.zeros(2, 5, 1), torch.zeros(5)),
        (rmse, torch.zeros(5, 5), torch.zeros(5, 1)),
        (accuracy, [torch.zeros(5, 3), torch.zeros(6, 3)], torch.zeros(5)),
        (cross_entropy, [torch.zeros(5, 3), torch.zeros(6, 3)], torch.zeros(5)),
        (rmse, [torch.zeros(5), torch.zeros(5, 1)], torch.zeros(5)),
        (flatten_examples, [torch.zeros(5, 3), torch.zeros(6, 3)], torch.zeros(5)),
        (flatten_examples, torch.zeros(2, 3, 7, 7), torch.zeros(3, 7, 6)),
    ],
)
def test_labels_of_another_shape_are_refused_and_not_broadcast(score, outputs, labels):
    with pytest.raises(TaskError, match=r"Expected labels of shape \[.*\].* but got labels of shape \[") as refusal:
        score(outputs, labels)
    assert str(list(labels.shape)) in str(refusal.value)


def test_accuracy_is_the_same_where_predictions_are_known():
    logits, labels = logits_with_ties(4)
    for dtype in (torch.uint8, torch.int16, torch.int64):
        known = predictions(logits, dtype=dtype)
        assert known.dtype == dtype
        assert torch.equal(percent_right(known, labels), accuracy(logits, labels))


def test_scoring_leaves_the_outputs_alone():
    logits, labels = logits_with_ties(3)
    logits = logits.double()
    before = logits.clone()
    cross_entropy(logits, labels)
    assert torch.equal(logits, before)
