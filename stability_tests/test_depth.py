"""Instability begins with the first hidden layer; a linear model has none (section 4.2, table 8)."""

import pytest

from stabilitykit import Budget, assert_within


def test_a_linear_model_comes_back_to_the_same_predictions(stability, linear):
    study = stability.measure(linear, perturb="ulp")
    assert_within(study, Budget(accuracy_sd=0, cross_entropy_sd=1e-6, disagreement=0))


@pytest.mark.stability(runs=5)
def test_one_hidden_layer_does_not(stability, linear, one_hidden_layer):
    shallow, deeper = stability.measure(linear, perturb="ulp"), stability.measure(one_hidden_layer, perturb="ulp")
    assert deeper.cross_entropy_sd.value > 10 * shallow.cross_entropy_sd.value
