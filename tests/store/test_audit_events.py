"""Audit events reach each function that asks for them, with the frame that caused them."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from stabilitykit.store import audit_events


def test_each_listener_gets_its_event_and_the_frame_that_caused_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_events, "_listeners", {})
    heard: list[tuple[str, str, tuple[Any, ...]]] = []

    def listener(name: str) -> audit_events.Listener:
        def listen(frame: FrameType, arguments: tuple[Any, ...]) -> None:
            heard.append((name, frame.f_code.co_name, arguments))

        return listen

    audit_events.listen("test.one", listener("first"))
    audit_events.listen("test.one", listener("second"))
    audit_events.listen("test.two", listener("other"))

    def cause() -> None:
        sys.audit("test.one", 1, "a")
        sys.audit("test.three")

    cause()
    assert heard == [("first", "cause", (1, "a")), ("second", "cause", (1, "a"))]
