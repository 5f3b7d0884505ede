"""The place of training: made when it is first needed, closed after, and told where an onset's epochs are kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stabilitykit.errors import IncompleteStudyError
from stabilitykit.execution.executor import InProcess
from stabilitykit.execution.stop import Stop
from stabilitykit.execution.workplace import Workplace


class Noted(InProcess):
    def __init__(self, made: list[str]) -> None:
        super().__init__(cast("Any", "a trainer"))
        self.made = made
        made.append("made")

    def close(self) -> None:
        self.made.append("closed")


def asked(onset: int = 0) -> Any:
    question = SimpleNamespace(task=SimpleNamespace(name="task"), protocol=SimpleNamespace(onset=onset))
    return SimpleNamespace(question=question, trainer=SimpleNamespace(stamps=None), private="why", check=lambda: None)


@pytest.fixture
def made() -> list[str]:
    return []


def test_it_is_made_once_and_closed(made):
    with Workplace(asked(), lambda: Noted(made), Stop(), lambda progress: None).closing() as place:
        assert made == []
        assert [place.call(lambda trainer, word: (trainer, word), word) for word in "ab"] == [
            ("a trainer", "a"),
            ("a trainer", "b"),
        ]
    assert made == ["made", "closed"]


def test_what_never_trains_makes_none(made):
    with Workplace(asked(), lambda: Noted(made), Stop(), lambda progress: None).closing():
        pass
    assert made == []


@pytest.mark.parametrize(("onset", "expected"), [(0, ["made", "closed"]), (2, ["made", "closed", "made", "closed"])])
def test_with_an_onset_it_is_made_anew_once_its_epochs_have_a_place(made, onset, expected):
    with Workplace(asked(onset), lambda: Noted(made), Stop(), lambda progress: None).closing() as place:
        place.call(lambda trainer: None)
        place.move_to(asked(onset))
        place.call(lambda trainer: None)
    assert made == expected


def test_a_session_that_stops_ends_its_certificate(made):
    stop = Stop()

    def stopping(trainer):
        stop.now("its time is up")
        raise KeyboardInterrupt

    place = Workplace(asked(), lambda: Noted(made), stop, lambda progress: None)
    with place.closing(), pytest.raises(IncompleteStudyError, match="cancelled while its certificate was made"):
        place.call(stopping)
