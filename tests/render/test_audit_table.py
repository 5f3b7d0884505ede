"""The table of a seed audit."""

from __future__ import annotations

from typing import Any

from stabilitykit.render.audit_table import audit_table

ROW = {
    "source": "shuffle",
    "what": "the order of examples",
    "drawn_by": "RandomSampler",
    "line": "train.py:12",
    "count": 1200,
    "unit": "pass",
    "moved_by": [],
    "wholly_moved_by": ["seed"],
    "moved_besides_by": "earlier draws",
}
AUDIT: dict[str, Any] = {
    "audit": "main",
    "knobs": [{"name": "seed", "one": 0, "other": 1}, {"name": "data_seed", "one": None, "other": 1}],
    "rows": [ROW, ROW | {"what": "the items", "count": 1, "unit": "item", "moved_by": ["seed", "data_seed"]}],
    "reseedings": [{"function": "set_seed", "seed": "0", "line": "train.py:3", "count": 2}],
    "findings": ["seed never reaches it. " * 6],
    "notes": [],
    "trainings": 4,
    "seconds": 2.04,
}


def test_the_table() -> None:
    assert audit_table(AUDIT) == [
        "seed audit of main: seed 0 or 1, data_seed None or 1",
        "",
        "WHAT DRAWS         BY             LINE         HOW OFTEN     MOVED BY                   BESIDES BY",
        "order of examples  RandomSampler  train.py:12  1,200 passes  NO KNOB                    earlier draws",
        "items              RandomSampler  train.py:12  1 item        seed, data_seed (in part)  earlier draws",
        "",
        "SEEDS SET INSIDE  LINE        TIMES",
        "set_seed(0)       train.py:3      2",
        "",
        "! " + " ".join(["seed never reaches it."] * 5),
        "  seed never reaches it.",
        "",
        "4 trainings in 2.0 s: 1 finding",
    ]


def test_nothing_to_mend_is_said() -> None:
    lines = audit_table(AUDIT | {"findings": [], "reseedings": []})
    assert lines[-1].endswith(": every draw is moved by a knob, and every knob moves one")
    assert not any("SEEDS SET INSIDE" in line for line in lines)
