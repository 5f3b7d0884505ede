"""Every source of nondeterminism alone makes the trained models differ, and about as far as all together (table 1)."""

import pytest

from stabilitykit import Budget, assert_within

SOURCES = ["init", "shuffle", "augment", "stochastic", "low_level", "all"]

BUDGETS = {
    "Fashion-MNIST": Budget(accuracy_sd=5, cross_entropy_sd=1, disagreement=90, ensemble_delta=50),
    "digits": Budget(accuracy_sd=5, cross_entropy_sd=1, disagreement=90, ensemble_delta=50),
}


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_keeps_the_budget(stability, cnn, images, source):
    study = stability.measure(cnn, vary=source)
    assert_within(study, BUDGETS[images.name])


def test_no_source_stands_out(stability, cnn):
    spreads = [stability.measure(cnn, vary=source).disagreement for source in SOURCES]
    assert max(spread.low for spread in spreads) < 2 * min(spread.high for spread in spreads)
