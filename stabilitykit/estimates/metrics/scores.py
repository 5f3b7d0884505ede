"""How good each of R models is: outputs ``[R, N, ...]`` and labels ``[N, ...]`` in, one float64 score a model out.

The outputs may be R tensors ``[N, ...]`` as well.

Each model is scored on its own. A batched reduction may add in another order at another place of the batch, and two
models with the same bits would then differ in the last one; their SD has to be exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ...errors import TaskError
from .runs import KeptExamples, Runs

#: Any measure of performance: outputs ``[R, N, ...]`` and labels ``[N, ...]`` to scores ``[R]``.
Score: TypeAlias = Callable[[Tensor, Tensor], Tensor]

#: PyTorch's ``ignore_index``: the label of padding, or of pixels without an annotation.
IGNORED_LABEL = -100


def flatten_examples(logits: Runs, labels: Tensor) -> tuple[Runs, Tensor]:
    """Make every pixel or token an example of its own, and leave out those labelled -100.

    Logits ``[R, N, ..., C]`` and integer labels ``[N, ...]`` in; ``[R, M, C]`` and ``[M]`` out, where M counts the
    positions whose label is not -100 (PyTorch's ``ignore_index``). Nothing is copied where nothing is left out. R
    tensors ``[N, ..., C]`` give a sequence of R, and then what is kept of a run is copied only when it is asked for.

    >>> logits, labels = flatten_examples(torch.zeros(2, 1, 3, 5), torch.tensor([[4, -100, 0]]))
    >>> logits.shape, labels
    (torch.Size([2, 2, 5]), tensor([4, 0]))
    """
    for run in logits:
        _require_matching(run.shape[:-1], labels, "the classes come last, so channels-first logits need movedim(1, -1)")
    kept = labels != IGNORED_LABEL
    whole = bool(kept.all())
    if isinstance(logits, Tensor):
        return (logits.flatten(1, -2), labels.flatten()) if whole else (logits[:, kept], labels[kept])
    return [run.flatten(0, -2) for run in logits] if whole else KeptExamples(logits, kept), labels[kept]


def predictions(logits: Runs, *, dtype: torch.dtype = torch.int64) -> Tensor:
    """Most likely class of every example; the lower class where two are level.

    Logits ``[R, N, C]`` in, integers ``[R, N]`` out.

    >>> predictions(torch.tensor([[[0.1, 0.9], [0.5, 0.5]]]))
    tensor([[1, 0]])
    """
    return torch.stack([run.argmax(dim=-1).to(dtype) for run in logits])


def accuracy(logits: Runs, labels: Tensor) -> Tensor:
    """Percentage of examples whose most likely class is the right one.

    Logits ``[R, N, C]`` and labels ``[N]`` in, float64 ``[R]`` in percent out, between 0 and 100.

    >>> accuracy(torch.tensor([[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [1.0, 0.0]]]), torch.tensor([0, 1, 0, 1]))
    tensor([75.], dtype=torch.float64)
    """
    for run in logits:
        _require_matching(run.shape[:-1], labels)
    return percent_right(predictions(logits), labels)


def percent_right(predicted: Tensor, labels: Tensor) -> Tensor:
    """`accuracy` of models whose `predictions` are known: classes ``[R, N]`` and ``[N]`` in, float64 ``[R]`` out.

    >>> percent_right(torch.tensor([[0, 1, 0, 0]]), torch.tensor([0, 1, 0, 1]))
    tensor([75.], dtype=torch.float64)
    """
    return torch.stack([(run == labels).sum() for run in predicted]).double() * 100.0 / len(labels)


def cross_entropy(logits: Runs, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the right class under the softmax of the logits.

    Logits ``[R, N, C]`` and labels ``[N]`` in, float64 ``[R]`` in nats out, 0 or more.

    >>> cross_entropy(torch.zeros(1, 2, 4), torch.tensor([0, 3]))  # ln 4
    tensor([1.3863], dtype=torch.float64)
    """
    for run in logits:
        _require_matching(run.shape[:-1], labels)
    right = labels.long().unsqueeze(0)
    # Class by class, in memory that is taken once: ten classes are too few to run through in a row.
    room = logits[0].new_empty(logits[0].T.shape, dtype=torch.float64)
    return torch.stack([_cross_entropy(room.copy_(run.T), right) for run in logits])


def _cross_entropy(logits: Tensor, right: Tensor) -> Tensor:
    """Mean of log-sum-exp minus the right logit; float64 logits ``[C, N]`` in, which are overwritten."""
    logits -= logits.amax(dim=0)
    of_right = logits.gather(0, right).mean()
    mean = logits.exp_().sum(dim=0).log_().mean() - of_right
    return mean.nan_to_num(nan=torch.inf, posinf=torch.inf)  # a mean of models that have no possible class in common


def subset_accuracy(logits: Runs, labels: Tensor) -> Tensor:
    """Percentage of examples whose labels are all predicted right, where each may have several.

    Logits ``[R, N, L]``, above 0 for a label that is given, and labels ``[N, L]`` of 0 and 1 in; float64 ``[R]`` out.

    >>> subset_accuracy(torch.tensor([[[2.0, -1.0], [1.0, 3.0]]]), torch.tensor([[1, 0], [0, 1]]))
    tensor([50.], dtype=torch.float64)
    """
    for run in logits:
        _require_matching(run.shape, labels, "an example with several labels has an output for each")
    return torch.stack([((run > 0) == (labels > 0)).all(-1).double().mean() * 100 for run in logits])


def binary_cross_entropy(logits: Runs, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each label of each example under the sigmoid of its logit.

    Logits ``[R, N, L]`` and labels ``[N, L]`` of 0 and 1 in, float64 ``[R]`` in nats out, 0 or more.

    >>> binary_cross_entropy(torch.zeros(1, 2, 3), torch.tensor([[1, 0, 0], [0, 0, 0]]))  # ln 2
    tensor([0.6931], dtype=torch.float64)
    """
    for run in logits:
        _require_matching(run.shape, labels, "an example with several labels has an output for each")
    sign = 1 - 2 * labels.double()
    means = [torch.nn.functional.softplus(run.double() * sign).mean() for run in logits]
    return torch.stack(means).nan_to_num(nan=torch.inf, posinf=torch.inf)  # a mean of models that exclude each other


def rmse(outputs: Runs, targets: Tensor) -> Tensor:
    """Root of the mean squared error, for regression.

    Outputs ``[R, N, ...]`` and targets ``[N, ...]`` in, float64 ``[R]`` in the unit of the targets out, 0 or more.

    >>> rmse(torch.tensor([[1.0, 5.0]]), torch.tensor([1.0, 2.0]))
    tensor([2.1213], dtype=torch.float64)
    """
    for run in outputs:
        _require_matching(run.shape, targets, "a trailing axis of size 1 needs squeeze(-1)")
    return torch.stack([(run.double() - targets.double()).square().mean().sqrt() for run in outputs])


def _require_matching(shape: torch.Size, labels: Tensor, hint: str = "every example needs one label") -> None:
    # Broadcasting [N] against [N, 1] would compare every example with every label, and return a plausible number.
    if labels.shape != shape:
        raise TaskError(
            f"Expected labels of shape {list(shape)}, as the outputs of one model have it, but got labels of shape "
            f"{list(labels.shape)}. Each output is scored against its own label: {hint}."
        )
