"""The architectures: parameters by published counts and by formula, initialisation, names, and sizes of images."""

from __future__ import annotations

import functools
import math
import re
import sys

import pytest
import torch
from torch import nn

from stabilitykit import zoo
from stabilitykit.errors import MissingModuleError, TaskError
from stabilitykit.zoo.layers import scaled

DEEP = (zoo.resnet6, zoo.resnet10, zoo.resnet14, zoo.resnet18, zoo.vgg11, zoo.shufflenet50)
SIZED = (zoo.linear, zoo.hidden_layer, zoo.hidden_convolution, zoo.mnist_cnn)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_resnet(blocks, widths, channels=3, classes=10):
    """He et al.'s network as they describe it; each convolution has the two numbers a channel of its normalisation."""
    ins = widths[0]
    total = 9 * channels * ins + 2 * ins
    for stage, (number, outs) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(number):
            total += 9 * ins * outs + 2 * outs + 9 * outs * outs + 2 * outs
            if block == 0 and (stage > 0 or ins != outs):
                total += ins * outs + 2 * outs
            ins = outs
    return total + ins * classes + classes


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (zoo.resnet18, 11_173_962),
        (zoo.vgg11, 9_231_114),
        (zoo.shufflenet50, 1_366_792 - 990 * 1025),  # torchvision's of 1,000 classes, less 990 rows of 1,024 and a bias
        (zoo.mnist_cnn, 1_199_882),
        (zoo.linear, 3072 * 10 + 10),
        (zoo.hidden_layer, 3072 * 512 + 512 + 512 * 10 + 10),
        (zoo.hidden_convolution, 27 * 32 + 32 + 32 * 32 * 32 * 10 + 10),
        (zoo.resnet6, count_resnet((0, 1, 1), (16, 32, 64))),
        (zoo.resnet10, count_resnet((1, 1, 2), (16, 32, 64))),
        (zoo.resnet14, count_resnet((2, 2, 2), (16, 32, 64))),
        (functools.partial(zoo.resnet14, width=0.5), count_resnet((2, 2, 2), (8, 16, 32))),
        (functools.partial(zoo.resnet14, channels=1, classes=7), count_resnet((2, 2, 2), (16, 32, 64), 1, 7)),
        (zoo.resnet18, count_resnet((2, 2, 2, 2), (64, 128, 256, 512))),
    ],
)
def test_a_model_has_the_parameters_of_its_architecture(model, parameters):
    assert count(model()) == parameters


def test_shufflenet_without_torchvision_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingModuleError, match=re.escape("pip install 'stabilitykit[zoo]'")):
        zoo.shufflenet50()


def test_a_module_that_torchvision_itself_lacks_is_not_called_torchvision(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        zoo.shufflenet50()


@pytest.mark.parametrize(
    ("model", "depth"), [(zoo.resnet6, 6), (zoo.resnet10, 10), (zoo.resnet14, 14), (zoo.resnet18, 18), (zoo.vgg11, 9)]
)
def test_a_network_is_as_deep_as_its_name(model, depth):
    """Shortcuts are not counted; VGG-11 has one linear layer here, in place of three."""
    layers = [
        name
        for name, module in model().named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and ".shortcut." not in name
    ]
    assert len(layers) == depth


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 28, 16, 8])
@pytest.mark.parametrize("model", [*DEEP, *SIZED])
def test_a_model_takes_images_of_other_sizes(model, size):
    options = {"size": size} if model in SIZED else {"width": 0.25}
    small = model(channels=1, classes=7, **options)
    small(torch.randn(3, 1, size, size)).sum().backward()
    assert small.eval()(torch.randn(2, 1, size, size)).shape == (2, 7)
    assert all(parameter.grad is not None for parameter in small.parameters())


@pytest.mark.parametrize("size", [32, 28, 16, 8])
def test_each_stage_but_the_first_halves_the_map(size):
    x = torch.randn(2, 3, size, size)
    sizes = {}
    for name, layer in zoo.resnet14().named_children():
        x = layer(x)
        sizes[name] = tuple(x.shape[1:])
    quarter = math.ceil(size / 4)
    assert sizes == {
        "conv1": (16, size, size),
        "block1": (16, size, size),
        "block2": (32, size // 2, size // 2),
        "block3": (64, quarter, quarter),
        "pool": (64,),
        "logits": (10,),
    }


def test_layers_have_names():
    """By which they can be compared; `test_each_stage_but_the_first_halves_the_map` has the ResNets'."""
    names = {model.__name__: [name for name, _ in model().named_children()] for model in (zoo.vgg11, *SIZED)}
    assert names == {
        "vgg11": [*(f"conv{i}" for i in range(1, 9)), "pool", "logits"],
        "linear": ["pixels", "logits"],
        "hidden_layer": ["pixels", "hidden", "logits"],
        "hidden_convolution": ["hidden", "map", "logits"],
        "mnist_cnn": ["conv1", "conv2", "pool", "hidden", "logits"],
    }


@pytest.mark.parametrize("model", DEEP)
def test_convolutions_are_drawn_as_he_et_al_draw_them(model):
    torch.manual_seed(0)
    for module in model().modules():
        if isinstance(module, nn.Conv2d):
            inputs = module.weight[0].numel()
            # The SD of n normal numbers errs by 1/sqrt(2n) of itself; 5 of those, for up to 56 layers a model.
            error = 5 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=error)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("model", DEEP)
def test_equal_seeds_draw_equal_models(model):
    weights = []
    for _ in range(2):
        torch.manual_seed(3)
        weights.append(nn.utils.parameters_to_vector(model(width=0.25).parameters()))
    assert torch.equal(*weights)


def test_vgg_halves_even_maps_as_ever():
    x = torch.randn(2, 3, 32, 32)
    for name, layer in zoo.vgg11(width=0.125).named_children():
        x = layer(x)
        if name == "conv8":
            assert x.shape == (2, 64, 1, 1)


@pytest.mark.parametrize(("widths", "factor", "multiple", "expected"), [
    ((16, 32, 64), 1, 1, [16, 32, 64]),
    ((24, 48), 0.5, 2, [12, 24]),
    ((24, 48), 0.3, 2, [8, 14]),
    ((16, 32), 0.01, 1, [1, 1]),
    ((24, 48), 0.01, 2, [2, 2]),
])  # fmt: skip
def test_widths_are_scaled_to_whole_multiples(widths, factor, multiple, expected):
    assert scaled(widths, factor, multiple) == expected


@pytest.mark.parametrize("width", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("model", DEEP)
def test_a_width_that_leaves_no_layer_is_refused(model, width):
    with pytest.raises(TaskError, match=r"^Expected a finite width > 0 but got width="):
        model(width=width)
