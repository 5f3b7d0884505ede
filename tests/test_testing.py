"""The fakes that ship with the package: studies of given logits, and a task that trains in no time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stabilitykit.errors import ProtocolError, TaskError
from stabilitykit.testing import FakeTask, fake_study


def test_a_fake_study_is_a_study_of_the_given_logits():
    logits = np.random.default_rng(0).standard_normal((4, 6, 3))
    study = fake_study(logits, [0, 1, 2] * 2, vary="init", task="digits", metrics={"mine": lambda z, y: 2.0})
    assert torch.equal(study.outputs, torch.from_numpy(logits))
    assert study.labels.tolist() == [0, 1, 2] * 2
    assert (study.task, study.protocol.name, len(study.records)) == ("digits", "init", 4)
    assert study["mine"].value == 2
    assert len({record.fingerprint for record in study.records}) == 4
    assert study.notes == ()


@pytest.mark.parametrize(
    ("logits", "labels", "error"),
    [
        (torch.zeros(1, 2, 3), [0, 1], ProtocolError),
        (torch.zeros(2, 2, 3), [0, 1, 2], TaskError),
        (torch.zeros(2, 2, 3), [0, 3], TaskError),
    ],
)
def test_a_fake_study_is_held_to_what_a_real_one_is(logits, labels, error):
    with pytest.raises(error):
        fake_study(logits, labels)


def test_a_fake_regression_has_float_labels():
    assert fake_study([[1.0, 2.0], [1.0, 3.0]], [1.0, 2.0]).rmse.value == pytest.approx(0.5**0.5 / 2)


@pytest.mark.parametrize("vary", ["init", "shuffle", "augment", "stochastic"])
def test_each_source_moves_a_fake_task_by_half_of_its_noise(ask, vary):
    study = ask(FakeTask(examples=400, classes=5, noise=3.0), vary, runs=6)
    assert study.outputs.std(0).mean().item() == pytest.approx(1.5, rel=0.1)


def test_everything_moves_it_by_its_noise_and_nothing_not_at_all(ask):
    task = FakeTask(examples=400, classes=5, noise=3.0)
    assert ask(task, "all", runs=6).outputs.std(0).mean().item() == pytest.approx(3.0, rel=0.1)
    assert ask(task, "none").disagreement.value == 0
    assert 0 < ask(task, perturb="ulp", runs=8).outputs.std(0).max().item() < 1e-5


def test_without_noise_it_is_always_right(ask):
    assert ask(FakeTask(noise=0.0), "all").accuracy.value == 100


def test_tasks_of_other_numbers_share_no_runs(ask):
    one, two = (ask(FakeTask(noise=noise), "init") for noise in (1.0, 2.0))
    assert not torch.equal(one.outputs, two.outputs)


def test_labels_below_0_are_refused_as_those_of_a_training_are():
    with pytest.raises(TaskError, match=r"^Expected class labels from 0, or -100 .*, but the smallest is -1\."):
        fake_study([[[2.0, 0.0], [0.0, 1.0]]] * 2, labels=[0, -1])
