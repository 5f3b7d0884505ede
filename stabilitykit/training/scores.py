"""Scores that a training returns: numbers by name, alone or beside its outputs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import TaskError
from ..estimates.measure_kinds import check_score_name
from ..store.fingerprint import tensor_digest
from ..store.record import RunRecord
from .description import described

#: The name of a score that is returned as one number.
ONE = "score"


def scores_alone(returned: object) -> dict[str, float]:
    """Return the scores of a task without labels: of a mapping by name, or one number under the name ``score``.

    >>> scores_alone(0.25), scores_alone({"reward": 450, "length": 31.5})
    ({'score': 0.25}, {'reward': 450.0, 'length': 31.5})
    """
    if isinstance(returned, Mapping):
        return _by_name(returned)
    number = _real(returned)
    if number is None:
        raise TaskError(
            f"Expected one number or a mapping of names to numbers, such as {{'val_loss': 0.31}}, from a training "
            f"without labels= but got {described(returned)}. Return its scores, or give labels=, by which test outputs "
            f"are scored."
        )
    return {ONE: number}


def without_scores(returned: Any) -> tuple[Any, dict[str, float]]:
    """Return the outputs and the scores of ``outputs, {"reward": 3.1}`` or ``{"outputs": ..., "scores": {...}}``.

    Anything else is outputs alone. Labels may come between the two, as in ``outputs, labels, {"reward": 3.1}``.
    """
    if isinstance(returned, Mapping) and {"outputs", "scores"} <= returned.keys() <= {"outputs", "labels", "scores"}:
        named = {name: returned[name] for name in ("outputs", "labels") if name in returned}
        outputs, scores = named if "labels" in named else named["outputs"], returned["scores"]
    elif isinstance(returned, tuple) and len(returned) > 1 and isinstance(returned[-1], Mapping):
        outputs, scores = returned[:-1] if len(returned) > 2 else returned[0], returned[-1]
    else:
        return returned, {}
    if not isinstance(scores, Mapping):
        raise TaskError(f"Expected 'scores' to map names to numbers but got {described(scores)}.")
    return outputs, _by_name(scores)


def fault_of_scores(scores: Mapping[str, float]) -> str:
    """Say which scores are no finite numbers; empty if all are."""
    return "; ".join(f"the score {name!r} is {value}" for name, value in scores.items() if not math.isfinite(value))


def scores_of_runs(runs: Iterable[RunRecord]) -> dict[str, list[float]]:
    """Return each score of every run, by name; raise `TaskError` where a run has other scores than the first."""
    runs = list(runs)
    names = list(runs[0].scores) if runs else []
    for run in runs:
        if run.scores.keys() != set(names):
            raise TaskError(
                f"Expected all runs to return the same scores but run {runs[0].index} returned {_listed(names)} and "
                f"run {run.index} {_listed(run.scores)}. Return every score in every run."
            )
    return {name: [run.scores[name] for run in runs] for name in names}


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "none"


def results_digest(outputs: Tensor | None, scores: Mapping[str, float]) -> str:
    """Return a hash of what a training returned, which changes with every bit of it."""
    digest = b"" if outputs is None else tensor_digest(outputs)
    if not scores:
        return digest.hex()
    return hashlib.sha256(digest + repr(sorted(scores.items())).encode()).hexdigest()


def _by_name(scores: Mapping[Any, object]) -> dict[str, float]:
    if not scores:
        raise TaskError("Expected a training to return at least one score but got an empty mapping.")
    found: dict[str, float] = {}
    for name, value in scores.items():
        check_score_name(name)
        number = _real(value)
        if number is None:
            hint = " Outputs of the test set are scored by labels=." if getattr(value, "ndim", 0) else ""
            raise TaskError(
                f"Expected the score {name!r} to be one real number but got {described(value)}. Return a float for "
                f"each name.{hint}"
            )
        found[name] = number
    return found


def _real(value: object) -> float | None:
    """Return a real number as a float; None for anything else, such as a truth value, a text or an array."""
    if isinstance(value, np.ma.MaskedArray):  # whose item is the number below the mask
        return None
    item = getattr(value, "item", None)
    plain = item() if callable(item) and getattr(value, "ndim", None) == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, Real | Decimal):
        return None
    try:
        return float(plain)
    except OverflowError:
        return math.inf
