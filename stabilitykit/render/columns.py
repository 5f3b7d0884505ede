"""Columns of text, and notes below them, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Return a line a row, each column as wide as its widest cell; ``align`` has ``<`` or ``>`` for each column.

    >>> print(*aligned([("run", "seconds", "status"), ("12", "1.5", "ok")], "<><"), sep="\\n")
    run  seconds  status
    12       1.5  ok
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)).rstrip() for row in rows]


def each_once(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each note, with all names that it came with.

    >>> each_once([("too few runs", "test_a"), ("no budget", "test_a"), ("too few runs", "test_b")])
    ['too few runs (test_a, test_b)', 'no budget (test_a)']
    """
    names: dict[str, dict[str, None]] = {}
    for note, name in notes:
        names.setdefault(note, {})[name] = None
    return [f"{note} ({', '.join(those)})" for note, those in names.items()]
