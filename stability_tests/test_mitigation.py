"""Averaged models differ less, and the snapshots of a single training will do (section 5, table 5)."""

import pytest

from stabilitykit import Budget, assert_within

#: Eight runs make four ensembles of two. Both tests share the runs without mitigation.
pytestmark = pytest.mark.stability(vary="all", runs=8)

BUDGETS = {
    "Fashion-MNIST": Budget(accuracy_sd=5, disagreement=50, ensemble_delta=50),
    "digits": Budget(accuracy_sd=5, disagreement=50, ensemble_delta=50),
}


def test_snapshots_of_one_training_differ_less(stability, one_hidden_layer, images):
    plain = stability.measure(one_hidden_layer)
    snapshots = stability.measure(one_hidden_layer.with_snapshots(cycles=5, warmup_epochs=0.5))
    assert_within(snapshots, BUDGETS[images.name])
    assert snapshots.disagreement.value < plain.disagreement.value
    assert snapshots.reduction_against(plain).drops["correlation"] > 0


def test_ensembles_of_two_trainings_differ_less(stability, one_hidden_layer):
    plain = stability.measure(one_hidden_layer)
    pairs = plain.ensembles(2)
    assert pairs.disagreement.value < plain.disagreement.value
    assert pairs.reduction_against(plain).drops["correlation"] > 0
