"""Every source alone makes the trained models differ, and about as far as all together (section 3.2, table 1)."""

import pytest

from stabilitykit import assert_alike

pytestmark = pytest.mark.scale("small", "paper")

ROWS = {
    "init": "Parameter initialization",
    "shuffle": "Data shuffling",
    "augment": "Data augmentation",
    "low_level": "Low-level operations",
    "shuffle+low_level": "Shuffling + low-level",
    "shuffle+augment+low_level": "Shuffling + augmentation + low-level",
    "all": "All sources",
}


#: What is compared: several sources at once are between one and all.
COMPARED = [sources for sources in ROWS if "+" not in sources]


@pytest.mark.parametrize("sources", ROWS)
def test_each_source_makes_models_differ(stability, scale, main_recipe, findings, sources):
    study = stability.measure(main_recipe, vary=sources, runs=scale.compared if sources in COMPARED else scale.runs)
    findings.row("table 1", ROWS[sources], study)
    assert study.disagreement.value > 0
    assert study.cross_entropy_sd.value > 0


def test_no_source_stands_out(stability, scale, main_recipe):
    studies = [stability.measure(main_recipe, vary=sources, runs=scale.compared) for sources in COMPARED]
    assert_alike(studies, within=2, measures=["disagreement"])
    assert_alike(studies, within=scale.within, measures=["accuracy_sd", "cross_entropy_sd"])
