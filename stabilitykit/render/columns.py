"""Columns of text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Return a line a row, each column as wide as its widest cell; ``align`` has ``<`` or ``>`` for each column.

    >>> print(*aligned([("run", "seconds", "status"), ("12", "1.5", "ok")], "<><"), sep="\\n")
    run  seconds  status
    12       1.5  ok
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)).rstrip() for row in rows]
