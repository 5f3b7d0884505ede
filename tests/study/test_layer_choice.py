"""Which layers are chosen, which are refused, and what a hook sees."""

from __future__ import annotations

import re
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from stabilitykit import zoo
from stabilitykit.errors import TaskError
from stabilitykit.study.layer_choice import choose_layers, watched

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """Modules that give no activations of the batch, beside some that do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 4)
        self.recurrent = nn.LSTM(4, 4)
        self.unused = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4)
        self.steps_first = nn.Linear(4, 4)
        self.mean = Mean()
        self.best = Best()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        steps = self.steps_first(torch.stack([x, x]))
        steps, _ = self.recurrent(steps)
        self.best(x)
        return torch.log_softmax(self.head(self.again(self.again(steps[1]))) + self.mean(x), dim=1)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean()


class Best(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


VECTORS = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", [zoo.resnet14, zoo.resnet10])
def test_of_the_papers_residual_networks_it_takes_the_papers_layers(model):
    chosen = choose_layers(model(width=0.25).eval(), IMAGES)
    assert chosen == ("conv1", "block1", "block2", "block3", "pool", "logits")


def test_a_plain_stack_gives_its_convolutions_its_pooling_and_its_logits():
    def stage(ins: int, outs: int) -> list[nn.Module]:
        return [nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU(inplace=True)]

    model = nn.Sequential(
        *stage(3, 4), nn.MaxPool2d(2), *stage(4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert choose_layers(model.eval(), IMAGES) == ("0", "4", "7", "9")


def test_it_looks_into_a_container_where_the_children_are_few():
    blocks = [nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)) for _ in range(4)]
    model = nn.Sequential(OrderedDict(body=nn.Sequential(*blocks), head=nn.Linear(6, 2)))
    assert choose_layers(model, VECTORS) == ("body.0.0", "body.0", "body.1", "body.2", "body.3", "head")


def test_it_looks_into_a_module_list_which_is_never_called():
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x).relu()
            return x

    assert choose_layers(Listed(), VECTORS) == ("blocks.0", "blocks.1", "blocks.2", "output")


def test_of_many_layers_it_takes_eight_evenly_spaced_with_both_ends():
    model = nn.Sequential(*[nn.Linear(6, 6) for _ in range(22)])
    assert choose_layers(model, VECTORS) == ("0", "3", "6", "9", "12", "15", "18", "21")


def test_the_order_is_that_in_which_layers_run():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(4, 2), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    assert choose_layers(Backwards(), VECTORS) == ("body", "head")


def test_what_cannot_be_compared_is_not_chosen():
    assert choose_layers(Odd(), VECTORS) == ("embed", "head", "output")


def test_a_model_of_one_layer_has_its_output():
    assert choose_layers(nn.Linear(6, 2), VECTORS) == ("output",)


def test_an_output_that_is_changed_in_place_afterwards_is_another_than_the_models():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True))
    assert choose_layers(model, VECTORS) == ("0", "output")


def test_named_layers_stay_in_the_order_asked_for_and_one_name_will_do():
    assert choose_layers(Odd(), VECTORS, ["output", "embed", "output"]) == ("output", "embed")
    assert choose_layers(Odd(), VECTORS, "embed") == ("embed",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("embd", "which none is called. Did you mean 'embed'"),
        ("zzz", "Did you mean 'output', 'embed', 'recurrent'"),
        ("recurrent", "(LSTM) to give one tensor of activations, a row an example, but its output is a tuple"),
        ("unused", "it was never called. Layers that do: output, embed, head."),
        ("again", "it was called 2 times in one forward"),
        ("steps_first", "3 examples gave it an output of shape [2, 3, 4]"),
        ("mean", "2 examples gave it an output of shape []"),
        ("best", "its output is of int64"),
    ],
)
def test_a_layer_that_cannot_be_compared_is_refused_and_told_why(name, message):
    with pytest.raises(TaskError, match=re.escape(message)):
        choose_layers(Odd(), VECTORS, [name])


def test_no_layers_at_all_are_refused():
    with pytest.raises(TaskError, match="but got none"):
        choose_layers(Odd(), VECTORS, [])


def test_what_are_no_names_is_refused():
    with pytest.raises(TaskError, match=r"names of modules, as in .* but got 3\."):
        choose_layers(Odd(), VECTORS, 3)


def test_a_first_dimension_that_is_the_batch_by_coincidence_is_refused():
    """Two steps, and two examples in the second try: the first try, of three, tells them apart."""
    with pytest.raises(TaskError, match="steps_first"):
        choose_layers(Odd(), VECTORS[:3], ["steps_first"])


def test_a_module_may_have_the_name_that_stands_for_the_model():
    model = nn.Sequential(OrderedDict(output=nn.Linear(6, 4), last=nn.Linear(4, 2)))
    with watched(model, ["output"], lambda name, x: shapes.append(list(x.shape))):
        shapes: list[list[int]] = []
        model(VECTORS)
    assert shapes == [[3, 4]]


def test_an_output_is_handed_over_before_a_later_layer_changes_it_in_place():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True))
    seen: list[float] = []
    with watched(model, ["0"], lambda name, x: seen.append(float(x.min()))), torch.no_grad():
        model(VECTORS)
    assert seen[0] < 0


def test_hooks_are_gone_afterwards():
    model = Odd()
    choose_layers(model, VECTORS)
    assert not any(module._forward_hooks for module in model.modules())
