"""Does the conclusion depend on the constants at which the other sources are held (appendix D)?"""

import pytest

from stabilitykit import variance_components

pytestmark = pytest.mark.scale("small", "paper")


def test_constants(stability, main_recipe, findings):
    studies = [stability.measure(main_recipe, vary="init", constants={"shuffle": constant}) for constant in range(3)]
    for score in ("accuracy", "cross_entropy"):
        components = variance_components(studies, score)
        findings.say(components)
        findings.figure("appendix D", score, components.to_json())
