"""Averaged models differ less: snapshots of one training, test-time augmentation, and both (section 5, table 5).

Test-time augmentation is of the paper's ICML version, which puts the reductions of the single model at 48 % for the
snapshots and 61 % for snapshots with flip-crop81.
"""

import pytest

from stabilitykit import assert_reduction
from stabilitykit.zoo import hidden_layer

pytestmark = pytest.mark.scale("small", "paper")

#: Percent less variability than the single model, in the paper.
PUBLISHED = {"snapshots": 48, "snapshots, flip-crop81": 61}


@pytest.fixture
def pool(stability, scale, main_recipe):
    """Runs enough for two ensembles of five, or for what they are enough for."""
    return stability.measure(main_recipe, vary="all", runs=2 * scale.runs)


@pytest.mark.parametrize("size", range(1, 6))
def test_vanilla_ensembles(pool, findings, size):
    if size * 2 > len(pool.records):
        pytest.skip(f"{len(pool.records)} runs make no two ensembles of {size}")
    findings.row("table 5", f"Vanilla (N = {size})", pool if size == 1 else pool.ensembles(size))


def test_ensembles_of_two_differ_less(pool):
    assert_reduction(pool.ensembles(2), pool, at_least=0)


def test_snapshots_differ_less(stability, scale, main_recipe, findings):
    snapshots = stability.measure(main_recipe.with_snapshots(scale.cycles), vary="all")
    findings.row("table 5", "Snapshot", snapshots)
    plain = stability.measure(main_recipe, vary="all")
    findings.say(f"snapshots: {snapshots.reduction_against(plain)}; the paper: {PUBLISHED['snapshots']} %")
    scale.skip_weak_snapshots(main_recipe.epochs // scale.cycles)
    assert_reduction(snapshots, plain, at_least=0)


def test_snapshots_of_one_hidden_layer_differ_less(stability, scale, shallow, findings):
    """The epochs of a lower scale are enough for this model: each cycle ends in a member that is worth averaging."""
    recipe = shallow(hidden_layer)
    tasks = (recipe.with_snapshots(scale.cycles), recipe)
    snapshots, plain = (stability.measure(task, vary="all", runs=2 * scale.runs) for task in tasks)
    findings.say(f"snapshots of one hidden layer: {snapshots.reduction_against(plain)}")
    assert_reduction(snapshots, plain, at_least=0)


@pytest.mark.parametrize("crops", [False, True], ids=["flip", "flip and crops"])
@pytest.mark.parametrize("with_snapshots", [False, True], ids=["single", "snapshots"])
def test_test_time_augmentation(stability, scale, images, main_recipe, findings, request, with_snapshots, crops):
    if not (images.flip or crops):
        pytest.skip(f"a mirrored image of {images.name} is of no class")
    recipe = main_recipe.with_snapshots(scale.cycles) if with_snapshots else main_recipe
    shift = images.padding if crops else 0  # 4 at the paper's scale: 81 crops
    averaged = stability.measure(recipe.with_tta(flip=images.flip, shift=shift), vary="all")
    plain = stability.measure(main_recipe, vary="all")
    reduction = averaged.reduction_against(plain)
    name = request.node.callspec.id
    findings.say(f"test-time augmentation, {name}: {reduction}")
    found = {"reduction": reduction.estimate, "accuracy": averaged.accuracy} | dict(reduction.parts)
    findings.figure("test-time augmentation", name, {key: estimate.to_json() for key, estimate in found.items()})
    if scale.name == "paper":
        assert_reduction(averaged, plain, at_least=0)
    elif crops:
        assert reduction.parts["disagreement"].low > 0
    else:
        pytest.skip("what a mirrored image alone does is less than ten runs show")
