"""Proposed budgets, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..estimates.measure_kinds import kind_of
from ..verdicts.calibration import Calibration, Proposal
from .columns import aligned, each_once
from .study_table import short_name

_TITLES = ("test", "varies", "runs", "metric", "measured", "budget", "unchanged fails", "at the value")
_LEGEND = (
    "unchanged fails: how often the same model would fail this budget, in a gate of at most 20 runs;",
    "at the value: how often it would, were the measured value its budget.",
)


def calibration_table(calibrations: Sequence[Calibration]) -> list[str]:
    """Return the lines of a table with a row for each limit, the legend, and notes on some limits."""
    rows: list[tuple[str, ...]] = [_TITLES]
    for calibration in calibrations:
        about = [short_name(calibration.name), calibration.varies, str(calibration.runs)]
        for proposal in calibration.proposals:
            rows.append((*about, *_cells(proposal)))  # what all limits of a check share is said once
            about = ["", "", ""]
    if len(rows) == 1:
        return []
    return [*aligned(rows, "<<><<>>>"), *_LEGEND, *each_once(_notes(calibrations))]


def _cells(proposal: Proposal) -> tuple[str, ...]:
    rates = (proposal.alarm, proposal.alarm_at_value)
    at_least = ">= " if kind_of(proposal.metric).is_likeness else ""
    shown = ("?" if rate is None else f"{100 * rate:.1f} %" for rate in rates)
    return (proposal.metric, proposal.measured, f"{at_least}{proposal.limit:g}", *shown)


def _notes(calibrations: Sequence[Calibration]) -> Iterator[tuple[str, str]]:
    """Give each note with the limit that it is about."""
    for calibration in calibrations:
        name = short_name(calibration.name)
        yield from ((f"note: {one.meaning}", f"{name} {one.metric}") for one in calibration.proposals if one.meaning)
        yield from (
            ("note: no value in these runs, so no limit", f"{name} {metric}") for metric in calibration.undefined
        )
