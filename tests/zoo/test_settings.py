"""The paper's settings: section 3.2 word for word, and what each leaves to the user."""

from __future__ import annotations

import functools

import pytest
import torch

from stabilitykit import Corpus, RandomCropFlip, warmup_cosine, zoo
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.fingerprint import fingerprint

IMAGES = (torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10)


def test_cifar10_is_section_3_2():
    recipe = zoo.cifar10(zoo.resnet14, IMAGES, IMAGES)
    assert (recipe.epochs, recipe.batch_size, recipe.name) == (500, 512, "resnet14")
    assert recipe.schedule == warmup_cosine(3)
    assert recipe.augment == RandomCropFlip(padding=4, flip=True)
    assert recipe.memory_format is torch.channels_last
    optimizer = recipe.optimizer(recipe.model())
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.4, 0.9, 5e-4, False)


def test_whatever_a_recipe_takes_can_be_given():
    recipe = zoo.cifar10(
        zoo.resnet14, IMAGES, IMAGES, epochs=9, momentum=0.5, augment=None, curve=True, name="mine", memory_format=None
    )
    assert (recipe.epochs, recipe.augment, recipe.curve, recipe.name) == (9, None, True, "mine")
    assert recipe.memory_format is None
    assert recipe.optimizer(recipe.model()).param_groups[0]["momentum"] == 0.5


def test_the_others_differ_from_it_where_they_say():
    shallow = zoo.cifar10_shallow(zoo.linear, IMAGES, IMAGES)
    assert shallow.optimizer(shallow.model()).param_groups[0]["lr"] == 0.01
    assert (shallow.epochs, shallow.batch_size, shallow.augment) == (500, 512, RandomCropFlip(4))
    mnist = zoo.mnist(zoo.mnist_cnn, IMAGES, IMAGES)
    assert (mnist.epochs, mnist.batch_size, mnist.augment, mnist.schedule) == (20, 128, None, warmup_cosine(1))
    assert zoo.mnist(zoo.mnist_cnn, IMAGES, IMAGES, augment=RandomCropFlip(1)).augment == RandomCropFlip(1)


def test_a_partial_is_named_after_its_model():
    assert zoo.cifar10(functools.partial(zoo.resnet6, width=0.25), IMAGES, IMAGES).name == "resnet6"


@pytest.mark.parametrize("setting", [zoo.cifar10, zoo.cifar10_shallow, zoo.mnist])
def test_a_setting_can_be_trained_and_fingerprinted(setting, tmp_path):
    tiny = functools.partial(zoo.resnet6, width=0.5)
    recipes = [setting(tiny, IMAGES, IMAGES, epochs=4, **options) for options in ({}, {}, {"lr": 0.2})]
    recipes[0].check(NoiseProtocol("init", runs=2), torch.device("cpu"))
    one, again, other = (fingerprint(recipe.content(), tmp_path) for recipe in recipes)
    assert one == again != other


def test_the_language_models_has_the_papers_sizes():
    corpus = Corpus.of_texts(train="a b c " * 200, valid="a", test="b c")
    recipe = zoo.penn_treebank(corpus)
    model = recipe.model()
    assert [layer.outputs for layer in model.layers] == [512, 512, 256]
    assert (recipe.epochs, recipe.batch_size, recipe.segment, recipe.clip) == (500, 20, 70, 0.25)
    (group,) = recipe.optimizer(model).param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (30, 1.2e-6, 0)
    assert zoo.penn_treebank(corpus, segment=35, name="mine").segment == 35
