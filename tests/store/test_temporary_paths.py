"""Paths out of temporary folders count by what is in them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from stabilitykit.store import temporary_paths
from stabilitykit.store.fingerprint import fingerprint
from stabilitykit.store.temporary_paths import TemporaryPaths, choose_temporary


@pytest.fixture
def root(tmp_path_factory, monkeypatch):
    """A folder for temporary files, which is not that of this very test."""
    root = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    return root


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", [str, Path])
def test_two_folders_of_one_content_are_one(root, tmp_path, kind):
    one, two, other, empty = (
        write(root / name, **f) for name, f in {"a": {"x": "1"}, "b": {"x": "1"}, "c": {"x": "2"}, "d": {}}.items()
    )
    prints = [
        fingerprint(kind(path), tmp_path) for path in (one, two, other, empty, one / "x", two / "x", root / "none")
    ]
    assert prints[0] == prints[1]
    assert prints[4] == prints[5]
    assert len(set(prints)) == 4  # a folder without files is as one that is not there


def test_a_name_elsewhere_is_a_name(root, tmp_path):
    assert fingerprint("/data/a", tmp_path) != fingerprint("/data/b", tmp_path)
    assert TemporaryPaths(tmp_path).content_of(str(tmp_path / "data")) is None
    assert TemporaryPaths(None).content_of(str(root)) is None  # all of it


def test_a_project_in_a_temporary_folder_is_no_temporary_file(root):
    write(root / "project/data", x="1")
    assert TemporaryPaths(root / "project").content_of(str(root / "project/data")) is None
    assert TemporaryPaths(root / "deeper/project").content_of(str(root / "deeper")) is None
    assert TemporaryPaths(root / "other").content_of(str(root / "project/data")) is not None


def test_a_folder_that_pytest_was_told_is_temporary_in_the_project_too(root, monkeypatch, tmp_path):
    monkeypatch.setattr(temporary_paths, "_chosen", [])
    choose_temporary(tmp_path / "base")
    one, two = (write(tmp_path / f"base/{name}", x="1") for name in "ab")
    assert TemporaryPaths(tmp_path).content_of(str(one)) == TemporaryPaths(tmp_path).content_of(str(two)) is not None
    assert fingerprint(one, tmp_path) == fingerprint(two, tmp_path)


def test_of_much_only_sizes_and_times_count_and_its_place(root, tmp_path, monkeypatch):
    monkeypatch.setattr(temporary_paths, "_MOST_BYTES", 1)
    one, two = (write(root / name, x="123") for name in "ab")
    paths = TemporaryPaths(tmp_path)
    assert paths.content_of(str(one)) != paths.content_of(str(two))
    assert paths.content_of(str(one)) == paths.content_of(str(one))
