"""A link of which the target is asked for is told, and the target is the system's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stabilitykit.store import audit_events
from stabilitykit.tracing import links


def test_each_way_to_resolve_a_link_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path.resolve()
    (folder / "data").symlink_to(folder / "v1")
    monkeypatch.setattr(audit_events, "_listeners", {})
    heard: list[str] = []
    audit_events.listen(links.READ, lambda frame, arguments: heard.append(os.fsdecode(arguments[0])))
    assert os.path.realpath(folder / "data") == str((folder / "data").resolve()) == str(folder / "v1")
    assert (folder / "data").readlink() == folder / "v1"
    assert heard == 3 * [str(folder / "data")]


def test_a_path_that_is_no_link_raises_as_ever(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        tmp_path.readlink()


def test_the_system_can_still_do_with_it_what_it_could() -> None:
    assert (os.readlink in os.supports_dir_fd) == (os.stat in os.supports_dir_fd)
