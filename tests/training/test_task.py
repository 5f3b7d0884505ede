"""Functions as tasks: what they may take, which labels go beside them, and which outputs they may give."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from stabilitykit.errors import BudgetError, ProtocolError, TaskError
from stabilitykit.estimates.meaning import Meaning
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.outputs import check_outputs
from stabilitykit.training.run import Run
from stabilitykit.training.task import BlackBoxTask, LoopTask, Task, as_task
from stabilitykit.verdicts.budgets import Budget
from tests.seeds import BASE_SEED

CPU = torch.device("cpu")
PLANS = NoiseProtocol("init", runs=2, seed=BASE_SEED).plans()
Y = torch.arange(20) % 3


def check(task, protocol=None):
    task.check(protocol or NoiseProtocol("init", runs=2), CPU)


class TestFunctions:
    def test_the_parameter_tells_a_loop_from_a_black_box(self):
        assert type(as_task(lambda run: None, Y)) is LoopTask
        assert type(as_task(lambda seed: None, Y)) is BlackBoxTask
        assert as_task(lambda run, rate=0.1: None, Y).isolates
        assert not as_task(lambda seed: None, Y).isolates

    def test_a_function_keeps_its_name_under_a_partial(self):
        def train_net(run, rate):
            return rate

        task = as_task(functools.partial(train_net, rate=2), Y)
        assert task.name == "train_net"
        assert task.fit(None) == 2

    def test_a_callable_object_is_a_function(self):
        class Train:
            def __call__(self, seed):
                return seed

        task = as_task(Train(), Y)
        assert task.name == "Train"
        assert task.fit(Run(PLANS[1], CPU)) == PLANS[1].init

    def test_a_recipe_is_a_task_already(self, linear):
        assert as_task(linear) is linear
        with pytest.raises(TaskError, match="Expected labels= only beside a train function"):
            as_task(linear, Y)

    @pytest.mark.parametrize(
        ("function", "names"),
        [
            (lambda: None, ""),
            (lambda x: None, "x"),
            (lambda run, rate: None, "run, rate"),
            (lambda *args: None, "args"),
            (functools.partial(lambda rate, run: None, 1, 2), ""),
        ],
    )
    def test_a_function_of_anything_else_is_refused(self, function, names):
        with pytest.raises(TaskError) as refusal:
            as_task(function, Y)
        assert str(refusal.value).startswith(
            "Expected <lambda> to take one parameter, 'run' (isolated streams) or 'seed' (a black box), but it takes "
            f"({names})."
        )

    @pytest.mark.parametrize("task", [3, None, "train"])
    def test_what_is_no_task_is_refused(self, task):
        with pytest.raises(TaskError, match=r"^Expected a Recipe, train\(run\) or train\(seed\) but got "):
            as_task(task, Y)

    def test_without_labels_its_runs_leave_scores_alone(self):
        task = as_task(lambda run: None)
        assert task.labels is None
        assert task.examples == 0
        assert task.measure_names() == ()

    def test_outputs_cannot_be_stated_without_labels(self):
        with pytest.raises(TaskError, match="Expected labels= beside outputs='probabilities'"):
            as_task(lambda run: None, outputs="probabilities")

    @pytest.mark.parametrize("labels", ["abc", [[1], [2, 3]], {"a": 1}])
    def test_labels_that_are_no_array_are_refused(self, labels):
        with pytest.raises(TaskError, match=r"^Expected labels= to be a tensor or array but got "):
            as_task(lambda run: None, labels)

    @pytest.mark.parametrize("labels", [[0, 2, 1], np.array([0, 2, 1]), torch.tensor([0, 2, 1], dtype=torch.uint8)])
    def test_labels_may_come_as_any_array(self, labels):
        got = as_task(lambda run: None, labels).labels
        assert torch.equal(got, torch.tensor([0, 2, 1]))
        assert got.dtype == torch.int64

    def test_class_156_of_bytes_is_not_the_ignored_label(self):
        labels = as_task(lambda run: None, torch.tensor([156, 0], dtype=torch.uint8)).labels
        assert labels.tolist() == [156, 0]

    def test_empty_labels_are_refused(self):
        with pytest.raises(TaskError, match=r"^Expected labels of the test examples but got none"):
            check(as_task(lambda run: None, torch.zeros(0).long()))

    @pytest.mark.parametrize("protocol", [NoiseProtocol("init"), NoiseProtocol("all", "ulp"), NoiseProtocol()])
    def test_a_black_box_cannot_isolate(self, protocol):
        def train(seed):
            return None

        with pytest.raises(ProtocolError) as refusal:
            check(as_task(train, Y), protocol)
        assert str(refusal.value).startswith(
            f"Expected vary='all' for train(seed) but got {protocol.name!r}: one seed moves every source at once. "
            "Leave out intercept=False if it is PyTorch, or write train(run)"
        )
        check(as_task(train, Y), NoiseProtocol("all"))


class TestOutputs:
    def test_a_regressions_trailing_axis_of_one_is_dropped(self):
        assert check_outputs(torch.zeros(5, 1), torch.zeros(5), Meaning.of(torch.zeros(5))).shape == (5,)
        with pytest.raises(TaskError, match=r"targets' shape \(5,\) but got \(5, 2\)"):
            check_outputs(torch.zeros(5, 2), torch.zeros(5), Meaning.of(torch.zeros(5)))

    def test_segmentation_logits_have_classes_last(self):
        labels = torch.zeros(2, 3, 4).long()
        assert check_outputs(torch.zeros(2, 3, 4, 5), labels, Meaning.of(labels)).shape == (2, 3, 4, 5)
        with pytest.raises(TaskError, match=r"Expected logits of shape \[2, 3, 4, C\] .* but got \[2, 5, 3, 4\]"):
            check_outputs(torch.zeros(2, 5, 3, 4), labels, Meaning.of(labels))


# What a recipe trains


class Returning(Task):
    """A task of scores alone, whose names are known before a training."""

    name = "returning"
    isolates = False
    labels = None
    score_names = ("reward",)

    def content(self):
        return "returning"

    def fit(self, run):
        return {"reward": float(run.plan.init % 100)}


class TestScoresAlone:
    def test_names_that_are_stated_are_known_before_a_training(self, ask):
        assert Returning().measure_names() == ("reward", "reward_sd")
        with pytest.raises(BudgetError, match=r"Did you mean reward_sd\?"):
            ask(Returning(), "all", budget=Budget(rewards_sd=1))

    def test_a_task_of_ones_own_needs_no_labels(self, ask):
        study = ask(Returning(), "all", runs=3)
        assert study.labels is None
        assert [run.scores["reward"] for run in study.records] == [run.seeds["init"] % 100 for run in study.records]
