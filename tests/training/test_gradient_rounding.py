"""The seeded stand-in for low-level noise: each gradient element to a neighbouring float, by a coin of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.gradient_rounding import _nudge
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask, as_task
from stabilitykit.training.trainer import Trainer

pytestmark = pytest.mark.trains


Y = torch.arange(20) % 3


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_a_nudge_is_one_ulp_and_zero_stays_zero(values):
    old = torch.tensor(values)
    new = old.clone()
    _nudge([new], torch.Generator().manual_seed(0))
    up, down = (torch.nextafter(old, torch.full_like(old, to)) for to in (torch.inf, -torch.inf))
    assert torch.equal(new == 0, (old == 0) | ((old.abs() == 2**-149) & (new == 0)))
    assert ((new == up) | (new == down) | (old == 0)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_nudge_is_a_fair_coin_in_every_float(dtype):
    old = torch.linspace(-3, 3, 2000, dtype=torch.float64).to(dtype)
    old = old[old != 0]
    new = old.clone()
    _nudge([new], torch.Generator().manual_seed(0))
    assert (new != old).all()
    assert ((new - old).abs().double() <= torch.finfo(dtype).eps * old.abs().double()).all()
    assert 0.45 < (new > old).double().mean() < 0.55
    assert 0.45 < (new.abs() > old.abs()).double().mean() < 0.55


def test_the_coins_of_a_step_are_independent_of_one_another():
    gradients = [torch.ones(64, 100), torch.ones(3, dtype=torch.float64), torch.ones(64, 100)]
    _nudge(gradients, torch.Generator().manual_seed(0))
    coins = [(gradients[i] > 1).double() for i in (0, 2)]
    assert (coins[0] != coins[1]).double().mean() == pytest.approx(0.5, abs=0.03)
    # A row of 64 is two words: neither a bit of them all nor a word of its own may stand still.
    flat = coins[0].view(-1)
    assert flat.view(-1, 32).mean(0) == pytest.approx([0.5] * 32, abs=0.2)
    for lag in (1, 2, 31, 32, 33):
        assert (flat[lag:] != flat[:-lag]).double().mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33])
def test_a_gradient_of_any_size_and_layout_is_rounded(count):
    new = torch.ones(count, 2, 3, 2).contiguous(memory_format=torch.channels_last)
    plain = torch.ones(count, 2, 3, 2)
    for gradient in (new, plain):
        _nudge([gradient], torch.Generator().manual_seed(0))
    assert torch.equal(new, plain)
    assert (new != 1).all()


def test_gradients_that_are_not_finite_stay_what_they_are():
    new = torch.tensor([torch.inf, -torch.inf, torch.nan] * 20)
    _nudge([new], torch.Generator().manual_seed(0))
    assert torch.equal(new.nan_to_num(7), torch.tensor([torch.inf, -torch.inf, torch.nan] * 20).nan_to_num(7))


def from_zero(model):
    """A model whose weights are all 0: after one step at a rate of 0.5 they are half the gradient, to its last bit.

    0 - 0.5 x gradient is exact, so that a gradient which is rounded must reach the weights. From any other weight
    the sum is rounded once more, and what the coin decided may be lost: with small rates nearly always.
    """
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def one_step_of(model, x):
    return Recipe(
        model=lambda: from_zero(model()),
        train=(x, Y[: len(x)]),
        test=(x, Y[: len(x)]),
        epochs=1,
        batch_size=len(x),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.5),
        keep_weights=True,
    )


def as_logits(weight):
    """180 of the 192 weights, in the shape of outputs for 20 examples."""
    return weight[:, :60].reshape(20, 9)


#: No number of it is 0, so that no element of the gradient is.
WIDE = torch.rand(20, 64, generator=torch.Generator().manual_seed(0)) + 0.5


def one_step_loop(seen):
    """The same by a loop of the user's own, whose weights are its outputs."""

    def train(run):
        model = from_zero(nn.Linear(64, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in run.epochs(1):
            nn.functional.cross_entropy(model(WIDE), Y).backward()
            seen.append(model.weight.grad.clone())  # before the step, which rounds it
            optimizer.step()
        return as_logits(model.weight.detach())

    return LoopTask(train, Y)


def assert_rounded(plain, rounded):
    """Each number is one of the two neighbours of what it is without the stand-in; 0 stays 0."""
    up, down = (torch.nextafter(plain, torch.full_like(plain, to)) for to in (torch.inf, -torch.inf))
    assert ((rounded == up) | (rounded == down) | ((plain == 0) & (rounded == 0))).all()


def test_a_rounded_gradient_reaches_the_weights_by_its_seed_alone(train):
    recipe = one_step_of(lambda: nn.Linear(64, 3), WIDE)
    plain, *rounded = (
        train(recipe, vary, index) for vary, index in [("none", 0), *(("low_level", i) for i in (0, 1, 0))]
    )
    for record in rounded:
        for name, weight in record.weights.items():
            assert_rounded(plain.weights[name], weight)
    # Two seeds toss 195 equal coins once in 2^195 times.
    prints = [record.fingerprint for record in rounded]
    assert prints[0] == prints[2] != prints[1]


def test_a_rounded_gradient_reaches_the_weights_in_a_loop_too(train):
    gradients = []
    outputs = [train(one_step_loop(gradients), "low_level", index).logits for index in (0, 1, 0)]
    assert torch.equal(gradients[0], gradients[1])
    for logits in outputs:
        assert_rounded(-0.5 * as_logits(gradients[0]), logits)
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1]), "two seeds toss 180 equal coins once in 2^180 times"


def test_sparse_gradients_are_rounded_too(train):
    recipe = one_step_of(lambda: nn.EmbeddingBag(40, 3, sparse=True), torch.arange(40).reshape(20, 2))
    plain, one, other = (
        train(recipe, vary, index) for vary, index in (("none", 0), ("low_level", 0), ("low_level", 1))
    )
    for record in (one, other):
        assert_rounded(plain.weights["weight"], record.weights["weight"])
    assert one.fingerprint != other.fingerprint, "two seeds toss 120 equal coins once in 2^120 times"


def test_a_loop_without_an_optimizer_cannot_vary_the_low_level_source(tmp_path):
    plan = NoiseProtocol("low_level", runs=2).plans()[0]
    record = Trainer(as_task(lambda run: torch.zeros(20, 3), Y), "cpu", 1, tmp_path).train_once(plan)
    assert record.status == "failed"
    assert "'low_level' varies, but no torch optimizer made a step" in record.error
