"""Random crops and flips, and test-time augmentation: against plain loops over pixels, and as a part of a recipe."""

from __future__ import annotations

import dataclasses
import itertools
import math
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stabilitykit.errors import TaskError
from stabilitykit.isolation.streams import Stream
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.fingerprint import fingerprint
from stabilitykit.training.images import ImageViews, RandomCropFlip
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.run import Run
from tests.seeds import BASE_SEED

CPU = torch.device("cpu")
X = torch.randn(9, 2, 5, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(9) % 3


def by_loops(x: Tensor, *, flip: bool, shift: int) -> list[Tensor]:
    """Each view, pixel by pixel."""
    views = []
    height, width = x.shape[2:]
    steps = range(-shift, shift + 1)
    for mirrored, down, right in itertools.product([False, True][: 1 + flip], steps, steps):
        view = torch.zeros_like(x)
        for row, column in itertools.product(range(height), range(width)):
            source = width - 1 - (column + right) if mirrored else column + right
            if 0 <= row + down < height and 0 <= column + right < width:
                view[:, :, row, column] = x[:, :, row + down, source]
        views.append(view)
    return views


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        model=small_net,
        train=(X, Y),
        test=(X, Y),
        epochs=4,
        batch_size=4,
        eval_batch_size=4,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    )


def fit(recipe: Recipe) -> tuple[Tensor, Run]:
    plan = NoiseProtocol("init", runs=2, seed=BASE_SEED).plans()[0]
    run = Run(plan, CPU)
    with Stream(plan.stochastic):
        return recipe.fit(run), run


@pytest.mark.parametrize(("flip", "shift"), [(True, 0), (False, 1), (True, 2), (True, 3)])
def test_the_views_are_those_of_plain_loops(flip, shift):
    views = ImageViews(flip, shift)
    expected = by_loops(X, flip=flip, shift=shift)
    assert len(views) == len(expected) == (1 + flip) * (2 * shift + 1) ** 2
    for view, wanted in zip(views.of(X), expected, strict=True):
        assert torch.equal(view, wanted)


def test_the_views_are_what_training_draws_from():
    drawn = RandomCropFlip(padding=1)(X[:1].repeat(400, 1, 1, 1), torch.Generator().manual_seed(0))
    views = list(ImageViews(flip=True, shift=1).of(X[:1]))
    seen = {i for image in drawn for i, view in enumerate(views) if torch.equal(image, view[0])}
    assert len(seen) == len(views) == 18


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_view_lies_in_memory_as_its_batch_does(memory_format):
    x = X.contiguous(memory_format=memory_format)
    assert all(view.stride() == x.stride() for view in ImageViews(shift=1).of(x))


def test_a_model_that_sees_no_difference_says_exactly_what_it_says_without():
    x = nn.functional.pad(X, [2] * 4)  # so that no shift by 2 moves anything out of the image
    assert torch.equal(ImageViews(shift=2).mean(lambda x: x.amax((2, 3)), x), x.amax((2, 3)))


def test_outputs_in_half_precision_are_averaged_in_single():
    values = iter([2048.0, 2050.0, 2052.0] * 3)
    mean = ImageViews(flip=False, shift=1).mean(lambda x: torch.full((1,), next(values), dtype=torch.half), X)
    assert mean.dtype is torch.float32
    assert mean.item() == pytest.approx(2050, abs=0.01)  # whereas the nine sum up to 18,450 and half's spacing is 16


def test_one_view_at_a_time_is_in_memory():
    seen: list[weakref.ref[Tensor]] = []

    def forward(x: Tensor) -> Tensor:
        assert not any(view() is not None for view in seen)
        seen.append(weakref.ref(x))
        return x.sum((1, 2, 3))

    ImageViews(shift=1).mean(forward, X)
    assert len(seen) == 18


class TestRecipes:
    @pytest.mark.trains
    def test_the_outputs_are_the_mean_over_views_of_the_model_that_is_trained_anyway(self, recipe):
        plain, run = fit(recipe)
        outputs, averaged = fit(recipe.with_tta(shift=1))
        assert averaged.final_digest() == run.final_digest()
        with torch.no_grad():
            expected = torch.stack([run.model.eval()(view) for view in by_loops(X, flip=True, shift=1)]).mean(0)
        torch.testing.assert_close(outputs, expected)
        assert not torch.allclose(outputs, plain, atol=1e-3)

    def test_the_bits_are_the_same_each_time(self, recipe):
        assert torch.equal(fit(recipe.with_tta(shift=1))[0], fit(recipe.with_tta(shift=1))[0])

    @pytest.mark.trains
    def test_snapshots_are_each_averaged_over_views_in_either_order(self, recipe):
        members: list[Tensor] = []

        class Watched(ImageViews):
            def mean(self, forward, x):
                members.append(super().mean(forward, x))
                return members[-1]

        recipe = dataclasses.replace(recipe, eval_batch_size=9)
        outputs, _ = fit(dataclasses.replace(recipe, views=Watched()).with_snapshots(2))
        assert len(members) == 2
        torch.testing.assert_close(outputs, (members[0] + members[1]) / 2)
        one, other = recipe.with_tta().with_snapshots(2), recipe.with_snapshots(2).with_tta()
        assert torch.equal(fit(one)[0], outputs)
        assert torch.equal(fit(other)[0], outputs)

    def test_the_curve_scores_what_the_study_will(self, recipe):
        outputs, run = fit(dataclasses.replace(recipe, curve=True).with_tta(shift=1))
        assert run.curve[-1]["accuracy"] == pytest.approx(100 * (outputs.argmax(-1) == Y).double().mean().item())

    def test_a_dataset_gives_the_bits_of_its_tensors(self, recipe):
        dataset = dataclasses.replace(recipe, test=TensorDataset(X, Y))
        assert torch.equal(fit(dataset.with_tta(shift=1))[0], fit(recipe.with_tta(shift=1))[0])

    def test_images_can_have_targets(self, recipe):
        regression = dataclasses.replace(recipe, train=(X, torch.randn(9, 3)), test=(X, torch.randn(9, 3))).with_tta()
        regression.check(NoiseProtocol("init", runs=2), CPU)
        assert fit(regression)[0].shape == (9, 3)

    def test_the_views_count_in_the_fingerprint(self, recipe, tmp_path):
        recipes = [recipe, recipe.with_tta(), recipe.with_tta(shift=1), recipe.with_tta(flip=False, shift=1)]
        assert len({fingerprint(r.content(), tmp_path) for r in recipes}) == 4
        again = fingerprint(recipe.with_tta(shift=1).content(), tmp_path)
        assert again == fingerprint(recipes[2].content(), tmp_path)

    def test_a_recipe_shows_how_many_it_has(self, recipe):
        assert repr(recipe.with_tta(shift=4)).endswith("batch_size=4, views=162)")


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"flip": False}, "Expected more than one view of an image but got flip=False and shift=0."),
            ({"shift": -1}, "Expected shift >= 0, in whole pixels, but got shift=-1."),
            ({"shift": 1.5}, "Expected shift >= 0, in whole pixels, but got shift=1.5."),
            ({"shift": True}, "Expected shift >= 0, in whole pixels, but got shift=True."),
            ({"flip": 1}, "Expected flip to be True or False but got flip=1."),
        ],
    )
    def test_what_is_no_set_of_views_is_refused_where_it_is_asked_for(self, recipe, options, message):
        with pytest.raises(TaskError) as refusal:
            recipe.with_tta(**options)
        assert str(refusal.value) == message

    @pytest.mark.parametrize(
        ("changes", "shift", "message"),
        [
            (
                {"train": (X.flatten(1), Y), "test": (X.flatten(1), Y), "model": lambda: nn.Linear(40, 3)},
                0,
                (
                    "Expected images [N, C, H, W] for test-time augmentation but got inputs of shape [2, 40]: there is "
                    "nothing to mirror or to shift. Measure the recipe without with_tta()."
                ),
            ),
            (
                {},
                4,
                (
                    "Expected shift < 4, the size of the images, but got shift=4: some views would show nothing but "
                    "the border. Take a smaller shift."
                ),
            ),
            (
                {"train": (X, X[:, 0].long()), "test": (X, X[:, 0].long().abs())},
                0,
                (
                    "Expected one label an image for test-time augmentation but got labels of shape [9, 5, 4]: those "
                    "of pixels would have to move with the image. Measure the recipe without with_tta()."
                ),
            ),
            (
                {"train": (X, X[:, 0]), "test": (X, X[:, 0])},
                0,
                (
                    "Expected one label an image for test-time augmentation but got labels of shape [9, 5, 4]: those "
                    "of pixels would have to move with the image. Measure the recipe without with_tta()."
                ),
            ),
        ],
    )
    def test_what_cannot_be_shifted_is_refused_before_training(self, recipe, changes, shift, message):
        with pytest.raises(TaskError) as refusal:
            dataclasses.replace(recipe, **changes).with_tta(shift=shift).check(NoiseProtocol("init", runs=2), CPU)
        assert str(refusal.value) == message

    def test_the_largest_shift_that_shows_a_pixel_is_accepted(self, recipe):
        recipe.with_tta(shift=3).check(NoiseProtocol("init", runs=2), CPU)
        assert all(math.isfinite(value) for value in fit(recipe.with_tta(shift=3))[0].flatten())


class TestRandomCropFlip:
    images = torch.arange(1.0, 1 + 6 * 2 * 4 * 5).reshape(6, 2, 4, 5)

    def changed(self, seed: int = 0, **values: object) -> torch.Tensor:
        return RandomCropFlip(**values)(self.images, torch.Generator().manual_seed(seed))

    def test_no_padding_and_no_flip_is_the_identity(self):
        assert torch.equal(self.changed(padding=0, flip=False), self.images)

    def test_only_the_generator_decides(self):
        assert torch.equal(self.changed(seed=1), self.changed(seed=1))
        assert not torch.equal(self.changed(seed=1), self.changed(seed=2))

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize(("padding", "flip"), [(0, False), (0, True), (1, False), (3, True)])
    def test_its_pixels_are_those_of_a_loop_over_the_images(self, layout, padding, flip):
        generator = torch.Generator().manual_seed(3)
        tops, lefts = torch.randint(0, 2 * padding + 1, (2, 6, 1), generator=generator)
        mirrored = torch.rand(6, 1, generator=generator) < 0.5 if flip else torch.zeros(6, 1)
        padded = torch.nn.functional.pad(self.images, [padding] * 4)
        windows = [
            image[:, top : top + 4, left : left + 5]
            for image, top, left in zip(padded, tops.flatten().tolist(), lefts.flatten().tolist(), strict=True)
        ]
        expected = torch.stack([w.flip(2) if m else w for w, m in zip(windows, mirrored, strict=True)])
        images = self.images.contiguous(memory_format=layout)
        changed = RandomCropFlip(padding, flip)(images, torch.Generator().manual_seed(3))
        assert torch.equal(changed, expected)
        assert changed.is_contiguous(memory_format=torch.channels_last)

    def test_each_image_is_mirrored_or_not(self):
        seen = set()
        for seed in range(8):
            for image, original in zip(self.changed(seed, padding=0), self.images, strict=True):
                mirrored = torch.equal(image, original.flip(-1))
                assert mirrored or torch.equal(image, original)
                seen.add(mirrored)
        assert seen == {True, False}

    def test_each_image_is_a_window_of_itself_on_black_and_all_windows_occur(self):
        seen = set()
        for seed in range(30):
            for image, original in zip(self.changed(seed, padding=1, flip=False), self.images, strict=True):
                padded = torch.nn.functional.pad(original, [1, 1, 1, 1])
                windows = {
                    (row, column): padded[:, row : row + 4, column : column + 5]
                    for row in range(3)
                    for column in range(3)
                }
                (place,) = [place for place, window in windows.items() if torch.equal(window, image)]
                seen.add(place)
        assert len(seen) == 9
