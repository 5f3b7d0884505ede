"""What the labels of a task ask for, and what its outputs are taken for: classes, yes or no, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..errors import TaskError
from .metrics import IGNORED_LABEL
from .scores import TaskKind

#: What a user may say that outputs are. The first three are scales of classes, the others decide what the labels are.
Outputs: TypeAlias = Literal["logits", "probabilities", "log_probabilities", "multi_label", "values"]

#: The scales of the outputs of classes.
SCALES = ("logits", "probabilities", "log_probabilities")

#: What is said of labels that could be two things.
_TWO_CLASSES = "all labels are 0.0 or 1.0: taken for two classes, no regression; outputs='values' makes it a regression"
_MULTI_LABEL = (
    "each label is a yes or no of its own, several an example: taken for a multi-label task; outputs='values' makes it "
    "a regression"
)
_SHARES = (
    "each row of the labels sums to 1, and is taken for targets of a regression; for classes give labels.argmax(-1)"
)


@dataclass(frozen=True, eq=False)
class Meaning:
    """What a task predicts, as its labels and the user's word for its outputs say.

    >>> Meaning.of(torch.tensor([0.0, 1.0, 1.0])).said
    "all labels are 0.0 or 1.0: taken for two classes, no regression; outputs='values' makes it a regression"
    """

    kind: TaskKind
    labels: Tensor  #: as they are scored: classes ``[N, ...]`` as int64, or targets as floats
    given: Tensor  #: as the task has them, for metrics of the user's own
    stated: Outputs | None = None  #: the user's word for the outputs
    said: str = ""  #: how the labels were taken, where that is a choice

    @classmethod
    def of(cls, labels: Tensor | None, stated: str | None = None) -> Meaning:
        """Return what labels ``[N, ...]`` mean; raise `TaskError` where they could be two things, or contradict.

        A task without labels has scores alone.
        """
        if stated is not None and stated not in get_args(Outputs):
            words = ", ".join(map(repr, get_args(Outputs)))
            raise TaskError(f"Expected outputs= to be one of {words}, or left out, but got {stated!r}.")
        if labels is None:
            if stated is not None:
                raise TaskError(
                    f"Expected labels= beside outputs={stated!r}: without labels a training returns scores alone. Give "
                    f"labels=, or leave outputs= out."
                )
            return cls(TaskKind.SCORES, torch.empty(0), torch.empty(0))
        word: Outputs | None = stated  # type: ignore[assignment]  # one of the words, as was just checked
        if word == "values":
            targets = labels if labels.is_floating_point() else labels.double()
            return cls(TaskKind.REGRESSION, targets, labels, word)
        if word == "multi_label":
            return cls(TaskKind.MULTI_LABEL, _yes_or_no(labels), labels, word)
        if labels.is_floating_point():
            return _of_floats(labels, word)
        if labels.dtype is torch.bool and has_columns(labels):
            return cls(TaskKind.MULTI_LABEL, labels.long(), labels, word, "" if word else _MULTI_LABEL)
        return cls(TaskKind.CLASSES, labels.long(), labels, word)

    @property
    def is_classes(self) -> bool:
        """Whether each label is one class of several; neither targets nor several labels an example are."""
        return self.kind is TaskKind.CLASSES

    @property
    def examples(self) -> int:
        """N, the test examples that are scored: tokens or pixels if each has a class, without those labelled -100."""
        if self.is_classes:
            return int((self.labels != IGNORED_LABEL).sum())
        return len(self.labels) if self.kind is TaskKind.MULTI_LABEL else self.labels.numel()


def _of_floats(labels: Tensor, word: Outputs | None) -> Meaning:
    """Return what floating-point labels mean: 0.0 and 1.0 alone are classes, anything else is a target."""
    if not _is_zero_or_one(labels):
        if word is not None:
            raise TaskError(
                f"Expected labels that are classes beside outputs={word!r} but got floating-point labels that are not "
                f"all 0 or 1. Give classes as integers, labels.long(); for the targets of a regression leave outputs= "
                f"out."
            )
        return Meaning(TaskKind.REGRESSION, labels, labels, said=_SHARES if _are_shares(labels) else "")
    if has_columns(labels):
        if word is None and is_one_hot(labels):
            raise TaskError(
                f"Expected one class an example but got labels of shape {list(labels.shape)} with one 1 in each row. "
                f"If that is the class of the example, give labels.argmax(-1). If each column is a yes or no of its "
                f"own, say outputs='multi_label'; if the numbers are targets of a regression, outputs='values'."
            )
        return Meaning(TaskKind.MULTI_LABEL, labels.long(), labels, word, "" if word else _MULTI_LABEL)
    if word is None and bool((labels == labels.flatten()[:1]).all()):  # one number alone is no two classes
        return Meaning(TaskKind.REGRESSION, labels, labels)
    classes = labels.squeeze(-1) if labels.dim() > 1 else labels
    return Meaning(TaskKind.CLASSES, classes.long(), labels, word, "" if word else _TWO_CLASSES)


def has_columns(labels: Tensor) -> bool:
    """Whether labels are ``[N, L]`` with several labels an example."""
    return labels.dim() == 2 and labels.shape[1] > 1


def is_one_hot(labels: Tensor) -> bool:
    """Whether labels ``[N, C]`` of several examples have one 1 in each row, and else 0."""
    return has_columns(labels) and len(labels) > 1 and _is_zero_or_one(labels) and bool((labels.sum(-1) == 1).all())


def _is_zero_or_one(labels: Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())


def _are_shares(labels: Tensor) -> bool:
    if not has_columns(labels) or len(labels) < 2 or not bool((labels >= 0).all()):
        return False
    return bool(((labels.double().sum(-1) - 1).abs() < 1e-5).all())


def _yes_or_no(labels: Tensor) -> Tensor:
    if labels.dim() != 2 or not _is_zero_or_one(labels):
        raise TaskError(
            f"Expected labels [N, L] of 0 and 1 beside outputs='multi_label', a column for each label, but got labels "
            f"of shape {list(labels.shape)} from {labels.min().item():g} to {labels.max().item():g}."
        )
    return labels.long()
