"""The one reader of files of a store: what it refuses, and what it tells from damage."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from stabilitykit.cli import main
from stabilitykit.errors import StabilityError, StoreError
from stabilitykit.execution.question import Question
from stabilitykit.execution.session import Session, check, measure
from stabilitykit.plugin.askers import Place
from stabilitykit.plugin.baselines import Baselines
from stabilitykit.plugin.budget_file import BudgetFile
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store import reading
from stabilitykit.store.reading import Damaged, harmless, open_file, read_bytes, read_json, typed
from stabilitykit.testing import FakeTask
from stabilitykit.verdicts.budgets import Budget
from tests.store.hostile_files import Attack, in_place_of_files, of_fields, of_json


@pytest.fixture
def no_hang() -> Iterator[None]:
    """End a test that waits."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("attack", [*in_place_of_files(), *of_json()], ids=lambda attack: attack.name)
def test_what_is_no_json_of_ours_is_none(tmp_path: Path, attack: Attack) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    attack.spoil(path)
    assert read_json(path) is None or attack.name == "an empty object"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_what_the_system_does_not_let_us_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(reading.os, "open", refuse)
    with pytest.raises(StoreError, match=r"Expected to read .*a\.json but got: "):
        read_json(path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_runs_that_cannot_be_read_are_not_trained_again(
    make_session: Callable[..., Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    protocol = NoiseProtocol("init", runs=2)
    measure(FakeTask(), protocol, session=make_session("one"))
    opening = os.open

    def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if str(path).endswith(suffix):
            raise OSError(code, os.strerror(code), str(path))
        return opening(path, flags, *more, **named)

    for suffix in ("0000.json", ".npy"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            with pytest.raises(StoreError, match="Expected to read "):
                measure(FakeTask(), protocol, session=make_session(f"two{suffix}"))
        assert not list(tmp_path.glob("store/v2/*/old/*"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(Damaged, match="has 5 bytes, more than the 4 that are read"):
        read_bytes(tmp_path / "a", 4)


def test_a_link_is_followed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to("a")
    with open_file(tmp_path / "link", follow=True) as file:
        assert file.read() == b"1"
    with pytest.raises(Damaged):
        open_file(tmp_path / "link")


@dataclass(frozen=True)
class Shape:
    number: int
    rate: float
    text: str | None
    parts: list[dict[str, int]]
    kind: Literal["a", "b"] = "a"


GOOD = {"number": 1, "rate": 2, "text": None, "parts": [{"x": 1}]}


def test_values_have_the_types_of_their_fields() -> None:
    assert typed(GOOD, Shape) == Shape(1, 2, None, [{"x": 1}])
    for wrong in (
        *({name: value for name, value in GOOD.items() if name != left_out} for left_out in GOOD),
        *(GOOD | {"number": value} for value in (True, 1.5, "1", None, 10**30)),
        *(GOOD | {"rate": value} for value in (float("nan"), float("inf"), True, "1", 10**400)),
        *(GOOD | {"parts": value} for value in ({}, [1], [{"x": "1"}], [{"x": None}])),
        GOOD | {"text": 1},
        GOOD | {"kind": "c"},
    ):
        assert typed(wrong, Shape) is None, wrong


def test_what_acts_on_a_terminal_is_shown_as_an_escape(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a\x1b": ["\x07\ud800\x9b", "two\nlines\t"]}))
    assert read_json(path, escape=True) == {"a\\x1b": ["\\x07\\ud800\\x9b", "two\nlines\t"]}
    assert harmless("\u202egreen") == "\\u202egreen"


# Every file of a store


TASK, PROTOCOL = FakeTask(examples=12), NoiseProtocol("init", runs=3)
BUDGET = Budget(accuracy_sd=0.01)
LEFT = {"session": "x", "worker": "w", "pid": 1, "host": "h", "started": 1.0, "deaths": [{"pid": 2, "reason": "r"}]}


def _fill(session: Session) -> Path:
    """Make a store with one file of each kind, and return it."""
    check(TASK, PROTOCOL, budget=BUDGET, session=session)
    _compare(session, save="main")
    store = session.store.folder
    (_one(store, "v2/*/claims") / "0001.json").write_text(json.dumps(LEFT))
    return store


def _one(store: Path, kind: str) -> Path:
    """The file of a kind: in the experiment that was judged, or where the base run lies if that one has none."""
    found = list(store.glob(kind))
    judged = [path for path in found if any((parent / "gates").is_dir() for parent in path.parents)]
    (path,) = judged or found
    return path


def _compare(session: Session, **names: str) -> None:
    baselines, asked = Baselines(session.store.session, **names), session.prepare(Question.of(TASK, PROTOCOL))
    awaited = baselines.prepare(asked, session.store.folder, Place("t.py::t", 0))
    if awaited is not None:
        baselines.receive(awaited, session.train(asked), "t.py::t")


#: Each kind of file, and what reads it.
KINDS = {
    "v2/*/runs/0001.json": ("check", "verify", "show", "prune"),
    "v2/*/runs/0001.*.npy": ("check", "verify"),
    "v2/*/claims/0001.json": ("check", "list"),
    "v2/*/claims.lock": ("check", "list"),
    "v2/*/certificate.json": ("check",),
    "v2/*/inputs/*.json": ("check",),
    "v2/*/gates/*.0003.json": ("check",),
    "v2/*/gates/*.fail.json": ("check",),
    "v2/*/experiment.json": ("check", "list", "show"),
    "baselines/main/*.json": ("compare", "list"),
    "baselines/main/*.npy": ("compare",),
    "FORMAT": ("check", "list"),
}


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_lies_in_a_store_is_mended_or_one_clear_error(
    make_session: Callable[..., Session], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = _fill(make_session("fill"))
    attacks = [*in_place_of_files(), *(of_json() if kind.endswith(".json") else ())]
    for number, attack in enumerate(attacks):
        _try(make_session, store, f"{number}", kind, attack, capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith(".json")])
def test_whatever_a_field_holds_is_mended_or_one_clear_error(
    make_session: Callable[..., Session], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = _fill(make_session("fill"))
    path = _one(store, kind)
    for number, attack in enumerate(of_fields(json.loads(path.read_text()))):
        if number % 7 == 0:  # 12 wrong values a field: over the fields, each is tried
            _try(make_session, store, f"field{number}", kind, attack, capsys)


def _try(
    make_session: Callable[..., Session],
    filled: Path,
    name: str,
    kind: str,
    attack: Attack,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for doing in KINDS[kind]:
        signal.alarm(60)
        folder = f"{name}-{doing}"
        store = filled.with_name(folder)
        shutil.copytree(filled, store)
        path, key = _one(store, kind), _one(store, "v2/*/gates").parent.name
        attack.spoil(path)
        with contextlib.suppress(StabilityError):  # any other error, and a wait without end, is what must not be
            if doing == "check":
                check(TASK, PROTOCOL, budget=BUDGET, session=make_session("later", folder=folder))
            elif doing == "compare":
                _compare(make_session("later", folder=folder), compare="main")
            else:
                more = {"show": [key], "prune": ["--failed"]}.get(doing, [])
                main(["--store", str(store), doing, *more])
        written = "".join(capsys.readouterr())
        assert "\x1b" not in written, attack.name


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("attack", [*in_place_of_files()], ids=lambda attack: attack.name)
def test_a_budget_file_is_read_or_one_clear_error(tmp_path: Path, attack: Attack) -> None:
    path = tmp_path / "stability-budgets.toml"
    path.write_text("format = 1\n")
    attack.spoil(path)
    with contextlib.suppress(StabilityError):
        assert BudgetFile.read(path).entries == ()
