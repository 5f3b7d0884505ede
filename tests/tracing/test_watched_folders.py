"""Data count wherever users keep them, and files of the system do not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from stabilitykit.tracing.watched_folders import is_watched
from tests.tracing.reading import read_in


@pytest.mark.parametrize(
    "folder",
    [
        "/dev/shm",
        "/dev/shm/job/data",
        "/usr/src/data",
        "/usr/local/share/sets",
        "/run/media/me/disk",
        "/mnt",
        "/home",
    ],
)
def test_a_place_of_data(tmp_path, folder):
    assert is_watched(folder, tmp_path)


@pytest.mark.parametrize(
    "folder",
    ["/dev", "/proc/self", "/usr/share/zoneinfo", "/usr/local/lib/x", "/usr/lib", "/etc", "/run", "/usr/s"],
)
def test_a_place_of_the_system(tmp_path, folder):
    assert not is_watched(folder, tmp_path)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="this system has no files in memory")
def test_a_file_in_memory_is_an_input(root):
    with tempfile.NamedTemporaryFile("w", dir="/dev/shm") as file:
        inputs = read_in(root, lambda: Path(file.name).read_text())
        assert inputs.changed(root) == ()
        print(2, file=file, flush=True)
        assert inputs.changed(root) == (f"file {file.name} (edited)",)
