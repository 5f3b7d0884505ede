"""Instability begins with the first hidden layer; a linear model has none (section 4.2, table 8)."""

import pytest

from stabilitykit import Budget, assert_within


def test_a_linear_model_comes_back_to_the_same_predictions(stability, linear):
    study = stability.measure(linear, perturb="ulp")
    # The zeros are exact. Measured over 10 runs (as in test_sources.py), the SD of the cross-entropy is
    # 4.9e-9 [3.6e-9, 8.1e-9] on Fashion-MNIST and 1.4e-9 [1.0e-9, 2.3e-9] on digits; 3e-8 in the paper.
    assert_within(study, Budget(accuracy_sd=0, cross_entropy_sd=1e-7, disagreement=0))


@pytest.mark.stability(runs=5)
def test_one_hidden_layer_does_not(stability, linear, one_hidden_layer):
    shallow, deeper = stability.measure(linear, perturb="ulp"), stability.measure(one_hidden_layer, perturb="ulp")
    # Measured over 5 runs: 2,000,000 times on Fashion-MNIST (0.012), 400,000 times on digits (0.0005).
    assert deeper.cross_entropy_sd.value > 10 * shallow.cross_entropy_sd.value
