"""Placeholders of a command: which there are, and what a run fills in."""

from __future__ import annotations

import pytest

from stabilitykit.adapters.placeholders import filled, names_in
from stabilitykit.errors import TaskError


def test_an_unknown_placeholder_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(TaskError, match=r"got '\{sed\}' in '--seed=\{sed\}'\. Did you mean \{seed\}\?"):
        names_in("--seed={sed}")


@pytest.mark.parametrize("text", ["{", "}", '{"lr": 0.1}', "{}", "{low_level}"])
def test_a_brace_that_is_no_placeholder_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(TaskError, match=r"written twice: \{\{ or \}\}"):
        names_in(text)


def test_a_brace_that_is_written_twice_is_one() -> None:
    assert names_in('{{"lr": 0.1}}') == frozenset()
    assert filled('{{"lr": {seed}}}', {"seed": 3}) == '{"lr": 3}'


def test_every_placeholder_is_filled_in_wherever_it_stands() -> None:
    text = "{init}{shuffle} {augment}/{stochastic} {run_dir} {init}"
    values = {"init": 1, "shuffle": 2, "augment": 3, "stochastic": 4, "run_dir": "/r"}
    assert names_in(text) == values.keys()
    assert filled(text, values) == "12 3/4 /r 1"
