"""The platforms of tests/platforms.py change what they say, in child processes too, and what fails on one is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import platforms

#: What torch says of itself in C++ tells the threads that it has, whatever the functions of Python say.
ASK = """
import re, torch
torch.set_num_threads(1)
threads = re.search(r"at::get_num_threads\\(\\) : (\\d+)", torch.__config__.parallel_info())[1]
print(torch.backends.mkldnn.enabled, threads, torch.get_num_threads())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "said"), [("mkldnn-off", "False 1 1"), ("threads-2", "True 2 1"), ("native", "True 1 1")]
)
def test_what_no_variable_of_torchs_own_changes_is_changed_in_the_child_of_a_child(platform: str, said: str) -> None:
    script = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {ASK!r}]))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=platforms.environment(platform), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said


def test_a_platform_has_its_own_variables_and_none_of_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("STABILITYKIT_TEST_SEED", "9")
    native = platforms.environment("native", seed=3)
    assert "MKL_CBWR" not in native
    assert native["STABILITYKIT_TEST_SEED"] == "3"
    assert platforms.environment("mkl-compatible")["MKL_CBWR"] == "COMPATIBLE"


def test_what_fails_on_a_platform_fails_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_any.py").write_text("def test_a(): pass\ndef test_b(): assert False, 'planted'\n")
    found = platforms.run("native", 0, [str(tmp_path)], workers=0)
    assert (found.passed, found.failed, found.code) == (1, 1, 1)
    assert str(found).startswith("1 passed, 1 FAILED in ")
    assert "planted" in found.output


def test_the_files_that_train_are_found_by_their_marker() -> None:
    files = platforms.files_that_train()
    assert {"tests/training/test_trainer.py", "tests/zoo/test_remedies.py", "tests/options/test_check.py"} <= set(files)
    assert "tests/store/test_byte_locks.py" not in files
