"""A question refuses what is wrong when it is made, and costs nothing until it is answered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stabilitykit.errors import BudgetError, ConfigError, ProtocolError, TaskError, UsageError
from stabilitykit.execution.question import Question
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.testing import FakeTask
from stabilitykit.training.recipe import Recipe
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


def test_its_check_rehearses_as_a_run_trains_and_puts_the_process_back(make_session):
    seen = []

    def careless(logits, labels):
        seen.append((torch.get_num_threads(), torch.is_deterministic_algorithms_warn_only_enabled()))
        torch.set_num_threads(3)
        torch.backends.cudnn.benchmark = True
        torch.use_deterministic_algorithms(False)
        return nn.functional.cross_entropy(logits, labels)

    x, y = torch.randn(8, 4), torch.arange(8) % 2
    recipe = Recipe(
        lambda: nn.Linear(4, 2),
        (x, y),
        (x, y),
        epochs=1,
        batch_size=8,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        loss=careless,
    )
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode()
    # Nothing is rounded in a check, and so nothing is missed where a task rehearses no step.
    make_session().prepare(Question.of(recipe, NoiseProtocol("low_level", runs=3))).check()
    assert seen == [(1, True)]
    assert before == (torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode())
    make_session().prepare(Question.of(FakeTask(), NoiseProtocol("low_level", runs=3))).check()
