"""Why runs were trained again: how an experiment differs from that of the same study before it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import StoreError
from .catalog import Catalog, Entry
from .differences import first_difference, first_other_input
from .layout import EXPERIMENTS, INPUTS, ROLE
from .traced_inputs import Inputs, entry_of, later_of

#: How many experiments are looked through for the last one of a study, the last used first.
_MOST_LOOKED_AT = 500

#: Said of a difference that the store cannot name.
UNKNOWN_INPUT = "it reads other files, variables or modules; which, is no longer in the store"
UNNAMED = "a value differs that is too deep in the task, or too far back among its values, to be kept by name"


@dataclass(frozen=True)
class Chapter:
    """One experiment of a study, and why it could not be answered from the one before."""

    entry: Entry
    reason: str  #: empty for the first


@dataclass(frozen=True)
class History:
    """All experiments that the store has of one study, the newest first."""

    task: str
    test: str  #: the id of the test that asked; empty for a script
    varies: str
    chapters: tuple[Chapter, ...]

    @classmethod
    def of(cls, catalog: Catalog, study: str) -> list[History]:
        """Return the histories of the studies that ``study`` names: a task, the id of a test or the beginning of a key.

        Raises `StoreError` for a name that the store does not know.
        """
        entries = [entry for entry in catalog.entries() if ROLE not in entry.about]
        names = [{entry.task, _test_of(entry.about), entry.key} for entry in entries]
        chosen = [entry for entry, known in zip(entries, names, strict=True) if study in known]
        chosen = chosen or [entry for entry in entries if entry.key.startswith(study)]
        if not chosen or not study:
            raise StoreError(_unknown(catalog, entries, study))
        asked = dict.fromkeys(map(_question, chosen))
        return [cls._of(catalog, [one for one in entries if _question(one) == question]) for question in asked]

    @classmethod
    def _of(cls, catalog: Catalog, entries: list[Entry]) -> History:
        entries = sorted(entries, key=lambda entry: -entry.created)
        before = [*entries[1:], None]
        chapters = (Chapter(new, _reason(catalog, old, new)) for old, new in zip(before, entries, strict=True))
        first = entries[0]
        return cls(first.task, _test_of(first.about), first.varies, tuple(chapters))


def difference_to_last(catalog: Catalog, about: Mapping[str, Any]) -> str:
    """Say how the experiment ``about`` differs from the last one of the same study, of an earlier session.

    Empty if there was none. Studies are the same if one call of one test asks for them, of one task and protocol.
    """
    for entry in catalog.entries()[:_MOST_LOOKED_AT]:
        is_same = all(entry.about.get(name) == about.get(name) for name in ("task", "asked_by", ROLE))
        if is_same and entry.about.get("session") != about.get("session") and _varies(entry.about) == _varies(about):
            return first_difference(entry.about, about)
    return ""


def _reason(catalog: Catalog, old: Entry | None, new: Entry) -> str:
    if old is None:
        return ""
    return first_difference(old.about, new.about) or _other_input(catalog, old, new) or UNNAMED


def _other_input(catalog: Catalog, old: Entry, new: Entry) -> str:
    if _digest_of(old) == _digest_of(new):
        return ""
    before, after = (_inputs_of(catalog, entry) for entry in (old, new))
    return UNKNOWN_INPUT if before is None or after is None else first_other_input(before, after)


def _digest_of(entry: Entry) -> str:
    return str(entry.about.get("inputs", Inputs().digest))


def _inputs_of(catalog: Catalog, entry: Entry) -> Inputs | None:
    """Return what the runs of an experiment read; what run 0 read lies in the folder of its task, which has no name."""
    digest = _digest_of(entry)
    files = (catalog.folder / EXPERIMENTS).glob(f"*/{INPUTS}/{digest[:16]}.json")
    stored = (Inputs() if digest == Inputs().digest else None, *map(entry_of, files))
    found = next((one for one in stored if one is not None and one.digest == digest), None)
    return None if found is None else functools.reduce(Inputs.merged, later_of(entry.folder), found)


def _question(entry: Entry) -> tuple[str, str, str]:
    return entry.task, str(entry.about.get("asked_by", "")), entry.varies


def _varies(about: Mapping[str, Any]) -> tuple[Any, ...]:
    protocol = about.get("protocol")
    found = protocol if isinstance(protocol, Mapping) else {}
    perturb = found.get("perturb")
    return found.get("vary"), perturb.get("kind") if isinstance(perturb, Mapping) else perturb, found.get("onset")


def _test_of(about: Mapping[str, Any]) -> str:
    """Return the id of the test that first asked, without the number of the study in it."""
    return str(about.get("asked_by", "")).rpartition(" ")[0]


def _unknown(catalog: Catalog, entries: Iterable[Entry], study: str) -> str:
    tasks, tests = ({name for name in names if name} for names in _names(entries))
    known = [f"the tasks {', '.join(sorted(tasks)[:8])}"] * bool(tasks)
    known += [f"the tests {', '.join(sorted(tests)[:8])}"] * bool(tests)
    return (
        f"Expected the name of a task, the id of a test or the beginning of a key but no experiment in "
        f"{catalog.folder} has {study!r}. It has {' and '.join(known) or 'no experiments'}."
    )


def _names(entries: Iterable[Entry]) -> tuple[list[str], list[str]]:
    entries = list(entries)
    return [entry.task for entry in entries], [_test_of(entry.about) for entry in entries]
