"""The baselines of a run store: studies that earlier sessions kept, by name, test and number of the study.

::

    .stabilitykit/baselines/<name>/<test>.0.json          the header of a test's first study: its question and its runs
                                   <test>.0.<sha>.npy     the answers of each run on the test set

``<test>`` is a hash of the node id, which the header holds. Nothing here is ever executed, and listing the baselines
needs neither torch nor NumPy. Pruning removes no baseline: its runs may be gone.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import StoreError
from .layout import BASELINES
from .ownership import check_form
from .reading import Damaged, is_there, read_json, typed
from .sealed_files import SealedFiles, array_name, npy

if TYPE_CHECKING:
    import numpy as np

#: Format version of a baseline's files.
FORMAT = 1


class BaselineFiles:
    """One baseline on disk."""

    def __init__(self, store: Path, name: str) -> None:
        self.name, self.folder = name, store / BASELINES / name
        self._sealed = SealedFiles(self.folder)

    @classmethod
    def all(cls, store: Path) -> list[BaselineFiles]:
        """Return the baselines of a store, by name."""
        folders = sorted(path for path in (store / BASELINES).glob("*") if path.is_dir())
        return [found for found in (cls(store, folder.name) for folder in folders) if found.exists()]

    def exists(self) -> bool:
        """Whether it holds a study."""
        return any(self.folder.glob("*.json"))

    def headers(self) -> list[dict[str, Any]]:
        """Return the headers of its studies; unreadable ones are left out."""
        found = [read_json(path, escape=True) for path in sorted(self.folder.glob("*.json"))]
        return [header for header in found if header is not None and typed(header, _Listed) is not None]

    def read(self, test: str, call: int) -> tuple[dict[str, Any], np.ndarray[Any, Any]] | None:
        """Return the header and the answers of a test's study; None without one."""
        place = self._sealed.place(_stem(test, call))
        if not is_there(place):
            return None
        import numpy as np

        try:
            header = read_json(place, escape=True)
            wrong = "it is torn" if header is None else _what_is_wrong(header)
            if header is None or wrong:
                raise Damaged(wrong)
            name = array_name(_stem(test, call), ".npy", header["array"]["sha256"])
            content = self._sealed.read_array(name, header["array"]["sha256"])
            answers = np.load(io.BytesIO(content), allow_pickle=False)
            if answers.ndim < 2 or len(answers) != header["runs"]:
                raise Damaged(f"its answers are not those of {header['runs']} runs")
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"Expected a study of {test} in the baseline {self.name!r} but {place} cannot be used: {error}. Keep "
                f"the baseline anew.",
                save=self.name,
                update=True,
            ) from error
        return header, answers

    def write(self, test: str, call: int, header: Mapping[str, Any], answers: np.ndarray[Any, Any]) -> None:
        """Write a study, in the place of an earlier one."""
        stem = _stem(test, call)
        check_form(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            array = self._sealed.write_array(stem, ".npy", npy(answers))
            self._sealed.seal(stem, {"format": FORMAT, "test": test, "call": call, **header, "array": array})
        except OSError as error:
            raise StoreError(
                f"Expected to keep the baseline {self.name!r} in {self.folder} but got: {error}. Make the folder "
                f"writable, or free space."
            ) from error
        self._sealed.remove_arrays(stem, but=[array["file"]])  # of the earlier study

    def session_of(self, test: str, call: int) -> str | None:
        """Return the id of the session that kept a study; None without one."""
        header = read_json(self._sealed.place(_stem(test, call)), escape=True)
        return None if header is None else str(header.get("session"))


@dataclass(frozen=True)
class _Listed:
    """The types of what a list of baselines shows."""

    format: Literal[1]
    commit: str | None = None
    saved: float = 0.0


@dataclass(frozen=True)
class _Header:
    """The types of a header's values."""

    test: str
    call: int
    task: str
    question: str
    runs: int
    seeds: list[dict[str, int | None]]
    about: dict[str, Any]
    commit: str | None
    session: str
    saved: float
    array: dict[str, str]


def _what_is_wrong(header: Mapping[str, Any]) -> str:
    """Return why a header is not one of a study; empty where it is."""
    if header.get("format") != FORMAT:
        return f"it is not of format {FORMAT}"
    checked = typed(header, _Header)
    if checked is None or not isinstance(checked.about.get("environment"), dict):
        return "its header has values of other types"
    if len(checked.seeds) != checked.runs or not 0 <= checked.saved < 2**40:
        return "its header contradicts itself"
    return "" if re.fullmatch("[0-9a-f]{64}", checked.array.get("sha256", "")) else "its header names no array"


def _stem(test: str, call: int) -> str:
    return f"{hashlib.sha256(test.encode()).hexdigest()[:24]}.{call}"
