"""How often studies that vary alike are said not to, and the reverse; and how often the interval of a reduction errs.

``python benchmarks/likeness.py`` takes some minutes: the tables of docs/comparing.md. Each figure is a share of
simulated cases, in percent. Scores are drawn from distributions; means over pairs, and whole studies, are of synthetic
models: logits about a fixed mean, with noise of each run and example whose scale is that of the run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch

from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.intervals import pairwise_estimate, sd_estimate
from stabilitykit.estimates.measures import Measures
from stabilitykit.estimates.metrics import disagreement
from stabilitykit.estimates.ratios import Ratio
from stabilitykit.study.likeness import MeasureLikeness
from stabilitykit.study.reduction import Reduction
from stabilitykit.verdicts.judgement import Outcome

STUDIES = 6  #: that are compared with each other, as the sources of the paper
CASES = 2000
Draw = Callable[[np.random.Generator, int], "np.ndarray"]
SCORES: dict[str, Draw] = {
    "normal": lambda draw, runs: draw.normal(size=runs),
    "skew -1": lambda draw, runs: -draw.gamma(4.0, 0.5, size=runs),
    "t, 5 degrees of freedom": lambda draw, runs: draw.standard_t(5, size=runs),
}


def of_sds(within: float = 2.0) -> None:
    """Six studies: all alike, half of them `within` times as wide, one alone so, and one four times as wide."""
    half, one = [1.0] * (STUDIES // 2) + [within] * (STUDIES // 2), [1.0] * (STUDIES - 1)
    for name, scores in SCORES.items():
        for runs in (5, 10, 30, 50, 100):
            draw = np.random.default_rng(runs)
            rows = {
                "alike": [1.0] * STUDIES,
                f"half at {within:g} times": half,
                f"one at {within:g} times": [*one, within],
                "one at 4 times": [*one, 4.0],
                f"two studies, one at {within:g} times": [1.0, within],
            }
            found = {
                row: outcomes([verdict(sds(scores, draw, runs, scales), within) for _ in range(CASES // 2)])
                for row, scales in rows.items()
            }
            print(f"SD, {name}, R = {runs}: " + "; ".join(f"{row} {rates}" for row, rates in found.items()))


def sds(scores: Draw, draw: np.random.Generator, runs: int, scales: Sequence[float]) -> list[Estimate]:
    return [sd_estimate(scale * scores(draw, runs), robust=True) for scale in scales]


def of_disagreement(within: float = 1.25) -> None:
    """Ratios of disagreements: misses of each bound, and verdicts on six studies."""
    generator = torch.Generator().manual_seed(0)
    mean = 2 * torch.randn(200, 5, generator=generator)

    def estimate(runs: int, noise: float) -> Estimate:
        scale = noise * (1 + 0.2 * torch.randn(runs, 1, 1, generator=generator))
        predicted = (mean + scale * torch.randn(runs, 200, 5, generator=generator)).argmax(-1)
        return pairwise_estimate(disagreement(predicted).numpy(), percent_of=200, least=0, most=100)

    narrow, wide = (estimate(3000, noise).value for noise in (0.4, 0.6))
    for runs in (3, 5, 10, 30):
        ratios = [Ratio(estimate(runs, 0.6), estimate(runs, 0.4)) for _ in range(CASES)]
        low = 100 * np.mean([ratio.low(0.05) > wide / narrow for ratio in ratios])
        high = 100 * np.mean([ratio.high(0.05) < wide / narrow for ratio in ratios])
        alike = [verdict([estimate(runs, 0.4) for _ in range(STUDIES)], within) for _ in range(CASES // 4)]
        apart = [
            verdict([estimate(runs, 0.4) for _ in range(STUDIES - 1)] + [estimate(runs, 0.6)], wide / narrow)
            for _ in range(CASES // 4)
        ]
        print(
            f"ratio of disagreements ({wide / narrow:.2f}), R = {runs}: misses {low:.1f} / {high:.1f}; "
            f"alike within {within:g}: {outcomes(alike)}; one at the factor itself: {outcomes(apart)}"
        )


def of_means() -> None:
    """Ratios of two means that are not far from 0, as ensemble deltas are: misses of each bound."""
    for cv, runs in itertools.product((0.3, 1.0), (3, 5, 10, 30)):
        draw = np.random.default_rng(runs)

        def pairs(scale: float, cv: float = cv, runs: int = runs, draw: np.random.Generator = draw) -> np.ndarray:
            of_run, noise = draw.normal(size=runs), draw.normal(size=(runs, runs))
            found = scale * (1 + cv / 2 * (of_run[:, None] + of_run[None]) + cv / 4 * (noise + noise.T))
            return np.where(np.eye(runs, dtype=bool), 0, found)

        ratios = [Ratio(pairwise_estimate(pairs(1.5)), pairwise_estimate(pairs(1.0))) for _ in range(CASES)]
        low = 100 * np.mean([ratio.low(0.05) > 1.5 for ratio in ratios])
        high = 100 * np.mean([ratio.high(0.05) < 1.5 for ratio in ratios])
        print(f"ratio of means over pairs, CV of a run {cv:g}, R = {runs}: misses {low:.1f} / {high:.1f}")


def of_reductions() -> None:
    """Whole studies of 200 examples: the mean drop, and that of ensembles of two of the very runs that they replace."""
    generator = torch.Generator().manual_seed(0)
    mean = 2 * torch.randn(200, 5, generator=generator)
    labels = mean.argmax(-1)

    def outputs(runs: int, noise: float) -> torch.Tensor:
        scale = noise * (1 + 0.2 * torch.randn(runs, 1, 1, generator=generator))
        bias = noise * torch.randn(runs, 1, 5, generator=generator) / 4
        return mean + bias + scale * torch.randn(runs, 200, 5, generator=generator)

    def of_two(runs: torch.Tensor) -> torch.Tensor:
        return (runs[::2] + runs[1::2]) / 2

    def drop(after: torch.Tensor, before: torch.Tensor) -> Reduction:
        return Reduction.between(Measures(after, labels), Measures(before, labels))

    many = outputs(600, 1.0)
    truth, of_ensembles = drop(outputs(600, 0.6), many), drop(of_two(many), many)
    print(f"in truth (600 runs): 0.6 of the noise {truth}; ensembles of two {of_ensembles}")
    for runs in (4, 6, 10, 20):
        plain = [outputs(runs, 1.0) for _ in range(CASES // 4)]
        found = [drop(outputs(runs, 0.6), before) for before in plain]
        averaged = [drop(of_two(before), before) for before in plain]
        no_less = [drop(outputs(runs, 1.0), before) for before in plain]
        print(
            f"reduction, R = {runs}: misses {misses([f.estimate for f in found], truth.value)}; "
            f"of accuracy SD {misses([f.parts['accuracy_sd'] for f in found], truth.drops['accuracy_sd'])}; "
            f"of disagreement {misses([f.parts['disagreement'] for f in found], truth.drops['disagreement'])}; "
            f"of ensembles of the same runs {misses([f.estimate for f in averaged], of_ensembles.value)}; above 0: "
            f"{outcomes([f.decide(0) for f in found])}, of a model like it {outcomes([f.decide(0) for f in no_less])}"
        )


def verdict(spreads: list[Estimate], within: float) -> Outcome:
    names = tuple(map(str, range(len(spreads))))
    each = 0.05 / (len(spreads) * (len(spreads) - 1))
    return MeasureLikeness("any_sd", tuple(spreads), names, within, each, 0.05).outcome


def outcomes(found: Sequence[Outcome]) -> str:
    """PASS / FAIL / UNDECIDED."""
    return " / ".join(f"{100 * np.mean([one is outcome for one in found]):.1f}" for outcome in Outcome)


def misses(found: list[Estimate], truth: float) -> str:
    """Return how often the lower bound lies above the truth, and the upper one below it."""
    low = 100 * np.mean([estimate.low > truth for estimate in found])
    high = 100 * np.mean([estimate.high < truth for estimate in found])
    return f"{low:.1f} / {high:.1f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    intervals._RESAMPLES = 2  # the bootstrap of the "±" is not what is measured here
    of_means()
    of_disagreement()
    of_reductions()
    of_sds()
