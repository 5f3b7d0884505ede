"""Scores from what a command leaves: a pattern in its output, a JSON file, or the last line of its output."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import TaskError
from ..store.plain_values import leaves_of
from ..training.task import TrainingError

#: Which match of a pattern counts: there is one only, or the last of several.
Pick: TypeAlias = Literal["only", "last"]

#: The name of a score that is a number alone.
UNNAMED = "score"

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?i:nan|inf|infinity)"
#: How a number goes on behind what a group has taken of it, and how it begins before.
_GOES_ON, _BEGINS = re.compile(r"\d|\.\d|[eE][-+]?\d|,\d{3}(?!\d)"), re.compile(r"(?:[\d.]|(?<!\w)[-+])\Z")
#: The name that a pattern begins with: ``val_loss=``, ``val_loss: ``.
_LEADING_NAME = re.compile(r"\^?([A-Za-z_]\w*)(?:\\?[\s:=]|\\s)")
#: Codes by which programs colour their output and move the cursor.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Lines, and characters of each, that an error shows of an output.
_LINES, _WIDTH = 15, 200


@dataclass(frozen=True)
class Pattern:
    """A score that the one group of a regular expression takes from the output."""

    name: str
    regex: str
    pick: Pick = "only"

    @classmethod
    def of(cls, regex: str, pick: Pick = "only") -> Pattern:
        """Return a pattern that says itself what its score is called: by its group, or by how it begins.

        >>> Pattern.of("val_loss=([0-9.]+)").name, Pattern.of("Test accuracy: (?P<accuracy>[0-9.]+) %").name
        ('val_loss', 'accuracy')
        """
        groups = _compiled("the score", regex).groupindex
        leading = _LEADING_NAME.match(regex)
        name = next(iter(groups), leading[1] if leading else None)
        if name is None:
            raise TaskError(
                f"Expected a pattern that names its score but got {regex!r}. Begin it with the name, as in "
                f"'val_loss=([0-9.]+)', or name its group: 'Loss on test data: (?P<loss>[0-9.]+)'."
            )
        return cls(name, regex, pick)

    def check(self) -> None:
        """Raise `TaskError` for what is no regular expression of one group."""
        found = _compiled(f"the score {self.name!r}", self.regex).groups
        if found != 1:
            raise TaskError(
                f"Expected the pattern of the score {self.name!r} to have one group, around the number, but "
                f"{self.regex!r} has {found}. Write for example 'val_loss=([0-9.]+)'; a group that only holds "
                f"alternatives together is written (?:...)."
            )

    def read(self, output: str) -> float:
        """Return the score; raise `TrainingError` where the pattern matches nothing, twice, or a part of a number."""
        found = [*re.finditer(self._from_start_of_word, output, re.MULTILINE)]
        if not found:
            raise TrainingError(
                f"the pattern {self.regex!r} of the score {self.name!r} matches nothing in the output."
                f"{self._near(output)}"
            )
        if len(found) > 1 and self.pick == "only":
            shown = "\n".join(f"  {_line_of(output, match)}" for match in (found[0], found[-1]))
            raise TrainingError(
                f"the pattern {self.regex!r} of the score {self.name!r} matches {len(found)} times, and which one "
                f"counts is not known. The first and the last:\n{shown}\nMake it match once, or take the last match of "
                f"each pattern by pick='last' (--pick last)."
            )
        return self._number(found[-1], output)

    @property
    def _from_start_of_word(self) -> str:
        """The pattern, in which ``loss=`` does not match the end of ``best_loss=``."""
        return rf"(?<!\w)(?:{self.regex})" if self.regex[:1].isidentifier() else self.regex

    def _number(self, match: re.Match[str], output: str) -> float:
        text, (start, end) = match[1] or "", match.span(1)
        is_cut = end == match.end() and _GOES_ON.match(output, end)
        if text and (is_cut or _BEGINS.search(output[max(0, start - 2) : start])):
            raise TrainingError(
                f"the pattern {self.regex!r} of the score {self.name!r} takes {text!r}, a part of a number, from:\n"
                f"  {_line_of(output, match)}\n([-+.0-9e]+) takes a sign and an exponent, too."
            )
        return number(self.name, text, f"in the line\n  {_line_of(output, match)}")

    def _near(self, output: str) -> str:
        """Return the lines that have the name, or the end of the output."""
        leading = _LEADING_NAME.match(self.regex)
        word = leading[1] if leading else self.name
        lines = [line for line in output.splitlines() if word in line]
        return (
            f" The last lines with {word!r}:\n{end_of(lines)}" if lines else f" It ends:\n{end_of(output.splitlines())}"
        )


def _compiled(whose: str, regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex, re.MULTILINE)
    except (re.error, TypeError) as error:
        raise TaskError(f"Expected the pattern of {whose} to be a regular expression but {regex!r}: {error}.") from None


@dataclass(frozen=True)
class JsonFile:
    """Scores from a JSON file that the run writes: some keys, or every number in it.

    A key inside another is written with a dot, ``eval.loss``. Its score is called ``eval_loss``, as is that of a key
    ``eval/loss``.
    """

    path: str  #: with placeholders, relative to the folder of the run
    keys: Mapping[str, str] = field(default_factory=dict)  #: by the name of the score; empty for every number

    @classmethod
    def of(cls, text: str) -> JsonFile:
        """Read ``metrics.json`` or ``metrics.json:val_loss,eval.loss``, or ``metrics.json:acc=accuracy``.

        >>> JsonFile.of("{run_dir}/m.json:eval.loss, acc=accuracy")
        JsonFile(path='{run_dir}/m.json', keys={'eval_loss': 'eval.loss', 'acc': 'accuracy'})
        """
        path, _, keys = text.partition(":")
        given = [key.strip().rpartition("=")[::2] for key in keys.split(",") if key.strip()]
        return cls(path, {name or _name_of(key): key for name, key in given})

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of its scores; None for those of every number in it."""
        return tuple(self.keys) or None

    def read(self, file: Path) -> dict[str, float]:
        """Return the scores by name; raise `TrainingError` where the file, a key or a number is not there."""
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise TrainingError(f"the run did not write {self.path}: {error.strerror}.") from None
        except ValueError as error:
            raise TrainingError(f"{self.path} is no JSON: {error}.") from None
        found = _by_key(content, self.path) if isinstance(content, dict) else {}
        numbers = [key for key, value in found.items() if _is_number(value)]
        for key in self.keys.values():
            if key not in found:
                raise TrainingError(f"{self.path} has no key {key!r}. Its numbers are {', '.join(numbers) or 'none'}.")
        if not numbers:
            raise TrainingError(f'{self.path} has no numbers: expected an object such as {{"val_loss": 0.31}}.')
        if self.keys:
            return {name: number(name, found[key], f"in {self.path}") for name, key in self.keys.items()}
        return _named({key: found[key] for key in numbers}, f"in {self.path}")


def last_line(output: str) -> dict[str, float]:
    """Return the scores of the last line: a number, or a JSON object of numbers.

    >>> last_line("epoch 1\\n0.93\\n"), last_line('{"loss": 0.31, "eval": {"f1": 0.8}}')
    ({'score': 0.93}, {'loss': 0.31, 'eval_f1': 0.8})
    """
    line = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    try:
        content = json.loads(line)
    except ValueError:
        content = line
    if isinstance(content, dict):
        numbers = {key: value for key, value in _by_key(content, "the last line").items() if _is_number(value)}
        if numbers:
            return _named(numbers, "in the last line")
    elif re.fullmatch(_NUMBER, line):
        return {UNNAMED: number(UNNAMED, line, "in the last line")}
    raise TrainingError(
        f"the last line of the output is no number, and no JSON object of numbers:\n  {line[:_WIDTH]!r}\nA pattern "
        f"finds a number in a line: 'val_loss=([0-9.]+)'."
    )


def _named(values: Mapping[str, object], where: str) -> dict[str, float]:
    """Return the numbers under the names of their scores; raise `TrainingError` where two would have one name."""
    found = {_name_of(key): number(key, value, where) for key, value in values.items()}
    if len(found) < len(values):
        raise TrainingError(f"two of the keys {', '.join(values)} {where} give one name of a score. Name the keys.")
    return found


def _name_of(key: str) -> str:
    return re.sub(r"\W", "_", key)


def number(name: str, value: object, where: str) -> float:
    """Return a finite number; raise `TrainingError` for anything else."""
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(_NUMBER, text):
        raise TrainingError(f"the score {name!r} is no number but {text!r} {where}")
    if not math.isfinite(float(text)):
        raise TrainingError(f"the score {name!r} is {float(text)} {where}")
    return float(text)


def plain(output: bytes) -> str:
    """Return the text of an output, without colours, in which a line that was written over is a line of its own.

    >>> plain(b"50%\\r100%\\r\\n\\x1b[1mloss=0.3\\x1b[0m").splitlines()
    ['50%', '100%', 'loss=0.3']
    """
    text = output.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return _ESCAPES.sub("", text)


def end_of(lines: list[str]) -> str:
    """Return the last lines of an output, each cut to the width of a terminal."""
    shown = [f"  {line[:_WIDTH]}" for line in lines if line.strip()][-_LINES:]
    return "\n".join(shown) or "  (nothing)"


def _line_of(output: str, match: re.Match[str]) -> str:
    start, end = output.rfind("\n", 0, match.start(1)) + 1, output.find("\n", match.end(1))
    return output[start : end if end >= 0 else len(output)].strip()[:_WIDTH]


def _by_key(content: Mapping[str, object], where: str) -> dict[str, object]:
    """Return the values by their keys joined by dots; raise `TrainingError` where that makes one key of two."""
    leaves = [*leaves_of(content)]
    found = dict(leaves)
    if len(found) < len(leaves):
        raise TrainingError(f"{where} has a key with a dot in it that is also the way to a key inside another.")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
