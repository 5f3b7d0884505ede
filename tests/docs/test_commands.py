"""The page on commands: its script, its command lines and its test give what it shows."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stabilitykit.__main__ import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
SCRIPT, TEST = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CONSOLES = "".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
SHOWN = re.findall(r"^\$ (stabilitykit .*)\n((?:(?!\$ ).*\n)*)", CONSOLES, re.MULTILINE)
CODES = {"FAIL ": 1, "is higher": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    return tmp_path


def test_the_page_has_its_command_lines() -> None:
    assert len(SHOWN) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_command_lines_give_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for line, shown in SHOWN:
        code = main(shlex.split(line)[1:])
        out, err = capsys.readouterr()
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert doctest.OutputChecker().check_output(shown, out, flags), f"{line}\n{out}\n{err}"
        assert code == next((code for text, code in CODES.items() if text in shown), 0), line


@pytest.mark.slow
def test_the_test_passes(folder: Path) -> None:
    (folder / "test_train.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
