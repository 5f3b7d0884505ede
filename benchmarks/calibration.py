"""How often an unchanged model fails a budget that was calibrated on it: the tables of docs/statistics.md.

``python benchmarks/calibration.py`` takes three minutes. Each simulated model is trained R0 times for its budget, and
then again in the sequential gate, at the gate's defaults. Beside it stands the rate of a budget that is the measured
value itself. A rate near 1 % is known to 0.03 % for an SD, and to 0.07 % for pairs. The gate is written here once more,
for all models at a time; tests/verdicts/test_calibration.py holds its rates to those of the package's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from stabilitykit.verdicts.sequential_levels import levels, looks

Floats = npt.NDArray[np.float64]

MODELS = 100_000
CALIBRATED = (3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
LEVEL = 0.05


@dataclass(frozen=True)
class Spread:
    """A measure of each of many models over the same number of runs: its value, and its one-sided bounds."""

    value: Floats
    low: Callable[[float], Floats]
    high: Callable[[float], Floats]


def sd(scores: Floats, robust: bool) -> Spread:
    """Chi-square bounds of an SD; ``[models, R]`` in."""
    runs = scores.shape[1]
    centred = scores - scores.mean(axis=1, keepdims=True)
    value = np.sqrt(np.square(centred).sum(axis=1) / (runs - 1))
    df = np.full(len(scores), runs - 1.0)
    if robust and runs >= 4:
        biased = runs * (centred**4).sum(axis=1) / np.square(np.square(centred).sum(axis=1)) - 3
        excess = (runs - 1) / ((runs - 2) * (runs - 3)) * ((runs + 1) * biased + 6)
        df /= 1 + np.maximum(excess, 0) / 2
    return Spread(
        value,
        lambda level: value * np.sqrt(df / special.chdtri(df, level)),
        lambda level: value * np.sqrt(df / special.chdtri(df, 1 - level)),
    )


def pairs(values: Floats) -> Spread:
    """Jackknife bounds of a mean over pairs; symmetric ``[models, R, R]`` in, with a diagonal of 0."""
    runs = values.shape[1]
    of_run = values.sum(axis=2) / (runs - 1)
    value = of_run.mean(axis=1)
    squares = np.square(of_run - value[:, None]).sum(axis=1)
    error = 2 / (runs - 2) * np.sqrt((runs - 1) / runs * squares)
    margin = lambda level: -special.stdtrit(runs - 1, level) * error  # noqa: E731  # used twice, below
    return Spread(value, lambda level: value - margin(level), lambda level: value + margin(level))


def failed(budget: Floats, at: Callable[[int], Spread], most: int, ratio: float, limits: int = 1) -> float:
    """Return the share of models that fail, each limit at its part of the error rate; ``at`` gives the first R runs."""
    schedule = looks(most)
    open_, fails = np.ones(len(budget), bool), np.zeros(len(budget), bool)
    against_fail, against_pass = levels(schedule, LEVEL / limits), levels(schedule, LEVEL)
    for runs, alpha, beta in zip(schedule, against_fail, against_pass, strict=True):
        spread = at(runs)
        fails |= open_ & (spread.low(alpha) > budget)
        open_ &= ~fails & (spread.high(beta) >= ratio * budget)
    return float(fails.mean())


def of_sd(r0: int, *, robust: bool = False, most: int = 20, ratio: float = 2.0, limits: int = 1) -> tuple[float, float]:
    draw = np.random.default_rng(r0)
    before, after = sd(draw.normal(size=(MODELS, r0)), robust), draw.normal(size=(MODELS, most))
    rates = [
        failed(budget, lambda runs: sd(after[:, :runs], robust), most, ratio, limits)
        for budget in (before.high(LEVEL), before.value)
    ]
    return rates[0], rates[1]


def of_pairs(
    r0: int, per_run: float, *, most: int = 20, ratio: float = 1.25, models: int = 20_000
) -> tuple[float, float]:
    """Pairs that score 1 + a_i + a_j + e_ij; ``per_run`` is the root of R times the relative error of their mean."""
    draw = np.random.default_rng(r0)

    def train(runs: int) -> Floats:
        of_run = draw.normal(scale=per_run / 2, size=(models, runs))
        of_pair = np.triu(draw.normal(scale=per_run / 2, size=(models, runs, runs)), 1)
        values = 1 + of_run[:, :, None] + of_run[:, None, :] + of_pair + of_pair.swapaxes(1, 2)
        values[:, np.arange(runs), np.arange(runs)] = 0
        return values

    before, after = pairs(train(r0)), train(most)
    rates = [
        failed(budget, lambda runs: pairs(after[:, :runs, :runs]), most, ratio)
        for budget in (before.high(LEVEL), before.value)
    ]
    return rates[0], rates[1]


def show(name: str, rate: Callable[[int], tuple[float, float]], calibrated: tuple[int, ...] = CALIBRATED) -> None:
    cells = [f"{r0}: ({a:.3f}, {b:.3f})" for r0 in calibrated for a, b in [rate(r0)]]
    print(f"{name}: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    print("R0: (P(FAIL) of an unchanged model with the upper bound as its budget, with the value itself)")
    show("SD, ratio 1.5, 30 runs", lambda r0: of_sd(r0, most=30, ratio=1.5), (5, 10, 20, 30, 50))
    show("chi-square", of_sd)
    show("chi-square, kurtosis df", lambda r0: of_sd(r0, robust=True))
    for per_run in (0.05, 0.1, 0.2, 0.4):
        show(f"jackknife over runs, error {per_run} a run", lambda r0, per_run=per_run: of_pairs(r0, per_run))
    show("chi-square, one limit of five", lambda r0: of_sd(r0, limits=5), (5, 10, 20, 30, 50))
