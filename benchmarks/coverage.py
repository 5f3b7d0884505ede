"""How often the bounds of the intervals miss the truth, by simulation: the table of docs/statistics.md.

``python benchmarks/coverage.py`` takes some minutes. Each figure is the share of simulated studies, in percent, whose
lower bound lies above the truth / whose upper bound lies below it. Both should be 5.
"""

from __future__ import annotations

import numpy as np
import torch

from stabilitykit.estimates import intervals
from stabilitykit.estimates.intervals import pairwise_estimate, sd_estimate
from stabilitykit.estimates.metrics import disagreement

STUDIES = 3000
SCORES = {
    "normal": lambda draw, runs: draw.normal(size=runs),
    "skew -1": lambda draw, runs: -draw.gamma(4.0, 0.5, size=runs),  # SD 1
    "t, 5 degrees of freedom": lambda draw, runs: draw.standard_t(5, size=runs) / np.sqrt(5 / 3),
}


def of_sds() -> None:
    intervals._RESAMPLES = 2  # the bootstrap of the "±" is not what is measured here
    for name, scores in SCORES.items():
        for runs in (5, 10, 30):
            row = []
            for robust in (False, True):
                draw = np.random.default_rng(runs)
                found = [sd_estimate(scores(draw, runs), robust=robust) for _ in range(STUDIES)]
                row.append(misses(found, truth=1.0))
            print(f"SD, {name}, R = {runs}: chi-square {row[0]}, with kurtosis adjustment {row[1]}")


def of_disagreement(examples: int = 500, classes: int = 10, truth_runs: int = 2000) -> None:
    """Models that differ by independent noise in their logits, about one fixed test set."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(examples, classes, generator=generator)

    def models(count: int) -> torch.Tensor:
        noise = torch.randn(count, examples, classes, generator=generator)
        return (2 * mean + 0.5 * noise).argmax(dim=-1)

    truth = float(pairwise_estimate(disagreement(models(truth_runs)).numpy()).value)
    for runs in (3, 5, 10, 20):
        found = [
            pairwise_estimate(disagreement(models(runs)).numpy(), percent_of=examples) for _ in range(STUDIES // 2)
        ]
        print(f"disagreement ({truth:.1f} %), R = {runs}: jackknife {misses(found, truth)}")


def misses(found: list[intervals.Estimate], truth: float) -> str:
    low = 100 * np.mean([estimate.low > truth for estimate in found])
    high = 100 * np.mean([estimate.high < truth for estimate in found])
    return f"{low:.1f} / {high:.1f}"


if __name__ == "__main__":
    of_sds()
    of_disagreement()
