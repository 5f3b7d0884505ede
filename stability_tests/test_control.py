"""What is held is held: with no source varying, all trainings are one training, bit for bit (section 3.1)."""

import pytest

from stabilitykit.zoo import linear


@pytest.mark.stability(runs=2)
def test_nothing_varies(stability, main_recipe):
    study = stability.measure(main_recipe, vary="none")
    assert len({record.fingerprint for record in study.records}) == 1
    assert study.accuracy_sd.value == study.cross_entropy_sd.value == study.disagreement.value == 0


def test_only_the_named_source_varies(stability, shallow):
    study = stability.measure(shallow(linear), vary="shuffle")
    assert study.control.proven
    assert len({record.seeds["shuffle"] for record in study.records}) == len(study.records)
    assert len({record.seeds["init"] for record in study.records}) == 1
