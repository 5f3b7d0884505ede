"""How often a comparison of two models claims what is not so, and how often it finds what is: docs/comparing.md.

``python benchmarks/comparing.py`` takes a few minutes. Each figure is a share of simulated comparisons, in percent. The
models are synthetic: logits about a fixed mean, with noise of each run and example, and of each run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from stabilitykit.estimates.differences import mean_difference, spread_ratio
from stabilitykit.study.comparison import Comparison, Sample

REPLICATES = 4000
Draw = Callable[[np.random.Generator, int], "np.ndarray"]
SCORES: dict[str, Draw] = {
    "normal": lambda draw, runs: draw.normal(size=runs),
    "t, 5 degrees of freedom": lambda draw, runs: draw.standard_t(5, size=runs),
    "skew -1": lambda draw, runs: -draw.gamma(4.0, 0.5, size=runs),
}


def of_scores() -> None:
    for runs in (3, 5, 10, 30):
        for name, scores in SCORES.items():
            draw = np.random.default_rng(runs)
            pairs = [(scores(draw, runs), scores(draw, runs)) for _ in range(REPLICATES)]
            welch = share(mean_difference(*pair).is_more for pair in pairs)
            paired = share(mean_difference(*pair, paired=True).is_more for pair in pairs)
            spread = share(spread_ratio(*pair).is_more for pair in pairs)
            twice = share(spread_ratio(x, 2 * y).is_more for x, y in pairs)
            print(
                f"{name}, R = {runs}: better though equal, Welch {welch} and paired {paired}; "
                f"spread larger though equal {spread}, found at twice the spread {twice}"
            )


def of_distributions(examples: int = 1000) -> None:
    """Two models that are equally good on the distribution, each on a test set drawn anew."""
    for runs in (3, 5, 10):
        for shared, what in ((0.0, "two models"), (1.0, "one model, with noise of each run")):
            draw = np.random.default_rng(runs)
            here = there = 0
            for _ in range(REPLICATES // 2):
                chances = draw.beta(2, 0.3, size=(2, examples))
                chances[1] = chances[0] if shared else chances[1]
                of_runs = np.clip(chances[:, None] + shared * 0.02 * draw.normal(size=(2, runs, 1)), 0, 1)
                wrong = draw.random((2, runs, examples)) > of_runs
                comparison = Comparison.of_samples(sample(wrong[0], "one"), sample(wrong[1], "other"))
                here += comparison.is_better
                there += comparison.is_better_on_distribution
            both = [f"{100 * found / (REPLICATES // 2):.1f}" for found in (here, there)]
            print(
                f"equal on the distribution ({what}), R = {runs}: better here {both[0]}, on the distribution {both[1]}"
            )


def of_disagreement(examples: int = 500) -> None:
    """The same model twice, with other seeds or the same; then one that disagrees more by a twentieth."""
    generator = torch.Generator().manual_seed(0)
    mean = 2 * torch.randn(examples, 10, generator=generator)
    labels = mean.argmax(-1)

    def runs_of(count: int, noise: float, shared: torch.Tensor | None = None, name: str = "") -> Sample:
        own = torch.randn(count, examples, 10, generator=generator)
        drawn = own if shared is None else (shared + own) / 2**0.5
        scale = noise * (1 + 0.1 * torch.randn(count, 1, 1, generator=generator))
        answers = (mean + scale * drawn).argmax(-1).to(torch.uint8)
        return Sample(
            name,
            "all",
            tuple({"init": i} if shared is not None else {"init": i, name: i} for i in range(count)),
            answers,
            labels,
        )

    for runs in (3, 5, 10, 20):
        equal = larger = paired = 0
        for _ in range(REPLICATES // 4):
            one, other, more = runs_of(runs, 0.5, name="a"), runs_of(runs, 0.5, name="b"), runs_of(runs, 0.53, name="c")
            seeds = torch.randn(runs, examples, 10, generator=generator)
            equal += Comparison.of_samples(one, other).is_disagreement_larger
            larger += Comparison.of_samples(one, more).is_disagreement_larger
            paired += Comparison.of_samples(runs_of(runs, 0.5, seeds), runs_of(runs, 0.5, seeds)).is_disagreement_larger
        figures = [f"{100 * found / (REPLICATES // 4):.1f}" for found in (equal, paired, larger)]
        print(f"disagreement, R = {runs}: larger though equal {figures[0]}, paired {figures[1]}")
        print(f"disagreement, R = {runs}: with 6 % more noise found larger {figures[2]}")


def sample(wrong: np.ndarray, name: str) -> Sample:
    answers = torch.from_numpy(wrong.astype(np.uint8))
    seeds = tuple({name: i} for i in range(len(wrong)))
    return Sample(name, "all", seeds, answers, torch.zeros(answers.shape[1], dtype=torch.long))


def share(found: object) -> str:
    return f"{100 * np.mean(list(found)):.1f}"  # type: ignore[call-overload]


if __name__ == "__main__":
    torch.set_num_threads(1)
    of_scores()
    of_distributions()
    of_disagreement()
