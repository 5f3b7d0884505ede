"""What labels and the user's word for the outputs decide, before anything is trained."""

from __future__ import annotations

import pytest
import torch

from stabilitykit.errors import TaskError
from stabilitykit.estimates.meaning import Meaning
from stabilitykit.estimates.scores import TaskKind

BINARY = torch.tensor([0.0, 1.0, 1.0, 0.0])
SEVERAL = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
ONE_HOT = torch.eye(3)[[0, 2, 1, 1]]


@pytest.mark.parametrize(
    ("labels", "stated", "kind", "scored"),
    [
        (torch.tensor([0, 2, 1]), None, TaskKind.CLASSES, [0, 2, 1]),
        (torch.tensor([0, 1, 0]), "probabilities", TaskKind.CLASSES, [0, 1, 0]),
        (torch.tensor([True, False]), None, TaskKind.CLASSES, [1, 0]),
        (torch.tensor([0.5, 1.0]), None, TaskKind.REGRESSION, [0.5, 1.0]),
        (torch.zeros(3), None, TaskKind.REGRESSION, [0.0] * 3),
        (torch.ones(2), None, TaskKind.REGRESSION, [1.0] * 2),
        (torch.ones(2), "logits", TaskKind.CLASSES, [1, 1]),
        (BINARY, None, TaskKind.CLASSES, [0, 1, 1, 0]),
        (BINARY[:, None], None, TaskKind.CLASSES, [0, 1, 1, 0]),
        (BINARY, "values", TaskKind.REGRESSION, BINARY.tolist()),
        (torch.tensor([3, 40]), "values", TaskKind.REGRESSION, [3.0, 40.0]),
        (SEVERAL, None, TaskKind.MULTI_LABEL, SEVERAL.long().tolist()),
        (SEVERAL.bool(), None, TaskKind.MULTI_LABEL, SEVERAL.long().tolist()),
        (SEVERAL.long(), "multi_label", TaskKind.MULTI_LABEL, SEVERAL.long().tolist()),
        (SEVERAL.long(), None, TaskKind.CLASSES, SEVERAL.long().tolist()),
        (SEVERAL, "probabilities", TaskKind.MULTI_LABEL, SEVERAL.long().tolist()),
        (SEVERAL, "values", TaskKind.REGRESSION, SEVERAL.tolist()),
        (ONE_HOT, "multi_label", TaskKind.MULTI_LABEL, ONE_HOT.long().tolist()),
    ],
)
def test_labels_and_the_word_decide_what_is_scored(labels, stated, kind, scored):
    meaning = Meaning.of(labels, stated)
    assert (meaning.kind, meaning.labels.tolist()) == (kind, scored)
    assert meaning.given is labels


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (BINARY, "all labels are 0.0 or 1.0: taken for two classes, no regression; outputs='values' makes it a"),
        (SEVERAL, "each label is a yes or no of its own, several an example: taken for a multi-label task"),
        (SEVERAL.bool(), "each label is a yes or no of its own"),
        (torch.tensor([[0.2, 0.8], [0.5, 0.5]]), "each row of the labels sums to 1, and is taken for targets"),
    ],
)
def test_a_choice_is_said_and_a_word_silences_it(labels, said):
    assert Meaning.of(labels).said.startswith(said)
    assert Meaning.of(labels, "values").said == ""


@pytest.mark.parametrize("labels", [torch.tensor([0, 1]), torch.tensor([0.3, 2.0]), torch.zeros(4), torch.rand(4, 2)])
def test_labels_that_can_be_one_thing_alone_need_no_remark(labels):
    assert Meaning.of(labels).said == ""


@pytest.mark.parametrize(
    ("labels", "stated", "said"),
    [
        (BINARY, "softmax", r"^Expected outputs= to be one of 'logits', 'probabilities', .* but got 'softmax'\.$"),
        (torch.tensor([0.5]), "logits", "^Expected labels that are classes beside outputs='logits' but got floating"),
        (ONE_HOT, None, r"labels of shape \[4, 3\] with one 1 in each row\. If .* give labels\.argmax\(-1\)"),
        (torch.tensor([0, 1]), "multi_label", r"^Expected labels \[N, L\] of 0 and 1 .* of shape \[2\] from 0 to 1"),
        (torch.tensor([[0, 2]]), "multi_label", r"^Expected labels \[N, L\] of 0 and 1 .* from 0 to 2"),
    ],
)
def test_labels_that_could_be_two_things_or_contradict_the_word_are_refused(labels, stated, said):
    with pytest.raises(TaskError, match=said):
        Meaning.of(labels, stated)


@pytest.mark.parametrize(
    ("labels", "stated", "examples"),
    [
        (torch.tensor([0, -100, 1]), None, 2),
        (torch.rand(3, 2), None, 6),
        (SEVERAL, None, 3),
        (BINARY[:, None], None, 4),
    ],
)
def test_examples_are_those_that_are_scored(labels, stated, examples):
    assert Meaning.of(labels, stated).examples == examples
