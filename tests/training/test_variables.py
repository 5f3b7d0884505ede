"""Reads and changes of environment variables are told, and the variables act as ever."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from stabilitykit.store import audit_events
from stabilitykit.store.imported_variables import before_import
from stabilitykit.training import variables
from stabilitykit.training.variables import put_back


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
    assert heard == [
        ("variable read", name, None),
        ("variable set", name, None),
        ("variable read", name, "1"),
        ("variable set", name, "1"),
    ]


def test_bytes_are_told_too(heard: list[tuple[Any, ...]]) -> None:
    assert os.environb.get(b"STABILITYKIT_X") is None
    assert heard == [("variable read", b"STABILITYKIT_X", None)]


def test_reading_all_is_told(heard: list[tuple[Any, ...]]) -> None:
    assert "PATH" in list(os.environ)
    assert ("variables read",) in heard


def test_the_variables_stay_the_object_that_python_made() -> None:
    assert isinstance(os.environ, os._Environ)
    assert dict(os.environ.copy()) == dict(os.environ)


class TestPutBack:
    """What a training sets is gone afterwards, and what a test has set around it stays."""

    def test_set_changed_and_removed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ACME_KEPT", "0")
        monkeypatch.setenv("ACME_REMOVED", "0")
        before = dict(os.environ)
        with contextlib.suppress(ZeroDivisionError), put_back():
            os.environ["ACME_KEPT"] = "1"
            os.environb[b"ACME_NEW"] = b"1"
            del os.environ["ACME_REMOVED"]
            raise ZeroDivisionError
        assert dict(os.environ) == before

    @pytest.fixture
    def settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "acme_settings.py").write_text("import os\nos.environ.setdefault('ACME_IMPORTED', '1')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("ACME_IMPORTED", "")
        monkeypatch.delenv("ACME_IMPORTED")
        monkeypatch.setitem(sys.modules, "acme_settings", sys)
        monkeypatch.delitem(sys.modules, "acme_settings")

    @pytest.mark.usefixtures("settings")
    def test_what_an_import_sets_stays_as_the_module_does_and_is_known(self) -> None:
        with put_back():
            __import__("acme_settings")
            os.environ["ACME_IMPORTED"] = "2"  # by the training itself, later
        assert os.environ["ACME_IMPORTED"] == "1"
        assert before_import("ACME_IMPORTED", "1", {"acme_settings"}) is None

    @pytest.mark.usefixtures("settings")
    def test_an_import_outside_a_training_is_known_until_something_else_sets_the_variable(self) -> None:
        __import__("acme_settings")
        assert before_import("ACME_IMPORTED", "1", {"acme_settings"}) is None
        os.environ["ACME_IMPORTED"] = "3"
        assert before_import("ACME_IMPORTED", "3", {"acme_settings"}) == "3"
