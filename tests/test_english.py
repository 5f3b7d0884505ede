"""Comments and docstrings that a reader understands alone: an editor shows each by itself, on hover."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

import pytest

from tests.test_rooms import modules, path_of, room_of

#: Rooms and modules whose English is still to do.
STILL = {
    *("errors", "estimates", "execution", "protocol", "store", "training", "verdicts", "zoo"),
    *("study.likeness", "study.reduction", "study.comparison", "study.study", "study.asserts", "study.selftest"),
}

#: How a text opens that has its subject somewhere else.
_ELSEWHERE = re.compile(r"(?:Of|Likewise)\b")


def openings(source: str) -> Iterator[tuple[int, str]]:
    """The line and the first words of each docstring and each comment; a comment over several lines opens once."""
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, described) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text
    before = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != before + 1 or token.line.strip() != token.string:
                yield token.start[0], token.string.lstrip("#: ")
            before = token.start[0] if token.line.strip() == token.string else -1


def opens_elsewhere(source: str) -> list[str]:
    return [f"line {line}: {text.splitlines()[0]}" for line, text in openings(source) if _ELSEWHERE.match(text)]


@pytest.mark.parametrize("module", [module for module in modules() if not {module, room_of(module)} & STILL])
def test_a_comment_names_its_own_subject(module: str) -> None:
    assert not opens_elsewhere(path_of(module).read_text(encoding="utf-8"))


def test_what_is_still_to_do_is_there() -> None:
    assert {*modules(), *map(room_of, modules())} >= STILL


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('"""Of a run."""', ["line 1: Of a run."]),
        ('class A:\n    """Likewise, with bounds."""', ["line 1: Likewise, with bounds."]),
        ("def f():\n    '''\n    Of a run.\n    '''", ["line 1: Of a run."]),
        ("#: Of the file.\nFORMAT = 1", ["line 1: Of the file."]),
        ("x = 1  #: Of the file.", ["line 1: Of the file."]),
        ("# Of all runs.\n", ["line 1: Of all runs."]),
        ("# The mean\n# Of all runs.\n", []),
        ("x = 1  # seconds\n# Likewise.\n", ["line 2: Likewise."]),
        ('"""Offsets of a run."""', []),
        ('x = "# Of a string"', []),
    ],
)
def test_an_opening_that_points_elsewhere_is_found(source: str, found: list[str]) -> None:
    assert opens_elsewhere(source) == found
