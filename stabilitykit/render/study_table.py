"""The paper's table, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import PAPER, Form, is_own_sd, kind_of
from ..estimates.scores import SCORES, TaskKind
from .columns import aligned, each_once

Summary = Mapping[str, Any]


def study_table(summaries: Sequence[Summary]) -> list[str]:
    """Return the lines of a table with one row a study, the paper's columns, and the notes below.

    The ± is the SD of the SD (a bootstrap over runs), as in the paper's tables; verdicts go by the intervals instead.
    ``floor`` is the part of the accuracy SD that the test examples give by flipping independently.
    """
    lines: list[str] = []
    shown = _without_repeats(summaries)
    names = _names(shown)
    for task in PAPER:
        table = _table(task, shown, names)
        lines += [""] * bool(lines and table) + table
    left_out = len(summaries) - len(shown)
    more = [f"note: {left_out} more without a verdict, of studies that have a row"] if left_out else []
    notes = ((f"note: {note}", short_name(summary["test"])) for summary in summaries for note in summary["notes"])
    return lines + more + each_once(notes) + each_once(_proofs(filter(_is_certified, summaries)))


def _is_certified(summary: Summary) -> bool:
    """Whether something was trained to prove what a study claims."""
    certificate = summary.get("certificate", {})
    return bool(certificate.get("base") or certificate.get("alive"))


def _proofs(summaries: Iterable[Summary]) -> list[tuple[str, str]]:
    """Return the line of each certificate with each test that it is of: studies of one base run share theirs."""
    shared: dict[tuple[str, ...], dict[str, None]] = {}
    lines: list[tuple[tuple[str, ...], str]] = []
    for summary in summaries:
        certificate, kernels = summary["certificate"], summary["environment"].get("kernels")
        moved = [name for name, seen in certificate["alive"].items() if seen]
        line = f"certificate{f' on kernels {kernels}' * bool(kernels)}: {certificate['line']}"
        before, _, after = line.partition(f"alive: {', '.join(moved)}")
        key = (before, after, certificate["base"] or summary["task"]) if moved else (line,)
        shared.setdefault(key, {}).update(dict.fromkeys(moved))
        lines.append((key, short_name(summary["test"])))
    return [(_joined(key, shared[key]), test) for key, test in lines]


def _joined(key: tuple[str, ...], moved: Iterable[str]) -> str:
    before, *after = key
    return f"{before}alive: {', '.join(moved)}{after[0]}" if after else before


def _without_repeats(summaries: Sequence[Summary]) -> list[Summary]:
    """Leave out a row without a verdict if another row shows its study: several tests may ask for the same runs."""
    judged = [_study(summary) for summary in summaries if summary["verdict"]]
    shown: list[Summary] = []
    for summary in summaries:
        if summary["verdict"] or ((study := _study(summary)) not in judged and study not in map(_study, shown)):
            shown.append(summary)
    return shown


def _study(summary: Summary) -> tuple[object, ...]:
    runs = [record["fingerprint"] for record in summary["records"]]
    return summary["task"], summary["name"], runs, summary["metrics"]


def short_name(test: str) -> str:
    """Return a node id without its file.

    >>> short_name("tests/test_model.py::TestNet::test_stability[init]")
    'TestNet::test_stability[init]'
    """
    return test.partition("::")[2] or test


def _names(summaries: Sequence[Summary]) -> dict[tuple[str, str], str]:
    """Name the studies by test, and by task where a test has several, whose rows would look alike otherwise."""
    keys = dict.fromkeys((summary["test"], summary["task"]) for summary in summaries)
    tests = [test for test, _ in keys]
    return {(test, task): short_name(test) + (f" ({task})" if tests.count(test) > 1 else "") for test, task in keys}


def _table(task: TaskKind, shown: Sequence[Summary], names: Mapping[tuple[str, str], str]) -> list[str]:
    """Return the table of all studies of one kind of task; empty if there are none."""
    summaries = [summary for summary in shown if summary["kind"] == task.value]
    if not summaries:
        return []
    own = (name for summary in summaries for name in summary["metrics"] if is_own_sd(name, summary["metrics"]))
    extra = list(dict.fromkeys(own))  # SDs of users' own metrics, which the standard columns do not show
    if task is TaskKind.SCORES:  # beside their means, which are all that these studies have
        extra = [name for sd in extra for name in (kind_of(sd).score, sd)]
    keys = [*PAPER[task], *extra]
    titles = ["test", "varies", "runs", *(kind_of(name).title for name in PAPER[task]), *extra, "verdict"]
    rows = [titles] + [[names[summary["test"], summary["task"]], *_row(keys, summary)] for summary in summaries]
    return aligned(rows, f"<<{'>' * (len(titles) - 3)}<")


def _row(keys: Sequence[str], summary: Summary) -> list[str]:
    failed = sum(record["status"] != "ok" for record in summary["records"])
    runs = f"{summary['runs'] - failed}/{summary['runs']}" if failed else str(summary["runs"])
    if summary["runs"] < summary["runs_at_most"]:
        runs += f" of {summary['runs_at_most']}"
    cells = [_cell(key, summary["metrics"].get(key)) for key in keys]
    return [summary["name"], runs, *cells, (summary["verdict"] or "-").upper()]


def _cell(key: str, estimate: Mapping[str, float | None] | None) -> str:
    if estimate is None:
        return "-"
    value, error = estimate["value"], estimate.get("sd_of_sd")
    if value is None:
        return "undefined"
    if error is not None:
        return _with_error(value, error)
    kind = kind_of(key)
    if kind.form is Form.MEAN and kind.name not in SCORES and None not in (estimate["low"], estimate["high"]):
        low, high = (float(estimate[side] or 0) for side in ("low", "high"))
        return str(Estimate(value, low, high, runs=0, method="")).partition(" ")[0]
    decimals = kind.decimals
    return f"{value:.{decimals}f}" if value == 0 or abs(value) >= 0.01 else f"{value:.0e}"


def _with_error(value: float, error: float) -> str:
    """Write both to the first digit of the error, and to two decimals at least, as the paper does.

    >>> _with_error(0.2213, 0.0187), _with_error(0.00801, 0.00052), _with_error(2e-8, 1e-9), _with_error(0.0, 0.0)
    ('0.22 ±0.02', '0.0080 ±0.0005', '2e-08 ±1e-09', '0 ±0')
    """
    if value < 1e-4 or error == 0:
        return f"{value:.2g} ±{error:.1g}"
    decimals = max(2, -math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ±{error:.{decimals}f}"
