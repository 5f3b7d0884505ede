"""Two-way analysis of variance: against plain loops and SciPy, by its laws, and how often its bounds miss."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from stabilitykit.estimates.anova import (
    MeanSquare,
    MeanSquares,
    difference_estimate,
    largest_ratio,
    mean_estimate_of_squares,
    variance_estimate,
)

REPLICATES = 1500
#: Three Monte-Carlo errors about 5 %.
ERROR = 3 * 100 * math.sqrt(0.05 * 0.95 / REPLICATES)

tables = arrays.arrays(
    np.float64, st.tuples(st.integers(3, 8), st.integers(2, 5)), elements=st.integers(-50, 50).map(float)
)
laws = settings(deadline=None, max_examples=60)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def naive(table: np.ndarray) -> tuple[float, float, float]:
    runs, columns = table.shape
    grand = table.mean()
    rows = [table[i].mean() for i in range(runs)]
    across = [table[:, k].mean() for k in range(columns)]
    rest = 0.0
    for i in range(runs):
        for k in range(columns):
            rest += (table[i, k] - rows[i] - across[k] + grand) ** 2
    return columns * statistics.variance(rows), runs * statistics.variance(across), rest / ((runs - 1) * (columns - 1))


class TestMeanSquares:
    @laws
    @given(tables)
    def test_are_those_of_plain_loops(self, table):
        found = MeanSquares.of(table)
        got = [square.value for square in (found.rows, found.columns, found.rest)]
        assert got == pytest.approx(naive(table), rel=1e-9, abs=1e-9)

    @laws
    @given(tables, st.randoms(use_true_random=False))
    def test_do_not_depend_on_order_or_on_which_is_which(self, table, random):
        shuffled = table[random.sample(range(len(table)), len(table))]
        one, two, turned = MeanSquares.of(table), MeanSquares.of(shuffled), MeanSquares.of(table.T)
        for name, other in (("rows", "columns"), ("columns", "rows"), ("rest", "rest")):
            square = getattr(one, name)
            assert square.value == pytest.approx(getattr(two, name).value, rel=1e-9, abs=1e-9)
            assert square.value == pytest.approx(getattr(turned, other).value, rel=1e-9, abs=1e-9)
            assert square.df == getattr(turned, other).df

    def test_of_equal_scores_are_exactly_zero(self):
        found = MeanSquares.of(np.full((4, 3), 0.1))
        assert found.rows.value == found.columns.value == found.rest.value == 0
        constant = MeanSquares.of(np.tile([0.1, 0.7, 0.3], (5, 1)))
        assert constant.rows.value == constant.rest.value == 0 < constant.columns.value

    def test_have_as_expectation_what_the_components_are_estimated_from(self):
        total = np.zeros(3)
        for seed in range(REPLICATES):
            draw = np.random.default_rng(seed)
            table = 2 * draw.normal(size=(4, 1)) + 3 * draw.normal(size=(1, 3)) + draw.normal(size=(4, 3))
            found = MeanSquares.of(table)
            total += [square.value for square in (found.rows, found.columns, found.rest)]
        expected = [1 + 3 * 4, 1 + 4 * 9, 1]
        errors = [e * math.sqrt(2 / df / REPLICATES) for e, df in zip(expected, (3, 2, 6), strict=True)]
        assert (np.abs(total / REPLICATES - expected) < 3 * np.array(errors)).all()


class TestIntervals:
    def test_of_a_variance_is_chi_square(self):
        found = variance_estimate(MeanSquare(2.5, 7), runs=8)
        assert found.low == pytest.approx(2.5 * 7 / stats.chi2.ppf(0.95, 7))
        assert found.high == pytest.approx(2.5 * 7 / stats.chi2.ppf(0.05, 7))

    @laws
    @given(st.integers(1, 30), st.integers(1, 60), st.sampled_from([0.999, 1.001]))
    def test_a_difference_is_above_zero_exactly_where_the_f_test_rejects(self, more, less, side):
        critical = stats.f.ppf(0.95, more, less)
        found = difference_estimate(MeanSquare(side * critical, more), MeanSquare(1.0, less), 3, runs=5)
        assert (found.low > 0) == (side > 1)

    @laws
    @given(st.floats(0, 100), st.integers(1, 30), st.floats(0, 100), st.integers(1, 60), st.integers(1, 10))
    def test_a_difference_lies_between_its_bounds_and_is_never_negative(self, more, df, less, other, times):
        found = difference_estimate(MeanSquare(more, df), MeanSquare(less, other), times, runs=5)
        assert 0 <= found.low <= found.value <= found.high
        assert found.value == pytest.approx(max(0.0, more - less) / times)

    def test_a_difference_from_nothing_is_a_variance(self):
        found = difference_estimate(MeanSquare(2.5, 7), MeanSquare(0.0, 14), 1, runs=8)
        alone = variance_estimate(MeanSquare(2.5, 7), runs=8)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))

    def test_a_mean_of_squares_with_one_part_is_a_variance(self):
        found = mean_estimate_of_squares(MeanSquare(5.0, 7), MeanSquare(0.0, 7), 2, runs=8)
        alone = variance_estimate(MeanSquare(2.5, 7), runs=8)
        assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))

    @laws
    @given(tables)
    def test_a_mean_of_squares_is_the_mean_variance_of_a_column(self, table):
        squares = MeanSquares.of(table)
        found = mean_estimate_of_squares(squares.rows, squares.rest, table.shape[1], len(table))
        assert found.value == pytest.approx(table.var(axis=0, ddof=1).mean(), rel=1e-9, abs=1e-9)
        assert 0 <= found.low <= found.value <= found.high

    @pytest.mark.parametrize(("rows", "columns", "rest"), [(0.1, 0.1, 1), (1, 1, 1), (10, 0.1, 1)])
    def test_miss_the_truth_as_often_as_is_said(self, rows, columns, rest):
        missed = np.zeros((4, 2))
        truths = (rows, columns, rest, rows + rest)
        draw = np.random.default_rng(7)
        for _ in range(REPLICATES):
            table = math.sqrt(rows) * draw.normal(size=(8, 1)) + math.sqrt(columns) * draw.normal(size=(1, 3))
            squares = MeanSquares.of(table + math.sqrt(rest) * draw.normal(size=(8, 3)))
            found = (
                difference_estimate(squares.rows, squares.rest, 3, 8),
                difference_estimate(squares.columns, squares.rest, 8, 8),
                variance_estimate(squares.rest, 8),
                mean_estimate_of_squares(squares.rows, squares.rest, 3, 8),
            )
            missed += [(e.low > truth, e.high < truth) for e, truth in zip(found, truths, strict=True)]
        rates = 100 * missed / REPLICATES
        assert (np.abs(rates[:3] - 5) < ERROR + 0.8).all(), "approximate for rows and columns: docs/analyses.md"
        assert (rates[3] < 7.5 + ERROR).all(), "the lower bound of the mean errs more often: docs/analyses.md"


class TestLargestRatio:
    def test_of_two_columns_is_the_test_of_pitman_and_morgan(self):
        """By its definition: the bound r is where x - y / r ... correlate no more than chance lets them."""
        table = normal(3, 9, 2) * [1, 2] + normal(4, 9, 1)
        found = largest_ratio(table)
        x, y = table[:, table.std(axis=0).argmax()], table[:, table.std(axis=0).argmin()]
        for bound, rate in ((found.low, 0.025), (found.high, 0.05)):
            r = stats.pearsonr(x - bound * y, x + bound * y).statistic
            t = abs(r) * math.sqrt(7 / (1 - r * r))
            assert bound == 1 or stats.t.sf(t, 7) == pytest.approx(rate)
        assert found.high > found.value

    @laws
    @given(arrays.arrays(np.float64, st.tuples(st.integers(3, 8), st.integers(2, 4)), elements=st.floats(-50, 50)))
    def test_lies_between_its_bounds_and_is_one_or_more(self, table):
        found = largest_ratio(table)
        assert found.is_undefined or 1 <= found.low <= found.value <= found.high

    def test_of_columns_that_differ_by_a_constant_is_exactly_one(self):
        column = np.array([1.0, 4.0, 2.0, 8.0])
        found = largest_ratio(np.stack([column, column + 3], axis=1))
        assert found.low == found.value == found.high == 1

    def test_where_nothing_varies_is_one_and_where_one_column_does_not_is_undefined(self):
        assert largest_ratio(np.full((4, 2), 0.1)).is_exact
        assert largest_ratio([[1.0, 1.0], [1.0, 2.0], [1.0, 4.0]]).is_undefined

    def test_of_two_runs_has_no_interval(self):
        found = largest_ratio([[1.0, 1.0], [2.0, 3.0]])
        assert (found.value, found.low, found.high) == (pytest.approx(2), 1, math.inf)

    @pytest.mark.parametrize("columns", [2, 3])
    @pytest.mark.parametrize("correlation", [0.0, 0.8])
    def test_claims_a_dependence_that_is_not_in_five_percent_at_most(self, columns, correlation):
        draw, wrong, below = np.random.default_rng(columns), 0, 0
        for _ in range(REPLICATES // 2):
            own, shared = draw.normal(size=(8, columns)), draw.normal(size=(8, 1))
            table = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
            wrong += largest_ratio(table).low > 1
            below += largest_ratio(table * np.linspace(1, 1.5, columns)).high < 1.5
        error = ERROR * math.sqrt(2)
        assert 200 * wrong / REPLICATES < 5 + error
        assert 200 * wrong / REPLICATES > 1.5, "and is not idle"
        assert 200 * below / REPLICATES < 5 + error

    def test_finds_a_spread_that_is_three_times_as_large(self):
        draw = np.random.default_rng(0)
        found = [largest_ratio(draw.normal(size=(10, 2)) * [1, 3]).low > 1 for _ in range(300)]
        assert np.mean(found) > 0.75
