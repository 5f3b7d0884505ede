"""The scores that runs returned, one row each, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import sd_name
from .columns import aligned

Summary = Mapping[str, Any]


def scores_table(summaries: Iterable[Summary]) -> list[str]:
    """Return the lines of a table: each returned score of each study, its mean and SD over runs with their bounds.

    >>> metrics = {"loss": {"value": 0.5, "low": 0.4, "high": 0.6}, "loss_sd": {"value": 0.1, "low": 0.06, "high": 0.3}}
    >>> runs = [{"scores": {"loss": 0.4}}, {"scores": {"loss": 0.6}}]
    >>> print(*scores_table([{"task": "train.py", "metrics": metrics, "records": runs}]), sep="\\n")
    task      score  mean over runs     SD over runs       least  most
    train.py  loss   0.50 [0.40, 0.60]  0.10 [0.06, 0.30]  0.4    0.6
    """
    rows = [["task", "score", "mean over runs", "SD over runs", "least", "most"]]
    for summary in summaries:
        runs = [record["scores"] for record in summary["records"] if record.get("scores")]
        for name in runs[0] if runs else ():
            values = [scores[name] for scores in runs]
            estimates = (summary["metrics"][name], summary["metrics"][sd_name(name)])
            ends = [f"{value:.6g}" for value in (min(values), max(values))]
            rows.append([summary["task"], name, *(_bounded(one, len(runs)) for one in estimates), *ends])
    return aligned(rows, "<<<<<<")


def _bounded(estimate: Mapping[str, float | None], runs: int) -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "undefined" if value is None else f"{value:.4g}"
    return str(Estimate(value, low, high, runs, ""))
