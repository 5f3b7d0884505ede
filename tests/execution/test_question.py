"""A question refuses what is wrong when it is made, and costs nothing until it is answered."""

from __future__ import annotations

import pytest

from stabilitykit.errors import BudgetError, ConfigError, ProtocolError, TaskError, UsageError
from stabilitykit.execution.question import Question
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.testing import FakeTask
from stabilitykit.verdicts.budgets import Budget

PROTOCOL, TOO_FEW = NoiseProtocol("init", runs=3), NoiseProtocol("init", runs=2)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"metrics": {"accuracy": len}}, UsageError),
        ({"metrics": 3}, TaskError),
        ({"control": "once"}, ProtocolError),
        ({"budget": 0.3}, BudgetError),
        ({"budget": Budget(f1_sd=1.0)}, BudgetError),
        (
            {"protocol": TOO_FEW, "budget": Budget(accuracy_sd=9), "stops_early": True},
            ConfigError,
        ),
        ({"task": lambda run: None}, TaskError),
        ({"labels": [0, 1]}, TaskError),
    ],
)
def test_a_wrong_question_cannot_be_made(more, error):
    asked = {"task": FakeTask(), "protocol": PROTOCOL} | more
    with pytest.raises(error):
        Question.of(asked.pop("task"), asked.pop("protocol"), **asked)


def test_two_runs_are_enough_where_the_study_does_not_stop_early():
    budget = Budget(accuracy_sd=9)
    assert Question.of(FakeTask(), TOO_FEW, budget=budget).budget == budget


def test_the_names_of_its_measures_are_known_before_anything_trains():
    question = Question.of(FakeTask(), PROTOCOL, metrics={"f1": lambda logits, labels: 0.5})
    assert {"accuracy_sd", "f1", "f1_sd"} <= set(question.names)


def test_content_is_read_when_the_key_is_asked_for_and_once(make_session):
    class Read(FakeTask):
        times = 0

        def content(self):
            type(self).times += 1
            return super().content()

    asked = make_session().prepare(Question.of(Read(), PROTOCOL))
    assert Read.times == 0
    assert len(asked.key) == 32
    assert (asked.about["protocol"]["vary"], asked.private) == (["init"], "")
    assert Read.times == 1
