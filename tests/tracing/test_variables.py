"""Reads and changes of environment variables are told, and the variables act as ever."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from stabilitykit.store import audit_events
from stabilitykit.store.imported_variables import SINCE, before_import
from stabilitykit.tracing import variables
from stabilitykit.tracing.variables import put_back


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    monkeypatch.setattr(audit_events, "_listeners", {})
    found: list[tuple[Any, ...]] = []

    def listener(event: str) -> audit_events.Listener:
        def listen(frame: FrameType, arguments: tuple[Any, ...]) -> None:
            if not arguments or "STABILITYKIT" in os.fsdecode(arguments[0]):  # pytest sets some of its own
                found.append((event, *arguments))

        return listen

    for event in (variables.READ, variables.SET, variables.ALL, variables.SHARED):
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


@pytest.fixture(autouse=True)
def nothing_set_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "_kept", {})
    monkeypatch.setattr(variables, "_shared", {})


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
        with put_back() as names:
            __import__("acme_settings")
            assert not names
            os.environ["ACME_IMPORTED"] = "2"  # by the training itself, later
        assert os.environ["ACME_IMPORTED"] == "1"
        assert before_import("ACME_IMPORTED", "1", {"acme_settings"}) == (None, "")

    @pytest.mark.usefixtures("settings")
    def test_an_import_outside_a_training_is_known_until_something_else_sets_the_variable(self) -> None:
        __import__("acme_settings")
        assert before_import("ACME_IMPORTED", "1", {"acme_settings"}) == (None, "")
        os.environ["ACME_IMPORTED"] = "3"
        assert before_import("ACME_IMPORTED", "3", {"acme_settings"}) == ("3", SINCE)


class TestSetOnce:
    """A training that sets a variable once a process gets it again in its later runs, as if it had stayed."""

    NAME = "ACME_ONCE"

    @pytest.fixture
    def owner(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv(self.NAME, "")
        monkeypatch.delenv(self.NAME)

        def function() -> None: ...

        with put_back(function):
            os.environ[self.NAME] = "0.3"
        assert self.NAME not in os.environ
        return function

    @pytest.mark.parametrize(
        "read",
        [
            lambda name: os.environ[name],
            lambda name: os.environ.get(name, "0.1"),
            lambda name: os.environ.setdefault(name, "0.1"),
            lambda name: "0.3" if name in os.environ else "0.1",
            lambda name: os.environb[name.encode()].decode(),
            os.environ.pop,
        ],
    )
    def test_a_later_run_reads_it_again_in_any_way(self, owner: Any, read: Callable[[str], str]) -> None:
        for _ in range(2):
            with put_back(owner):
                assert os.getenv(self.NAME, "0.1") == "0.3"
            assert self.NAME not in os.environ
        with put_back(owner):
            assert read(self.NAME) == "0.3"

    def test_it_is_kept_over_a_run_that_does_not_read_it(self, owner: Any) -> None:
        with put_back(owner):
            pass
        with put_back(owner):
            assert os.environ[self.NAME] == "0.3"

    def test_programs_that_the_run_starts_afterwards_see_it(self, owner: Any) -> None:
        ask = [sys.executable, "-c", f"import os; print(os.environ['{self.NAME}'])"]
        with put_back(owner):
            assert os.environ[self.NAME] == "0.3"
            assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "0.3\n"

    @pytest.mark.parametrize("other", [None, max])
    def test_another_owner_does_not_see_it(self, owner: Any, other: Any) -> None:
        with put_back(other):
            assert self.NAME not in os.environ

    def test_what_a_run_sets_or_removes_itself_counts(self, owner: Any) -> None:
        with put_back(owner):
            os.environ[self.NAME] = "0.5"
            assert os.environ[self.NAME] == "0.5"
        with put_back(owner):
            assert os.environ[self.NAME] == "0.5"
            del os.environ[self.NAME]
            assert self.NAME not in os.environ
        with put_back(owner):
            assert self.NAME not in os.environ

    def test_a_variable_that_is_set_around_the_run_is_read(self, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(self.NAME, "0.7")
        with put_back(owner):
            assert os.environ[self.NAME] == "0.7"
            del os.environ[self.NAME]
            assert self.NAME not in os.environ
        assert os.environ[self.NAME] == "0.7"

    def test_a_value_that_was_replaced_is_set_again_while_the_same_is_around(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(self.NAME, "0")
        with put_back(max):
            os.environ[self.NAME] = "1"
        with put_back(max):
            assert os.environ[self.NAME] == "1"
        assert os.environ[self.NAME] == "0"
        monkeypatch.delenv(self.NAME)
        with put_back(max):
            assert self.NAME not in os.environ

    def test_one_that_each_run_makes_longer_does_not_grow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(self.NAME, "0")
        for _ in range(4):
            with put_back(max):
                os.environ[self.NAME] += ":1"
                assert len(os.environ[self.NAME]) <= 5

    def test_one_that_is_removed_is_there_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(self.NAME, "0")
        for _ in range(3):
            with put_back(max):
                assert os.environ.pop(self.NAME) == "0"

    @pytest.mark.parametrize(
        "see",
        [
            lambda name: os.environ.copy()[name],
            lambda name: dict(os.environ)[name],
            lambda name: {**os.environ}[name],
            lambda name: dict(os.environ.items())[name],
            lambda name: copy.deepcopy(os.environ)[name],
            lambda name: (
                subprocess.run(["sh", "-c", f"printf ${name}"], capture_output=True, text=True, check=True).stdout
            ),
        ],
    )
    def test_copies_and_programs_see_it_before_it_is_read(self, owner: Any, see: Callable[[str], str]) -> None:
        with put_back(owner):
            assert see(self.NAME) == "0.3"

    def test_a_copy_is_no_change_of_the_variables(self, owner: Any, heard: list[tuple[Any, ...]]) -> None:
        with put_back(owner) as names:
            other = copy.deepcopy(os.environ)
            other[self.NAME] = "0.4"
            del other[self.NAME]
            os.putenv(self.NAME, "0.3")  # a copy of Python's sets that of the process
            assert (other.get(self.NAME), os.environ[self.NAME]) == (None, "0.3")
        assert not names
        assert variables.SET not in [event[0] for event in heard]

    def test_variables_that_a_training_replaces_are_python_s_again(self) -> None:
        before = os.environ
        with put_back():
            os.environ = {}  # type: ignore[assignment]  # noqa: B003  # as a test may
        assert os.environ is before

    def test_the_names_that_were_set_are_told(self) -> None:
        with put_back() as names:
            os.environ[self.NAME] = "1"
        assert list(names) == [self.NAME]

    @pytest.mark.parametrize("inner", [None, max])
    def test_a_run_within_a_run_leaves_it_to_the_outer_one(self, owner: Any, inner: Any) -> None:
        with put_back(owner):
            with put_back(inner):
                assert os.environ[self.NAME] == "0.3"
                del os.environ[self.NAME]
                assert self.NAME not in os.environ
            assert os.environ[self.NAME] == "0.3"
        with put_back(inner):
            assert self.NAME not in os.environ
        with put_back(owner):
            assert os.environ[self.NAME] == "0.3"

    def test_it_is_told_as_it_was_before_the_run(self, heard: list[tuple[Any, ...]]) -> None:
        name, owner = "STABILITYKIT_ONCE", object()  # an owner without weak references
        with put_back(owner):
            os.environ[name] = "1"
        heard.clear()
        with put_back(owner):
            assert os.environ[name] == os.environ[name] == "1"
            os.environ[name] = "2"
            assert os.environ[name] == "2"
            read = [event[2] for event in heard if event[0] == variables.READ]
        assert read == [None, None, "2"]

    def test_an_owner_that_is_gone_is_forgotten(self) -> None:
        def function() -> None: ...

        with put_back(function):
            os.environ[self.NAME] = "0.3"
        gone = id(function)
        assert gone in variables._kept
        del function
        assert gone not in variables._kept


class TestShared:
    """What a function that trainings call has set once a process is set again for trainings of others too."""

    NAME = "STABILITYKIT_SHARED"

    @pytest.fixture
    def set_up(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        monkeypatch.setenv(self.NAME, "")
        monkeypatch.delenv(self.NAME)

        @functools.cache
        def set_up() -> None:
            os.environ[self.NAME] = "0.3"

        with put_back(object()):
            set_up()
        assert self.NAME not in os.environ
        return set_up

    @pytest.mark.parametrize("other", [None, max])
    def test_another_owner_gets_it_and_it_counts_as_unset_and_is_told(
        self, set_up: Callable[[], None], heard: list[tuple[Any, ...]], other: Any
    ) -> None:
        for _ in range(2):
            with put_back(other):
                heard.clear()
                set_up()
                assert os.environ[self.NAME] == "0.3"
                assert heard == [(variables.SHARED, self.NAME), (variables.READ, self.NAME, None)]
        with put_back(other):
            os.environ[self.NAME] = "0.5"
            heard.clear()
            assert os.environ[self.NAME] == "0.5"
            assert heard == [(variables.READ, self.NAME, "0.5")]

    def test_what_a_training_itself_has_set_is_its_own(self) -> None:
        with put_back(max):
            os.environ[self.NAME] = "1"
        with put_back(min):
            assert self.NAME not in os.environ

    def test_what_a_later_training_of_the_same_sets_again_is_not_set_for_others(self) -> None:
        def set_up() -> None:
            os.environ[self.NAME] = "1"

        for _ in range(3):
            with put_back(max):
                set_up()
        with put_back(min):
            assert self.NAME not in os.environ

    def test_a_value_around_it_counts(self, set_up: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(self.NAME, "0.7")
        with put_back(max):
            assert os.environ[self.NAME] == "0.7"
