"""It is not only the beginning of training that is sensitive (section 3.4, figure 2)."""

import pytest

from stabilitykit.zoo import resnet14

pytestmark = pytest.mark.scale("small", "paper")

#: When a source begins to vary, as shares of the epochs.
ONSETS = [0.1, 0.3, 0.5, 0.7, 0.9]


@pytest.mark.parametrize("source", ["shuffle", "augment", "low_level"])
def test_onset(stability, scale, setting, findings, source):
    recipe = setting(resnet14)
    studies = {0: stability.measure(recipe, vary=source, runs=scale.few)}
    for share in ONSETS:
        epoch = max(1, int(share * scale.epochs))
        studies[epoch] = stability.measure(recipe, vary=source, onset=epoch, runs=scale.few)
    for measure in ("accuracy_sd", "cross_entropy_sd", "disagreement"):
        curve = {epoch: study[measure].to_json() for epoch, study in studies.items()}
        findings.figure("figure 2", f"{source}: {measure}", {"epochs": scale.epochs, "onset": curve})
    first, second, *_, last = studies.values()
    # A tenth of the way through it is nearly as high as from the start, and it falls towards the end.
    assert second.disagreement.high > first.disagreement.low / 2
    assert last.disagreement.low < first.disagreement.high
