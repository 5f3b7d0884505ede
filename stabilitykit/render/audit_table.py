"""The table of a seed audit, and the sentences below it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from .columns import aligned

_WIDTH = 120


def audit_table(audit: Mapping[str, Any]) -> list[str]:
    """Return the lines that tell of an audit, which is given as `Audit.to_json` writes it."""
    knobs = ", ".join(f"{knob['name']} {knob['one']!r} or {knob['other']!r}" for knob in audit["knobs"])
    rows = [("WHAT DRAWS", "BY", "LINE", "HOW OFTEN", "MOVED BY", "BESIDES BY")]
    for row in audit["rows"]:
        unit = row["unit"] + _plural(row["unit"]) * (row["count"] != 1)
        moved = ", ".join(_moved(name, row) for name in row["moved_by"]) or "NO KNOB"
        what = str(row["what"]).removeprefix("the ")
        rows.append((what, row["drawn_by"], row["line"], f"{row['count']:,} {unit}", moved, _besides(row)))
    lines = [f"seed audit of {audit['audit']}: {knobs}", ""]
    lines += aligned(rows, "<" * len(rows[0]))
    if audit["reseedings"]:
        seeds = [("SEEDS SET INSIDE", "LINE", "TIMES")]
        seeds += [
            (f"{one['function']}({one['seed']})", one["line"], f"{one['count']:,}") for one in audit["reseedings"]
        ]
        lines += ["", *aligned(seeds, "<<>")]
    for texts, mark in ((audit["findings"], "! "), (audit["notes"], "- ")):
        if texts:
            lines.append("")
        for text in texts:
            lines += textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent="  ")
    lines += ["", f"{audit['trainings']} trainings in {audit['seconds']:.1f} s: {_outcome(audit)}"]
    return lines


def _plural(unit: str) -> str:
    return "es" if unit.endswith(("s", "ch")) else "s"


def _moved(knob: str, row: Mapping[str, Any]) -> str:
    return knob if knob in row["wholly_moved_by"] else f"{knob} (in part)"


def _besides(row: Mapping[str, Any]) -> str:
    return str(row["moved_besides_by"] or "-")


def _outcome(audit: Mapping[str, Any]) -> str:
    count = len(audit["findings"])
    return (
        f"{count} finding{'s' * (count != 1)}" if count else "every draw is moved by a knob, and every knob moves one"
    )
