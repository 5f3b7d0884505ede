"""The flip list against plain loops, its laws, its places in labels of several dimensions, and its text and JSON."""

from __future__ import annotations

import collections
import itertools
import json
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.errors import TaskError
from stabilitykit.estimates.metrics import disagreement
from stabilitykit.study import flips as module
from stabilitykit.study.flips import Flips
from stabilitykit.study.summary import summarize
from stabilitykit.testing import fake_study

#: Predictions [R, N] of few classes, and labels that name some of them.
predictions = arrays.arrays(np.int64, st.tuples(st.integers(2, 7), st.integers(1, 14)), elements=st.integers(0, 4)).map(
    torch.from_numpy
)

laws = settings(deadline=None, max_examples=60)


def labels_of(predicted: torch.Tensor) -> torch.Tensor:
    return torch.arange(predicted.shape[1]) % 4


def noisy(runs: int = 6, examples: int = 60, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % classes
    wrong = torch.randint(classes, (runs, examples), generator=generator)
    kept = torch.rand(runs, examples, generator=generator) < torch.rand(examples, generator=generator)
    return torch.where(kept, labels, wrong), labels


def pairs_that_differ(answers: list[int]) -> int:
    return sum(a != b for a, b in itertools.combinations(answers, 2))


@given(predictions)
@laws
def test_each_example_agrees_with_plain_loops(predicted):
    runs, count = predicted.shape
    labels = labels_of(predicted)
    columns = predicted.T.tolist()
    expected = {i: 100 * pairs_that_differ(c) / (runs * (runs - 1) / 2) for i, c in enumerate(columns)}
    got = Flips(predicted, labels).examples(top=count)
    assert [e.index for e in got] == sorted((i for i in expected if expected[i]), key=lambda i: (-expected[i], i))
    for example in got:
        assert example.disagreement == pytest.approx(expected[example.index], rel=1e-12)
        assert dict(example.predicted) == dict(collections.Counter(columns[example.index]))
        assert list(example.predicted.values()) == sorted(example.predicted.values(), reverse=True)
        assert example.label == labels[example.index]


@given(predictions)
@laws
def test_each_class_agrees_with_plain_loops(predicted):
    runs, _ = predicted.shape
    labels = labels_of(predicted).tolist()
    columns = predicted.T.tolist()
    got = Flips(predicted, torch.tensor(labels)).classes()
    assert sorted(c.label for c in got) == sorted(set(labels))
    assert [c.disagreement for c in got] == sorted((c.disagreement for c in got), reverse=True)
    for one in got:
        mine = [column for column, label in zip(columns, labels, strict=True) if label == one.label]
        assert one.examples == len(mine)
        shares = [100 * pairs_that_differ(column) / (runs * (runs - 1) / 2) for column in mine]
        assert one.disagreement == pytest.approx(sum(shares) / len(shares), rel=1e-12)
        answers = collections.Counter(
            answer
            for column in mine
            for pair in itertools.combinations(column, 2)
            if pair[0] != pair[1]
            for answer in pair
            if answer != one.label
        )
        best = min((-count, answer) for answer, count in answers.items())[1] if answers else None
        assert one.confused_with == best


@given(predictions)
@laws
def test_the_least_share_of_examples_with_half_of_the_disagreement(predicted):
    flips = sorted((pairs_that_differ(column) for column in predicted.T.tolist()), reverse=True)
    needed = next((k for k in range(len(flips) + 1) if 2 * sum(flips[:k]) >= sum(flips)), 0)
    assert Flips(predicted, labels_of(predicted)).half == pytest.approx(100 * needed / len(flips))


@given(predictions)
@laws
def test_all_examples_together_are_the_disagreement(predicted):
    matrix = disagreement(predicted)
    runs = len(predicted)
    flips = Flips(predicted, labels_of(predicted))
    assert flips.disagreement == pytest.approx(matrix.sum().item() / (runs * (runs - 1)), rel=1e-12, abs=1e-12)
    by_class = flips.classes()
    mean = sum(c.disagreement * c.examples for c in by_class) / sum(c.examples for c in by_class)
    assert flips.disagreement == pytest.approx(mean, rel=1e-12, abs=1e-12)


@given(predictions, st.randoms(use_true_random=False))
@laws
def test_the_order_of_runs_does_not_matter(predicted, random):
    order = random.sample(range(len(predicted)), len(predicted))
    labels = labels_of(predicted)
    assert Flips(predicted[order], labels).to_json() == Flips(predicted, labels).to_json()


def test_the_blocks_do_not_matter(monkeypatch):
    predicted, labels = noisy()
    expected = Flips(predicted, labels).to_json()
    monkeypatch.setattr(module, "_BLOCK_BYTES", 8 * 6 * 7)
    assert Flips(predicted, labels).to_json() == expected


def test_a_study_has_the_flips_of_its_predictions():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    logits = torch.randn(6, 40, 4, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 4)
    study = fake_study(logits, labels)
    assert study.flips.disagreement == pytest.approx(study.disagreement.value, rel=1e-12)
    assert study.flips.to_json() == Flips(logits.argmax(-1), labels).to_json()
    assert study.flips is study.flips


def test_places_in_labels_of_several_dimensions_are_named_as_such():
    """Pixels or tokens: those labelled -100 are left out, and every place is one of the labels as they came."""
    labels = torch.tensor([[[0, -100, 1], [2, 2, -100]], [[-100, 1, 0], [1, 2, 0]]])
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, *labels.shape, 3, generator=generator)
    predicted = logits.argmax(-1)
    study = fake_study(logits, labels)
    found = study.flips.examples(top=100)
    assert len(found) == study.flips.flipping > 3
    for example in found:
        assert isinstance(example.index, tuple)
        assert len(example.index) == 3
        assert labels[example.index] == example.label != -100
        here = predicted[(slice(None), *example.index)].tolist()
        assert dict(example.predicted) == dict(collections.Counter(here))
    assert example.to_json()["index"] == list(example.index)


def test_an_ignored_label_moves_no_index_of_a_flat_task():
    predicted, labels = noisy()
    ignored = labels.clone()
    ignored[::3] = -100
    logits = torch.nn.functional.one_hot(predicted, 5).float()
    for example in fake_study(logits, ignored).flips.examples(top=100):
        assert isinstance(example.index, int)
        assert example.index % 3 != 0
        assert example.label == labels[example.index]
        assert dict(example.predicted) == dict(collections.Counter(predicted[:, example.index].tolist()))


def test_a_regression_has_none():
    study = fake_study(torch.randn(3, 8), torch.randn(8))
    with pytest.raises(TaskError, match="Expected a classification but this study is a regression"):
        study.flips  # noqa: B018  # it raises
    assert "flips" not in summarize(study, "t")


def test_the_text_is_short_and_says_what_flips():
    flips = Flips(*noisy())
    lines = str(flips).splitlines()
    assert len(lines) <= 14
    assert lines[0] == (
        f"two of 6 runs disagree on {flips.disagreement:.2f} % of the predictions; on {flips.flipping} of 60 examples "
        "they ever do"
    )
    assert lines[1] == f"half of it comes from {flips.half:.2g} % of the examples"
    first = flips.examples()[0]
    assert lines[2].split() == ["example", "label", "runs", "disagree", "predicted", "(runs)"]
    assert lines[3].split()[:3] == [str(first.index), str(first.label), f"{first.disagreement:.1f}"]
    assert repr(flips) == "Flips(runs=6, examples=60)"


def test_runs_that_agree_flip_nothing():
    predicted, labels = noisy()
    flips = Flips(predicted[:1].expand(4, -1), labels)
    assert str(flips) == "4 runs agree on every one of 60 examples"
    assert flips.examples() == []
    assert flips.half == flips.disagreement == flips.flipping == 0
    assert {c.confused_with for c in flips.classes()} == {None}


@pytest.mark.parametrize(("classes", "shown"), [(100, 100), (101, 20)])
def test_the_report_has_twenty_examples_and_all_classes_up_to_a_hundred(classes, shown):
    predicted, labels = noisy(examples=500, classes=classes)
    told = Flips(predicted, labels).to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert len(told["examples"]) == 20
    assert len(told["classes"]) == shown
    logits = torch.nn.functional.one_hot(predicted, classes).float()
    assert summarize(fake_study(logits, labels), "t")["flips"] == told


@pytest.mark.parametrize(("runs", "examples", "classes"), [(100, 10_000, 10), (20, 10_000, 10_000)])
def test_memory_is_bounded(runs, examples, classes):
    """Counts by example and class would take 800 MiB for ten thousand classes."""
    predicted, labels = noisy(runs, examples, classes)
    predicted = predicted.to(torch.int16)
    tracemalloc.start()
    flips = Flips(predicted, labels)
    text, told = str(flips), flips.to_json()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert text
    assert told["examples"]
    assert peak < 48 * 2**20
