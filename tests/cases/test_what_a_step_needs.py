"""Whatever a step needs is given to it, or its lack is told in a sentence of ours before a run is trained.

After public threads on optimizers, heads, schedulers and batches that a loop did not expect, each with its link.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau
from torch.utils.data import Dataset, IterableDataset

from stabilitykit import Recipe
from stabilitykit.errors import RunsFailedError, TaskError
from tests.conftest import recipe_of

pytestmark = pytest.mark.trains


def models(study) -> int:
    return len({record.fingerprint for record in study.records})


class Model(nn.Linear):
    """A linear model that counts how often one was made: what is refused beforehand makes one or two, not R."""

    made = 0

    def __init__(self) -> None:
        super().__init__(6, 3)
        type(self).made += 1


@pytest.fixture(autouse=True)
def no_model_was_made():
    Model.made = 0


class TestClosures:
    """An optimizer that calls for a closure gets one.

    https://github.com/Lightning-AI/pytorch-lightning/issues/246: "step() missing 1 required positional argument".
    """

    @staticmethod
    def by(optimizer, blobs) -> Recipe:
        return dataclasses.replace(recipe_of(lambda: nn.Linear(6, 3), blobs, lr=0.1), optimizer=optimizer)

    def test_lbfgs_trains(self, ask, blobs):
        def lbfgs(model):
            return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)

        study = ask(self.by(lbfgs, blobs), "init")
        assert models(study) == 3
        assert study.accuracy.value > 90

    # Siblings

    def test_its_gradients_are_rounded_too(self, ask, blobs):
        def lbfgs(model):
            return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)

        assert models(ask(self.by(lbfgs, blobs), "low_level")) == 3

    def test_an_optimizer_of_ones_own_with_two_passes(self, ask, blobs):
        """SAM climbs, evaluates again, and descends from where it stood."""

        class Sam(torch.optim.Optimizer):
            def __init__(self, parameters):
                super().__init__(parameters, {"lr": 0.1})

            @torch.no_grad()
            def step(self, closure):
                closure = torch.enable_grad()(closure)
                loss = closure()
                climbed = []
                for group in self.param_groups:
                    for p in group["params"]:
                        climbed.append((p, 0.05 * p.grad / (p.grad.norm() + 1e-12)))
                        p += climbed[-1][1]
                closure()
                for p, step in climbed:
                    p -= step + 1.0 * p.grad
                return loss

        study = ask(self.by(lambda model: Sam(model.parameters()), blobs), "shuffle")
        assert models(study) == 3
        assert study.accuracy.value > 50

    def test_an_optimizer_that_asks_for_more_is_refused_by_name(self, ask, blobs):
        class Exacting(torch.optim.SGD):
            def step(self, closure=None, *, curvature):
                raise AssertionError

        task = dataclasses.replace(self.by(lambda model: Exacting(model.parameters(), lr=0.1), blobs), model=Model)
        with pytest.raises(TaskError, match=r"Expected Exacting to make a step .*'curvature'"):
            ask(task, "init", runs=9)
        assert Model.made < 4


class TwoHeads(nn.Module):
    """A tuple while it trains, a tensor when it predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.extra = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return (self.main(x), self.extra(x)) if self.training else self.main(x)


class TestOutputsInTraining:
    """What a model returns while it trains is for the loss, which is told if it cannot take it.

    https://github.com/NVIDIA/apex/issues/27: "'tuple' object has no attribute 'log_softmax'".
    """

    def test_two_heads_train_with_a_loss_of_ones_own(self, ask, blobs):
        def loss(outputs, y):
            return functional.cross_entropy(outputs[0], y) + 0.3 * functional.cross_entropy(outputs[1], y)

        study = ask(recipe_of(TwoHeads, blobs, lr=0.3, loss=loss), "init")
        assert models(study) == 3
        assert study.accuracy.value > 50

    def test_without_one_the_error_names_the_tuple_and_the_loss(self, ask, blobs):
        with pytest.raises(TaskError) as error:
            ask(recipe_of(TwoHeads, blobs, lr=0.3), "init")
        assert "TwoHeads returned a tuple" in str(error.value)
        assert "Give loss=lambda outputs, labels" in str(error.value)

    # Siblings

    def test_a_loss_of_each_example_is_asked_for_its_mean(self, ask, blobs):
        task = recipe_of(Model, blobs, lr=0.1, loss=nn.CrossEntropyLoss(reduction="none"))
        with pytest.raises(TaskError, match=r"loss.*\[16\]"):
            ask(task, "init", runs=9)
        assert Model.made < 4

    def test_a_loss_that_has_left_the_graph_is_refused(self, ask, blobs):
        def loss(outputs, y):
            return functional.cross_entropy(outputs.detach(), y)

        with pytest.raises(TaskError, match="gradient"):
            ask(recipe_of(Model, blobs, lr=0.1, loss=loss), "init", runs=9)
        assert Model.made < 4

    def test_a_last_batch_of_one_example(self, ask, blobs):
        """Batch normalisation takes two: what the last batch cannot do is known before anything trains."""
        x, y = blobs[0][:33], blobs[1][:33]

        def net():
            return nn.Sequential(Model(), nn.BatchNorm1d(3))

        with pytest.raises(TaskError, match="to take a batch of 1 in training mode"):
            ask(recipe_of(net, (x, y), lr=0.1), "init", runs=9)
        assert Model.made < 4
        assert models(ask(recipe_of(net, (x, y), lr=0.1, drop_last=True), "init")) == 3


class Output(OrderedDict):
    """As the model outputs of a library of language models."""

    @property
    def logits(self) -> Tensor:
        return self["logits"]


class Items(Dataset):
    """Examples, each as a function makes it of its number."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


#: Token ids and a mask, packed in one of three ways.
PACKED = {
    "dict": lambda i: {"input_ids": IDS[i], "attention_mask": MASK[i], "labels": int(LABELS[i])},
    "pair": lambda i: ((IDS[i], MASK[i]), int(LABELS[i])),
    "three parts": lambda i: (IDS[i], MASK[i], int(LABELS[i])),
}
IDS = torch.randint(1, 9, (48, 6), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(6) < torch.randint(3, 7, (48, 1), generator=torch.Generator().manual_seed(1))).long()
LABELS = IDS[:, 0] % 2


class Text(nn.Module):
    """Two inputs, and an object or a tensor out."""

    def __init__(self, *, wraps: bool = False) -> None:
        super().__init__()
        self.embed, self.head, self.wraps = nn.Embedding(9, 4), nn.Linear(4, 2), wraps

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Any:
        mask = torch.ones_like(ids) if mask is None else mask
        logits = self.head((self.embed(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return Output(logits=logits) if self.wraps else logits


class TestBatches:
    """Dicts, several inputs and output objects train, or both ways out are named before anything does.

    https://github.com/skorch-dev/skorch/issues/1050: tokenizers make dicts, and models return objects.
    """

    @staticmethod
    def task(data, model=Text, **options) -> Recipe:
        return Recipe(model, data, data, 2, 16, lambda model: torch.optim.SGD(model.parameters(), lr=1.0), **options)

    @pytest.mark.parametrize(
        ("kind", "got"),
        [("dict", "a dict"), ("pair", "a list of list, Tensor"), ("three parts", "a list of Tensor, Tensor, Tensor")],
    )
    def test_items_of_other_shapes_are_told_both_ways_out(self, ask, kind, got):
        with pytest.raises(TaskError) as error:
            ask(self.task(Items(PACKED[kind])), "init")
        assert f"to be (input, label), numbers or arrays of one shape, but a batch of them is {got}. " in str(
            error.value
        )
        assert "Wrap it in a Dataset that returns such pairs, or write train(run)" in str(error.value)

    def test_an_output_object_trains_with_a_loss_that_takes_it(self, ask):
        def loss(outputs, y):
            return functional.cross_entropy(outputs.logits, y)

        study = ask(self.task((IDS, LABELS), lambda: Text(wraps=True), loss=loss), "init")
        assert models(study) == 3
        assert study.outputs.shape == (3, 48, 2)

    def test_an_output_object_without_a_loss_is_named_with_its_model(self, ask):
        with pytest.raises(TaskError, match=r"but Text returned an Output with 'logits'\. Give loss="):
            ask(self.task((IDS, LABELS), lambda: Text(wraps=True)), "init")

    def test_a_loop_of_ones_own_takes_rows(self, ask):
        def train(run):
            with run.stream("init"):
                model = Text()
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
            for _ in run.epochs(2):
                for rows, y in run.batches((torch.arange(48), LABELS), batch_size=16):
                    optimizer.zero_grad()
                    functional.cross_entropy(model(IDS[rows], MASK[rows]), y).backward()
                    optimizer.step()
            return model(IDS, MASK)

        assert models(ask(train, "shuffle", labels=LABELS)) == 3

    # Siblings

    @pytest.mark.parametrize(
        ("item", "said"),
        [
            (
                lambda i: (IDS[i, : 3 + i % 3], int(LABELS[i])),
                r"to give batches of examples of one shape but it raised RuntimeError: stack",
            ),
            (lambda i: IDS[i], r"\(input, label\)"),
        ],
        ids=["of two lengths", "without a label"],
    )
    def test_items_that_make_no_batch_are_told(self, ask, item, said):
        with pytest.raises(TaskError, match=said):
            ask(self.task(Items(item)), "init", runs=9)

    def test_labels_of_numpy_are_labels(self, ask):
        assert models(ask(self.task(Items(lambda i: (IDS[i].numpy(), np.int32(LABELS[i])))), "init")) == 3


class TestIterables:
    """An iterable dataset has no order that could be held, whether it has a length or not.

    https://github.com/huggingface/transformers/issues/8087: told from others by whether it has a length.
    """

    @pytest.mark.parametrize("has_length", [True, False])
    def test_it_is_refused_when_the_recipe_is_made(self, has_length):
        class Stream(IterableDataset):
            def __iter__(self):
                yield from zip(IDS, LABELS.tolist(), strict=True)

        if has_length:
            Stream.__len__ = lambda self: 48
        with pytest.raises(TaskError, match="An iterable dataset has no order that could be held or varied"):
            TestBatches.task(Stream())


class TestSchedulers:
    """Torch's own schedulers are stepped where torch steps them; no case, a sibling of the others."""

    def test_one_cycle_is_stepped_after_each_batch(self, ask, blobs):
        def one_cycle(optimizer):
            return OneCycleLR(optimizer, max_lr=0.3, total_steps=9)

        plain = recipe_of(lambda: nn.Linear(6, 3), blobs, lr=0.1)
        study = ask(dataclasses.replace(plain, schedule=one_cycle), "init")
        assert models(study) == 3

    def test_a_cycle_that_ends_too_early_is_told_before_a_run(self, ask, blobs):
        def one_cycle(optimizer):
            return OneCycleLR(optimizer, max_lr=0.3, total_steps=8)

        task = dataclasses.replace(recipe_of(Model, blobs, lr=0.1), schedule=one_cycle)
        with pytest.raises(TaskError, match=r"\b9\b"):
            ask(task, "init", runs=9)
        assert Model.made < 4

    def test_a_class_in_the_place_of_its_factory_is_told(self, blobs):
        with pytest.raises(TaskError, match="Write schedule=lambda optimizer: ReduceLROnPlateau"):
            dataclasses.replace(recipe_of(Model, blobs, lr=0.1), schedule=ReduceLROnPlateau)

    def test_a_scheduler_that_waits_for_a_score_is_refused(self, ask, blobs):
        task = dataclasses.replace(recipe_of(Model, blobs, lr=0.1), schedule=lambda o: ReduceLROnPlateau(o, patience=1))
        with pytest.raises(TaskError, match="ReduceLROnPlateau"):
            ask(task, "init", runs=9)
        assert Model.made < 4


def test_what_only_a_later_run_can_show_is_told_with_its_seeds(ask, blobs):
    """A sibling that no rehearsal finds: the failure has the run's number and seeds, and the user's own words."""
    x, y = blobs

    def train(run):
        with run.stream("init"):
            model = nn.Linear(6, 3)
        run.perturb(model)
        for _ in run.epochs(2):
            if run.index == 2:
                raise RuntimeError("the queue of labels is empty")
        return model(x)

    with pytest.raises(RunsFailedError, match=r"failed: run 2\.") as error:
        ask(train, "init", labels=y)
    assert "the queue of labels is empty" in str(error.value)
    assert "seeds {'init': " in str(error.value)
