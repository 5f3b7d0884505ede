"""The reviewed file of calibrated budgets, ``stability-budgets.toml``: a `check` without a budget reads its own here.

A reviewer's comments and deletions stay: calibrating leaves an entry alone, and renewing one keeps its lines. So the
file is edited as text, entry by entry, and each entry by tomlkit, whose 35 ms of import only users of such a file pay.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import itertools
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import UnionType
from typing import Any, TypeAlias

from ..errors import BudgetError, StoreError
from ..store.atomic_files import Draft
from ..store.reading import harmless, read_bytes
from ..verdicts.budgets import Budget, check_is_budget
from ..verdicts.calibration import Calibration
from ..verdicts.thresholds import Threshold, threshold_of
from .options import BUDGETS as NAME

#: Format version of the file.
FORMAT = 1

#: Seconds to wait for another session that writes the file, which takes it some milliseconds.
_PATIENCE = 60.0

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

_Types: TypeAlias = Mapping[str, type | UnionType]

#: Keys of an entry and the types of their values: where its limits come from, and what a `Budget` takes beside them.
_ORIGIN: _Types = {"test": str, "study": int, "task": str, "varies": str, "runs": int, "date": date, "environment": str}
_SETTINGS: _Types = {"alpha": float, "beta": float, "ratio": float | int | dict, "max_failed_runs": int}
_KEYS: _Types = {**_ORIGIN, "budgets": dict, **_SETTINGS}


@dataclass(frozen=True)
class Entry:
    """The budget of one check."""

    test: str  #: node id
    study: int  #: number of the check in its test, from 1
    line: int  #: line of the file, from 1
    varies: str | None  #: what the limits were measured for; None where the file does not say
    environment: str | None  #: where the limits were measured, in one line
    limits: Mapping[str, float | Threshold]
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
            text = read_bytes(path, follow=True).decode()
        except FileNotFoundError:
            return cls(path)
        except ValueError as error:
            raise BudgetError(f"Expected to read {path} but got: {error}.") from None
        lines = [text.count("\n", 0, header.start()) + 1 for header in _HEADER.finditer(text)]
        return cls(path, [_entry(table, line) for table, line in zip(_tables(text), lines, strict=True)])

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
        if entry is not None and entry.limits != {**budget.limits, **budget.thresholds}:
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

    def unknown_below(self, parent: str, children: Sequence[str]) -> list[str]:
        """Return a complaint for each entry of a test below ``parent``, a file or class, but not in ``children``."""
        below = [entry for entry in self.entries if entry.test.startswith(f"{parent}::")]
        gone = [entry for entry in below if not any(f"{entry.test}::".startswith(f"{child}::") for child in children)]
        return [_unknown(entry, f"{parent} has no such test") for entry in gone]


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


def write(path: Path, calibrations: Iterable[Calibration], *, update: bool, date: date) -> Written:
    """Add entries to a file in the order of collection, and renew those that it has if ``update``.

    Renewing an entry changes only the limits that it has, so that a limit stays deleted once a reviewer deleted it; an
    entry without limits gets them all. The file changes in one step, or not at all.
    """
    with _alone(path):
        return _write(path, sorted(calibrations, key=lambda c: (c.position, c.test, c.study)), update=update, date=date)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other sessions from writing the file: they lock its folder, so that no further file lies in a project."""
    until = time.monotonic() + _PATIENCE
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BudgetError(f"Expected to write {path} but got: {error}. Make the folder readable.") from None
    try:
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BudgetError(
                        f"Expected to write {path} but another process has locked its folder for {_PATIENCE:g} s. "
                        f"End it, and calibrate again."
                    ) from None
                time.sleep(0.02)
            except OSError:  # a file system without such locks
                break
        yield
    finally:
        os.close(folder)


def _write(path: Path, calibrations: Sequence[Calibration], *, update: bool, date: date) -> Written:
    before = BudgetFile.read(path)
    head, *found = _split(read_bytes(path, follow=True).decode() if path.exists() else _HEAD)
    texts = {(entry.test, entry.study): text for entry, text in zip(before.entries, found, strict=True)}
    order = list(texts)
    positions = {calibration.test: calibration.position for calibration in calibrations}
    new = updated = 0
    refused: dict[str, str] = {}
    for calibration in calibrations:
        check = calibration.test, calibration.study
        try:
            if calibration.refused:
                raise BudgetError(calibration.refused)
            if check not in texts:
                order.insert(_index(order, check, positions), check)
                texts[check] = _new(calibration, date)
                new += 1
            elif update:
                texts[check] = _renewed(texts[check], calibration, date)
                updated += 1
            else:
                again = command(calibration.test, update=True)
                raise BudgetError(f"it has an entry in {NAME}, which is reviewed. To measure it again: {again}")
        except BudgetError as error:
            refused[calibration.name] = str(error)
    if new or updated:
        _put(path, "\n".join(part.strip("\n") + "\n" for part in [head, *(texts[check] for check in order)]))
    return Written(new, updated, refused)


def _put(path: Path, text: str) -> None:
    try:
        with Draft(path.parent, path.name) as draft:
            draft.write(text.encode())
            draft.put()
    except StoreError as error:
        raise BudgetError(f"Expected to write {path} but got: {error.__cause__}. Make the folder writable.") from None


def command(test: str, *, update: bool = False) -> str:
    """Return the command that calibrates a test."""
    return f"pytest --stability-calibrate {'--stability-update ' * update}{shlex.quote(test)}"


def _new(calibration: Calibration, date: date) -> str:
    """Return the text of the entry of a calibration."""
    import tomlkit

    check = {"test": calibration.test} | ({"study": calibration.study} if calibration.study > 1 else {})
    budgets = {one.metric: tomlkit.item(one.limit).comment(one.comment()) for one in calibration.proposals}
    return tomlkit.dumps({"study": [{**check, **_about(calibration, date), "budgets": budgets}]})


def _renewed(text: str, calibration: Calibration, date: date) -> str:
    """Return the text of an entry with new values in the lines that it has, and else as it was."""
    import tomlkit

    document = tomlkit.parse(text)
    entry: Any = document["study"][0]
    proposals = {proposal.metric: proposal for proposal in calibration.proposals}
    wanted = [name for name, limit in (entry.get("budgets") or proposals).items() if not isinstance(limit, dict)]
    if not entry.get("budgets"):
        entry["budgets"] = tomlkit.table()
    for metric in wanted:
        if metric not in proposals:
            why = "has no value in these runs" if metric in calibration.undefined else "is not proposed"
            raise BudgetError(f"{metric} {why}, so its limit cannot be renewed; delete or change it yourself")
    entry.update({name: value for name, value in _about(calibration, date).items() if name in entry})
    for metric in wanted:
        limit = tomlkit.item(proposals[metric].limit)
        if not isinstance(entry["budgets"], tomlkit.items.InlineTable):  # which has no room for comments
            limit.comment(proposals[metric].comment())
        entry["budgets"][metric] = limit
    return tomlkit.dumps(document)


def _about(c: Calibration, date: date) -> dict[str, Any]:
    return {"task": c.task, "varies": c.varies, "runs": c.runs, "date": date, "environment": c.environment}


def _index(checks: list[tuple[str, int]], new: tuple[str, int], positions: Mapping[str, int]) -> int:
    """Return the place of a new entry: before the first of a later test, else behind the entries of its file."""
    mine, file = (positions[new[0]], new[1]), new[0].partition("::")[0]
    for index, (test, study) in enumerate(checks):
        if test in positions and (positions[test], study) > mine:
            return index
    same = (index for index, (test, _) in enumerate(checks, start=1) if test.partition("::")[0] == file)
    return max(same, default=len(checks))


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

    try:
        document = tomlkit.parse(text)
    except (tomlkit.exceptions.TOMLKitError, RecursionError) as error:
        raise BudgetError(
            f"Expected {NAME} to be TOML but got: {harmless(str(error)).rstrip('.')}. "
            f"Mend it, or take it from the last commit."
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
    if not isinstance(studies, tomlkit.items.AoT) or len(studies) != len(_HEADER.findall(text)):
        raise BudgetError(f"Expected each entry of {NAME} to begin with a line [[study]], but one does not.")
    return list(studies.unwrap())


def _entry(table: Mapping[str, Any], line: int) -> Entry:
    test, study = table.get("test"), table.get("study", 1)
    place = f"{NAME}, line {line}" + (f" ({_name(test, study)})" if isinstance(test, str) else "")
    for key, value in table.items():
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else f" It may have {', '.join(_KEYS)}."
            raise BudgetError(f"Expected a known key in {place} but got {key!r}.{hint}")
        if not isinstance(value, _KEYS[key]) or isinstance(value, bool):
            kinds = " or ".join(kind.__name__ for kind in getattr(_KEYS[key], "__args__", [_KEYS[key]]))
            raise BudgetError(f"Expected {key} to be a {kinds} in {place} but got {key} = {value!r}.")
    if not test:
        raise BudgetError(f"Expected test = '<node id>' in {place} but got {test!r}: no test would read its limits.")
    if study < 1:
        raise BudgetError(f"Expected study >= 1 in {place} but got study = {study}; 1 is the first check of its test.")
    limits = table.get("budgets", {})
    for name in limits:
        if name in _SETTINGS:
            raise BudgetError(f"Expected {name} above [study.budgets] in {place} but got it among the limits.")
    settings = {name: table[name] for name in _SETTINGS if name in table}
    try:
        given: dict[str, Any] = {}
        for name, limit in limits.items():
            given[name] = threshold_of(limit) if isinstance(limit, dict) else limit
        budget = Budget(**given, **settings) if given else None
    except BudgetError as error:
        raise BudgetError(f"In {place}: {error}") from None
    accepted: dict[str, float | Threshold] = {**budget.limits, **budget.thresholds} if budget else {}
    return Entry(test, study, line, table.get("varies"), table.get("environment"), accepted, budget)


def _name(test: str, study: int) -> str:
    return test if study == 1 else f"{test}, check {study}"


def _unknown(entry: Entry, why: str) -> str:
    return (
        f"Expected a test {entry.test} but {why}, and {entry.place} has its budget. If the test is gone, delete the "
        f"entry; if it has a new name, write it there."
    )
