"""A number with a bound on either side, and the distribution behind the bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..public import public

#: The method of an estimate over runs that are all equal: there is no spread to make an interval of.
IDENTICAL_RUNS = "identical runs"


def finite(number: float) -> float | None:
    """Return None, which is JSON's null, for an undefined or infinite number: JSON has neither."""
    return number if math.isfinite(number) else None


class Pivot(Protocol):
    """The distribution behind an interval, which gives bounds of any error rate, for any number of runs."""

    def low(self, error: float) -> float:
        """Return the lower bound, which is above the truth in a share ``error`` of studies."""

    def high(self, error: float) -> float:
        """Return the upper bound, which is below the truth in a share ``error`` of studies."""

    def after(self, runs: int) -> Pivot:
        """Return the distribution of the same value over ``runs``."""


@public
@dataclass(frozen=True)
class Estimate:
    """A statistic of R runs, with a bound on either side.

    ``low`` is above the truth in 5 % of studies, ``high`` is below it in 5 %: together they are a 90 % interval.

    >>> print(Estimate(0.2213, 0.1672, 0.3341, runs=12, method="chi-square"))
    0.22 [0.17, 0.33]
    """

    value: float  #: the point estimate; NaN says that the statistic is undefined
    low: float  #: lower 5 % bound, in the unit of the value; -inf where the runs give none
    high: float  #: upper 5 % bound, in the unit of the value; inf where the runs give none
    runs: int  #: R, the independent runs behind it
    method: str  #: how the bounds were made, for a report
    confidence: float = 0.90  #: confidence of the interval from low to high
    sd_of_sd: float | None = None  #: for an SD, the "±" of the paper's tables: printed, and never used to judge
    pivot: Pivot | None = field(default=None, repr=False, compare=False)  #: makes the bounds; None if nothing can
    of_runs: tuple[float, ...] = field(default=(), repr=False, compare=False)  #: the scores whose mean it is

    def __post_init__(self) -> None:
        """Turn NumPy's scalars into plain floats, which JSON and ``repr`` show as numbers."""
        for name in ("value", "low", "high", "confidence", "sd_of_sd"):
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(number))
        if not (self.is_undefined or (self.low <= self.value <= self.high and math.isfinite(self.value))):
            raise ValueError(
                f"Expected a finite value between low and high but got {self.low}, {self.value}, {self.high}."
            )

    @classmethod
    def undefined(cls, runs: int, method: str) -> Estimate:
        """Make the estimate of a statistic that has no value, such as the correlation of a constant model."""
        return cls(math.nan, math.nan, math.nan, runs, method)

    @property
    def is_undefined(self) -> bool:
        """Whether the statistic has no value."""
        return math.isnan(self.value)

    @property
    def is_exact(self) -> bool:
        """Whether all runs are equal, so that there is no spread to make an interval of."""
        return self.method == IDENTICAL_RUNS

    def at(self, lower: float, upper: float) -> Estimate:
        """Return the estimate with bounds of other error rates: ``lower`` for ``low``, ``upper`` for ``high``.

        An estimate without an interval is returned as it is.
        """
        if self.pivot is None:
            return self
        low, high = self.pivot.low(lower), self.pivot.high(upper)
        return replace(self, low=low, high=high, confidence=1 - lower - upper)

    def after(self, runs: int) -> Estimate:
        """Return the same value over ``runs``; the bounds stay until `at` makes others."""
        return replace(self, runs=runs, pivot=self.pivot and self.pivot.after(runs))

    def to_json(self) -> dict[str, float | None]:
        """Give the object of the report: value, low, high, each `finite`, and sd_of_sd for an SD."""
        numbers = {"value": finite(self.value), "low": finite(self.low), "high": finite(self.high)}
        return numbers if self.sd_of_sd is None else numbers | {"sd_of_sd": finite(self.sd_of_sd)}

    def __format__(self, spec: str) -> str:
        """Format value and bounds by ``spec``; without one, by as many digits as the interval is worth."""
        if self.is_undefined:
            return "undefined"
        spec = spec or self._spec()
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)

    def _spec(self) -> str:
        width = self.high - self.low
        scale = width if 0 < width < math.inf else abs(self.value)
        if scale == 0:
            return "g"
        decimals = 1 - math.floor(math.log10(scale))  # two digits of the scale
        return f".{max(decimals, 0)}f" if decimals <= 5 else ".3g"
