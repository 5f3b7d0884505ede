"""Looks and FAILs of an experiment: written once, found by every session, whatever lies in the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stabilitykit.store.run_store import RunStore
from stabilitykit.store.verdict_files import LookTaken, VerdictFiles
from tests.store_names import key_of, session_id

GATE = "0123456789abcdef"


@pytest.fixture
def files(tmp_path: Path) -> VerdictFiles:
    return _files(tmp_path, "one")


def _files(folder: Path, session: str, cache: str = "auto", *, private: bool = False) -> VerdictFiles:
    store = RunStore(folder / "store", session_id(session), cache)  # type: ignore[arg-type]
    return store.experiment(key_of("key"), {"task": "t"}, private=private).verdicts


def test_the_first_look_at_a_number_of_runs_stays(files: VerdictFiles, tmp_path: Path) -> None:
    files.keep_look(GATE, LookTaken(12, 0.01, 0.02))
    _files(tmp_path, "two").keep_look(GATE, LookTaken(12, 0.5, 0.5))
    _files(tmp_path, "two").keep_look(GATE, LookTaken(4, 0.03, 0.04))
    assert files.looks(GATE) == [LookTaken(4, 0.03, 0.04), LookTaken(12, 0.01, 0.02)]


@pytest.mark.parametrize("cache", ["auto", "refresh", "off"])
def test_the_first_fail_stays_and_is_found_by_every_session(tmp_path: Path, cache: str) -> None:
    _files(tmp_path, "one", cache).keep_fail(GATE, 12, "too wide", "one")
    _files(tmp_path, "two").keep_fail(GATE, 3, "again", "two")
    for later in ("auto", "refresh", "off"):
        found = _files(tmp_path, "three", later).fail(GATE)
        assert found is not None
        assert (found.runs, found.reason, found.session) == (12, "too wide", "one")


def test_a_private_experiment_leaves_nothing(tmp_path: Path) -> None:
    files = _files(tmp_path, "one", private=True)
    files.keep_fail(GATE, 12, "too wide", "one")
    assert files.fail(GATE) is not None
    assert not list(tmp_path.glob("store/v*/*"))


def test_looks_of_an_earlier_version_count(files: VerdictFiles, tmp_path: Path) -> None:
    (folder,) = tmp_path.glob("store/v2/*")
    looks = [{"runs": 3, "alpha": 0.1, "beta": 0.1}, {"runs": 4, "alpha": 0.2, "beta": 0.2}]
    (folder / "gates").mkdir()
    (folder / "gates" / f"{GATE}.json").write_text(json.dumps({"looks": looks}))
    assert [look.runs for look in files.looks(GATE)] == [3, 4]


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"runs": "3"}', '{"runs": NaN, "reason": 7}', "[" * 100_000])
def test_what_is_damaged_is_no_look_and_still_a_fail(files: VerdictFiles, tmp_path: Path, damage: str) -> None:
    files.keep_look(GATE, LookTaken(4, 0.03, 0.04))
    files.keep_fail(GATE, 4, "too wide", "one")
    for path in tmp_path.glob("store/v2/*/gates/*"):
        path.write_text(damage)
    assert files.looks(GATE) == []
    assert files.fail(GATE) is not None
