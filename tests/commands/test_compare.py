"""``stabilitykit compare``: whether two commands differ, by its words and exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.commands.conftest import CarryOut, trained

PYTHON = sys.executable
SCORE = "--score", "val_loss=([0-9.]+)"
SEEDED = f"{PYTHON} train.py --seed {{seed}}"


def both(*more: str) -> list[str]:
    return [word for text in more for word in ("--command", f"{SEEDED} {text}")]


def test_a_mean_that_differs_is_shown(carry_out: CarryOut, folder: Path) -> None:
    """Run i of both has the same seeds, and so the same noise: the difference is 0.1 in each."""
    done = carry_out("compare", "--runs", "4", *SCORE, *both("", "--more 0.1"))
    assert (done.code, trained(folder)) == (1, 8), done.err
    assert "The mean of val_loss is higher, by 0.1" in done.out
    assert "seeds shared" in done.out
    again = carry_out("compare", "--runs", "4", *SCORE, *both("", "--more 0.1"))
    assert (again.code, trained(folder)) == (1, 0)
    assert again.out == done.out


def test_two_that_do_not_differ_are_no_failure(carry_out: CarryOut, folder: Path) -> None:
    done = carry_out("compare", "--runs", "3", *SCORE, *both("", "--more 0"))
    assert done.code == 0, done.err
    assert "Run for run, both have the same scores" in done.out


def test_json_has_both_studies_and_the_comparison(carry_out: CarryOut) -> None:
    done = carry_out("compare", "--runs", "3", "--json", "-", *SCORE, *both("", "--more 0.1"))
    document = json.loads(done.out)
    assert document["format"] == 1
    assert [len(study["records"]) for study in document["studies"]] == [3, 3]
    (comparison,) = document["comparisons"]
    assert comparison["scores"]["val_loss"]["difference"]["value"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        ([], "Expected two commands to compare but got 0"),
        (["--command", SEEDED], "Expected two commands to compare but got 1"),
        (["--command", "python 'train.py", "--command", SEEDED], "as for a shell but got"),
        (["--command", SEEDED, "--command", "python train.py"], "whose runs would all be equal"),
        (["--command", "", "--command", SEEDED], "Expected a list of texts"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    carry_out: CarryOut, folder: Path, commands: list[str], said: str
) -> None:
    done = carry_out("compare", *SCORE, *commands)
    assert said in done.err
    assert (done.code, trained(folder)) == (3, 0)


def test_help_has_an_example_and_exit_codes(carry_out: CarryOut) -> None:
    done = carry_out("compare", "--help")
    assert done.code == 0
    for text in ("--command 'python train.py --seed {seed}'", "exit codes: 0 no difference is shown"):
        assert text in done.out
