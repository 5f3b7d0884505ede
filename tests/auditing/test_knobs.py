"""Knobs: which parameters are seeds, and what they are tried at."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from stabilitykit.auditing.knobs import Knob, check_complete, knobs_of, name_of
from stabilitykit.errors import TaskError


def train(
    seed: int,
    *,
    Data_Seed: int | None = None,
    random_state: int = 5,
    seeded: bool = True,
    seed_file: str = "a",
    n: int = 1,
) -> None: ...


def test_parameters_that_are_named_after_a_seed_and_may_hold_one() -> None:
    assert knobs_of(train, None, {}) == (("seed", 0, 1), ("Data_Seed", None, 1), ("random_state", 5, 6))
    assert str(Knob("seed", 0, 1)) == "seed=0 or 1"


def test_a_value_that_is_given_is_the_first_that_is_tried() -> None:
    assert knobs_of(train, "seed", {"seed": 8}) == (("seed", 8, 9),)
    assert knobs_of(functools.partial(train, seed=3), ["seed"], {}) == (("seed", 3, 4),)
    assert knobs_of(train, {"n": (2, 7)}, {}) == (("n", 2, 7),)


def test_any_name_of_a_function_that_takes_any() -> None:
    def train(**settings: Any) -> None: ...

    assert knobs_of(train, "seed", {}) == (("seed", 0, 1),)
    check_complete(train, [], {"epochs": 1})


@pytest.mark.parametrize(
    ("function", "knobs", "said"),
    [
        (train, "sed", r"as a knob but got 'sed'\. Did you mean 'seed'\?"),
        (train, "zz", r"as a knob but got 'zz'\. Name one of these"),
        (train, "seeded", r"'seeded' to be an integer but its value is True.*\(one, other\)"),
        (3, None, "a train function to audit but got int"),
    ],
)
def test_what_is_no_knob(function: Any, knobs: Any, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        knobs_of(function, knobs, {})


def test_the_name_of_a_function() -> None:
    assert name_of(functools.partial(train)) == "train"
