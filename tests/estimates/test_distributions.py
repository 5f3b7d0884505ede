"""The distributions by name against scipy.stats, and that arrays give what their numbers give."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from scipy import integrate

from stabilitykit.estimates import distributions as named

SHARES = (1e-6, 0.025, 0.05, 0.5, 0.9, 0.999)
DF = (1.0, 2.5, 9.0, 200.0)


@pytest.mark.parametrize("share", SHARES)
def test_quantiles_are_scipys(share):
    assert named.normal_quantile(share) == pytest.approx(scipy.stats.norm.ppf(share))
    assert named.beta_quantile(share, 3, 8) == pytest.approx(scipy.stats.beta.ppf(share, 3, 8))
    for df in DF:
        assert named.t_quantile(share, df) == pytest.approx(scipy.stats.t.ppf(share, df), abs=1e-12)
        assert named.chi2_upper_quantile(share, df) == pytest.approx(scipy.stats.chi2.isf(share, df))
        assert named.f_quantile(share, df, 7) == pytest.approx(scipy.stats.f.ppf(share, df, 7))


@pytest.mark.filterwarnings("ignore:divide by zero encountered in _nct_cdf:RuntimeWarning")  # inside SciPy 1.11.1
@pytest.mark.parametrize("x", [0.1, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("df", DF)
def test_probabilities_are_scipys(x, df):
    assert named.t_cdf(x, df) == pytest.approx(scipy.stats.t.cdf(x, df))
    assert named.noncentral_t_cdf(x, df, 1.5) == pytest.approx(scipy.stats.nct.cdf(x, df, 1.5), rel=1e-6)
    assert named.chi2_cdf(x, df) == pytest.approx(scipy.stats.chi2.cdf(x, df))
    assert named.chi2_tail(x, df) == pytest.approx(scipy.stats.chi2.sf(x, df))
    assert named.f_cdf(x, df, 7) == pytest.approx(scipy.stats.f.cdf(x, df, 7))
    assert named.f_tail(x, df, 7) == pytest.approx(scipy.stats.f.sf(x, df, 7))
    area, _ = integrate.quad(lambda y: scipy.stats.chi2.cdf(y, df), 0, x)
    assert named.chi2_cdf_integral(np.array([x]), df) == pytest.approx([area], abs=1e-9)


def test_numbers_give_a_number_and_arrays_an_array():
    df = np.array(DF)
    assert type(named.t_quantile(0.05, 9)) is type(named.chi2_cdf(3.0, 9)) is float
    for quantile in (named.t_quantile, named.chi2_upper_quantile):
        assert quantile(0.05, df).tolist() == [quantile(0.05, one) for one in DF]
    assert named.chi2_cdf(df, 3.0).tolist() == [named.chi2_cdf(one, 3.0) for one in DF]
