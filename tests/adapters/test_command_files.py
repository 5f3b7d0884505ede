"""The files of a command: which of its words are files, where its scripts import from, and which program it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stabilitykit.adapters.command_files import CommandFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "scripts/train.py": "import pkg.net\n",
        "scripts/pkg/__init__.py": "",
        "scripts/pkg/net.py": "import common\nimport shared\n",
        "scripts/common.py": "",
        "scripts/unused.py": "",
        "more/shared.py": "",
        "settings.yaml": "",
        "data/a.csv": "1",
        "data/deep/b.csv": "2",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def files_of(folder: Path, *command: str, inputs: tuple[str, ...] = (), env: dict[str, str] | None = None) -> set[str]:
    found = CommandFiles(command, folder, {} if env is None else env, inputs).read().parts
    return {name.removeprefix("file ") for name in found if name.startswith("file ")}


CODE = {"scripts/train.py", "scripts/pkg/__init__.py", "scripts/pkg/net.py", "scripts/common.py"}


def test_a_script_counts_with_what_it_imports_from_beside_it(folder: Path) -> None:
    """Modules in a package find those beside the script, as the folder of the script is on its path."""
    assert files_of(folder, "python", "scripts/train.py") == CODE


def test_a_script_finds_modules_on_its_path(folder: Path) -> None:
    assert files_of(folder, "python", "scripts/train.py", env={"PYTHONPATH": "more"}) == {*CODE, "more/shared.py"}


@pytest.mark.parametrize("word", ["settings.yaml", "--config=settings.yaml", "config=settings.yaml"])
def test_a_file_that_a_word_names_counts(folder: Path, word: str) -> None:
    assert files_of(folder, "./train", word) == {"settings.yaml"}


def test_a_word_with_a_placeholder_and_a_folder_are_no_files(folder: Path) -> None:
    (folder / "{seed}").write_text("")
    assert files_of(folder, "./train", "{seed}", "data") == set()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("data/*.csv", {"data/a.csv"}),
        ("data/**/*.csv", {"data/a.csv", "data/deep/b.csv"}),
        ("data", {"data/a.csv", "data/deep/b.csv"}),
        ("settings.yaml", {"settings.yaml"}),
    ],
)
def test_inputs_are_files_patterns_and_folders(folder: Path, pattern: str, found: set[str]) -> None:
    assert files_of(folder, "./train", inputs=(pattern,)) == found
    absolute = files_of(folder, "./train", inputs=(str(folder / pattern),))
    assert absolute == found


def test_files_are_named_from_the_folder_of_the_repository(folder: Path) -> None:
    (folder / ".git").mkdir()
    command = CommandFiles(["python", "common.py"], folder / "scripts", {})
    assert "file scripts/common.py" in command.read().parts


def test_a_package_of_others_counts_by_its_version(folder: Path) -> None:
    (folder / "scripts/common.py").write_text("import numpy\n")
    assert "package numpy" in CommandFiles(["python", "scripts/train.py"], folder, {}).read().parts


def test_a_change_is_found_by_the_state_of_the_file(folder: Path) -> None:
    read = CommandFiles(["python", "scripts/train.py", "settings.yaml"], folder, {}).read()
    assert read.changed() == []
    (folder / "settings.yaml").write_text("a")
    (folder / "scripts/common.py").unlink()
    assert read.changed() == ["common.py", "settings.yaml"]


def test_a_program_is_found_beside_the_folder_and_on_the_path(folder: Path) -> None:
    program = folder / "bin" / "tool"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert CommandFiles(["bin/tool"], folder, {}).program == program
    assert CommandFiles(["tool"], folder, {"PATH": str(program.parent)}).program == program
    assert CommandFiles(["tool"], folder, {}).program is None


def test_this_python_is_known_by_its_place(folder: Path) -> None:
    assert CommandFiles([sys.executable], folder, {}).is_this_python
    here = str(Path(sys.executable).parent)
    assert CommandFiles([Path(sys.executable).name], folder, {"PATH": here}).is_this_python
    other = folder / "python"
    other.symlink_to(sys.executable)
    assert not CommandFiles([str(other)], folder, {}).is_this_python


def test_a_module_is_found_by_its_name(folder: Path) -> None:
    (folder / "scripts/pkg/__main__.py").write_text("")
    base = {"scripts/pkg/__init__.py", "scripts/pkg/net.py", "scripts/common.py"}
    env = {"PYTHONPATH": "scripts"}
    assert files_of(folder, "python", "-m", "pkg.net", env=env) == base
    assert files_of(folder, "python", "-m", "pkg", env=env) == {"scripts/pkg/__init__.py", "scripts/pkg/__main__.py"}
    assert files_of(folder, "python", "-m", "none_such") == set()
