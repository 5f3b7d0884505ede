"""What a training returns: outputs that fit the labels, with every number in them one that can be scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import TaskError
from ..estimates.meaning import Meaning, has_columns, is_one_hot
from ..estimates.metrics import IGNORED_LABEL
from ..estimates.reading import are_log_probabilities, are_probabilities
from ..estimates.scores import TaskKind
from .description import described, first_line

#: The label of pixels without an annotation in many data sets, which fits into a byte.
_VOID = 255

#: Classes that a message names before it breaks off.
_MOST_CLASSES = 10


def as_labels(labels: Any) -> Tensor:
    """Return labels as a tensor on the CPU, integers as int64; raise `TaskError` for anything but numbers."""
    tensor = _as_tensor(labels, "labels= to be a tensor or array", f"Give labels.filled({IGNORED_LABEL}) for classes.")
    if tensor.is_floating_point() or (tensor.dtype is torch.bool and has_columns(tensor)):
        return tensor
    return tensor.long()  # in uint8, 156 would equal -100


def check_labels(labels: Tensor, stated: str | None) -> None:
    """Raise `TaskError` for labels that are no classes and no targets, whatever the outputs are.

    ``stated`` is the user's word for the outputs: with "values" integers are targets, which may be below 0.
    """
    if labels.numel() == 0:
        raise TaskError("Expected labels of the test examples but got none; nothing could be scored.")
    if labels.is_floating_point() and not torch.isfinite(labels).all():
        raise TaskError("Expected finite regression targets but the labels hold NaN or infinity.")
    if stated != "values" and not labels.is_floating_point() and ((labels < 0) & (labels != IGNORED_LABEL)).any():
        least = int(labels[labels != IGNORED_LABEL].min())
        raise TaskError(
            f"Expected class labels from 0, or {IGNORED_LABEL} for examples to leave out, but the smallest is "
            f"{int(labels.min())}. If {least} marks examples without a label, give "
            f"labels.masked_fill(labels == {least}, {IGNORED_LABEL})."
        )


def _as_tensor(given: Any, wanted: str, without_mask: str) -> Tensor:
    """Return what was given as a dense tensor of real numbers on the CPU; raise `TaskError` where it is none."""
    parts = given if isinstance(given, list | tuple) else [given]
    masked = sum(int(np.ma.getmaskarray(part).sum()) for part in parts if isinstance(part, np.ma.MaskedArray))
    if masked:
        raise TaskError(
            f"Expected {wanted} without a mask but got a masked array, with {masked} values masked: a tensor has no "
            f"mask, and the numbers below it would be scored. {without_mask}"
        )
    try:
        tensor = given if isinstance(given, Tensor) else torch.as_tensor(np.array(given))
        tensor = (tensor if tensor.layout is torch.strided else tensor.to_dense()).detach().cpu()
    except Exception as error:  # a conversion of another library's may raise anything
        mend = _mend(given) or f"It makes no array ({first_line(error)})."
        raise TaskError(f"Expected {wanted} but got {described(given)}. {mend}") from error
    if tensor.is_complex():
        raise TaskError(
            f"Expected {wanted} of real numbers but got {str(tensor.dtype).removeprefix('torch.')}: no score takes an "
            f"imaginary part. Give the numbers' .real or .abs()."
        )
    return tensor


def _mend(given: object) -> str:
    if isinstance(given, Mapping):
        wanted = next((name for name in ("logits", "outputs") if name in given), None)
        return "Take the one entry that is wanted" + (f": outputs[{wanted!r}]." if wanted else ".")
    if isinstance(given, list | tuple) and any(isinstance(part, Tensor) for part in given):
        return (
            "Give one tensor: torch.stack(...) of single examples, torch.cat(...) of batches, or the outputs alone "
            "that are to be scored, without a loss, another head's or hidden states beside them."
        )
    return ""


def without_labels(returned: Any, labels: Tensor, run: int) -> Any:
    """Return the outputs of ``outputs, labels`` or ``{"outputs": ..., "labels": ...}``, and else what was returned.

    Raises `TaskError` for labels that are not those of the task: then this run has another test set than the study.
    """
    if isinstance(returned, Mapping) and returned.keys() == {"outputs", "labels"}:
        outputs, own = returned["outputs"], returned["labels"]
    elif isinstance(returned, tuple) and len(returned) == 2 and _are_pair(*returned, labels):
        outputs, own = returned
    else:
        return returned
    own = as_labels(own)
    if own.shape != labels.shape and own.numel() == labels.numel():
        own = own.reshape(labels.shape)
    if own.shape == labels.shape and bool((own.double() == labels.double()).all()):
        return outputs
    found = f"labels of shape {list(own.shape)}, not {list(labels.shape)}"
    if own.shape == labels.shape:
        found = f"{int((own.double() != labels.double()).sum())} of {labels.numel()} labels that differ from them"
    raise TaskError(
        f"Expected run {run} to return the test labels of the study beside its outputs but got {found}. Its test set "
        f"is another one, and results on different test sets cannot be compared. Split the data once, outside the "
        f"train function, or with a constant seed."
    )


def _are_pair(first: object, second: object, labels: Tensor) -> bool:
    """Whether two arrays are outputs and labels, and not two outputs, nor those of two test examples.

    Labels have as many dimensions as the task's, and whole numbers where these are classes.
    """
    if not all(isinstance(part, Tensor | np.ndarray) for part in (first, second)):
        return False
    own = torch.as_tensor(second)
    if len(labels) == 2 and own.shape != labels.shape:
        return False
    is_whole = not own.is_floating_point() or bool((own == own.round()).all())
    return (own.ndim == labels.ndim or own.numel() == labels.numel()) and (is_whole or labels.is_floating_point())


def check_outputs(outputs: object, labels: Tensor, meaning: Meaning) -> Tensor:
    """Return outputs as a CPU tensor; raise `TaskError` if they do not fit the labels ``[N, ...]``.

    ``labels`` are those of the examples that the outputs are of, some of those that ``meaning`` is about.
    """
    fill = "Fill it, outputs.filled(...); an example is left out by its label, -100."
    tensor = _as_tensor(outputs, "training to return a tensor or array of logits", fill)
    if not tensor.is_floating_point() and tensor.element_size() >= 4:
        tensor = tensor.double()  # a float32 tells no two integers apart beyond 16,777,216
    tensor = tensor.float() if tensor.element_size() < 4 else tensor
    fitting = (_of_classes if meaning.is_classes else _like_labels)(tensor, labels, meaning)
    _check_stated(fitting, labels, meaning)
    return fitting


def _like_labels(outputs: Tensor, labels: Tensor, meaning: Meaning) -> Tensor:
    shape, wanted = tuple(outputs.shape), tuple(labels.shape)
    if meaning.kind is TaskKind.MULTI_LABEL:
        if shape != wanted:
            raise TaskError(
                f"Expected an output for each label of each example, shape {list(wanted)}, but got {list(shape)}. "
                f"Labels of several columns are taken for several labels an example; give classes as integers, "
                f"labels.long(), with classes last in the outputs."
            )
        return outputs
    if shape not in (wanted, (*wanted, 1)) and not outputs.numel() == labels.numel() == 1:
        classes = shape[:-1] == wanted and bool((labels == labels.round()).all())
        hint = " If the labels are classes, give them as integers: labels.long()." if classes else ""
        raise TaskError(f"Expected regression outputs of the targets' shape {wanted} but got {shape}.{hint}")
    return outputs.reshape(wanted)


def _of_classes(outputs: Tensor, labels: Tensor, meaning: Meaning) -> Tensor:
    shape = tuple(outputs.shape)
    # A trailing axis of 1 of float labels is that of their output.
    wanted = tuple(labels.shape)
    wanted = wanted[:-1] if labels.is_floating_point() and len(wanted) > 1 and wanted[-1] == 1 else wanted
    if shape[:-1] == wanted and shape[-1] >= 2:
        _check_classes(meaning.labels, shape[-1])
        return outputs
    if _without_ones(shape) == _without_ones(wanted) and shape[:1] == wanted[:1]:  # one output a label
        _check_two_classes(shape, labels, meaning)
        return outputs.reshape(labels.shape)
    raise _unfit(shape, wanted, _advice(shape, wanted))


def _unfit(shape: Sequence[int], wanted: Sequence[int], advice: str) -> TaskError:
    return TaskError(
        f"Expected logits of shape [{', '.join(map(str, wanted))}, C] with C >= 2 classes, one row a test label, but "
        f"got {list(shape)}. Classes come last{advice}"
    )


def _advice(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if len(shape) == len(wanted) + 1 and shape[:1] + shape[2:] == wanted:
        return f": here axis 1 has {shape[1]}. Return outputs.movedim(1, -1); the loss may still take them as they are."
    if len(shape) == len(wanted) == 2 and wanted[1] == 1:
        return "; an axis of 1 of the labels is one too many: labels.squeeze(-1)."
    return "; two classes may have a single output a label, as nn.BCEWithLogitsLoss takes it."


def _check_classes(labels: Tensor, classes: int) -> None:
    """Raise `TaskError` for labels that name no class, with what they seem to be."""
    most = int(labels.max())
    if most < classes:
        return
    beyond, others = labels[labels >= classes], labels[(labels < classes) & (labels != IGNORED_LABEL)]
    why = ""
    if most == classes and len(others) and int(others.min()) == 1:
        why = " They seem to start at 1: give labels - 1."
    elif most == _VOID or (len(others) and bool((beyond == most).all())):
        why = (
            f" If {most} marks examples without a label, as it does for the pixels of many data sets, leave them out: "
            f"labels.masked_fill(labels == {most}, {IGNORED_LABEL}), which is also the ignore_index of torch's losses."
        )
    raise TaskError(f"Expected class labels below {classes}, the number of logits, but got {most}.{why}")


def _check_two_classes(shape: Sequence[int], labels: Tensor, meaning: Meaning) -> None:
    """Raise `TaskError` unless labels with one output each are 0 and 1, one an example, pixel or token."""
    classes = meaning.labels
    if has_columns(labels) and is_one_hot(classes):
        raise TaskError(
            f"Expected the class of each example but got labels of shape {list(labels.shape)} with one 1 in each row: "
            f"give labels.argmax(-1). If each column is a yes or no of its own, say outputs='multi_label'."
        )
    most = int(classes.max())
    if most > 1:
        advice = f"; a single output a label tells classes 0 and 1 apart, and these labels go up to {most}."
        raise _unfit(shape, labels.shape, advice)
    if has_columns(labels):
        raise TaskError(
            f"Expected to know what labels of shape {list(labels.shape)} with one output each are: say "
            f"outputs='multi_label' if an example has several labels, each a yes or no; if its columns are places with "
            f"two classes, return torch.stack([torch.zeros_like(z), z], -1) for the outputs z."
        )


def _check_stated(outputs: Tensor, labels: Tensor, meaning: Meaning) -> None:
    """Raise `TaskError` for outputs that are not what ``outputs=`` says."""
    stated, lone = meaning.stated, outputs.shape == labels.shape
    if stated not in ("probabilities", "log_probabilities") or outputs.isnan().any():
        return
    counted = labels != IGNORED_LABEL if meaning.is_classes and not labels.is_floating_point() else ...
    rows = outputs.unsqueeze(-1)[counted] if lone else outputs[counted]
    if stated == "probabilities":
        fits, wanted = are_probabilities(rows), "in [0, 1]"
    else:
        fits, wanted = bool((rows <= 0).all()) if lone else are_log_probabilities(rows), "at most 0"
    if fits:
        return
    sums = (rows if stated == "probabilities" else rows.exp()).double().sum(-1)
    of_rows = ("exponentials in each row" if stated == "log_probabilities" else "each row") + " with the sum 1"
    raise TaskError(
        f"Expected outputs {wanted}{'' if lone else f' and {of_rows}'}, since outputs={stated!r} says so, but got "
        f"{rows.min():.3g} to {rows.max():.3g}"
        f"{'' if lone else f' with sums from {sums.min():.6g} to {sums.max():.6g}'}. Leave outputs= out, and logits "
        f"and probabilities are told apart by their numbers."
    )


def fault_of_numbers(outputs: Tensor, labels: Tensor, meaning: Meaning) -> str:
    """Say which of the outputs cannot be scored, and where; empty if all can.

    A logit of -inf is a class of probability 0, which is no fault unless every class of an example has it.
    """
    lone = outputs.shape == labels.shape
    found = [("NaN", outputs.isnan()), ("+inf", outputs == torch.inf)]
    below = outputs == -torch.inf
    if meaning.kind is TaskKind.REGRESSION:
        found.append(("-inf", below))
    faults = [
        f"{int(which.sum())} of {outputs.numel()} test outputs are {name}{'' if lone else _in_classes(which)}"
        for name, which in found
        if which.any()
    ]
    if meaning.is_classes and not lone:
        counted = (meaning.labels != IGNORED_LABEL).reshape(outputs.shape[:-1])
        impossible = int((below.all(-1) & counted).sum())
        if impossible:
            faults.append(f"{impossible} of {int(counted.sum())} test examples have the logit -inf for every class")
    return "; ".join(faults)


def _in_classes(which: Tensor) -> str:
    classes = which.reshape(-1, which.shape[-1]).any(0).nonzero().flatten().tolist()
    if len(classes) == which.shape[-1]:
        return ", in every class"
    shown = ", ".join(map(str, classes[:_MOST_CLASSES])) + ", ..." * (len(classes) > _MOST_CLASSES)
    return f", in class{'es' * (len(classes) > 1)} {shown}"


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]
