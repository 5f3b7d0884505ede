"""A recipe trains what it says, counts for the key by what it trains, and is refused where it cannot be trained."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from stabilitykit.errors import PerturbationError, TaskError
from stabilitykit.isolation.streams import Stream
from stabilitykit.protocol import NoiseProtocol, Perturbation
from stabilitykit.store.fingerprint import fingerprint
from stabilitykit.training.images import RandomCropFlip
from stabilitykit.training.run import Run
from stabilitykit.training.schedule import CosineCycles, warmup_cosine
from stabilitykit.training.trainer import Trainer
from tests.seeds import BASE_SEED
from tests.training.conftest import X, Y, recipe_of, sgd

CPU = torch.device("cpu")
PLANS = NoiseProtocol("init", runs=2, seed=BASE_SEED).plans()


def fit(recipe, plan=PLANS[0]):
    run = Run(plan, CPU)
    with Stream(plan.stochastic):
        return recipe.fit(run), run


def check(task, protocol=None):
    task.check(protocol or NoiseProtocol("init", runs=2), CPU)


class TestRefusals:
    """Before anything trains."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"epochs": 0}, "Expected epochs >= 1 but got epochs=0."),
            ({"epochs": 2.5}, "Expected epochs >= 1 but got epochs=2.5."),
            ({"batch_size": -1}, "Expected batch_size >= 1 but got batch_size=-1."),
            ({"batch_size": True}, "Expected batch_size >= 1 but got batch_size=True."),
            ({"eval_batch_size": 0}, "Expected eval_batch_size >= 1 but got eval_batch_size=0."),
            (
                {"model": nn.Linear(4, 3)},
                (
                    "Expected model= to be a function that makes a new model for every run but got "
                    "a Linear: a second run "
                    "would go on training the first one's weights. Write model=lambda: Linear(...)."
                ),
            ),
            (
                {"model": None},
                (
                    "Expected model= to be a function that makes a new one for every run but got NoneType. Write "
                    "model=lambda: ..."
                ),
            ),
            (
                {"optimizer": torch.optim.SGD([torch.zeros(1)])},
                (
                    "Expected optimizer= to be a function that makes a new one for every run but got SGD. Write "
                    "optimizer=lambda model: ..."
                ),
            ),
            ({"train": (X, Y[:-1])}, "Expected one label an example in train= but got 20 inputs and 19 labels."),
            ({"test": X}, "Expected test= to be (inputs, labels) or a map-style Dataset"),
            ({"test": 3}, "Expected test= to be (inputs, labels) or a map-style Dataset"),
            (
                {"schedule": CosineCycles(cycles=3)},
                (
                    "Expected epochs to be a multiple of cycles but got epochs=2 and cycles=3: the "
                    "last cycle would stop "
                    "before its rate is 0. Train 3 epochs."
                ),
            ),
            (
                {"schedule": warmup_cosine(2)},
                "Expected every cycle to be longer than its warm-up but got 2 epochs a cycle and warmup_epochs=2.",
            ),
        ],
    )
    def test_a_recipe_that_cannot_be_trained_is_refused_where_it_is_made(self, options, message):
        with pytest.raises(TaskError) as refusal:
            recipe_of(**options)
        assert str(refusal.value).startswith(message)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model": nn.ReLU}, "Expected a model with parameters to train but ReLU has none."),
            ({"model": lambda: 3}, "Expected model() to return a torch.nn.Module but it returned int."),
            (
                {"optimizer": lambda model: None},
                "Expected optimizer(model) to return a torch Optimizer but got NoneType. A scheduler goes to",
            ),
            (
                {"test": (X, Y + 1)},
                "Expected class labels below 3, the number of logits, but got 3.",
            ),
            (
                {"test": (X, Y - 1)},
                "Expected class labels from 0, or -100 for examples to leave out, but the smallest is -1.",
            ),
            ({"test": (X, torch.full_like(Y, -100))}, "Expected some labels to score but all 20 are -100, left out."),
            (
                {"test": (X, torch.full((20,), math.nan))},
                "Expected finite regression targets but the labels hold NaN or infinity.",
            ),
            ({"test": (X, Y.float())}, "Expected regression outputs of the targets' shape (2,) but got (2, 3)."),
            (
                {"model": lambda: nn.Linear(4, 1)},
                (
                    "Expected logits of shape [2, C] with C >= 2 classes, one row a test label, but "
                    "got [2, 1]. Classes "
                    "come last; a single output a label tells classes 0 and 1 apart, and these labels go up to 2."
                ),
            ),
            (
                {"model": lambda: nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1)))},
                "Expected logits of shape [2, C] with C >= 2 classes, one row a test label, but got [2, 3, 1].",
            ),
        ],
    )
    def test_what_only_the_model_or_the_labels_can_tell_is_refused_by_the_check(self, options, message):
        with pytest.raises(TaskError) as refusal:
            check(recipe_of(**options))
        assert str(refusal.value).startswith(message)

    @pytest.mark.parametrize(
        ("perturbation", "model", "message"),
        [
            (Perturbation(parameter="missing"), None, "Expected parameter= to be a name in model.named_parameters()"),
            (Perturbation(index=(9, 9)), None, "Expected index= to lie inside 'weight', of shape (3, 4)"),
            (Perturbation("bit", bit=32), None, "Expected bit < 32, the width of weight (torch.float32)"),
            (Perturbation(), lambda: constant_linear(math.inf), "Expected a finite weight to step from"),
            (Perturbation(), lambda: constant_linear(math.nan), "Expected a finite weight to step from"),
            (Perturbation("bit", bit=30), lambda: constant_linear(1.0), "finite, but 1.0 would become inf"),
        ],
    )
    def test_a_perturbation_that_cannot_be_made_is_refused_by_the_check(self, perturbation, model, message):
        recipe = recipe_of(**({"model": model} if model else {}))
        with pytest.raises(PerturbationError) as refusal:
            check(recipe, NoiseProtocol(perturb=perturbation, runs=2))
        assert message in str(refusal.value)

    def test_the_check_draws_nothing_and_trains_nothing(self):
        made = []

        def model():
            model = nn.Linear(4, 3)
            made.append(copy.deepcopy(model))  # the step that is rehearsed moves the weights of the model itself
            return model

        state = torch.get_rng_state()
        check(recipe_of(model=model))
        assert torch.equal(torch.get_rng_state(), state)
        with Stream(PLANS[0].init):
            fresh = nn.Linear(4, 3)
        assert torch.equal(made[0].weight, fresh.weight)


def constant_linear(value):
    model = nn.Linear(4, 3)
    nn.init.constant_(model.weight, value)
    return model


# What a recipe trains


def by_hand(model, order, x, y, rates, loss=nn.functional.cross_entropy):
    """Plain SGD over batches of indices."""
    for batch, rate in zip(order, rates, strict=True):
        model.zero_grad()
        loss(model(x[batch]), y[batch]).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= rate * parameter.grad
    return model


def start(recipe, plan=PLANS[0]):
    """The model and the batches of every epoch, as the streams of a plan give them."""
    with Stream(plan.init):
        model = recipe.model()
    shuffle = torch.Generator().manual_seed(plan.shuffle)
    epochs = [torch.randperm(20, generator=shuffle).split(recipe.batch_size) for _ in range(recipe.epochs)]
    return model, [batch for epoch in epochs for batch in epoch]


@pytest.mark.trains
def test_a_recipe_trains_as_a_plain_loop_does():
    recipe = recipe_of(epochs=3)
    model, order = start(recipe)
    expected = by_hand(model, order, X, Y, [0.1] * 9)(X)
    torch.testing.assert_close(fit(recipe)[0], expected.detach())


def test_the_schedule_sets_each_groups_rate_before_every_step():
    rates = []

    def optimizer(model):
        groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}]
        made = torch.optim.SGD(groups, lr=0.1)
        made.register_step_pre_hook(lambda made, *_: rates.append([group["lr"] for group in made.param_groups]))
        return made

    fit(recipe_of(optimizer=optimizer, schedule=lambda epoch, epochs: 1 - epoch / epochs))
    # Three steps in each of two epochs: the factor is that of the moment when the step is done.
    factors = [1 - step / 6 for step in range(1, 7)]
    assert rates == [[pytest.approx(0.5 * f), pytest.approx(0.1 * f)] for f in factors]


@pytest.mark.trains
def test_a_dropped_rest_is_not_trained_and_does_not_count_as_a_step():
    epochs = []
    recipe = recipe_of(drop_last=True, schedule=lambda epoch, epochs_: epochs.append(epoch) or 1.0)
    model, order = start(recipe)
    expected = by_hand(model, [batch for batch in order if len(batch) == 8], X, Y, [0.1] * 4)(X)
    torch.testing.assert_close(fit(recipe)[0], expected.detach())
    assert epochs == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.trains
def test_a_loss_of_ones_own_is_used():
    recipe = recipe_of(loss=lambda logits, labels: logits.square().sum())
    model, order = start(recipe)
    expected = by_hand(model, order, X, Y, [0.1] * 6, lambda logits, labels: logits.square().sum())(X)
    torch.testing.assert_close(fit(recipe)[0], expected.detach())


@pytest.mark.trains
class TestRegression:
    targets = X @ torch.tensor([1.0, -1.0, 0.5, 2.0]) + 0.3

    @pytest.mark.parametrize("flat", [True, False])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_squared_error_is_between_each_output_and_its_own_target(self, flat, dtype):
        def model():
            return nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)) if flat else nn.Linear(4, 1)

        targets = self.targets.to(dtype)
        recipe = recipe_of(model=model, train=(X, targets), test=(X, targets), epochs=60, curve=True)
        outputs, run = fit(recipe)
        # [N, 1] against [N] would be broadcast, and learn the mean of all targets. The targets are linear in X, so the
        # loss is a parabola with its bottom at 0: gradient descent gets there from anywhere, here down to rounding.
        assert (outputs.reshape(-1) - self.targets).abs().max() < 1e-3
        assert run.curve[-1]["rmse"] < 1e-3 < run.curve[0]["rmse"]


@pytest.mark.trains
class TestManyOutputsAnExample:
    x = torch.randn(6, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    y = x[..., 0].gt(0).long()

    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
    def test_the_default_loss_takes_classes_last_and_any_integer(self, dtype):
        y = self.y.to(dtype)
        recipe = recipe_of(model=lambda: nn.Linear(3, 2), train=(self.x, y), test=(self.x, y), epochs=40, batch_size=2)
        check(recipe)
        outputs, _ = fit(recipe)
        assert outputs.shape == (6, 4, 5, 2)
        # A line separates them. Classes on the wrong axis would score no better than a coin: 60 of 120, give or take 6.
        assert (outputs.argmax(-1) == self.y).double().mean() > 0.9

    def test_the_ignored_label_is_neither_trained_nor_scored(self):
        y = self.y.clone()
        y[:, 0] = -100
        recipe = recipe_of(model=lambda: nn.Linear(3, 2), train=(self.x, y), test=(self.x, y), curve=True)
        check(recipe)
        outputs, run = fit(recipe)
        right = outputs[:, 1:].argmax(-1) == self.y[:, 1:]
        assert run.curve[-1]["accuracy"] == pytest.approx(100 * right.double().mean().item())
        wrong = y.clone()
        wrong[:, 0] = -100
        changed = self.x.clone()
        changed[:, 0] = 99.0
        assert torch.equal(fit(dataclasses.replace(recipe, train=(changed, wrong)))[0], outputs)


@pytest.mark.trains
def test_labels_may_be_probabilities_of_classes():
    soft = nn.functional.one_hot(Y, 3).float()
    outputs, _ = fit(recipe_of(train=(X, soft)))
    torch.testing.assert_close(outputs, fit(recipe_of())[0])


@pytest.mark.trains
def test_the_curve_scores_the_test_set_after_every_epoch():
    recipe = recipe_of(epochs=3, curve=True)
    _, run = fit(recipe)
    for epochs, point in enumerate(run.curve, start=1):
        outputs, _ = fit(dataclasses.replace(recipe, epochs=epochs))
        assert point["accuracy"] == pytest.approx(100 * (outputs.argmax(-1) == Y).double().mean().item())
        assert point["cross_entropy"] == pytest.approx(nn.functional.cross_entropy(outputs.double(), Y).item())


def test_the_last_model_is_scored_once():
    scored = []

    class Net(nn.Linear):
        def forward(self, x):
            scored.extend([] if self.training else [len(x)])
            return super().forward(x)

    for options, times in (({}, 1), ({"curve": True}, 4)):
        scored.clear()
        fit(recipe_of(model=lambda: Net(4, 3), epochs=4, **options))
        assert scored == [20] * times
    scored.clear()
    fit(recipe_of(model=lambda: Net(4, 3), epochs=4, curve=True).with_snapshots(2))
    assert scored == [20] * 4


def test_the_size_of_scoring_batches_changes_no_prediction():
    torch.testing.assert_close(fit(recipe_of(eval_batch_size=3))[0], fit(recipe_of())[0])


def test_dtype_and_memory_format_reach_model_and_inputs():
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, x):
            last = torch.channels_last
            seen.append(
                (x.dtype, x.is_contiguous(memory_format=last), self.conv.weight.is_contiguous(memory_format=last))
            )
            return self.conv(x).mean((2, 3))

    images = torch.randn(20, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    data = images, Y
    options = {"model": Net, "train": data, "test": data, "augment": RandomCropFlip(1)}
    outputs, _ = fit(recipe_of(**options, dtype=torch.float64, memory_format=torch.channels_last))
    assert set(seen) == {(torch.float64, True, True)}
    assert outputs.dtype == torch.float64
    plain, _ = fit(recipe_of(**options, dtype=torch.float64))
    torch.testing.assert_close(outputs, plain)


def test_a_dataset_trains_as_its_tensors_do():
    plain, _ = fit(recipe_of())
    for workers in (0, 2):
        recipe = recipe_of(train=TensorDataset(X, Y), test=TensorDataset(X, Y), num_workers=workers)
        check(recipe)
        assert torch.equal(fit(recipe)[0], plain)
        assert torch.equal(recipe.labels, Y)


def test_what_a_model_caches_while_it_is_checked_or_scored_serves_its_training():
    # A tensor made in inference mode could not be saved for backward.
    @functools.cache
    def mask(size):
        return torch.ones(size) * 0.5

    class Net(nn.Linear):
        def forward(self, x):
            return super().forward(x * mask(4) * self.weight.sum()) * mask(3)

    recipe = recipe_of(model=lambda: Net(4, 3), curve=True)
    check(recipe)
    assert fit(recipe)[0].shape == (20, 3)


class TestReplacing:
    """A recipe derived from another shares its converted data, and nothing that the change concerns."""

    def test_another_test_set_has_its_own_labels(self):
        first = recipe_of(test=TensorDataset(X, Y))
        assert torch.equal(first.labels, Y)
        second = dataclasses.replace(first, test=TensorDataset(X[:6], Y[:6] * 0))
        assert second.labels.tolist() == [0] * 6
        assert fit(second)[0].shape == (6, 3)

    def test_another_number_of_loader_processes_is_used(self):
        class Where(Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, index):
                info = torch.utils.data.get_worker_info()
                return X[index], 0 if info is None else 1

        alone = recipe_of(test=Where())
        assert alone.labels.tolist() == [0] * 4
        loaded = recipe_of(test=alone.test, num_workers=2, _prepared=dict(alone._prepared))
        examples = loaded._examples(loaded.test, CPU)
        ((_, where),) = examples.batches([torch.arange(4)], item_seed=0)
        assert where.tolist() == [1] * 4

    def test_data_that_was_changed_in_place_is_converted_again(self):
        x = X.clone()
        recipe = recipe_of(train=(x, Y), dtype=torch.float64)
        before, _ = fit(recipe)
        x += 1
        after, _ = fit(recipe)
        expected, _ = fit(recipe_of(train=(X + 1, Y), dtype=torch.float64))
        assert not torch.equal(before, after)
        assert torch.equal(after, expected)


class TestContent:
    def of(self, tmp_path, **options):
        return fingerprint(recipe_of(**options).content(), tmp_path)

    @pytest.mark.parametrize(
        "options",
        [
            {"epochs": 3},
            {"batch_size": 9},
            {"model": lambda: nn.Linear(4, 3, bias=False)},
            {"optimizer": lambda model: sgd(model, lr=0.2)},
            {"schedule": warmup_cosine(1)},
            {"schedule": warmup_cosine(1.5)},
            {"loss": nn.functional.cross_entropy},
            {"augment": RandomCropFlip(1)},
            {"augment": RandomCropFlip(2)},
            {"drop_last": True},
            {"dtype": torch.float64},
            {"memory_format": torch.channels_last},
            {"curve": True},
            {"eval_batch_size": 7},
            {"train": (X + 1, Y)},
            {"test": (X, Y.flip(0))},
            {"train": TensorDataset(X, Y)},
        ],
    )
    def test_every_setting_counts(self, tmp_path, options):
        assert self.of(tmp_path, **options) != self.of(tmp_path)
        assert self.of(tmp_path, **options) == self.of(tmp_path, **options)

    def test_what_changes_no_bit_does_not_count(self, tmp_path):
        assert self.of(tmp_path, num_workers=2, name="other") == self.of(tmp_path)
        recipe = recipe_of()
        before = fingerprint(recipe.content(), tmp_path)
        fit(recipe)
        assert fingerprint(recipe.content(), tmp_path) == before

    def test_a_dataset_counts_by_its_items_too(self, tmp_path):
        class Virtual(Dataset):
            def __len__(self):
                return 200

            def __getitem__(self, index):
                return torch.full((4,), float(index + offset.item())), index % 3

        offset = np.array(0)
        one = self.of(tmp_path, train=Virtual())
        state = torch.get_rng_state()
        assert self.of(tmp_path, train=Virtual()) == one
        assert torch.equal(torch.get_rng_state(), state)
        offset = np.array(1)
        assert self.of(tmp_path, train=Virtual()) != one

    def test_items_of_a_map_style_dataset_count_and_loader_processes_where_they_matter(self, tmp_path):
        class Noisy(TensorDataset):
            generator = np.random.RandomState(0)

            def __getitem__(self, index):
                return super().__getitem__(index)[0] + self.noise[0] * self.draw(), index % 3

            def draw(self):
                return float(self.__dict__.setdefault("own", np.random.RandomState(0)).normal())

        for noise, counts in ((0.0, False), (1.0, True)):
            data = Noisy(X, Y)
            data.noise = (noise,)
            one, two = (recipe_of(train=data, num_workers=number) for number in (2, 3))
            assert (fingerprint(one.content(), tmp_path) != fingerprint(two.content(), tmp_path)) is counts
            assert bool(one.remarks) is counts

    def test_data_and_labels_that_changed_are_trained_on_and_scored(self, tmp_path):
        array = X.numpy().copy()
        recipe = recipe_of(train=(torch.from_numpy(array), Y), dtype=torch.float64)
        before, _ = fit(recipe)
        array += 1
        after, _ = fit(recipe)
        assert torch.equal(after, fit(recipe_of(train=(X + 1, Y), dtype=torch.float64))[0])
        assert not torch.equal(before, after)

    def test_labels_of_a_test_dataset_that_changed_are_read_again_with_the_key(self, tmp_path):
        y = Y.clone()
        recipe = recipe_of(test=TensorDataset(X, y))
        assert torch.equal(recipe.labels, Y)
        before = fingerprint(recipe.content(), tmp_path)
        y += 1
        assert fingerprint(recipe.content(), tmp_path) != before
        assert torch.equal(recipe.labels, Y + 1)

    def test_snapshots_count(self, tmp_path):
        four = recipe_of(epochs=4)
        prints = [fingerprint(r.content(), tmp_path) for r in (four, four.with_snapshots(2), four.with_snapshots(4))]
        assert len(set(prints)) == 3


@pytest.mark.trains
class TestSnapshots:
    def test_members_are_the_models_where_the_rate_is_0_and_their_logits_are_averaged(self):
        recipe = recipe_of(epochs=4)
        model, order = start(recipe)
        members = []
        for cycle in range(2):
            rates = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(1, 7)]
            model = by_hand(model, order[6 * cycle : 6 * cycle + 6], X, Y, rates)
            members.append(copy.deepcopy(model)(X).detach())
        outputs, _ = fit(recipe.with_snapshots(2))
        torch.testing.assert_close(outputs, (members[0] + members[1]) / 2)
        assert not torch.allclose(members[0], members[1])

    @pytest.mark.parametrize(("cycles", "warmup"), [(2, 0), (2, 1), (3, 0.5), (6, 0)])
    def test_the_rate_is_exactly_0_at_each_snapshot(self, cycles, warmup):
        rates = []

        def optimizer(model):
            made = sgd(model)
            made.register_step_pre_hook(lambda made, *_: rates.append(made.param_groups[0]["lr"]))
            return made

        fit(recipe_of(epochs=6, optimizer=optimizer).with_snapshots(cycles, warmup_epochs=warmup))
        zeros = [step for step, rate in enumerate(rates, start=1) if rate == 0]
        assert zeros == [3 * 6 // cycles * cycle for cycle in range(1, cycles + 1)]

    def test_the_warmup_of_the_recipes_own_schedule_comes_in_every_cycle(self):
        recipe = recipe_of(epochs=6, schedule=warmup_cosine(1))
        assert recipe.with_snapshots(2).schedule == CosineCycles(2, 1)
        assert recipe.with_snapshots(2, warmup_epochs=0).schedule == CosineCycles(2, 0)
        assert recipe_of(epochs=6).with_snapshots(2).schedule == CosineCycles(2, 0)
        assert (recipe.snapshots, recipe.with_snapshots(2).snapshots) == (0, 2)

    def test_epochs_that_cycles_do_not_divide_are_refused_before_training(self):
        with pytest.raises(TaskError, match="but got epochs=4 and cycles=5"):
            recipe_of(epochs=4).with_snapshots()
        with pytest.raises(TaskError, match="but got 2 epochs a cycle and warmup_epochs=3"):
            recipe_of(epochs=8, schedule=warmup_cosine(3)).with_snapshots(4)

    @pytest.mark.parametrize("cycles", [1, 0, 2.0, True])
    def test_one_snapshot_is_no_ensemble(self, cycles):
        with pytest.raises(TaskError, match=r"^Expected cycles >= 2 but got cycles="):
            recipe_of().with_snapshots(cycles)

    def test_a_schedule_that_does_not_reach_0_fails_the_run_at_its_first_snapshot(self, tmp_path):
        recipe = dataclasses.replace(recipe_of(epochs=4).with_snapshots(2), schedule=lambda epoch, epochs: 0.5)
        record = Trainer(recipe, "cpu", 1, tmp_path).train_once(PLANS[0])
        assert record.status == "failed"
        assert "a snapshot is due after 2 epochs, but the learning rate is 0.05, not 0" in record.error

    def test_the_curve_goes_on_beside_snapshots(self):
        _, run = fit(recipe_of(epochs=4, curve=True).with_snapshots(2))
        assert len(run.curve) == 4

    def test_the_last_member_is_the_final_model(self):
        recipe = recipe_of(epochs=4, curve=True)
        _, run = fit(recipe.with_snapshots(2))
        last = run.model(X)
        assert run.curve[-1]["accuracy"] == pytest.approx(100 * (last.argmax(-1) == Y).double().mean().item())


def test_a_recipe_shows_its_settings_and_no_data():
    text = repr(recipe_of(name="digits", epochs=4).with_snapshots(2))
    assert text == "Recipe('digits', model=<lambda>, epochs=4, batch_size=8, snapshots=2)"


def test_a_recipe_in_another_process_reads_its_labels_anew() -> None:
    recipe = recipe_of(test=TensorDataset(X, Y))
    assert torch.equal(recipe.labels, Y)
    assert recipe._prepared
    state = recipe.__getstate__()
    assert not state["_prepared"]
    assert state.keys() == vars(recipe).keys()
