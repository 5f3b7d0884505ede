"""The plan of a session, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import setting
from ..estimates.measure_kinds import kind_of
from .columns import aligned, each_once
from .study_table import short_name

Plan = Mapping[str, Any]

#: P(UNDECIDED) below which a number of runs is not called too few.
_HARDLY = 0.01

_HEAD = """\
test | varies | limit | excludes | runs needed | sequential | R | runs to a verdict | P(FAIL) beyond   | minutes
     |        |       |          | fixed R     | R_max      |   | at 0.5 / 1 / 2 x  | 1.25 / 1.5 / 2 x | 0.5 / 1 / 2 x
"""


def plan_table(plans: Sequence[Plan]) -> list[str]:
    """Return the lines of a table with one row a limit of each study, what it assumes, and what the session costs."""
    head = [[cell.strip() for cell in line.split("|")] for line in _HEAD.splitlines()]
    rows = [row for plan in plans for row in _rows(plan)]
    return [*aligned([*head, *rows], "<<<>>>>>>>"), "", *each_once(_notes(plans)), _total(plans)]


def _rows(plan: Plan) -> list[list[str]]:
    named, runs = [short_name(plan["test"]), plan["name"]], plan["runs"]
    if not plan["limits"]:
        scores = ", ".join(f"{one['metric']} {one['limit']}" for one in plan["thresholds"]) or "none"
        return [[*named, scores, "-", "-", "-", str(runs), str(runs), "-", _minutes(plan, [runs])]]
    return [[*named, *_cells(plan, limit)] for limit in plan["limits"]]


def _cells(plan: Plan, limit: Mapping[str, Any]) -> list[str]:
    runs, is_likeness = plan["runs"], kind_of(limit["metric"]).is_likeness
    by_truth = {prospect["truth"]: prospect for prospect in limit["prospects"]}
    expected = [by_truth[truth]["runs"] for truth in (0.5, 1.0, 2.0) if truth in by_truth]
    power = [f"{by_truth[truth]['fails']:.2f}" if truth in by_truth else "-" for truth in (1.25, 1.5, 2.0)]
    if not limit["sequential"]:
        expected = [runs]
    return [
        f"{limit['metric']} {'>=' if is_likeness else '<='} {limit['budget']:g}",
        f"{limit['ratio']:g} x",
        str(limit["fixed_runs"] or "-"),
        str(limit["most_runs"] or "-"),
        f"{runs}{', too few' if _open(limit) else ''}",
        " / ".join(f"{count:.1f}" if limit["sequential"] else f"{count}" for count in expected) or "-",
        " / ".join(power) if limit["prospects"] else "-",
        _minutes(plan, expected),
    ]


def _minutes(plan: Plan, runs: Iterable[float]) -> str:
    """Write the minutes that each number of ``runs`` takes; stored runs take none."""
    if plan["seconds_a_run"] is None:
        return "?"
    each = 0.0 if plan["verdict"] else plan["seconds_a_run"] / plan["workers"]
    return " / ".join(_in_minutes(max(count - plan["stored"], 0) * each) for count in runs) or "-"


def _in_minutes(seconds: float) -> str:
    """Write seconds as minutes, to a digit that matters.

    >>> _in_minutes(0), _in_minutes(2), _in_minutes(100), _in_minutes(5000)
    ('0', '<0.1', '1.7', '83')
    """
    if 0 < seconds < 6:
        return "<0.1"
    return f"{seconds / 60:.1f}" if 0 < seconds < 600 else f"{seconds / 60:.0f}"


def _open(limit: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the prospect that is UNDECIDED most often; None if it hardly ever is."""
    worst = max(limit["prospects"], key=lambda prospect: prospect["undecided"], default=None)
    return worst if worst and worst["undecided"] >= _HARDLY else None


def _notes(plans: Sequence[Plan]) -> Iterator[tuple[str, str]]:
    """Give warnings, then notes, each with the test that it is about."""
    for kind, lines in (("warning", _warnings), ("note", _remarks)):
        for plan in plans:
            yield from ((f"{kind}: {line}", short_name(plan["test"])) for line in lines(plan))


def _warnings(plan: Plan) -> Iterable[str]:
    yield from plan["warnings"]
    for limit in plan["limits"]:
        worst, needed = _open(limit), limit["most_runs"] if limit["sequential"] else limit["fixed_runs"]
        if not worst:
            continue
        more = f"{setting('runs', needed)} leaves nothing open"
        if needed is None:
            more = f"no number of runs that can be trained leaves nothing open: raise ratio={limit['ratio']:g}"
        yield (
            f"{plan['runs']} runs are too few for {limit['metric']}: UNDECIDED in {100 * worst['undecided']:.0f} % of "
            f"studies of a model at {worst['truth']:g} times the budget; {more}"
        )


def _remarks(plan: Plan) -> Iterable[str]:
    if plan["verdict"]:
        yield f"the stored runs have its verdict: {plan['verdict'].upper()}"
    for limit in plan["limits"]:
        if limit["stored_share"] is not None:
            stored = f"the stored runs say {limit['metric']} {limit['stored_value']:.2g}"
            yield f"{stored}, {limit['stored_share']:.2f} of the budget's spread"
        yield f"{limit['metric']} assumes {limit['assumes']}"
    for one in plan["thresholds"]:
        yield f"{one['metric']} {one['limit']} can pass from {one['fewest_runs']} runs on, if all of them reach it"
    yield from plan.get("notes", ())
    if plan["seconds_a_run"] is None:
        yield "no run stored yet: seconds unknown"
    elif plan["seconds_from"] != "its own stored runs":
        yield f"seconds a run are those of {plan['seconds_from']}"


def _total(plans: Sequence[Plan]) -> str:
    """Write how many runs the session trains at most; studies that share their runs count once."""
    most: dict[str, Plan] = {}
    for number, plan in enumerate(plans):
        key = plan["key"] or str(number)
        if key not in most or plan["runs"] > most[key]["runs"]:
            most[key] = plan
    trained = [plan for plan in most.values() if not plan["verdict"] and plan["runs"] > plan["stored"]]
    known = [plan for plan in trained if plan["seconds_a_run"] is not None]
    seconds = sum((plan["runs"] - plan["stored"]) * plan["seconds_a_run"] / plan["workers"] for plan in known)
    times = [f"{_in_minutes(seconds)} minutes"] * (not trained or bool(known)) + ["unknown time"] * (known != trained)
    time, workers = " and ".join(times), max((plan["workers"] for plan in plans), default=1)
    missing, stored = sum(p["runs"] - p["stored"] for p in trained), sum(plan["stored"] for plan in most.values())
    cost = f"at most {missing} runs to train, {stored} stored: {time} with {workers} worker{'s' * (workers > 1)}"
    return f"{cost}, and the controls; a verdict ends its study early"
