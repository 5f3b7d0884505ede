"""Advice on settings is data: a script reads arguments, and the pytest plugin writes its options."""

from __future__ import annotations

import ast
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from stabilitykit import errors
from stabilitykit.errors import BudgetError, MissingModuleError, StabilityError, setting, spell_settings
from stabilitykit.plugin.options import OPTIONS

PACKAGE = Path(errors.__file__).parent
SOURCES = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
CLASSES = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, StabilityError)}
OPTION = "--" + "stability-"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts as a script has them: in this process the plugin writes its options."""
    monkeypatch.setattr(errors, "_spellings", errors._spellings[:1])


@pytest.mark.usefixtures("script")
def test_a_script_reads_arguments() -> None:
    error = BudgetError("Expected 3 runs or more.", runs=10, update=True)
    assert str(error) == "Expected 3 runs or more. Set runs=10 update=True."
    assert error.advice == {"runs": 10, "update": True}
    assert setting("run_timeout") == "run_timeout"


def test_under_pytest_the_options_are_named() -> None:
    error = BudgetError("Expected 3 runs or more.", runs=10, update=True)
    assert str(error) == f"Expected 3 runs or more. Set {OPTION}runs 10 {OPTION}update."
    assert setting("store", "PATH") == f"{OPTION}store=PATH"


def test_an_error_without_advice_is_its_message() -> None:
    assert str(StabilityError("No.")) == "No."
    assert str(MissingModuleError("No module.")) == "No module."
    assert isinstance(MissingModuleError("No module."), ImportError)


@pytest.mark.parametrize("kind", [BudgetError, MissingModuleError])
def test_advice_comes_back_from_a_child_process(kind: type[StabilityError]) -> None:
    error = kind("Expected more.", runs=10)
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.advice) == (str(error), {"runs": 10})


def test_a_spelling_lasts_until_it_is_undone() -> None:
    before = setting("runs", 2)
    undo = spell_settings(lambda name, value: f"<{name} {value}>")
    assert str(StabilityError("No.", runs=2)) == "No. Set <runs 2>."
    undo()
    assert setting("runs", 2) == before


@pytest.mark.parametrize("module", [name for name in SOURCES if not name.startswith(("plugin/", "cli.", "__main__."))])
def test_the_core_does_not_know_the_options_of_pytest(module: str) -> None:
    assert OPTION not in SOURCES[module]


def settings_in(source: str) -> Iterator[str]:
    """The names of settings in calls of `setting` and in the advice of errors."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in CLASSES:
                yield from (keyword.arg or "**" for keyword in node.keywords)
            if node.func.id == "setting" and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def test_settings_are_found() -> None:
    assert set(settings_in("raise StoreError(text, runs=2)\nf'{setting(\"seed\")}'")) == {"runs", "seed"}


@pytest.mark.parametrize("module", SOURCES)
def test_every_setting_is_an_option(module: str) -> None:
    assert set(settings_in(SOURCES[module])) <= {option.name for option in OPTIONS}
