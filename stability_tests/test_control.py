"""With every source held, all trainings are one training, bit for bit."""

import pytest


@pytest.mark.stability(runs=2)
def test_nothing_varies(stability, cnn):
    study = stability.measure(cnn, vary="none")
    assert len({record.fingerprint for record in study.records}) == 1
    assert study.accuracy_sd.value == study.cross_entropy_sd.value == study.disagreement.value == 0


def test_only_the_named_source_varies(stability, linear):
    seeds = [record.seeds for record in stability.measure(linear, vary="shuffle").records]
    assert len({seed["shuffle"] for seed in seeds}) == len(seeds)
    assert len({(seed["init"], seed["augment"], seed["stochastic"]) for seed in seeds}) == 1
