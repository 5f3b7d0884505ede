"""Layer by layer, models of different sources are about as similar (section 3.2, figure 1)."""

import pytest

pytestmark = pytest.mark.scale("small", "paper")

LAYERS = {
    "conv1": "Conv1",
    "block1": "ResBlock1",
    "block2": "ResBlock2",
    "block3": "ResBlock3",
    "pool": "AvgPool",
    "logits": "Logits",
}
SOURCES = ["init", "shuffle", "augment", "low_level", "all"]


@pytest.mark.parametrize("source", SOURCES)
def test_similarity_by_layer(stability, main_recipe, findings, source):
    similarity = stability.measure(main_recipe, vary=source).cka(list(LAYERS))
    findings.figure("figure 1", source, {name: similarity[layer].to_json() for layer, name in LAYERS.items()})
    assert all(0 < similarity[layer].value < 1 for layer in LAYERS)


def test_layers_differ_more_than_sources(stability, main_recipe):
    found = [stability.measure(main_recipe, vary=source).cka(list(LAYERS)) for source in SOURCES]
    of_layers = [[similarity[layer].value for similarity in found] for layer in LAYERS]
    between_layers = max(map(max, of_layers)) - min(map(min, of_layers))
    between_sources = [max(values) - min(values) for values in of_layers]
    assert sorted(between_sources)[len(LAYERS) // 2] < between_layers
