"""A command in a group of its own: how it ends, and that nothing of it is left however we end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stabilitykit.adapters.supervised import NotStarted, TimeIsUp, run_supervised

#: Starts a process in its group, and one in a group of its own, notes their numbers, and waits.
PARENT = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
pids = [subprocess.Popen(sleep).pid, subprocess.Popen(sleep, start_new_session=True).pid]
open("pids.new", "w").write(" ".join(map(str, pids)))
import os
os.rename("pids.new", "pids")
"""
WAIT = "\ntime.sleep(600)\n"


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def run(folder: Path, *command: str, timeout: float | None = None) -> int:
    return run_supervised(command, cwd=folder, env=os.environ, log=folder / "log", timeout=timeout)


def python(folder: Path, code: str, timeout: float | None = None) -> int:
    return run(folder, sys.executable, "-c", code, timeout=timeout)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids_in(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def all_end(pids: Sequence[int]) -> Callable[[], bool]:
    return lambda: not any(map(is_running, pids))


def test_both_outputs_of_a_command_are_in_its_log_in_order(tmp_path: Path) -> None:
    code = "import os; os.write(1, b'one '); os.write(2, b'two '); os.write(1, b'three')"
    assert python(tmp_path, code) == 0
    assert (tmp_path / "log").read_text() == "one two three"


def test_the_exit_code_of_a_command_is_returned(tmp_path: Path) -> None:
    assert python(tmp_path, "raise SystemExit(7)") == 7
    assert python(tmp_path, "import os; os.kill(os.getpid(), 9)") == -signal.SIGKILL


def test_a_command_finds_its_folder_its_variables_and_no_input(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['A'], repr(sys.stdin.read()))"
    env = {**os.environ, "A": "b"}
    assert run_supervised([sys.executable, "-c", code], cwd=tmp_path, env=env, log=tmp_path / "log") == 0
    assert (tmp_path / "log").read_text() == f"{tmp_path.resolve()} b ''\n"


def test_a_command_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="No such file"):
        run(tmp_path, str(tmp_path / "none"))


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    assert python(tmp_path, PARENT) == 0
    assert all_end(pids_in(tmp_path))()


def test_the_time_limit_ends_a_command_and_its_children(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TimeIsUp):
        python(tmp_path, PARENT + WAIT, timeout=1)
    assert time.monotonic() - began < 10
    assert all_end(pids_in(tmp_path))()


def test_a_command_that_hears_no_signal_is_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    with pytest.raises(TimeIsUp):
        python(tmp_path, f"import os; open('pids', 'w').write(str(os.getpid())); {deaf}", timeout=1)
    assert all_end(pids_in(tmp_path))()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_command_ends_with_the_process_that_asked_for_it(tmp_path: Path, number: int) -> None:
    asking = (
        "import os, sys; from pathlib import Path; from stabilitykit.adapters.supervised import run_supervised\n"
        "run_supervised([sys.executable, '-c', sys.argv[1]], cwd=Path('.'), env=os.environ, log=Path('log'))"
    )
    command = [sys.executable, "-c", asking, PARENT + WAIT]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as asker:
        until((tmp_path / "pids").exists)
        pids = pids_in(tmp_path)
        asker.send_signal(number)
    until(all_end(pids))


def test_the_supervisor_loads_no_package(tmp_path: Path) -> None:
    """It starts once a run, beside a training: what it loads is Python's own, and little of that."""
    from stabilitykit.adapters import supervisor

    asked = {"command": [sys.executable, "-c", ""], "cwd": str(tmp_path), "log": str(tmp_path / "log")}
    show = f"import sys, runpy; sys.argv[1:] = [{json.dumps(json.dumps(asked))}]\n"
    show += f"runpy.run_path({str(supervisor.__file__)!r}, run_name='__main__'); print(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", show], input=b"", capture_output=True, check=True, cwd=tmp_path
    )
    modules = done.stdout.decode().splitlines()[-1].split()
    assert not {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"__main__"}
