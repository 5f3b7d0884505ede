"""The central range of curves: against NumPy, by its laws, and how much it holds by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.estimates.metrics import central_range, runs_to_reach_inside, share_inside

shapes = st.tuples(st.integers(2, 50), st.integers(1, 4))
curves = arrays.arrays(np.float64, shapes, elements=st.floats(-1e6, 1e6))
laws = settings(deadline=None, max_examples=60)


@laws
@given(curves, st.sampled_from([0.5, 0.9, 0.95]))
def test_is_what_numpy_gives(scores, share):
    low, high = central_range(torch.from_numpy(scores), share)
    expected = np.percentile(scores, [50 * (1 - share), 50 * (1 + share)], axis=0)
    np.testing.assert_allclose(torch.stack([low, high]).numpy(), expected, rtol=1e-9, atol=1e-6)


@laws
@given(curves, st.randoms(use_true_random=False))
def test_lies_within_the_runs_whatever_their_order(scores, random):
    low, high = central_range(torch.from_numpy(scores))
    assert (scores.min(0) <= low.numpy()).all()
    assert (low <= high).all()
    assert (high.numpy() <= scores.max(0)).all()
    order = random.sample(range(len(scores)), len(scores))
    assert torch.equal(low, central_range(torch.from_numpy(scores[order]))[0])


def test_of_equal_runs_is_exactly_their_score():
    low, high = central_range(torch.full((7, 2), 0.1))
    assert torch.equal(low, high)
    assert low[0] == torch.full((1,), 0.1).double()


def test_is_undefined_only_after_epochs_in_which_a_run_has_no_number():
    low, high = central_range(torch.tensor([[1.0, float("nan"), 1.0], [2.0, 2.0, float("inf")]]))
    assert low.isnan().tolist() == high.isnan().tolist() == [False, True, True]


def test_the_outermost_runs_no_longer_move_it_from_that_many_on():
    enough = runs_to_reach_inside()
    for runs, moved in ((enough - 1, True), (enough, False)):
        scores = torch.arange(float(runs))[:, None]
        further = scores.clone()
        further[-1] += 100
        assert (central_range(further)[1] != central_range(scores)[1]).item() is moved


@pytest.mark.parametrize("runs", [5, 10, 30, 100])
def test_holds_the_share_of_further_runs_that_is_said(runs):
    draw = np.random.default_rng(runs)
    studies, further = draw.random((runs, 4000)), draw.random((50, 4000))
    low, high = (bound.numpy() for bound in central_range(torch.from_numpy(studies)))
    held = np.mean((low < further) & (further < high), axis=0)
    error = 3 * held.std() / np.sqrt(len(held))
    assert held.mean() == pytest.approx(share_inside(runs), abs=error)
