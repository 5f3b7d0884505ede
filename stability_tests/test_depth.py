"""Instability begins with the first hidden layer; a linear model has none (section 4.2, table 8)."""

import pytest

from stabilitykit import Budget, assert_within
from stabilitykit.zoo import hidden_convolution, hidden_layer, linear

pytestmark = pytest.mark.scale("small", "paper")

MODELS = {
    "Linear": linear,
    "One hidden layer (fully-connected)": hidden_layer,
    "One hidden layer (convolutional)": hidden_convolution,
}
CHANGES = {
    "Parameter initialization": {"vary": "init"},
    "All sources": {"vary": "all"},
    "Random bit change": {"perturb": "ulp"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("model", MODELS)
def test_depth(stability, shallow, findings, model, change):
    study = stability.measure(shallow(MODELS[model]), **CHANGES[change])
    findings.row("table 8", f"{model}: {change}", study)
    assert study.cross_entropy_sd.value > 0


def test_a_linear_model_comes_back_to_the_same_predictions(stability, shallow):
    study = stability.measure(shallow(linear), perturb="ulp")
    assert_within(study, Budget(accuracy_sd=0, cross_entropy_sd=1e-6, disagreement=0))


@pytest.mark.parametrize("model", [hidden_layer, hidden_convolution])
def test_one_hidden_layer_does_not(stability, shallow, model):
    flat, deeper = (stability.measure(shallow(each), perturb="ulp") for each in (linear, model))
    assert deeper.cross_entropy_sd.low > 100 * flat.cross_entropy_sd.high  # the paper: 10,000 times and more
