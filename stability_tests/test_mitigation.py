"""Averaged models differ less, and the snapshots of a single training will do (section 5, table 5)."""

import pytest

from stabilitykit import Budget, assert_within

# This model has no augmentation and no dropout to vary. Eight runs make four ensembles of two.
pytestmark = pytest.mark.stability(vary="init+shuffle", runs=8)

# 1.5 times the upper bounds over 8 runs, measured as those of test_sources.py:
#   Fashion-MNIST  accuracy SD 0.38 [0.27, 0.68], disagreement 4.8 [4.4, 5.1]
#   digits         accuracy SD 0.45 [0.32, 0.82], disagreement 2.7 [2.5, 3.0]
BUDGETS = {
    "Fashion-MNIST": Budget(accuracy_sd=1.0, disagreement=7.6),
    "digits": Budget(accuracy_sd=1.2, disagreement=4.4),
}


def test_snapshots_of_one_training_differ_less(stability, one_hidden_layer, images):
    plain = stability.measure(one_hidden_layer)
    snapshots = stability.measure(one_hidden_layer.with_snapshots(cycles=5, warmup_epochs=0.5))
    assert_within(snapshots, BUDGETS[images.name])
    # Measured: 1 - correlation is 47 % less on Fashion-MNIST, 28 % on digits, and much the same from another seed;
    # disagreement is 38 % and 30 % less. Whether an SD has dropped, eight runs cannot show.
    assert snapshots.reduction_against(plain).drops["correlation"] > 0


def test_ensembles_of_two_trainings_differ_less(stability, one_hidden_layer):
    plain = stability.measure(one_hidden_layer)
    assert plain.ensembles(2).reduction_against(plain).drops["correlation"] > 0  # measured: 39 %, 42 %
