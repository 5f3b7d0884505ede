"""Only the store spells a path in it, and each name that several modules need is spelt once."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stabilitykit.store import layout
from stabilitykit.store.layout import FILE, LAYOUT, Folder
from tests.store_names import key_of, session_id

PACKAGE = Path(layout.__file__).parents[1]
SOURCES = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
SHARED = {layout.STORE, layout.FORMAT_FILE, layout.ABOUT, layout.CLAIMS_LOCK, layout.LIVING_LOCK, layout.OWNERS_LOCK}


def joined_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of each `path / "name"`; what an f-string fills in is a 7."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = node.right.values if isinstance(node.right, ast.JoinedStr) else [node.right]
            texts = [part.value if isinstance(part, ast.Constant) else "7" for part in parts]
            if any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts):
                yield node.lineno, "".join(map(str, texts))


def is_of_a_store(name: str, folder: Folder = LAYOUT) -> bool:
    """Whether stabilitykit writes a file or folder of this name anywhere in a store."""
    ours = {form: entry for form, entry in folder.entries.items() if not re.fullmatch(form, "a-baseline")}
    below = (entry for entry in folder.entries.values() if isinstance(entry, Folder))
    return Folder(ours).find(name) is not None or any(is_of_a_store(name, entry) for entry in below)


def paths_spelt_in(source: str) -> list[str]:
    return [f"line {line}: {name}" for line, name in joined_names(source) if is_of_a_store(name)]


@pytest.mark.parametrize("module", [name for name in SOURCES if not name.startswith("store/")])
def test_only_the_store_spells_a_path_in_it(module: str) -> None:
    assert not paths_spelt_in(SOURCES[module])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHARED))
def test_a_name_that_several_modules_need_is_spelt_once(name: str) -> None:
    spelt = [
        module
        for module, source in SOURCES.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and node.value == name
    ]
    assert spelt == ["store/layout.py"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('store / "sessions" / name', ["line 1: sessions"]),
        ('store / f"v{FORMAT}" / key', ["line 1: v7"]),
        ('folder / f"{test}.{call}.settled"', ["line 1: 7.7.settled"]),
        ('folder / "claims.lock"', ["line 1: claims.lock"]),
        ('rootdir / "stability-budgets.toml"', []),
        ("seconds / 60", []),
    ],
)
def test_a_spelt_path_is_found(line: str, found: list[str]) -> None:
    assert paths_spelt_in(line) == found


@pytest.mark.parametrize("is_private", [False, True])
def test_every_place_is_one_that_may_be_removed(is_private: bool) -> None:
    store, key = Path("store"), key_of("a")
    session = store / layout.SESSIONS / session_id("one")
    folder = session / layout.PRIVATE / key if is_private else store / layout.EXPERIMENTS / key
    places = [
        store / layout.FORMAT_FILE,
        folder / layout.ABOUT,
        folder / layout.CLAIMS_LOCK,
        session / layout.LIVING_LOCK,
        session / layout.OWNERS_LOCK,
        layout.task_log(session / layout.TASKS, 255),
        layout.file_of_test(session, 3, "begun"),
        layout.file_of_test(session, 3, "settled", call=0),
    ]
    for place in places:
        rule: object = LAYOUT
        for name in place.relative_to(store).parts:
            assert isinstance(rule, Folder)
            rule = rule.find(name)
        assert rule is FILE, place
