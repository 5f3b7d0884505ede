"""One training under one plan: each source by itself, and the process afterwards as it was before."""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import os
import random
import sys
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import _global_optimizer_pre_hooks
from torch.utils.data import Dataset

from stabilitykit.errors import PerturbationError
from stabilitykit.protocol import NoiseProtocol, Perturbation
from stabilitykit.store.traced_inputs import ABSENT
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask, as_task
from stabilitykit.training.trainer import Trainer
from tests.seeds import BASE_SEED

pytestmark = pytest.mark.trains

X = torch.arange(20.0)[:, None].repeat(1, 6)  # every example carries its number
Y = torch.arange(20) % 3
SOURCES = ["init", "shuffle", "augment", "stochastic", "low_level"]


# Isolation: what varies, varies alone


class Spy(nn.Module):
    """A model that writes down its first weights and every mask that it draws, from all three generators."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen
        self.fc = nn.Linear(6, 3)
        with torch.no_grad():
            self.fc.bias += random.random() + np.random.rand()
        seen["init"] = [self.fc.weight.detach().clone(), self.fc.bias.detach().clone()]

    def forward(self, x):
        if self.training:
            mask = nn.functional.dropout(torch.ones_like(x)) + random.random() + np.random.rand()
            self.seen["stochastic"].append(mask)
            x = x * mask
        return self.fc(x / 20)


def watched(seen):
    def augment(x):
        noise = torch.randn_like(x) + random.random() + np.random.rand()
        seen["shuffle"].append(x[:, 0].clone())
        seen["augment"].append(noise)
        return x + 0.1 * noise

    return augment


def rounding(model, seen, rate):
    """An optimizer that writes down the gradients which it is given, in the first step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)

    def look(optimizer, *_):
        if "low_level" not in seen:
            seen["low_level"] = [p.grad.clone() for p in model.parameters()]

    # Global hooks, of which the rounding is one, run before an optimizer's own.
    optimizer.register_step_pre_hook(look)
    return optimizer


def spied_recipe(seen, rate=0.01):
    return Recipe(
        model=lambda: Spy(seen),
        train=(X, Y),
        test=(X, Y),
        epochs=2,
        batch_size=8,
        optimizer=lambda model: rounding(model, seen, rate),
        augment=watched(seen),
    )


def spied_loop(seen, rate=0.01):
    def train(run):
        with run.stream("init"):
            model = Spy(seen)
        run.perturb(model)
        optimizer = rounding(model, seen, rate)
        for _ in run.epochs(2):
            for x, y in run.batches((X, Y), 8, augment=watched(seen)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        return model.eval()(X)

    return LoopTask(train, Y)


def draws_of(make, train, vary, index, **options):
    seen = {"shuffle": [], "augment": [], "stochastic": []}
    record = train(make(seen), vary, index, **options)
    return seen, record


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("make", [spied_recipe, spied_loop])
@pytest.mark.parametrize("source", SOURCES)
def test_varying_a_source_changes_its_draws_and_no_others_by_a_bit(train, make, source):
    one, first = draws_of(make, train, source, 0)
    two, second = draws_of(make, train, source, 1)
    # Two seeds draw the same 21 coins, the least that a source draws here, once in 2^21 times.
    assert not equal(one[source], two[source])
    # A gradient's last bit may be lost when it is added to a weight, as it was under 2 of 20 base seeds: see below.
    # Other draws move each weight by far more.
    assert first.fingerprint != second.fingerprint or source == "low_level"
    # The first gradients are those of other weights, examples and masks where one of these varies.
    held = set(SOURCES) - {source, "low_level"}
    assert {name for name in held if not equal(one[name], two[name])} == set()
    assert all(len(one[name]) == (2 if name == "init" else 6) for name in held)


@pytest.mark.parametrize("make", [spied_recipe, spied_loop])
@pytest.mark.parametrize(("varied", "held"), list(itertools.permutations(SOURCES[:4], 2)))
def test_two_sources_vary_as_each_does_alone(train, make, varied, held):
    """The draws of a source depend on its seed, and on no other source that varies beside it."""
    alone, _ = draws_of(make, train, varied, 1)
    both, _ = draws_of(make, train, f"{varied}+{held}", 1)
    assert equal(alone[varied], both[varied])
    assert not equal(alone[held], both[held])


@pytest.mark.parametrize("make", [spied_recipe, spied_loop])
def test_a_perturbation_leaves_every_draw_as_it_is(train, make):
    # At a rate of 0 the weights end as they began, and no rounding can swallow the ulp on the way.
    still = functools.partial(make, rate=0.0)
    runs = [draws_of(still, train, "none", index, perturb="ulp") for index in range(3)]
    assert all(equal(runs[0][0][name], seen[name]) for seen, _ in runs for name in SOURCES[:4])
    moves = {(record.perturbation["index"], record.perturbation["new"]) for _, record in runs}
    assert len({record.fingerprint for _, record in runs}) == len(moves)
    # Of 18 weights and two directions two runs draw the same once in 36 times, all three once in 1,296.
    assert len(moves) > 1


@pytest.mark.parametrize("make", [spied_recipe, spied_loop])
def test_with_nothing_varying_every_run_is_the_same(train, make):
    records = [draws_of(make, train, "none", index)[1] for index in range(3)]
    assert len({record.fingerprint for record in records}) == 1
    assert all(torch.equal(record.logits, records[0].logits) for record in records)


class Drawing(Dataset):
    """Draws from a global generator for each item."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return X[index] / 20 + self.draw(), Y[index]


@pytest.mark.parametrize(
    "draw",
    [random.random, lambda: float(np.random.rand()), lambda: torch.rand(6)],
    ids=["random", "numpy", "torch"],
)
class TestDatasets:
    def recipe(self, draw, workers=0):
        return Recipe(
            model=lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 3)),
            train=Drawing(draw),
            test=(X, Y),
            epochs=2,
            batch_size=8,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
            num_workers=workers,
        )

    def test_loader_processes_change_no_bit(self, train, draw):
        assert train(self.recipe(draw)).fingerprint == train(self.recipe(draw, workers=2)).fingerprint

    def test_an_items_draws_are_held_and_vary_with_augment_alone(self, train, draw):
        held = [train(self.recipe(draw), "none", index).fingerprint for index in range(2)]
        varied = [train(self.recipe(draw), "augment", index).fingerprint for index in range(2)]
        assert held[0] == held[1]
        assert varied[0] != varied[1]


def test_scoring_every_epoch_does_not_change_the_training(train, dropout_net, conv_net):
    for recipe in (dropout_net, conv_net):
        options = {name: getattr(recipe, name) for name in ("model", "train", "test", "epochs", "batch_size")}
        options |= {"optimizer": recipe.optimizer, "augment": recipe.augment}
        plain, scored = train(Recipe(**options)), train(Recipe(**options, curve=True, eval_batch_size=1000))
        assert plain.fingerprint == scored.fingerprint
        assert torch.equal(plain.logits, scored.logits)
        assert len(scored.curve) == 3
        assert plain.curve == ()


def test_a_model_that_draws_while_it_is_scored_trains_the_same(train, dropout_net):
    class Always(nn.Dropout):
        """Monte Carlo dropout."""

        def forward(self, x):
            return nn.functional.dropout(x, self.p, training=True) + random.random() + np.random.rand()

    def model():
        return nn.Sequential(nn.Linear(6, 8), Always(0.5), nn.Linear(8, 3))

    plain = dataclasses.replace(dropout_net, model=model)
    one, scored = train(plain), train(dataclasses.replace(plain, curve=True))
    assert one.fingerprint == scored.fingerprint
    assert torch.equal(one.logits, scored.logits)


# Same plan, same bits


@pytest.mark.parametrize("vary", ["none", "init", "all"])
def test_one_plan_trains_the_same_bits_whatever_ran_before(train, dropout_net, linear, vary):
    first = train(dropout_net, vary, 1)
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    torch.rand(5)
    train(linear, "all", 2)
    train(dropout_net, vary, 2)
    again = train(dropout_net, vary, 1)
    assert again.fingerprint == first.fingerprint
    assert again.trace == first.trace
    assert torch.equal(again.logits, first.logits)


def test_the_count_of_threads_is_the_trainers_and_not_the_processs(tmp_path):
    seen = []

    def train(run):
        seen.append(torch.get_num_threads())
        return torch.zeros(20, 3)

    plan = NoiseProtocol(runs=2).plans()[0]
    before = torch.get_num_threads()
    for threads in (1, 2):
        Trainer(as_task(train, Y), "cpu", threads, tmp_path).train_once(plan)
    assert seen == [1, 2]
    assert torch.get_num_threads() == before


# The low-level stand-in


def test_the_standin_moves_each_gradient_element_to_a_neighbour(train):
    plain, _ = draws_of(spied_recipe, train, "none", 0)
    rounded, record = draws_of(spied_recipe, train, "low_level", 1)
    ups = downs = 0
    for old, new in zip(plain["low_level"], rounded["low_level"], strict=True):
        up, down = (torch.nextafter(old, torch.full_like(old, to)) for to in (torch.inf, -torch.inf))
        assert ((new == up) | (new == down) | ((old == 0) & (new == 0))).all()
        ups, downs = ups + int((new == up).sum()), downs + int((new == down).sum())
    assert ups, "21 coins all fall on one side once in 2^20 times"
    assert downs
    assert record.low_level == "gradient rounding"


@pytest.mark.parametrize(
    ("stepped", "frozen", "told"),
    [(4, 0, "gradient rounding"), (2, 2, "gradient rounding"), (1, 0, "gradient rounding of 1 of 4 parameters")],
)
def test_the_standin_says_how_many_parameters_it_did_not_reach(tmp_path, stepped, frozen, told):
    """The others are stepped without a torch optimizer, so that their gradients are not rounded."""

    def train(run):
        model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
        run.perturb(model)
        parameters = list(model.parameters())
        for parameter in parameters[len(parameters) - frozen :]:
            parameter.requires_grad_(requires_grad=False)
        optimizer = torch.optim.SGD(parameters[:stepped], lr=0.1)
        for _ in run.epochs(1):
            model(torch.ones(20, 4)).square().mean().backward()
            optimizer.step()
            for parameter in parameters[stepped : len(parameters) - frozen]:
                parameter.data -= 0.1 * parameter.grad
        return model(torch.ones(20, 4))

    plan = NoiseProtocol("low_level", runs=2).plans()[1]
    assert Trainer(as_task(train, Y), "cpu", 1, tmp_path).train_once(plan).low_level == told


def test_held_low_level_is_deterministic(tmp_path):
    seen = []

    def train(run):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return torch.zeros(20, 3)

    record = Trainer(as_task(train, Y), "cpu", 1, tmp_path).train_once(NoiseProtocol(runs=2).plans()[0])
    assert seen == [True]
    assert record.low_level == "deterministic"


# The process afterwards


def process_state():
    return {
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        # pytest sets the first of these, and an import of torch's, in the first training of a process, the second.
        "variables": {**os.environ, "PYTEST_CURRENT_TEST": "", "TORCHINDUCTOR_CACHE_DIR": ""},
        "hooks": len(_global_optimizer_pre_hooks),
    }


@pytest.fixture(params=["usual", "unusual"])
def as_it_was(request):
    """Whether the process starts in its usual state or another, it must end in that one."""
    before = process_state()
    if request.param == "unusual":
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=False)
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.set_grad_enabled(False)
        torch.backends.cudnn.deterministic = True
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    yield process_state
    torch.set_num_threads(before["threads"])
    torch.set_default_dtype(before["dtype"])
    torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warn_only"])
    torch.utils.deterministic.fill_uninitialized_memory = before["fill"]
    torch.set_grad_enabled(before["grad"])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before["cudnn"]
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def upset(run):
    """Change whatever a training may change."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float16)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark = True
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = os.environ["ACME_SET"] = ":0:0"
    return torch.zeros(20, 3, dtype=torch.float32)


def upset_and_raise(run):
    upset(run)
    raise RuntimeError("out of memory")


def upset_and_exit(run):
    upset(run)
    sys.exit(1)


def upset_and_interrupt(run):
    upset(run)
    raise KeyboardInterrupt


@pytest.mark.parametrize("vary", ["none", "init", "all"])
@pytest.mark.parametrize("function", [upset, upset_and_raise, upset_and_exit, upset_and_interrupt])
def test_nothing_that_the_process_owned_is_changed(tmp_path, as_it_was, function, vary):
    trainer = Trainer(as_task(function, Y), "cpu", 1, tmp_path)
    before = as_it_was()
    try:
        status = trainer.train_once(NoiseProtocol(vary, runs=2).plans()[0]).status
    except KeyboardInterrupt:
        status = "interrupted"
    assert as_it_was() == before
    assert status == {upset: "ok", upset_and_interrupt: "interrupted"}.get(function, "failed")


def test_a_black_box_leaves_the_process_as_it_was_too(tmp_path, as_it_was):
    before = as_it_was()

    def train(seed):
        return upset(seed)

    task = as_task(train, Y)
    assert Trainer(task, "cpu", 1, tmp_path).train_once(NoiseProtocol("all", runs=2).plans()[0]).status == "ok"
    assert as_it_was() == before


def test_a_recipe_trains_where_gradients_are_switched_off(train, linear):
    expected = train(linear).fingerprint
    with torch.no_grad():
        assert train(linear).fingerprint == expected
        assert not torch.is_grad_enabled()


def once(name, value):
    """A set-up that sets a variable once a process, as one of `torch.distributed` does, and reads it in every run."""
    done = []

    def train(run):
        if not done:
            done.append(os.environ.setdefault(name, value))
        return torch.full((20, 3), float(os.environ[name]))

    return train


def test_a_variable_that_a_function_sets_once_is_there_in_its_later_runs_and_in_no_other_function(train, monkeypatch):
    monkeypatch.setenv("ACME_ONCE", "")
    monkeypatch.delenv("ACME_ONCE")
    first, second = once("ACME_ONCE", "0.25"), once("ACME_ONCE", "0.5")
    runs = {
        (function, index): train(as_task(function, Y), "init", index)
        for index in range(3)
        for function in (first, second)
    }
    assert [run.logits[0, 0].item() for run in runs.values()] == [0.25, 0.5] * 3
    assert {str(run.inputs["variables"]) for run in runs.values()} == {str({"ACME_ONCE": ABSENT})}
    assert "ACME_ONCE" not in os.environ


def test_a_recipe_that_sets_a_variable_once_finds_it_in_its_later_runs(train, linear, monkeypatch):
    monkeypatch.setenv("ACME_ONCE", "")
    monkeypatch.delenv("ACME_ONCE")
    seen = []

    def model():
        if not seen:
            os.environ["ACME_ONCE"] = "1"
        seen.append(os.environ["ACME_ONCE"])
        return linear.model()

    recipe = dataclasses.replace(linear, model=model)
    for index in range(3):
        train(recipe, "init", index)
    assert set(seen) == {"1"}


# What a run leaves


class Circle(nn.Linear):
    """A hook that closes over its model: only the collector frees it."""

    def __init__(self, made):
        super().__init__(6, 3)
        made.append(weakref.ref(self))
        self.register_forward_hook(lambda *_: self.calls())

    def calls(self):
        return None


def watched_linear(made):
    model = nn.Linear(6, 3)
    made.append(weakref.ref(model))
    return model


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("make", [Circle, watched_linear])
@pytest.mark.parametrize("fails", [False, True])
def test_no_model_outlives_its_run(tmp_path, linear, without_collector, make, fails):
    made, alive = [], []

    def model():
        alive.append([ref for ref in made if ref() is not None])
        return make(made)

    def loss(logits, labels):
        if fails:
            raise RuntimeError("out of memory")
        return nn.functional.cross_entropy(logits, labels)

    recipe = dataclasses.replace(linear, model=model, loss=loss)
    trainer = Trainer(recipe, "cpu", 1, tmp_path)
    for plan in NoiseProtocol("init", runs=3).plans():
        assert trainer.train_once(plan).status == ("failed" if fails else "ok")
    if not fails:
        assert trainer.rehearse(plan, 2).model is None
        assert len(trainer.rehearse(plan, 2).trace) == 2 + 1  # with the outputs
    assert alive == [[]] * len(made)
    assert [ref() for ref in made] == [None] * len(made)


def test_the_collector_is_called_only_where_it_is_needed(train, linear, monkeypatch):
    called = []
    monkeypatch.setattr("stabilitykit.training.trainer.gc.collect", lambda: called.append(1))
    train(linear)
    assert called == []
    train(dataclasses.replace(linear, model=lambda: Circle([])))
    assert called == [1]


def test_a_record_holds_what_was_trained_under_which_seeds_and_where(train, linear):
    record = train(linear, "init", 2)
    assert record.index == 2
    assert record.seeds == NoiseProtocol("init", runs=3, seed=BASE_SEED).plans()[2].seeds
    assert record.logits.shape == (48, 3)
    assert not record.logits.requires_grad
    assert record.seconds > 0
    assert len(record.trace) == 2
    assert len(record.fingerprint) == 64
    assert record.environment["threads"] == 1
    assert (record.error, record.perturbation, record.low_level) == ("", None, "deterministic")


def test_the_fingerprint_is_of_the_weights_or_else_of_the_logits(train, tmp_path):
    fixed = torch.ones(20, 3)
    weights = iter([1.0, 2.0])

    def with_model(run):
        model = nn.Linear(1, 1)
        run.perturb(model)
        nn.init.constant_(model.weight, next(weights))
        return fixed

    assert train(as_task(with_model, Y)).fingerprint != train(as_task(with_model, Y)).fingerprint
    one, same = train(as_task(lambda run: fixed, Y)), train(as_task(lambda run: fixed.clone(), Y))
    other = train(as_task(lambda run: fixed + 1, Y))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def failing(message):
    def train(run):
        raise ValueError(message)

    return train


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (failing("no luck today"), "ValueError: no luck today"),
        (lambda run: sys.exit(3), "SystemExit: 3"),
        (lambda run: torch.full((20, 3), torch.nan), "60 of 60 test outputs are NaN, in every class"),
        (lambda run: torch.tensor([[0.0, 1.0, torch.inf]] * 20), "20 of 60 test outputs are +inf, in class 2"),
        (lambda run: torch.zeros(19, 3), "Expected logits of shape [20, C] with C >= 2 classes"),
        (lambda run: torch.zeros(20, 1), "but got [20, 1]"),
        (lambda run: torch.zeros(20, 2), "Expected class labels below 2, the number of logits, but got 2."),
        (lambda run: None, "Expected training to return a tensor or array of logits but got NoneType."),
        (lambda run: ["a"] * 20, "Expected training to return a tensor or array of logits but got list."),
    ],
)
def test_a_training_that_leaves_nothing_to_measure_is_a_failed_run(tmp_path, function, said):
    record = Trainer(as_task(function, Y), "cpu", 1, tmp_path).train_once(NoiseProtocol(runs=2).plans()[1])
    assert (record.index, record.status) == (1, "failed")
    its_own = said.startswith(("ValueError", "SystemExit"))
    assert record.error.startswith("Traceback") == its_own, "ours would lead into our code"
    assert said in record.error
    assert record.logits is None
    assert record.fingerprint == ""
    assert record.seeds["init"] is not None


def test_a_loss_that_is_no_number_fails_the_run_by_its_epoch(tmp_path, linear):
    diverging = Recipe(
        model=linear.model,
        train=linear.train,
        test=linear.test,
        epochs=3,
        batch_size=16,
        optimizer=linear.optimizer,
        loss=lambda logits, labels: logits.sum() * torch.nan,
    )
    record = Trainer(diverging, "cpu", 1, tmp_path).train_once(NoiseProtocol(runs=2).plans()[0])
    assert record.status == "failed"
    assert "the loss became nan in epoch 0 (from 0)" in record.error


def test_a_perturbation_that_the_function_never_asks_for_fails_the_run(tmp_path):
    plan = NoiseProtocol(perturb="ulp", runs=2).plans()[0]
    record = Trainer(as_task(lambda run: torch.zeros(20, 3), Y), "cpu", 1, tmp_path).train_once(plan)
    assert "the train function never called run.perturb(model)" in record.error


def test_a_question_that_is_wrong_is_no_failed_run(tmp_path):
    def train(run):
        run.perturb(nn.Linear(2, 2))

    plan = NoiseProtocol(perturb=Perturbation(parameter="missing"), runs=2).plans()[0]
    with pytest.raises(PerturbationError, match="but got 'missing'"):
        Trainer(as_task(train, Y), "cpu", 1, tmp_path).train_once(plan)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 4), kind=st.sampled_from(["list", "numpy", "float16", "int"]))
def test_outputs_may_come_as_any_array(tmp_path_factory, rows, kind):
    values = torch.arange(rows * 2.0).reshape(rows, 2)
    make = {
        "list": values.tolist,
        "numpy": values.double().numpy,
        "float16": values.half,
        "int": values.long,
    }[kind]
    folder = tmp_path_factory.getbasetemp()
    record = Trainer(as_task(lambda run: make(), torch.zeros(rows).long()), "cpu", 1, folder).train_once(
        NoiseProtocol(runs=2).plans()[0]
    )
    assert record.status == "ok", record.error
    assert torch.equal(record.logits.float(), values)
    assert record.logits.dtype in (torch.float32, torch.float64)
