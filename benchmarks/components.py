"""How often the bounds of variance components and of the largest SD ratio miss the truth: docs/analyses.md.

``python benchmarks/components.py`` takes some minutes. Each figure is a share of simulated designs, in percent, where
5 is meant: R seeds (rows) under K constants (columns), effects of rows, columns and cells independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from stabilitykit.estimates.anova import (
    MeanSquares,
    difference_estimate,
    largest_ratio,
    mean_estimate_of_squares,
    variance_estimate,
)
from stabilitykit.estimates.estimate import Estimate

REPLICATES = 4000
SIZES = ((5, 3), (10, 2), (10, 3), (10, 5), (30, 3))

#: Variances of rows, columns and rest.
TRUTHS = ((0.0, 0.0, 1.0), (0.1, 0.1, 1.0), (1.0, 1.0, 1.0), (10.0, 0.1, 1.0))

Draw = Callable[[np.random.Generator, "tuple[int, ...]"], "np.ndarray"]
SCORES: dict[str, Draw] = {
    "normal": lambda draw, shape: draw.normal(size=shape),
    "t, 5 degrees of freedom": lambda draw, shape: draw.standard_t(5, size=shape) / math.sqrt(5 / 3),
    "skew -1": lambda draw, shape: 2 - draw.gamma(4.0, 0.5, size=shape),
}


def of_components(name: str, scores: Draw) -> None:
    print(f"| R | K | variances of rows, columns, rest | rows | columns | rest | within |  {name}")
    for runs, columns in SIZES:
        for truth in TRUTHS:
            draw = np.random.default_rng(runs * columns)
            rows, across, rest = truth
            true = (rows, across, rest, rows + rest)
            found = [
                components(
                    math.sqrt(rows) * scores(draw, (runs, 1))
                    + math.sqrt(across) * scores(draw, (1, columns))
                    + math.sqrt(rest) * scores(draw, (runs, columns))
                )
                for _ in range(REPLICATES)
            ]
            cells = [
                misses([estimates[place] for estimates in found], value, exact=value == 0)
                for place, value in enumerate(true)
            ]
            print(f"| {runs} | {columns} | {rows:g}, {across:g}, {rest:g} | {' | '.join(cells)} |")


def components(table: np.ndarray) -> tuple[Estimate, ...]:
    squares = MeanSquares.of(table)
    runs, columns = table.shape
    return (
        difference_estimate(squares.rows, squares.rest, columns, runs),
        difference_estimate(squares.columns, squares.rest, runs, runs),
        variance_estimate(squares.rest, runs),
        mean_estimate_of_squares(squares.rows, squares.rest, columns, runs),
    )


def of_ratios(name: str, scores: Draw) -> None:
    print(f"| R | K | correlation | depends though it does not | found at twice | below 1.5 though that |  {name}")
    for robust in (False, True) if name != "normal" else (False,):
        for runs, columns in SIZES:
            for correlation in (0.0, 0.5, 0.9):
                draw = np.random.default_rng(runs * columns)
                wrong = right = below = 0
                for _ in range(REPLICATES):
                    shared, own = scores(draw, (runs, 1)), scores(draw, (runs, columns))
                    table = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
                    wrong += largest_ratio(table, robust=robust).low > 1
                    factors = np.ones(columns)
                    factors[0] = 2
                    right += largest_ratio(table * factors, robust=robust).low > 1
                    factors[0] = 1.5
                    below += largest_ratio(table * factors, robust=robust).high < 1.5
                cells = " | ".join(percent(count) for count in (wrong, right, below))
                print(f"| {runs} | {columns} | {correlation:g} | {cells} |{'  robust' * robust}")


def misses(estimates: list[Estimate], truth: float, *, exact: bool) -> str:
    above = percent(sum(estimate.low > truth for estimate in estimates))
    # No upper bound that is cut at 0 can lie below 0.
    return above if exact else f"{above} / {percent(sum(estimate.high < truth for estimate in estimates))}"


def percent(count: int) -> str:
    return f"{100 * count / REPLICATES:.1f}"


if __name__ == "__main__":
    for name, scores in SCORES.items():
        of_components(name, scores)
        of_ratios(name, scores)
