"""The looks that gates have taken at the runs of one experiment, and the FAILs of its budgets: each is written once.

::

    gates/<id>.0012.json   how surely the budget <id> was judged at 12 runs
    gates/<id>.fail.json   its first FAIL, which stands as long as the experiment is kept
    gates/<id>.json        the looks of an earlier version

No file is replaced, so that no session undoes what another one has found at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .atomic_files import write_first
from .reading import is_there, read_json, typed


@dataclass(frozen=True)
class LookTaken:
    """A number of runs at which a budget was judged, and the error rates of the bounds there."""

    runs: int
    alpha: float
    beta: float
    spent: float = 0.0  #: share of the error rate of a threshold; looks of earlier versions judged none


@dataclass(frozen=True)
class Fail:
    """A FAIL of a budget at the runs of one experiment."""

    runs: int  #: how many runs it rests on
    reason: str
    session: str
    time: float  #: seconds since the epoch

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Fail:
        """Return the FAIL that a file holds; a file that is damaged still says that there was one."""
        return typed(found, cls) or cls(0, "it cannot be read any more", "", 0.0)


class VerdictFiles:
    """The looks and the FAILs of one experiment."""

    def __init__(self, folder: Path, kept: Path, make_place: Callable[[Path], None]) -> None:
        """Keep looks in ``folder`` and FAILs in ``kept``, where other sessions find them: two experiments' folders.

        ``make_place`` creates such a folder, where it does not exist.
        """
        self._folder, self._kept, self._make_place = folder / "gates", kept / "gates", make_place

    def looks(self, gate: str) -> list[LookTaken]:
        """Return the looks that a gate has taken at these runs, in any session, the one at the fewest runs first.

        They count even if runs are not reused: training the same seeds again does not ask a new question.
        """
        found: dict[int, LookTaken] = {}
        for folder in (self._folder, self._kept):
            together = read_json(folder / f"{gate}.json", escape=True) or {}
            listed = together.get("looks")
            alone = map(read_json, folder.glob(f"{gate}.[0-9]*.json"))
            for look in map(_look, [*(listed if isinstance(listed, list) else ()), *alone]):
                if look is not None:
                    found.setdefault(look.runs, look)
        return [found[runs] for runs in sorted(found)]

    def keep_look(self, gate: str, look: LookTaken) -> None:
        """Keep a look, so that another session goes on with it."""
        self._write(self._folder, f"{gate}.{look.runs:04d}.json", asdict(look))

    def fail(self, gate: str) -> Fail | None:
        """Return the FAIL that a budget came to at these runs, in any session; None without one."""
        for path in (self._kept / f"{gate}.fail.json", self._folder / f"{gate}.fail.json"):
            if is_there(path):
                return Fail.from_json(read_json(path, escape=True) or {})
        return None

    def keep_fail(self, gate: str, runs: int, reason: str, session: str) -> None:
        """Keep a FAIL, unless there is one."""
        values = {"runs": runs, "reason": reason, "session": session, "time": time.time()}
        self._write(self._kept, f"{gate}.fail.json", values)

    def _write(self, folder: Path, name: str, values: Mapping[str, Any]) -> None:
        self._make_place(folder.parent)
        folder.mkdir(exist_ok=True)
        write_first(folder / name, values)


def _look(found: object) -> LookTaken | None:
    """Return the look that a file holds; None where it holds none."""
    look = typed(found, LookTaken) if isinstance(found, dict) else None
    is_right = look is not None and look.runs >= 2 and 0 <= look.alpha <= 1 and 0 <= look.beta <= 1
    return look if is_right else None
