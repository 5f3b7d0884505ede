"""The scores that runs returned, one row each, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .columns import aligned

Summary = Mapping[str, Any]


def scores_table(summaries: Iterable[Summary]) -> list[str]:
    """Return the lines of a table: each returned score of each study, its mean and SD over runs with their bounds.

    >>> metrics = {"loss": {"value": 0.5, "low": 0.4, "high": 0.6}, "loss_sd": {"value": 0.1, "low": 0.06, "high": 0.3}}
    >>> runs = [{"loss": 0.4}, {"loss": 0.6}]
    >>> print(*scores_table([{"task": "train.py", "metrics": metrics, "records": runs}]), sep="\\n")
    task      score  mean over runs        SD over runs          least  most
    train.py  loss   0.5000 [0.40, 0.60]   0.1000 [0.060, 0.30]  0.4    0.6
    """
    rows = [["task", "score", "mean over runs", "SD over runs", "least", "most"]]
    for summary in summaries:
        for name in _scores(summary):
            values = [record[name] for record in summary["records"] if name in record]
            mean, sd = summary["metrics"][name], summary["metrics"][f"{name}_sd"]
            ends = [f"{value:.4g}" for value in (min(values), max(values))]
            rows.append([summary["task"], name, _bounded(mean), _bounded(sd), *ends])
    return aligned(rows, "<<<<<<")


def _scores(summary: Summary) -> Sequence[str]:
    """Return the names of the scores in the records."""
    metrics = summary["metrics"]
    return [name for name in metrics if f"{name}_sd" in metrics and any(name in run for run in summary["records"])]


def _bounded(estimate: Mapping[str, float | None]) -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "undefined" if value is None else f"{value:.4g}"
    return f"{value:.4g} [{low:.2g}, {high:.2g}]"
