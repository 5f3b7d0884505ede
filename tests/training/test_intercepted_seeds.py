"""Functions of a seed that are isolated by interception: one line, and their sources can be told apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stabilitykit.errors import IsolationError, ProtocolError, TaskError
from stabilitykit.execution.session import check, measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.fingerprint import fingerprint
from stabilitykit.training.task import (
    BlackBoxTask,
    InterceptedSeedTask,
    LoopTask,
    as_task,
    with_interception,
)
from stabilitykit.verdicts.budgets import Budget
from tests.seeds import BASE_SEED

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def train(seed):
    """A script from the web: all sources by one seed, which never reaches the order."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(42))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x + 0.1 * float(np.random.rand())), y).backward()
            optimizer.step()
    return model.eval()(X)


def by_numpy(seed):
    """No loader, no optimizer of torch's: nothing that could be told apart."""
    weights, drawn = np.zeros(4), np.random.default_rng(seed)
    for row in drawn.permutation(32):
        weights += 0.1 * X[row].numpy() * (2 * int(Y[row]) - 1)
    score = X.numpy() @ weights
    return np.stack([-score, score], 1)


def protocol(vary, **options):
    return NoiseProtocol(vary, runs=3, seed=BASE_SEED, **options)


@pytest.mark.parametrize("source", ["init", "shuffle", "stochastic"])
def test_each_source_of_a_seed_function_varies_alone(make_session, source):
    study = measure(train, protocol(source), labels=Y, session=make_session())
    assert study.certificate.proven
    assert study.certificate.alive[source]
    assert len({record.fingerprint for record in study.records}) == 3
    assert study.notes[0].startswith("isolated by interception: orders 2, re-seedings 2 (torch.manual_seed, ")


def test_parameters_made_after_the_first_batch_are_said_not_to_be_init(make_session):
    def members(seed):
        return train(seed) + train(seed)

    study = measure(members, protocol("init"), labels=Y, session=make_session())
    assert "parameters 4 made after the first batch, whose values are stochastic and not init" in study.notes[0]


def test_what_it_does_not_draw_moves_nothing_and_is_no_pass(make_session):
    study = measure(train, protocol("augment"), labels=Y, session=make_session())
    assert study.certificate.dead == ("augment",)
    with pytest.raises(IsolationError, match="augment never reaches the weights"):
        study.judge(Budget(accuracy_sd=50))


def test_a_loop_that_torch_draws_nothing_of_is_no_pass(make_session):
    with pytest.raises(IsolationError, match="shuffle never reaches"):
        check(by_numpy, protocol("shuffle"), labels=Y, budget=Budget(accuracy_sd=50), session=make_session())


def test_everything_is_a_black_box_unless_it_is_asked_for(make_session):
    black = measure(train, protocol("all"), labels=Y, session=make_session())
    assert {record.low_level for record in black.records} == {"not isolated"}
    assert not any(record.intercepted for record in black.records)
    study = measure(train, protocol("all"), labels=Y, session=make_session(), intercept=True)
    assert study.certificate.proven
    assert all(record.intercepted["orders"] == 2 for record in study.records)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"perturb": "ulp"}, r"^Expected train\(seed\) without perturb= but got 'ulp': it names no model"),
        ({"onset": 1}, r"^Expected train\(seed\) without an onset but got onset=1"),
    ],
)
def test_what_only_a_run_can_do_is_refused(make_session, options, message):
    with pytest.raises(ProtocolError, match=message):
        measure(train, protocol("shuffle", **options), labels=Y, session=make_session())


def test_without_interception_a_source_alone_is_refused(make_session):
    with pytest.raises(ProtocolError, match="Leave out intercept=False if it is PyTorch"):
        measure(train, protocol("shuffle"), labels=Y, session=make_session(), intercept=False)


class TestWhatIsAskedFor:
    def kind(self, task, vary, intercept):
        found = with_interception(task, protocol(vary), intercept)
        return type(found), found.intercepts

    def test_of_a_seed(self):
        task = as_task(train, Y)
        assert self.kind(task, "all", None) == (BlackBoxTask, False)
        assert self.kind(task, "all", True) == (InterceptedSeedTask, True)
        assert self.kind(task, "shuffle", None) == (InterceptedSeedTask, True)
        assert self.kind(task, "shuffle", False) == (BlackBoxTask, False)
        assert self.kind(InterceptedSeedTask(train, Y), "all", False) == (BlackBoxTask, False)

    def test_of_a_run(self):
        task = as_task(lambda run: None, Y)
        assert self.kind(task, "all", None) == self.kind(task, "all", True) == (LoopTask, True)
        assert self.kind(task, "init", False) == (LoopTask, False)

    def test_beside_a_recipe_it_is_refused(self, linear):
        assert with_interception(linear, protocol("init"), None) is linear
        with pytest.raises(TaskError, match=r"^Expected intercept= only beside a train function"):
            with_interception(linear, protocol("init"), True)

    def test_anything_else_is_refused(self):
        with pytest.raises(TaskError, match=r"^Expected intercept=True, False or None but got intercept='yes'"):
            with_interception(as_task(train, Y), protocol("all"), "yes")


def test_runs_with_and_without_it_have_two_keys():
    with_it, without = LoopTask(train, Y), LoopTask(train, Y, None, False)
    assert fingerprint(with_it.content(), None) != fingerprint(without.content(), None)
