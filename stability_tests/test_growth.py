"""What one ulp does grows by orders of magnitude in a few epochs, but not in a linear model (appendix C, figure 3)."""

import pytest

from stabilitykit.zoo import hidden_layer, linear

pytestmark = pytest.mark.scale("small", "paper")


@pytest.mark.parametrize("model", [linear, hidden_layer])
def test_growth(stability, shallow, findings, model):
    growth = stability.measure(shallow(model, curve=True), perturb="ulp").growth("cross_entropy")
    findings.figure("figure 3", model.__name__, growth.to_json())


def test_a_linear_model_stays_orders_of_magnitude_below(stability, shallow):
    flat, deep = (
        stability.measure(shallow(model, curve=True), perturb="ulp").growth("cross_entropy")
        for model in (linear, hidden_layer)
    )
    assert deep.peak.sd.low > 100 * flat.peak.sd.high  # five orders of magnitude and more in the paper
