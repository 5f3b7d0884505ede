"""One weight of the first layer, moved by the smallest possible step, is enough (the paper's table 3)."""

import pytest

from stabilitykit import Perturbation, assert_accuracy_sd, assert_disagreement, assert_ensemble_delta

STEPS = {
    "ulp": Perturbation("ulp"),  # to the next float, up or down
    "bit": Perturbation("bit", parameter="0.weight", bit=0),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_one_weight_is_enough(stability, cnn, images, step):
    study = stability.measure(cnn, perturb=step)
    assert_accuracy_sd(study, at_most=5)


def test_a_single_ulp_does_about_what_a_new_initialisation_does(stability, cnn):
    ulp, init = stability.measure(cnn, perturb="ulp"), stability.measure(cnn, vary="init")
    assert 0.5 < ulp.disagreement.value / init.disagreement.value < 2
