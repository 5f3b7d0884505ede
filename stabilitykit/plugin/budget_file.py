"""The reviewed file of calibrated budgets, ``stability-budgets.toml``: a `check` without a budget reads its own here.

A reviewer's comments and deletions stay: calibrating leaves an entry alone, and renewing one keeps its lines. So the
file is edited as text, entry by entry, and each entry by tomlkit.
"""

from __future__ import annotations

import datetime
import difflib
import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BudgetError, StoreError
from ..store.atomic_files import Draft
from ..verdicts.budgets import Budget, check_is_budget
from ..verdicts.calibration import Calibration, Proposal
from .options import BUDGETS as NAME

if TYPE_CHECKING:  # tomlkit costs 35 ms, which only users of such a file should pay
    import tomlkit

#: Format version of the file.
FORMAT = 1

_HEAD = """\
# Budgets of the stability tests that name none themselves: stability.check(task) finds its limits here.
#
#     pytest --stability-calibrate                                adds what is missing
#     pytest --stability-calibrate --stability-update TEST ...    renews the limits that are here
#
# Each limit is a 95 % bound of what was measured. The rates are those of a gate of at most 20 runs at its default error
# rates and ratios, for one limit alone. Review it, and commit it: a limit may be changed, and one that is deleted is
# not judged, nor brought back by a renewal. More in docs/statistics.md, "Setting a budget".
format = 1
"""

_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*study[ \t]*\]\]", re.MULTILINE)

#: Keys of an entry and the types of their values; a `Budget` takes those of `_OF_BUDGET` beside its limits.
_KEYS: Mapping[str, tuple[type, ...]] = {
    "test": (str,),
    "study": (int,),
    "task": (str,),
    "varies": (str,),
    "runs": (int,),
    "date": (datetime.date,),
    "environment": (str,),
    "budgets": (dict,),
    "alpha": (float,),
    "beta": (float,),
    "ratio": (float, int, dict),
    "max_failed_runs": (int,),
}
_OF_BUDGET = ("alpha", "beta", "ratio", "max_failed_runs")


@dataclass(frozen=True)
class Entry:
    """The budget of one check."""

    test: str  #: node id
    study: int  #: number of the check in its test, from 1
    line: int  #: line of the file, from 1
    varies: str | None  #: what the limits were measured for; None where the file does not say
    environment: str | None  #: where the limits were measured, in one line
    limits: Mapping[str, float]
    budget: Budget | None  #: None where no limit is left

    @property
    def place(self) -> str:
        """The entry's line and check, for a message."""
        return f"{NAME}, line {self.line} ({_name(self.test, self.study)})"

    def check_varies(self, varies: str) -> None:
        """Raise `BudgetError` unless the limits were measured for what ``varies`` now."""
        if self.varies is not None and self.varies != varies:
            raise BudgetError(
                f"Expected the budget of a study that varies {varies} but {self.place} was calibrated with "
                f"{self.varies}. Calibrate it again: {command(self.test, update=True)}"
            )


class BudgetFile:
    """The entries of a file; a file that does not exist has none."""

    def __init__(self, path: Path, entries: Iterable[Entry] = ()) -> None:
        self.path = path
        self.entries = tuple(entries)
        self._by_check: dict[tuple[str, int], Entry] = {}
        for entry in self.entries:
            first = self._by_check.setdefault((entry.test, entry.study), entry)
            if first is not entry:
                raise BudgetError(
                    f"Expected one entry for each check but {entry.place} is the second after line {first.line}. "
                    f"Delete one of them; if a test checks twice, the second entry says study = 2."
                )

    @classmethod
    def read(cls, path: Path) -> BudgetFile:
        """Read a file; raises `BudgetError` with the line that is wrong."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls(path)
        except (OSError, UnicodeDecodeError) as error:
            raise BudgetError(f"Expected to read {path} but got: {error}.") from None
        tables = _tables(text)
        lines = [text.count("\n", 0, header.start()) + 1 for header in _HEADER.finditer(text)]
        return cls(path, [_entry(table, line) for table, line in zip(tables, lines, strict=True)])

    def find(self, test: str, study: int) -> Entry | None:
        """Return the entry of a check, if it has one."""
        return self._by_check.get((test, study))

    def require(self, test: str, study: int) -> tuple[Entry, Budget]:
        """Return the entry of a check and its budget; raises `BudgetError` with the command that measures one."""
        entry = self.find(test, study)
        if entry is None:
            what = f"has none for {_name(test, study)}" if self.path.exists() else "does not exist"
            raise BudgetError(
                f"Expected budget=Budget(...) in stability.check, or a budget in {NAME}, but that {what}. "
                f"Measure one: {command(test)}"
            )
        if entry.budget is None:
            raise BudgetError(
                f"Expected at least one limit but {entry.place} has none. Without a limit every model passes. "
                f"Measure them: {command(test, update=True)}"
            )
        return entry, entry.budget

    def check_agrees(self, test: str, study: int, budget: Budget) -> None:
        """Raise `BudgetError` where a check that names its budget has another one in the file."""
        check_is_budget(budget)
        entry = self.find(test, study)
        if entry is not None and entry.limits != dict(budget.limits):
            raise BudgetError(
                f"Expected one budget for {_name(test, study)} but the test has {budget} and {entry.place} has "
                f"{entry.budget}. Leave budget= out of the test, or delete the entry."
            )

    def check_tests_exist(self, rootdir: Path) -> None:
        """Raise `BudgetError` for an entry whose test file is gone."""
        for entry in self.entries:
            file = entry.test.partition("::")[0]
            if not (rootdir / file).exists():
                raise BudgetError(_unknown(entry, f"{file} does not exist"))

    def unknown_below(self, parent: str, children: Iterable[str]) -> list[str]:
        """Return a complaint for each entry of a test below ``parent``, a file or class, but not in ``children``."""
        children = list(children)
        below = [entry for entry in self.entries if entry.test.startswith(f"{parent}::")]
        return [
            _unknown(entry, f"{parent} has no such test")
            for entry in below
            if not any(entry.test == child or entry.test.startswith(f"{child}::") for child in children)
        ]


@dataclass(frozen=True)
class Written:
    """How many calibrations were written, and why others were not."""

    new: int
    updated: int
    refused: Mapping[str, str]  #: reason, by check

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        counts = [f"{self.new} new"] * (self.new > 0) + [f"{self.updated} updated"] * (self.updated > 0)
        done = [f"written: {NAME} ({', '.join(counts)}); review it, and commit it"] if counts else []
        return done + [f"not written: {name}: {reason}" for name, reason in self.refused.items()]


def write(path: Path, calibrations: Iterable[Calibration], *, update: bool, date: datetime.date) -> Written:
    """Add entries to a file in the order of collection, and renew those that it has if ``update``.

    Renewing an entry changes only the limits that it has, so that a limit stays deleted once a reviewer deleted it; an
    entry without limits gets them all. The file changes in one step, or not at all.
    """
    calibrations = sorted(calibrations, key=lambda c: (c.position, c.test, c.study))
    before = BudgetFile.read(path)
    text = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    head, *blocks = _split(text)
    kept = [_Block(entry.test, entry.study, block) for entry, block in zip(before.entries, blocks, strict=True)]
    positions = {calibration.test: calibration.position for calibration in calibrations}
    new = updated = 0
    refused: dict[str, str] = {}
    for calibration in calibrations:
        there = next((block for block in kept if block.is_of(calibration)), None)
        try:
            if calibration.refused:
                raise _Refused(calibration.refused)
            if there is None:
                kept.insert(_index(kept, calibration, positions), _Block.new(calibration, date))
                new += 1
            elif update:
                there.renew(calibration, date)
                updated += 1
            else:
                raise _Refused(already_there(calibration.test))
        except _Refused as error:
            refused[calibration.name] = str(error)
    if new or updated:
        _put(path, "\n".join(part.strip("\n") + "\n" for part in [head, *(block.text for block in kept)]))
    return Written(new, updated, refused)


def _put(path: Path, text: str) -> None:
    try:
        with Draft(path.parent, path.name) as draft:
            draft.write(text.encode())
            draft.put()
    except StoreError as error:
        raise BudgetError(f"Expected to write {path} but got: {error.__cause__}. Make the folder writable.") from None


def already_there(test: str) -> str:
    """Say why a check that has an entry is not calibrated."""
    return f"it has an entry in {NAME}, which is reviewed. To measure it again: {command(test, update=True)}"


def command(test: str, *, update: bool = False) -> str:
    """Return the command that calibrates a test."""
    return f"pytest --stability-calibrate {'--stability-update ' * update}{shlex.quote(test)}"


class _Refused(Exception):
    """The reason why an entry stays as it is."""


class _Block:
    """The text of one entry, with the comment above it."""

    def __init__(self, test: str, study: int, text: str) -> None:
        self.test, self.study, self.text = test, study, text

    @classmethod
    def new(cls, calibration: Calibration, date: datetime.date) -> _Block:
        """Write the entry of a calibration."""
        import tomlkit

        document, entries, entry, budgets = tomlkit.document(), tomlkit.aot(), tomlkit.table(), tomlkit.table()
        entry["test"] = calibration.test
        if calibration.study > 1:
            entry["study"] = calibration.study
        entry.update(_about(calibration, date))
        for proposal in calibration.proposals:
            budgets[proposal.metric] = _line(proposal)
        entry["budgets"] = budgets
        entries.append(entry)
        document["study"] = entries
        return cls(calibration.test, calibration.study, tomlkit.dumps(document))

    def is_of(self, calibration: Calibration) -> bool:
        """Whether the entry is of the calibrated check."""
        return (self.test, self.study) == (calibration.test, calibration.study)

    def renew(self, calibration: Calibration, date: datetime.date) -> None:
        """Put new values into the lines that the entry has."""
        import tomlkit
        from tomlkit.items import InlineTable

        document = tomlkit.parse(self.text)
        entry: Any = document["study"][0]
        proposals = {proposal.metric: proposal for proposal in calibration.proposals}
        if not entry.get("budgets"):
            entry["budgets"] = tomlkit.table()
            wanted = list(proposals)
        else:
            wanted = list(entry["budgets"])
        for metric in wanted:
            if metric not in proposals:
                why = "has no value in these runs" if metric in calibration.undefined else "is not proposed"
                raise _Refused(f"{metric} {why}, so its limit cannot be renewed; delete or change it yourself")
        for name, value in _about(calibration, date).items():
            if name in entry:
                entry[name] = value
        for metric in wanted:
            inline = isinstance(entry["budgets"], InlineTable)  # one line, without room for comments
            entry["budgets"][metric] = proposals[metric].limit if inline else _line(proposals[metric])
        self.text = tomlkit.dumps(document)


def _about(calibration: Calibration, date: datetime.date) -> dict[str, Any]:
    return {
        "task": calibration.task,
        "varies": calibration.varies,
        "runs": calibration.runs,
        "date": date,
        "environment": calibration.environment,
    }


def _line(proposal: Proposal) -> tomlkit.items.Item:
    import tomlkit

    return tomlkit.item(proposal.limit).comment(proposal.comment())


def _index(blocks: list[_Block], calibration: Calibration, positions: Mapping[str, int]) -> int:
    """The place of a new entry: before the first of a later test, else behind the entries of its file."""
    mine = (calibration.position, calibration.study)
    for index, block in enumerate(blocks):
        if block.test in positions and (positions[block.test], block.study) > mine:
            return index
    file = calibration.test.partition("::")[0]
    same = [index for index, block in enumerate(blocks) if block.test.partition("::")[0] == file]
    return same[-1] + 1 if same else len(blocks)


def _split(text: str) -> list[str]:
    """Return the head, and the text of each entry with the comment right above it."""
    lines = text.splitlines(keepends=True)
    starts = []
    for index, line in enumerate(lines):
        if _HEADER.match(line):
            while index and lines[index - 1].startswith("#"):
                index -= 1
            starts.append(index)
    borders = [0, *starts, len(lines)]
    return ["".join(lines[start:end]) for start, end in itertools.pairwise(borders)]


def _tables(text: str) -> list[dict[str, Any]]:
    """Parse the file, and check everything but its entries."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import AoT

    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:
        raise BudgetError(
            f"Expected {NAME} to be TOML but got: {str(error).rstrip('.')}. Mend it, or take it from the last commit."
        ) from None
    if document.get("format") != FORMAT:
        raise BudgetError(
            f"Expected format = {FORMAT} in {NAME} but got {document.unwrap().get('format')!r}. Another version of "
            f"stabilitykit wrote it; use that one, or delete the file and calibrate again."
        )
    for key in document:
        if key not in ("format", "study"):
            raise BudgetError(f"Expected {NAME} to have format and [[study]] but got {key!r}. Move it, or delete it.")
    studies = document.get("study", tomlkit.aot())
    if not isinstance(studies, AoT) or len(studies) != len(_HEADER.findall(text)):
        raise BudgetError(f"Expected each entry of {NAME} to begin with a line [[study]], but one does not.")
    tables: list[dict[str, Any]] = studies.unwrap()
    return tables


def _entry(table: Mapping[str, Any], line: int) -> Entry:
    test, study = table.get("test"), table.get("study", 1)
    place = f"{NAME}, line {line}" + (f" ({_name(test, study)})" if isinstance(test, str) else "")
    for key, value in table.items():
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" It may have {', '.join(_KEYS)}."
            raise BudgetError(f"Expected a known key in {place} but got {key!r}.{hint}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            kinds = " or ".join(kind.__name__ for kind in _KEYS[key])
            raise BudgetError(f"Expected {key} to be a {kinds} in {place} but got {key} = {value!r}.")
    if not test:
        raise BudgetError(f"Expected test = '<node id>' in {place} but got {test!r}: no test would read its limits.")
    if study < 1:
        raise BudgetError(f"Expected study >= 1 in {place} but got study = {study}; 1 is the first check of its test.")
    limits = table.get("budgets", {})
    for name in limits:
        if name in _OF_BUDGET:
            raise BudgetError(f"Expected {name} above [study.budgets] in {place} but got it among the limits.")
    settings = {name: table[name] for name in _OF_BUDGET if name in table}
    try:
        budget = Budget(**limits, **settings) if limits else None
    except BudgetError as error:
        raise BudgetError(f"In {place}: {error}") from None
    accepted = dict(budget.limits) if budget else {}
    return Entry(test, study, line, table.get("varies"), table.get("environment"), accepted, budget)


def _name(test: str, study: int) -> str:
    return test if study == 1 else f"{test}, check {study}"


def _unknown(entry: Entry, why: str) -> str:
    return (
        f"Expected a test {entry.test} but {why}, and {entry.place} has its budget. If the test is gone, delete the "
        f"entry; if it has a new name, write it there."
    )
