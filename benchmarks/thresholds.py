"""How often `at_most` and `at_least` are wrong: the table of docs/outputs.md, by simulated studies.

``python benchmarks/thresholds.py`` takes some two minutes on one core and prints Markdown. Every study goes through the
package's own estimates, `Budget` and `Gate`. The limit is where a verdict is hardest: at the very quantile, or the very
mean, of the distribution of the scores, so every PASS is as good as wrong, and so is every FAIL. A rate has an error of
0.35 percentage points (1 se) near 5.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from stabilitykit import Budget, at_most
from stabilitykit.estimates.intervals import mean_estimate
from stabilitykit.verdicts.gate import Gate
from stabilitykit.verdicts.judgement import Outcome

RUNS = (5, 7, 10, 20, 30)
ERROR = 0.05
MOST = 20  #: R of the sequential gate

#: Sizes are (studies, runs); each distribution has its own true mean and quantiles.
SCORES: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "normal": lambda draw, size: draw.normal(size=size),
    "uniform": lambda draw, size: draw.uniform(size=size),
    "exponential": lambda draw, size: draw.exponential(size=size),
    "lognormal": lambda draw, size: draw.lognormal(size=size),
    "t, 3 degrees of freedom": lambda draw, size: draw.standard_t(3, size=size),
    "one run in ten diverges": lambda draw, size: draw.normal(size=size) + 20 * (draw.uniform(size=size) < 0.1),
}

#: The true means, which a sample of any size knows less well.
MEANS = {
    "normal": 0.0,
    "uniform": 0.5,
    "exponential": 1.0,
    "lognormal": float(np.exp(0.5)),
    "t, 3 degrees of freedom": 0.0,
    "one run in ten diverges": 2.0,
}


class Rates(NamedTuple):
    """Shares of studies that pass, and that fail, in percent."""

    passed: float
    failed: float

    def __str__(self) -> str:
        return f"{self.passed:.1f} / {self.failed:.1f}"


def value_of(name: str, share: float | None) -> float:
    """Return the limit at which neither verdict is right: the mean, or the quantile, of a distribution."""
    if share is None:
        return MEANS[name]
    return float(np.quantile(SCORES[name](np.random.default_rng(1), 2_000_000), share))


def budget_of(name: str, share: float | None) -> Budget:
    value = value_of(name, share)
    limit = at_most(value, mean=True, alpha=ERROR) if share is None else at_most(value, share=share, alpha=ERROR)
    return Budget(score=limit, alpha=ERROR)


def studies(name: str, runs: int, count: int) -> Iterator[np.ndarray[Any, Any]]:
    yield from SCORES[name](np.random.default_rng(len(name) + 100 * runs), (count, runs))


def fixed(budget: Budget, scores: np.ndarray[Any, Any]) -> Outcome:
    return budget.judge({"score": mean_estimate(scores), "score_sd": mean_estimate(scores)}).outcome


def sequential(budget: Budget, scores: np.ndarray[Any, Any]) -> Outcome:
    gate = Gate(budget, len(scores))
    while gate.next_look:
        gate.look({"score": mean_estimate(scores[: gate.next_look])})
    return gate.verdict.outcome


def rates(
    name: str, share: float | None, runs: int, count: int, judge: Callable[[Budget, Any], Outcome] = fixed
) -> Rates:
    """Return how often studies of a distribution come to either verdict, in percent."""
    budget = budget_of(name, share)
    found = [judge(budget, scores) for scores in studies(name, runs, count)]
    return Rates(*(100 * found.count(outcome) / count for outcome in (Outcome.PASS, Outcome.FAIL)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=4000)
    asked = parser.parse_args()
    columns = [*(f"R = {runs}" for runs in RUNS), f"sequential, R at most {MOST}"]
    for share, title in ((0.5, "half of the runs"), (0.9, "90 % of the runs"), (None, "the mean")):
        print(f"\n`at_most(...)`, {title}: PASS / FAIL in percent of studies, nominal {100 * ERROR:g} each\n")
        print(f"| scores | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
        for name in SCORES:
            cells = [rates(name, share, runs, asked.studies) for runs in RUNS]
            cells.append(rates(name, share, MOST, asked.studies, sequential))
            print(f"| {name} | {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
