"""The state of a training between two epochs: everything that goes on, to the bit, and an honest no where it cannot."""

from __future__ import annotations

import collections
import json

import pytest
import torch
from torch import nn

from stabilitykit.isolation.streams import GeneratorStates, Stream, seed_generators
from stabilitykit.store.plain_values import CannotKeep, flatten, unflatten
from stabilitykit.training.checkpoint import fits, state_of, take_state

CPU = torch.device("cpu")
X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))


def through_json(value):
    plain, tensors = flatten(value)
    return unflatten(json.loads(json.dumps(plain)), tensors)


def test_generators_go_on_where_they_were():
    seed_generators(3, CPU)
    torch.randn(3)  # of an odd number, one is kept for the next call
    state = through_json(GeneratorStates.now(CPU).to_plain())
    expected = draws()
    draws()
    GeneratorStates.from_plain(state).put_back(CPU)
    assert draws() == expected


def test_a_stream_goes_on_in_another_one():
    one, other = Stream(1), Stream(2)
    assert one.state is None
    with one:
        draws()
    other.state = through_json(one.state)
    assert inside(other) == inside(one)
    one.reseed(7)
    assert inside(one) == inside(Stream(7))


def draws():
    import random

    import numpy as np

    return [random.gauss(0, 1), float(np.random.standard_normal()), *torch.randn(3).tolist(), torch.rand(1).item()]


def inside(stream):
    with stream:
        return draws()


class Counting(nn.Module):
    """Keeps a buffer that its state dict leaves out."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen += len(x)
        return self.body(x) * (1 + 0.01 * self.seen)


OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "two groups": lambda model: torch.optim.SGD(
        [{"params": [*model.body[0].parameters()], "lr": 0.2}, {"params": [*model.body[2].parameters()]}],
        lr=0.1,
        momentum=0.5,
    ),
    "adam": lambda model: torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True),
    "averaged": lambda model: torch.optim.ASGD(model.parameters(), lr=0.1),
    "rprop": lambda model: torch.optim.Rprop(model.parameters()),
}


def step(model, optimizer, times):
    for _ in range(times):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_new_model_and_optimizer_go_on_with_the_bits_of_the_old(make):
    old, new = Counting(), Counting()
    optimizers = make(old), make(new)
    step(old, optimizers[0], 3)
    old.body[1].eval()
    state = through_json(state_of(old, optimizers[0]))
    assert fits(new, optimizers[1], state)
    take_state(new, optimizers[1], state)
    for model, optimizer in zip((old, new), optimizers, strict=True):
        step(model, optimizer, 3)
    assert_same(old, new)
    assert [module.training for module in new.modules()] == [module.training for module in old.modules()]


def assert_same(old, new):
    for (name, one), (_, other) in zip(
        [*old.named_parameters(), *old.named_buffers()], [*new.named_parameters(), *new.named_buffers()], strict=True
    ):
        assert torch.equal(one, other), name


def test_an_optimizers_tensors_keep_their_type():
    """load_state_dict would turn them to the parameter's."""
    model = nn.Linear(2, 2, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["exact"] = torch.full((2, 2), 1 / 3, dtype=torch.float64)
    state = through_json(state_of(model, optimizer))
    take_state(model, optimizer, state)
    assert optimizer.state[model.weight]["exact"].tolist() == [[1 / 3] * 2] * 2


def test_a_tied_weight_stays_tied():
    def tied():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    old, new = tied(), tied()
    assert fits(*new, state_of(*old))
    take_state(*new, through_json(state_of(*old)))
    assert new[0][1].weight is new[0][0].weight
    assert_same(old[0], new[0])


@pytest.mark.parametrize(
    "other",
    [
        lambda: (nn.Linear(4, 3), 1),
        lambda: (nn.Linear(3, 2, bias=False), 1),
        lambda: (nn.Linear(3, 2, dtype=torch.float64), 1),
        lambda: (nn.Linear(3, 2), 2),
    ],
)
def test_another_shape_does_not_fit(other):
    model = nn.Linear(3, 2)
    state = state_of(model, torch.optim.SGD(model.parameters(), lr=1))
    assert fits(model, torch.optim.SGD(model.parameters(), lr=1), state)
    changed, groups = other()
    parameters = list(changed.parameters())
    grouped = [parameters] if groups == 1 else [parameters[:1], parameters[1:]]
    optimizer = torch.optim.SGD([{"params": group} for group in grouped], lr=1)
    assert not fits(changed, optimizer, state)


def test_a_state_of_a_kind_of_its_own_is_refused():
    class Special(nn.Linear):
        def get_extra_state(self):
            return 1

    model = Special(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    with pytest.raises(CannotKeep, match="the model has an extra state"):
        state_of(model, optimizer)
    plain = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1)
    optimizer.state["beside"] = collections.defaultdict(int)
    with pytest.raises(CannotKeep, match="none of its parameters"):
        state_of(plain, optimizer)
