"""Instability begins with the first hidden layer; a linear model has none (the paper's section 4.2 and table 8)."""

from stabilitykit import Budget, assert_within


def test_a_linear_model_comes_back_to_the_same_place(stability, linear):
    study = stability.measure(linear, perturb="ulp")
    assert study.accuracy_sd.value == 0
    assert study.disagreement.value == 0
    assert_within(study, Budget(accuracy_sd=0, disagreement=0, cross_entropy_sd=1e-6))


def test_one_hidden_layer_does_not(stability, linear, one_hidden_layer):
    shallow = stability.measure(linear, perturb="ulp").cross_entropy_sd
    deeper = stability.measure(one_hidden_layer, perturb="ulp").cross_entropy_sd
    assert deeper.low > 100 * shallow.high
