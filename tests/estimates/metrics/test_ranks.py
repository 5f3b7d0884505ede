"""Ranks against SciPy's, in integers that nothing rounds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stabilitykit.estimates.metrics import ranks as module
from stabilitykit.estimates.metrics.ranks import Ranker, doubled_ranks

floats = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), float(np.float32(1e-45))]),
)


def scipys(values: np.ndarray) -> list[float]:
    values = np.unique(values, return_inverse=True)[1]  # SciPy 1.11 takes inf beside -inf for a NaN: their sum is one
    return (2 * scipy.stats.rankdata(values) - len(values) - 1).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(rows=arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=floats))
@settings(deadline=None, max_examples=100)
def test_ranks_agree_with_scipy_where_values_tie_and_where_zero_has_a_sign(dtype, rows):
    ranks = doubled_ranks(torch.from_numpy(rows).to(dtype), range(len(rows)))
    assert [row.tolist() for row in ranks] == [scipys(row) for row in rows]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_outputs_of_other_types_are_ranked_by_value(dtype):
    rows = torch.randint(-9, 9, (3, 50), generator=torch.Generator().manual_seed(0)).to(dtype)
    ranks = doubled_ranks(rows, range(3))
    assert [row.tolist() for row in ranks] == [scipys(row.double().numpy()) for row in rows]


def test_one_ranker_ranks_row_after_row():
    ranker, ranks = Ranker(5), np.empty(5, np.int32)
    for row in ([1.0, 1.0, 1.0, 1.0, 1.0], [5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 2.0, 9.0, 9.0]):
        ranker.doubled(torch.tensor(row), out=ranks)
        assert ranks.tolist() == scipys(np.array(row))


@pytest.mark.parametrize("place", [0, 3, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_with_a_nan_has_no_order(place, dtype):
    row = torch.arange(10.0, dtype=dtype)
    row[place] = torch.nan
    assert not doubled_ranks(row[None], range(1))[0].any()


@pytest.mark.slow
def test_ranks_beyond_the_integers_of_a_float32_are_exact():
    many = 2**24 + 5
    row = (torch.arange(many, dtype=torch.int32) // 2).float()  # exact: its values stay below 2**24
    ranks = doubled_ranks(row[None], range(1))[0]
    expected = 4 * (torch.arange(many) // 2) + 2 - many
    expected[-1] = many - 1  # alone
    assert torch.equal(ranks.long(), expected)
    assert (ranks.float().long() != expected).any()  # which a float32 could not hold


def test_ranks_beyond_32_bits_are_found_the_other_way(monkeypatch):
    rows = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    expected = doubled_ranks(rows, range(3))
    assert expected[0].dtype == torch.int32
    monkeypatch.setattr(module, "_MOST_IN_32_BITS", 39)
    wide = doubled_ranks(rows, range(3))
    assert wide[0].dtype == torch.int64
    assert all(torch.equal(one, other.long()) for one, other in zip(wide, expected, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_ranks_in_their_order(threads):
    rows = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ranks = doubled_ranks(rows, range(1, 5))
    finally:
        torch.set_num_threads(before)
    assert [row.tolist() for row in ranks] == [scipys(row) for row in rows[1:].numpy()]
