"""Reads and changes of environment variables are told, and the variables act as ever."""

from __future__ import annotations

import os
from types import FrameType
from typing import Any

import pytest

from stabilitykit.store import audit_events
from stabilitykit.training import variables


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setattr(audit_events, "_listeners", {})
    found: list[tuple[Any, ...]] = []

    def listener(event: str) -> audit_events.Listener:
        def listen(frame: FrameType, arguments: tuple[Any, ...]) -> None:
            if not arguments or "STABILITYKIT" in os.fsdecode(arguments[0]):  # pytest sets some of its own
                found.append((event, *arguments))

        return listen

    for event in (variables.READ, variables.SET, variables.ALL):
        audit_events.listen(event, listener(event))
    return found


def test_what_is_read_set_and_removed_is_told(heard: list[tuple[Any, ...]]) -> None:
    assert os.environ.get("STABILITYKIT_X") is None
    os.environ["STABILITYKIT_X"] = "1"
    assert os.getenv("STABILITYKIT_X") == "1"
    del os.environ["STABILITYKIT_X"]
    name = "STABILITYKIT_X"
    reads = [("variable read", name, None), ("variable set", name), ("variable read", name, "1")]
    assert heard == [*reads, ("variable set", name)]


def test_bytes_are_told_too(heard: list[tuple[Any, ...]]) -> None:
    assert os.environb.get(b"STABILITYKIT_X") is None
    assert heard == [("variable read", b"STABILITYKIT_X", None)]


def test_reading_all_is_told(heard: list[tuple[Any, ...]]) -> None:
    assert "PATH" in list(os.environ)
    assert ("variables read",) in heard


def test_the_variables_stay_the_object_that_python_made() -> None:
    assert isinstance(os.environ, os._Environ)
    assert dict(os.environ.copy()) == dict(os.environ)
