"""Averaging models makes what comes out vary less (the paper's section 5 and table 5)."""

import pytest

pytestmark = pytest.mark.stability(vary="all", runs=8)


def test_s(stability, one_hidden_layer):
    plain = stability.measure(one_hidden_layer)
    snapshots = stability.measure(one_hidden_layer.with_snapshots(cycles=5, warmup_epochs=0.5))
    print(snapshots.reduction_against(plain))
    print(plain.ensembles(2).reduction_against(plain))
    print({k: str(v) for k, v in plain.measures.items()}, {k: str(v) for k, v in plain.ensembles(2).measures.items()})
    assert 0

def test_h(stability, one_hidden_layer, linear):
    stability.measure(one_hidden_layer, perturb="ulp")
    stability.measure(linear, perturb="ulp")
