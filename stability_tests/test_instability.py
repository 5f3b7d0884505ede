"""One weight of the first layer, moved by the smallest possible step, is enough (section 4.1, table 3)."""

import pytest

from stabilitykit import assert_alike

pytestmark = pytest.mark.scale("small", "paper")


def test_one_ulp_does_what_a_new_initialisation_does(stability, scale, main_recipe, findings):
    ulp = stability.measure(main_recipe, perturb="ulp", runs=scale.compared)
    findings.row("table 3", "Random bit change", ulp)
    init = stability.measure(main_recipe, vary="init", runs=scale.compared)
    assert_alike([ulp, init], within=2, measures=["disagreement"])
    assert_alike([ulp, init], within=scale.within, measures=["accuracy_sd", "cross_entropy_sd"])


# Of each score the condition number that section 4.1 finds for one pair of models.
PUBLISHED = {"cross_entropy": 1.8e7, "accuracy": 2.6e8}


@pytest.mark.parametrize("score", PUBLISHED)
def test_training_is_ill_conditioned(stability, main_recipe, findings, score):
    ulp = stability.measure(main_recipe, perturb="ulp")
    number = ulp.condition_number(score)
    findings.say(f"{number}; the paper: at least {PUBLISHED[score]:.1e}")
    findings.figure("condition number", score, number.to_json())
    assert number.at_least > 1e4  # some ten for a linear model
