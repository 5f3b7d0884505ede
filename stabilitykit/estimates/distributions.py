"""Distributions by readable names: of numbers a number, of arrays an array.

They are functions of `scipy.special` and not methods of `scipy.stats`, whose import costs a second in every session.
An upper quantile is exceeded with probability ``share``: near 0 it is more exact than the quantile of ``1 - share``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from scipy import special

Floats: TypeAlias = npt.NDArray[np.float64]

#: A number or an array, as the argument of this type is.
Numbers = TypeVar("Numbers", float, Floats)


def normal_quantile(share: float) -> float:
    """Return the quantile of the standard normal distribution.

    >>> round(normal_quantile(0.05), 3)
    -1.645
    """
    return float(special.ndtri(share))


def t_cdf(x: float, df: float) -> float:
    """Return the probability that Student's t is at most ``x``."""
    return float(special.stdtr(df, x))


def t_quantile(share: float | Floats | Sequence[float], df: Numbers) -> Numbers:
    """Return the quantile of Student's t.

    >>> round(t_quantile(0.05, df=9), 3)
    -1.833
    """
    return _alike(df, special.stdtrit(df, share))


def noncentral_t_cdf(x: float, df: float, centre: float) -> float:
    """Return the probability that a noncentral t is at most ``x``; NaN for a ``centre`` beyond 37."""
    return float(special.nctdtr(df, centre, x))


def chi2_cdf(x: Numbers, df: float) -> Numbers:
    """Return the probability that a chi-square is at most ``x``."""
    return _alike(x, special.chdtr(df, x))


def chi2_tail(x: float, df: float) -> float:
    """Return the probability that a chi-square exceeds ``x``."""
    return float(special.chdtrc(df, x))


def chi2_upper_quantile(share: float | Floats | Sequence[float], df: Numbers) -> Numbers:
    """Return what a chi-square exceeds with probability ``share``.

    >>> round(chi2_upper_quantile(0.05, df=9), 2)
    16.92
    """
    return _alike(df, special.chdtri(df, share))


def chi2_cdf_integral(x: Floats, df: float) -> Floats:
    """Return the integral of `chi2_cdf` from 0 to x: x F(x; df) - df F(x; df + 2)."""
    x = np.maximum(x, 0)
    cdf = special.chdtr(df, x)
    density = np.exp(special.xlogy(df / 2, x / 2) - x / 2 - special.gammaln(df / 2 + 1))
    integral: Floats = x * cdf - df * (cdf - density)  # F(x; df + 2) = F(x; df) - density
    return integral


def f_cdf(x: float, df_above: float, df_below: float) -> float:
    """Return the probability that Fisher's F is at most ``x``; the degrees of freedom above the line come first."""
    return float(special.fdtr(df_above, df_below, x))


def f_tail(x: float, df_above: float, df_below: float) -> float:
    """Return the probability that Fisher's F exceeds ``x``."""
    return float(special.fdtrc(df_above, df_below, x))


def f_quantile(share: float, df_above: float, df_below: float) -> float:
    """Return the quantile of Fisher's F.

    >>> round(f_quantile(0.95, 9, 9), 2)
    3.18
    """
    return float(special.fdtri(df_above, df_below, share))


def binomial(runs: int, chance: float) -> Floats:
    """Return the probability of each count from 0 to ``runs``, ``[runs + 1]``.

    >>> binomial(2, 0.5).tolist()
    [0.25, 0.5, 0.25]
    """
    counts = np.arange(runs + 1)
    logarithms = special.gammaln(runs + 1) - special.gammaln(counts + 1) - special.gammaln(runs - counts + 1)
    logarithms += special.xlogy(counts, chance) + special.xlog1py(runs - counts, -chance)
    shares: Floats = np.exp(logarithms)
    return shares


def beta_quantile(share: float, a: float, b: float) -> float:
    """Return the quantile of the beta distribution."""
    return float(special.betaincinv(a, b, share))


def _alike(_: Numbers, value: Any) -> Numbers:
    return cast(Numbers, float(value) if np.ndim(value) == 0 else value)
