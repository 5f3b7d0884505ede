"""Appendix A's remedies: each against a training written out by hand."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math

import pytest
import torch
from torch import nn

from stabilitykit.errors import TaskError
from stabilitykit.execution.executor import InProcess
from stabilitykit.isolation.streams import Stream
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.fingerprint import fingerprint
from stabilitykit.training.control import prove_isolation
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.run import Run
from stabilitykit.training.trainer import Trainer
from stabilitykit.zoo import aswa, augment_weights, average_weights, clip_gradients, resnet6
from tests.seeds import BASE_SEED

CPU = torch.device("cpu")
PLAN = NoiseProtocol("init", runs=2, seed=BASE_SEED).plans()[0]
X = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(12) % 4
REMEDIES = (clip_gradients, augment_weights, aswa, average_weights)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        model=functools.partial(resnet6, width=0.25, classes=4),
        train=(X, Y),
        test=(X, Y),
        epochs=2,
        batch_size=4,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        dtype=torch.float64,  # see `assert_trained_alike`
        name="small",
    )


def fit(recipe):
    run = Run(PLAN, CPU)
    with Stream(PLAN.stochastic):
        return recipe.fit(run), run.model


def by_hand(recipe, before_step=lambda model: None, after_step=lambda model, step: None, loss_of=None):
    """Train as the recipe does, in plain torch; the model, ready to evaluate."""
    with Stream(PLAN.init):
        model = recipe.model().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    shuffle = torch.Generator().manual_seed(PLAN.shuffle)
    loss_of = loss_of or (lambda model, x, y: nn.functional.cross_entropy(model(x), y))
    step = 0
    with Stream(PLAN.stochastic):
        for _ in range(recipe.epochs):
            for batch in torch.randperm(12, generator=shuffle).split(4):
                optimizer.zero_grad()
                loss_of(model, X[batch], Y[batch]).backward()
                before_step(model)
                optimizer.step()
                step += 1
                after_step(model, step)
    return model.eval()


def assert_trained_alike(outputs, model):
    """Two ways to train one network differ in the order of sums, and six steps of it multiply that.

    In double precision nine digits are left for it beyond the six that are compared, on every platform; in single
    precision there were none, and what passed on one CPU failed on another.
    """
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(X), rtol=1e-6, atol=1e-6)


@pytest.mark.trains
def test_without_a_remedy_the_hand_trains_as_the_recipe_does(recipe):
    assert_trained_alike(fit(recipe)[0], by_hand(recipe))


@pytest.mark.trains
def test_gradients_are_clipped_to_one_norm_over_all_weights(recipe):
    norms = []

    def clip(model):
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters()))
        norms.append(norm)
        for parameter in model.parameters():
            parameter.grad *= min(1, 0.5 / norm)

    expected = by_hand(recipe, before_step=clip)
    # Else nothing was clipped. Whichever later step has a smaller gradient than that, both leave it alone.
    assert norms[0] > 0.5
    assert_trained_alike(fit(clip_gradients(recipe, max_norm=0.5))[0], expected)


@pytest.mark.trains
def test_weights_are_moved_for_each_pass_and_the_gradient_applied_to_themselves(recipe):
    def loss_of(model, x, y):
        noise = [0.1 * torch.randn_like(parameter) for parameter in model.parameters()]
        moved = copy.deepcopy(model)
        for parameter, offset in zip(moved.parameters(), noise, strict=True):
            parameter.data += offset
        loss = nn.functional.cross_entropy(moved(x), y)
        gradients = torch.autograd.grad(loss, list(moved.parameters()))
        for buffer, new in zip(model.buffers(), moved.buffers(), strict=True):
            buffer.copy_(new)
        # A loss whose gradient in the weights themselves is the one taken beside them.
        return sum((g * p).sum() for g, p in zip(gradients, model.parameters(), strict=True))

    outputs, _ = fit(augment_weights(recipe, sd=0.1))
    assert_trained_alike(outputs, by_hand(recipe, loss_of=loss_of))
    assert not torch.allclose(outputs, fit(recipe)[0], atol=1e-3)


@pytest.mark.trains
def test_aswa_goes_on_from_the_mean_of_all_weights_so_far(recipe):
    with Stream(PLAN.init):
        seen = [[p.detach().clone().double() for p in recipe.model().parameters()]]

    def replace(model, step):
        # The mean of n + 1 numbers from that of n, by its definition as a sum.
        with torch.no_grad():
            for parameter, mean in zip(model.parameters(), seen[0], strict=True):
                mean.copy_((mean * step + parameter) / (step + 1))
                parameter.copy_(mean)

    assert_trained_alike(fit(aswa(recipe))[0], by_hand(recipe, after_step=replace))


@pytest.mark.trains
def test_averaged_weights_are_scored_and_do_not_change_the_training(recipe):
    states = []
    plain = by_hand(recipe, after_step=lambda model, step: states.append(copy.deepcopy(model.state_dict())))
    mean = copy.deepcopy(plain)
    mean.load_state_dict({name: torch.stack([s[name].double() for s in states]).mean(0) for name in states[0]})
    assert len(states) == 6
    outputs, trained = fit(average_weights(recipe))
    assert_trained_alike(outputs, mean)
    assert_trained_alike(trained.model.eval()(X).detach(), plain)


@pytest.mark.slow
@pytest.mark.parametrize("remedy", REMEDIES)
def test_a_remedied_recipe_is_controlled_perturbed_rounded_and_ensembled_like_any_other(recipe, remedy, tmp_path):
    remedied = remedy(recipe)
    for protocol in (NoiseProtocol("stochastic", runs=2), NoiseProtocol("low_level", "ulp", runs=2)):
        remedied.check(protocol, CPU)
        trainer = Trainer(remedied, "cpu", 1, tmp_path)
        assert prove_isolation(InProcess(trainer).call, trainer, protocol.plans()[0]).proven
        assert all(trainer.train_once(plan).status == "ok" for plan in protocol.plans())
    assert fit(remedied.with_snapshots(2).with_tta())[0].shape == (12, 4)


@pytest.mark.trains
def test_the_offsets_of_weights_come_from_the_stochastic_source(recipe, tmp_path):
    trainer = Trainer(augment_weights(recipe), "cpu", 1, tmp_path)
    one, other = (
        trainer.train_once(plan).fingerprint for plan in NoiseProtocol("stochastic", runs=2, seed=BASE_SEED).plans()
    )
    assert one != other
    plain = Trainer(recipe, "cpu", 1, tmp_path)
    one, other = (
        plain.train_once(plan).fingerprint for plan in NoiseProtocol("stochastic", runs=2, seed=BASE_SEED).plans()
    )
    assert one == other


def test_every_remedy_and_its_strength_count_in_the_fingerprint(recipe, tmp_path):
    recipes = [recipe, *(remedy(recipe) for remedy in REMEDIES), clip_gradients(recipe, 2), augment_weights(recipe, 1)]
    prints = [fingerprint(dataclasses.replace(r, name="").content(), tmp_path) for r in recipes]
    assert len(set(prints)) == len(recipes)
    fit(recipe)  # which keeps what it prepared beside the recipe, and not in the remedy's
    assert fingerprint(dataclasses.replace(aswa(recipe), name="").content(), tmp_path) == prints[3]


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, None, "1", True])
def test_a_strength_that_means_nothing_is_refused(recipe, value):
    with pytest.raises(TaskError, match=r"^Expected a finite max_norm > 0 but got max_norm="):
        clip_gradients(recipe, value)
    with pytest.raises(TaskError, match=r"^Expected a finite sd > 0 but got sd="):
        augment_weights(recipe, value)
