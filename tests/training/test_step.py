"""One step is rehearsed before any run trains: each way in which it fails is one sentence, and the rest trains."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from stabilitykit.errors import IsolationError, TaskError
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.step import step_of, told
from stabilitykit.training.trainer import Trainer
from tests.training.conftest import X, Y, recipe_of, sgd

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")


def check(recipe, vary="init"):
    recipe.check(NoiseProtocol(vary, runs=2), CPU)


def refusal(recipe, error=TaskError):
    with pytest.raises(error) as refused:
        check(recipe)
    return str(refused.value)


# Optimizers that need a closure


def lbfgs(model):
    return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)


def test_lbfgs_trains_as_by_hand(train):
    recipe = recipe_of(optimizer=lbfgs, batch_size=20, epochs=3, keep_weights=True)
    check(recipe)
    weights = train(recipe).weights
    with torch.random.fork_rng():
        torch.manual_seed(NoiseProtocol("none", runs=2).plans()[0].init)
        model = nn.Linear(4, 3)
    # Full batches: the order of the examples is the only thing that the recipe adds, and sums depend on it by rounding.
    optimizer = lbfgs(model)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    torch.testing.assert_close(weights["weight"], model.weight.detach(), rtol=1e-3, atol=1e-4)


def test_the_loss_of_a_step_is_the_one_before_it():
    p = nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.LBFGS([p], max_iter=5)

    def evaluate():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert step_of(optimizer)(evaluate).item() == 9.0
    assert p.item() < 3.0


def test_lbfgs_under_low_level_is_rounded(train):
    recipe = recipe_of(optimizer=lbfgs, batch_size=20)
    prints = [train(recipe, "low_level", index).fingerprint for index in (0, 1, 0)]
    assert prints[0] == prints[2] != prints[1]


class NeedsClosure(torch.optim.SGD):
    """As sharpness-aware optimizers: the closure may be left out, and then nothing goes."""

    def step(self, closure=None):
        if closure is None:
            raise RuntimeError("step requires a closure")
        return super().step(closure)


def test_an_optimizer_that_turns_out_to_need_a_closure_is_named_with_the_way_out():
    message = refusal(recipe_of(optimizer=lambda model: NeedsClosure(model.parameters(), lr=0.1)))
    assert message == (
        "Expected NeedsClosure to make a step with the gradients of a batch but it raised RuntimeError: step requires "
        "a closure. Choose another optimizer=, or write train(run), whose loop is your own."
    )


# What the model returns


class Returning(nn.Linear):
    """A model that returns what ``training`` and ``predicting`` make of its logits."""

    def __init__(self, training=lambda logits: logits, predicting=lambda logits: logits):
        super().__init__(4, 3)
        self.returned = training, predicting

    def forward(self, x):
        return self.returned[not self.training](super().forward(x))


class Output(collections.OrderedDict):
    """As transformers' ModelOutput."""

    @property
    def logits(self):
        return self["logits"]


Pair = collections.namedtuple("Pair", ["main", "extra"])  # as torchvision has them


@pytest.mark.parametrize(
    ("returned", "name"),
    [
        (lambda logits: (logits, logits), "a tuple of (Tensor [8, 3], Tensor [8, 3])"),
        (lambda logits: Pair(logits, None), "a Pair of (Tensor [8, 3], NoneType)"),
        (lambda logits: {"logits": logits}, "a dict with 'logits'"),
        (lambda logits: Output(logits=logits), "an Output with 'logits'"),
        (lambda logits: None, "NoneType"),
    ],
)
def test_more_than_a_tensor_in_training_needs_a_loss_of_its_own(returned, name):
    message = refusal(recipe_of(model=lambda: Returning(returned)))
    assert message.startswith(
        f"Expected the model to return one tensor in training mode, which the default loss takes, but Returning "
        f"returned {name}. Give loss=lambda outputs, labels: ..."
    )


def test_with_a_loss_of_its_own_it_trains(train):
    recipe = recipe_of(
        model=lambda: Returning(lambda logits: (logits, logits)),
        loss=lambda outputs, y: sum(nn.functional.cross_entropy(part, y) for part in outputs),
    )
    check(recipe)
    train(recipe)


@pytest.mark.parametrize("returned", [lambda logits: Output(logits=logits), lambda logits: {"logits": logits}])
def test_the_logits_of_an_output_object_are_what_is_scored(train, returned):
    recipe = recipe_of(
        model=lambda: Returning(returned, returned),
        loss=lambda outputs, y: nn.functional.cross_entropy(outputs["logits"], y),
    )
    check(recipe)
    assert torch.equal(train(recipe).logits, train(recipe_of()).logits)


@pytest.mark.parametrize("returned", [lambda logits: (logits, logits), lambda logits: {"scores": logits}, lambda _: 3])
def test_a_prediction_of_several_parts_is_refused(returned):
    message = refusal(recipe_of(model=lambda: Returning(predicting=returned)))
    assert "in eval mode" in message
    assert "but Returning returned" in message
    assert "or write train(run), whose loop is your own" in message


# Losses and gradients


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": lambda logits, y: nn.functional.cross_entropy(logits, y, reduction="none")},
            "Expected the loss of a batch to be a tensor of one real number but it is Tensor [8]: ",
        ),
        (
            {"loss": lambda logits, y: float(nn.functional.cross_entropy(logits, y).detach())},
            "Expected the loss of a batch to be a tensor of one real number but it is float: ",
        ),
        (
            {"loss": lambda logits, y: torch.complex(logits.sum(), logits.sum())},
            "Expected the loss of a batch to be a tensor of one real number but it is Tensor [] of torch.complex64: ",
        ),
        (
            {"loss": lambda logits, y: (logits.argmax(1) != y).float().mean()},
            "Expected a loss that depends on the model's weights but it has no gradient: ",
        ),
        (
            {"model": lambda: nn.Linear(4, 3).requires_grad_(False)},
            "Expected a loss that depends on the model's weights but it has no gradient: all parameters are frozen",
        ),
        (
            {"optimizer": lambda model: sgd(nn.Linear(4, 3))},
            "Expected a gradient in some parameter of the optimizer but none of them has one: it would train nothing.",
        ),
        (
            {"optimizer": lambda model: torch.optim.SGD([], lr=0.1)},
            "Expected optimizer(model) to make an optimizer but it raised ValueError: optimizer got an empty parameter",
        ),
        (
            {"optimizer": lambda model: torch.optim.SGD([model.weight * 2], lr=0.1)},
            "Expected optimizer(model) to make an optimizer but it raised ValueError: can't optimize a non-leaf Tensor",
        ),
        (
            {"loss": lambda logits, y: {}["loss"]},
            "Expected the loss to take the outputs and labels of a batch of 8 in training mode but it raised KeyError:",
        ),
        (
            {"train": (X, Y + 1)},
            "Expected the loss to take the outputs and labels of a batch of 8 in training mode but it raised",
        ),
        (
            {"model": lambda: nn.Linear(5, 3)},
            "Expected the model to predict a batch in eval mode but it raised RuntimeError: mat1 and mat2 shapes",
        ),
        (
            {"model": lambda: {}["net"]},
            "Expected model() to make a model but it raised KeyError: 'net'. Mend model=.",
        ),
    ],
)
def test_what_no_step_can_be_made_of_is_refused(options, message):
    assert refusal(recipe_of(**options)).startswith(message)


def test_the_exception_is_chained():
    with pytest.raises(TaskError) as refused:
        check(recipe_of(loss=lambda logits, y: {}["loss"]))
    assert isinstance(refused.value.__cause__, KeyError)


def test_a_loss_of_one_number_in_a_row_trains(train):
    one = lambda logits, y: nn.functional.cross_entropy(logits, y).reshape(1)  # noqa: E731
    recipe = recipe_of(loss=one)
    check(recipe)
    assert train(recipe).fingerprint == train(recipe_of()).fingerprint


def test_a_last_batch_that_the_model_cannot_take_is_refused():
    norm = recipe_of(model=lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), batch_size=19)
    message = refusal(norm)
    assert message.startswith(
        "Expected Sequential to take a batch of 1 in training mode but it raised ValueError: Expected more than 1 value"
    )
    check(dataclasses.replace(norm, drop_last=True))


def test_no_batch_at_all_is_refused():
    message = refusal(recipe_of(batch_size=21, drop_last=True))
    assert message.startswith("Expected a batch to train on but got 20 examples, batch_size=21 and drop_last=True")


@pytest.mark.parametrize(
    ("optimizer", "is_refused"), [(torch.optim.SGD, False), (torch.optim.SparseAdam, False), (torch.optim.Adam, True)]
)
def test_sparse_gradients_train_where_the_optimizer_takes_them(train, optimizer, is_refused):
    recipe = recipe_of(
        model=lambda: nn.EmbeddingBag(8, 3, sparse=True),
        train=(torch.arange(40).reshape(20, 2) % 8, Y),
        test=(torch.arange(40).reshape(20, 2) % 8, Y),
        optimizer=lambda model: optimizer(model.parameters(), lr=0.1),
    )
    if is_refused:
        assert "Adam to make a step with the gradients of a batch but it raised RuntimeError: " in refusal(recipe)
    else:
        check(recipe)
        train(recipe)


class ComplexNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))

    def forward(self, x):
        return (x.to(torch.complex64) @ self.weight).abs()


@pytest.mark.parametrize("question", [{"vary": "low_level"}, {"vary": "all"}, {"perturb": "ulp"}, {"perturb": "bit"}])
def test_complex_weights_train_and_move(tmp_path, question):
    recipe = recipe_of(
        model=ComplexNet, epochs=20
    )  # a step of 0.02 rarely carries a rounded gradient into a weight of 1
    protocol = NoiseProtocol(**question, runs=3)
    recipe.check(protocol, CPU)
    records = [Trainer(recipe, "cpu", 1, tmp_path).train_once(plan) for plan in protocol.plans()]
    assert [record.error for record in records] == [""] * 3
    assert len({record.fingerprint for record in records}) > 1


# What the rehearsal leaves behind


def test_the_rehearsal_leaves_nothing_behind(tmp_path):
    class Augment:
        def __call__(self, x):
            return x.mul_(torch.rand(len(x), 1))

    x, y = X.clone(), Y.clone()
    recipe = recipe_of(train=(x, y), model=lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), augment=Augment())
    plan = NoiseProtocol("all", runs=2).plans()[0]
    fresh = Trainer(recipe, "cpu", 1, tmp_path).train_once(plan).fingerprint
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    check(recipe)
    recipe.check(NoiseProtocol(perturb="ulp", runs=2), CPU)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert Trainer(recipe, "cpu", 1, tmp_path).train_once(plan).fingerprint == fresh


# Data


class Items(Dataset):
    def __init__(self, item, count=20):
        self.item, self.count = item, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.item(index)


@pytest.mark.parametrize(
    "item",
    [
        lambda i: {"input_ids": X[i], "labels": int(Y[i])},
        lambda i: ((X[i], X[i]), int(Y[i])),
        lambda i: (X[i], X[i], int(Y[i])),
    ],
    ids=["dict", "two inputs", "three parts"],
)
def test_items_that_are_no_pairs_are_refused_with_both_ways_out(item):
    message = refusal(recipe_of(train=Items(item)))
    assert "Expected every item of Items to be (input, label)" in message
    assert "Wrap it in a Dataset that returns such pairs, or write train(run)" in message


def test_items_of_several_shapes_are_refused():
    message = refusal(recipe_of(train=Items(lambda i: (torch.zeros(i % 3 + 1), 0))))
    assert message.startswith("Expected train= to give a batch of one shape but it raised RuntimeError: stack expects")


def drawing():
    generator = np.random.RandomState(0)
    return lambda i: (X[i] + float(generator.standard_normal()), int(Y[i]))


def counting():
    reads = collections.Counter()

    def item(i):
        reads[i] += 1
        return X[i] * reads[i], int(Y[i])

    return item


def in_place():
    x = X.clone()
    return lambda i: (x[i].add_(float(np.random.rand())), int(Y[i]))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("item", [drawing, counting, in_place])
def test_an_item_that_changes_with_each_reading_is_no_item(item, num_workers):
    message = refusal(recipe_of(train=Items(item()), num_workers=num_workers), IsolationError)
    assert "of train= to be the same whenever it is read under one seed, but Items returned another one" in message
    assert "between runs" in message
    assert "of which each loader process has a copy" in message


def test_an_item_that_draws_from_the_global_generators_is_the_same_whenever_it_is_read():
    check(recipe_of(train=Items(lambda i: (X[i] + float(np.random.rand()) + torch.rand(4), int(Y[i])))))


# Lazy layers


def lazy():
    return nn.Sequential(nn.LazyLinear(5), nn.Dropout(0.5), nn.LazyBatchNorm1d(), nn.LazyLinear(3))


def test_lazy_layers_are_initial_parameters(train):
    recipe = recipe_of(model=lazy, epochs=1, keep_weights=True)
    check(recipe)
    prints = {vary: {train(recipe, vary, i).fingerprint for i in range(3)} for vary in ("none", "init")}
    assert {vary: len(found) for vary, found in prints.items()} == {"none": 1, "init": 3}


def test_lazy_layers_draw_from_init_and_pass_no_batch_through_the_running_means(train, monkeypatch):
    starts = []

    def note(self, run, model, *rest):
        starts.append({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(Recipe, "_train_epoch", note)
    recipe = recipe_of(model=lazy, epochs=1)
    for vary, index in (("stochastic", 0), ("stochastic", 1), ("init", 1)):
        train(recipe, vary, index)
    names = {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert all(not torch.equal(starts[0][name], starts[2][name]) for name in names)
    assert torch.equal(starts[0]["2.running_mean"], torch.zeros(5))


class AuxiliaryLazy(nn.Module):
    """Has a lazy layer that only training calls."""

    def __init__(self):
        super().__init__()
        self.main, self.extra = nn.LazyLinear(3), nn.LazyLinear(3)

    def forward(self, x):
        return self.main(x) + self.extra(x) if self.training else self.main(x)


def test_a_lazy_layer_that_only_training_calls_is_made_too(train):
    recipe = recipe_of(model=AuxiliaryLazy)
    check(recipe)
    assert len({train(recipe, "init", i).fingerprint for i in range(3)}) == 3


def test_a_loop_with_a_lazy_model_is_told_to_run_one_batch(tmp_path):
    from stabilitykit.training.task import as_task

    def loop(run):
        run.perturb(lazy())

    with pytest.raises(TaskError, match=r"'0\.weight' is uninitialized: a lazy layer .* with run.stream\(\"init\"\)"):
        Trainer(as_task(loop, Y), "cpu", 1, tmp_path).train_once(NoiseProtocol("init", runs=2).plans()[0])


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.functional.l1_loss, nn.HuberLoss(), nn.SmoothL1Loss()])
def test_a_loss_that_compares_each_output_with_each_label_is_refused(loss):
    """Torch only warns, and what is trained then predicts the mean of the labels."""
    targets = torch.randn(20)
    recipe = recipe_of(model=lambda: nn.Linear(4, 1), train=(X, targets), test=(X, targets), loss=loss)
    assert (
        "Expected the loss to take the outputs and labels of a batch of 8 in training mode but it raised UserWarning: "
        "Using a target size (torch.Size([8])) that is different to the input size (torch.Size([8, 1]))"
    ) in (said := refusal(recipe))
    assert "The model returned Tensor [8, 1], the labels are Tensor [8]. Mend loss=, the model or the labels." in said
    check(recipe_of(model=lambda: nn.Linear(4, 1), train=(X, targets[:, None]), test=(X, targets[:, None]), loss=loss))


# The pieces


def test_told_leaves_our_own_errors_as_they_are():
    with pytest.raises(TaskError, match=r"^ours$"), told("nothing", "Mend it."):
        raise TaskError("ours")


def test_an_error_without_a_message_is_told_too():
    expected = r"^Expected a step but it raised ValueError\. Mend it\.$"
    with pytest.raises(TaskError, match=expected), told("a step", "Mend it."):
        raise ValueError
