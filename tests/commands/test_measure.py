"""``stabilitykit measure`` in processes of its own: what it prints, its exit codes, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.adapters.test_supervised import is_running, until
from tests.commands.conftest import CarryOut, trained

SCORE = "--score", "val_loss=([0-9.]+)"
SEEDED = "--", sys.executable, "train.py", "--seed", "{seed}"


@pytest.fixture
def measure(carry_out: CarryOut) -> CarryOut:
    return lambda *arguments: carry_out("measure", *arguments)


def test_a_script_is_measured_and_asked_again_it_answers_from_the_store(folder: Path, measure: CarryOut) -> None:
    done = measure("--runs", "4", *SCORE, *SEEDED)
    assert (done.code, trained(folder)) == (0, 4), done.err
    titles, row = (line.split() for line in done.out.splitlines()[:2])
    assert titles[:2] == ["task", "score"]
    assert row[:2] == ["train.py", "val_loss"]
    assert "4/4 runs" in done.err
    again = measure("--runs", "4", *SCORE, *SEEDED)
    assert (again.code, trained(folder)) == (0, 0)
    assert again.out == done.out


def test_an_edited_helper_trains_again(folder: Path, measure: CarryOut) -> None:
    measure("--runs", "2", *SCORE, *SEEDED)
    assert trained(folder) == 2
    (folder / "helper.py").write_text("SPREAD = 0.02\n")
    measure("--runs", "2", *SCORE, *SEEDED)
    assert trained(folder) == 2


@pytest.mark.trains
def test_the_exit_code_is_the_verdict_which_ends_the_training(folder: Path, measure: CarryOut) -> None:
    """The SD is 0.01: it is far below 1 and far beyond 10^-6, and 3 runs do not tell it from 0.01."""
    within = measure("--runs", "9", "--budget", "val_loss_sd<=1", *SCORE, *SEEDED)
    assert (within.code, trained(folder)) == (0, 3), within.err
    assert "PASS" in within.out
    beyond = measure("--runs", "9", "--budget", "val_loss_sd<=1e-6", *SCORE, *SEEDED)
    assert (beyond.code, trained(folder)) == (1, 0)
    assert "FAIL" in beyond.out
    undecided = measure("--runs", "3", "--budget", "val_loss_sd<=0.01", *SCORE, *SEEDED)
    assert (undecided.code, trained(folder)) == (2, 0)
    assert "UNDECIDED" in undecided.out


def test_a_source_alone_is_held_and_said(folder: Path, measure: CarryOut) -> None:
    flags = "--", sys.executable, "train.py", "--init", "{init}", "--data", "{shuffle}"
    done = measure("--runs", "2", "--vary", "init", *SCORE, *flags)
    assert done.code == 0, done.err
    assert "held: the whole run twice, bit-identical; alive: init" in done.out
    assert "the Python that measures" not in done.out


def test_one_seed_is_run_twice_where_that_is_asked(folder: Path, measure: CarryOut) -> None:
    done = measure("--runs", "2", "--control", "full", *SCORE, *SEEDED)
    assert done.code == 0, done.err
    assert "isolation not proven" not in done.out
    (folder / "train.py").write_text("import random; print(f'val_loss={random.random():.6f}')")
    done = measure("--runs", "2", "--control", "full", *SCORE, *SEEDED)
    assert done.code == 3
    assert "Expected two trainings under one plan to be bit-identical" in done.err


def test_json_has_a_format_and_nothing_else_is_printed(folder: Path, measure: CarryOut) -> None:
    done = measure("--runs", "2", "--json", "-", *SCORE, *SEEDED)
    document = json.loads(done.out)
    assert document["format"] == 1
    (study,) = document["studies"]
    assert {*study["metrics"]} == {"val_loss", "val_loss_sd"}
    assert len(study["records"]) == 2
    there = measure("--runs", "2", "--json", "study.json", *SCORE, *SEEDED)
    assert json.loads((folder / "study.json").read_text())["studies"][0]["metrics"] == study["metrics"]
    assert "val_loss" in there.out


def test_two_runs_at_once_have_the_same_scores(folder: Path, measure: CarryOut) -> None:
    one = measure("--runs", "4", *SCORE, *SEEDED)
    two = measure("--runs", "4", "-n", "2", "--store", "another", "--copy", *SCORE, *SEEDED)
    assert two.code == 0, two.err
    assert one.out.splitlines()[1] == two.out.splitlines()[1]


def test_runs_that_take_turns_say_so(folder: Path, measure: CarryOut) -> None:
    done = measure("--runs", "2", "-n", "2", *SCORE, *SEEDED)
    assert f"runs take turns in {folder}" in done.err


def test_variables_and_the_folder_are_given(folder: Path, measure: CarryOut) -> None:
    (folder / "inner").mkdir()
    code = "import os; print(os.environ['SEED'])"
    command = "--", sys.executable, "-c", code
    done = measure("--runs", "2", "--cwd", "inner", "--env", "SEED={seed}", "--last-line", *command)
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].split()[1] == "score"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*SCORE], "Expected a command after -- but got none"),
        ([*SCORE, "--"], "Expected a command after -- but got none"),
        ([*SCORE, "--", "python", "train.py", "--seed", "{sed}"], "Did you mean {seed}?"),
        ([*SCORE, "--", "python", "train.py"], "whose runs would all be equal"),
        ([*SCORE, "--", "none-such", "{seed}"], "there is no 'none-such' that can be run"),
        ([*SCORE, "--", sys.executable, "trian.py", "{seed}"], "there is no trian.py in"),
        ([*SEEDED], "Expected a way to the scores"),
        (["--score", "loss=1", *SEEDED], "to have one group"),
        (["--score", "loss=(", *SEEDED], "to be a regular expression"),
        (["--score", "([0-9]+)", *SEEDED], "Expected a pattern that names its score"),
        ([*SCORE, *SCORE, *SEEDED], "'val_loss' is there twice"),
        ([*SCORE, "--cwd", "none", *SEEDED], "Expected cwd= to be a folder"),
        ([*SCORE, "--timeout", "0", *SEEDED], "Expected timeout > 0"),
        ([*SCORE, "--runs", "1", *SEEDED], "Expected runs >= 2 but got runs=1"),
        ([*SCORE, "-n", "0", *SEEDED], "Expected -n >= 1 but got -n=0"),
        ([*SCORE, "--env", "A", *SEEDED], "Expected --env NAME=VALUE but got 'A'"),
        ([*SCORE, "--vary", "inti", *SEEDED], "Did you mean 'init'?"),
        ([*SCORE, "--control", "most", *SEEDED], "Expected control='auto', 'first' or 'full'"),
        ([*SCORE, "--vary", "init", *SEEDED], "{seed} moves every source at once"),
        ([*SCORE, "--budget", "val_loss_sd", *SEEDED], "Expected a limit such as"),
        ([*SCORE, "--budget", "los_sd<=1", *SEEDED], "Did you mean"),
        ([*SCORE, "--none", *SEEDED], "unrecognized arguments: --none"),
        ([*SCORE, "--input", "*.none", *SEEDED], "matches '*.none'"),
    ],
)
def test_what_is_wrong_is_said_with_an_exit_code_of_its_own_before_anything_runs(
    folder: Path, measure: CarryOut, arguments: list[str], said: str
) -> None:
    done = measure(*arguments)
    assert said in done.err
    assert (done.code, trained(folder)) == (3, 0)


def test_a_run_that_fails_is_no_verdict(folder: Path, measure: CarryOut) -> None:
    (folder / "helper.py").write_text("raise SystemExit('no data')\n")
    done = measure("--runs", "3", "--budget", "val_loss_sd<=1", *SCORE, *SEEDED)
    assert done.code == 3
    assert "no data" in done.err
    assert "ended with exit code 1" in done.err


SLOW = """
    import os, sys, time
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if len(open("pids").readlines()) > 1:
        time.sleep(600)
    print(f"val_loss={sys.argv[1]}")
"""


@pytest.mark.usefixtures("torch_as_installed")  # the first session is another process
def test_ctrl_c_ends_the_command_and_keeps_what_is_done(folder: Path, measure: CarryOut) -> None:
    (folder / "train.py").write_text(dedent(SLOW))
    command = [sys.executable, "-m", "stabilitykit", "measure", "--runs", "3", *SCORE]
    command += ["--", sys.executable, "train.py", "{seed}"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        until(lambda: (folder / "pids").exists() and len((folder / "pids").read_text().splitlines()) == 2, 60)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted. The finished runs are kept" in err
    assert "Traceback" not in err
    until(lambda: not any(is_running(int(pid)) for pid in (folder / "pids").read_text().split()))
    done = measure("--runs", "2", "--timeout", "1", *SCORE, *command[-4:])
    assert "failed: run 1." in done.err, "run 0 is kept, and run 1 begins anew"


def test_help_has_examples_and_exit_codes(folder: Path, measure: CarryOut) -> None:
    done = measure("--help")
    assert done.code == 0
    for text in ("{seed}", "--score-json", "exit codes: 0 within", "examples:"):
        assert text in done.out
