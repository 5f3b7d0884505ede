"""How often a check is wrong, and how many runs it takes: the table of docs/statistics.md, by simulated studies.

``python benchmarks/false_alarms.py`` takes some five minutes on one core and prints Markdown. Every study goes through
the package's own estimates, `Budget` and `Gate`, look by look. A figure in brackets is its Monte-Carlo error (1 se), in
units of the last digit.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from stabilitykit import Budget
from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.intervals import pairwise_estimate, sd_estimate
from stabilitykit.estimates.measures import Measures
from stabilitykit.estimates.metrics import disagreement
from stabilitykit.verdicts.gate import Gate
from stabilitykit.verdicts.judgement import Outcome

TRUTHS = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0)
EXAMPLES = 1000  #: test examples of the accuracy on a lattice
SCORES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "normal": lambda draw, runs: draw.normal(size=runs),
    "skew −1": lambda draw, runs: -draw.gamma(4.0, 0.5, size=runs),  # SD 1
    "t, 5 degrees of freedom": lambda draw, runs: draw.standard_t(5, size=runs) / math.sqrt(5 / 3),
}
Estimates = Callable[[int], Mapping[str, Estimate]]  #: of the first R runs


class Setting(NamedTuple):
    """One kind of check."""

    name: str
    budget: Callable[[Any], Budget]  #: that makes the truth so many times the limits
    runs: int  #: R_max


def of_sd(name: str, runs: int, **options: Any) -> Setting:
    return Setting(name, cache(lambda times: Budget(accuracy_sd=1 / times, **options)), runs)


def judge(setting: Setting, truth: float, estimates: Estimates) -> tuple[Outcome, int]:
    gate = Gate(setting.budget(truth), setting.runs)
    while gate.next_look:
        gate.look(estimates(gate.next_look))
    return gate.verdict.outcome, gate.runs


def tally(setting: Setting, studies: Iterable[Estimates], truths: Sequence[Any]) -> dict[Any, Tally]:
    """Judge each study against a budget for each truth: the budget moves, so that estimates are made once."""
    found: dict[Any, list[tuple[Outcome, int]]] = {truth: [] for truth in truths}
    for estimates in studies:
        for truth in truths:
            found[truth].append(judge(setting, truth, estimates))
    return {truth: Tally(of) for truth, of in found.items()}


class Tally:
    """Shares of verdicts and mean runs, with their errors."""

    def __init__(self, found: Sequence[tuple[Outcome, int]]) -> None:
        outcomes = Counter(outcome for outcome, _ in found)
        self.studies = len(found)
        self.share = {outcome: outcomes[outcome] / self.studies for outcome in Outcome}
        runs = np.array([runs for _, runs in found])
        self.runs, self.error = runs.mean(), runs.std() / math.sqrt(self.studies)

    def rate(self, outcome: Outcome) -> str:
        share = self.share[outcome]
        return shown(share, math.sqrt(share * (1 - share) / self.studies), 4)

    def mean_runs(self) -> str:
        return shown(self.runs, self.error, 2)


def shown(value: float, error: float, decimals: int) -> str:
    return f"{value:.{decimals}f}({round(error * 10**decimals)})"


def scores(name: str, runs: int, studies: int) -> Iterable[Estimates]:
    draw = np.random.default_rng(len(name))
    for _ in range(studies):
        values = SCORES[name](draw, runs)
        yield cache(lambda count, values=values: {"accuracy_sd": sd_estimate(values[:count])})


def lattice(truth: float, examples: float, runs: int, studies: int) -> Iterable[Estimates]:
    """Accuracies on a test set of N: whole examples, where the budget is an SD of so many."""
    draw = np.random.default_rng(7)
    for _ in range(studies):
        right = np.round(0.87 * EXAMPLES + truth * examples * draw.normal(size=runs))
        values = 100 * right / EXAMPLES
        yield cache(lambda count, values=values: {"accuracy_sd": sd_estimate(values[:count])})


class Networks:
    """Logits of simulated models about one fixed test set, which is what all measures are conditional on."""

    def __init__(self, shared: bool, examples: int = 2000, classes: int = 10) -> None:
        self.shared, self.shape = shared, (examples, classes)
        self.generator = torch.Generator().manual_seed(0)
        self.mean = 2 * torch.randn(self.shape, generator=self.generator)
        self.labels = (self.mean + 0.25 * torch.randn(self.shape, generator=self.generator)).argmax(dim=-1)
        self.directions = torch.randn(3, *self.shape, generator=self.generator)

    def models(self, count: int) -> torch.Tensor:
        """Noise of each model's own in every logit; shared: much of it in the same three directions for all."""
        noise = torch.randn(count, *self.shape, generator=self.generator)
        if self.shared:
            along = torch.randn(count, 3, generator=self.generator)
            noise = 0.5 * noise + 0.5 * torch.einsum("rd,dnc->rnc", along, self.directions)
        return self.mean + 0.2 * noise

    def truths(self) -> dict[str, float]:
        """SDs of many models, and means over the pairs of some."""
        self.generator.manual_seed(1)
        many = Measures(self.models(2000), self.labels)
        some = Measures(self.models(400), self.labels)
        return {name: (many if name.endswith("_sd") else some)[name].value for name in METRICS}


METRICS = ("accuracy_sd", "cross_entropy_sd", "disagreement", "correlation", "ensemble_delta")
MODELS = {
    "models with independent noise": lambda: Networks(shared=False),
    "models with noise shared between examples": lambda: Networks(shared=True),
}


def pairs(networks: Networks, runs: int, studies: int) -> Iterable[Estimates]:
    networks.generator.manual_seed(2)
    for _ in range(studies):
        found = disagreement(networks.models(runs).argmax(dim=-1)).numpy()
        yield cache(lambda count, found=found: {"disagreement": _of_pairs(found[:count, :count], networks)})


def _of_pairs(found: Any, networks: Networks) -> Estimate:
    return pairwise_estimate(found, percent_of=networks.shape[0], least=0, most=100)


def all_measures(networks: Networks, runs: int, studies: int) -> Iterable[Estimates]:
    networks.generator.manual_seed(2)
    for _ in range(studies):
        logits = networks.models(runs)
        yield cache(lambda count, logits=logits: Measures(logits[:count], networks.labels))


def limits(truth: Mapping[str, float], times: Mapping[str, float]) -> Budget:
    """Return the budget that makes each true spread so many times its limit."""
    given = {name: truth[name] / by for name, by in times.items() if name != "correlation"}
    if "correlation" in times:
        given["correlation"] = 1 - (1 - truth["correlation"]) / times["correlation"]
    return Budget(**given)


# What is printed


def print_course(name: str, found: Mapping[Any, Tally]) -> None:
    print(f"\n{name}\n\n| truth / budget | P(FAIL) | P(PASS) | UNDECIDED | mean runs |\n|---|---|---|---|---|")
    for truth, tally in found.items():
        rates = " | ".join(tally.rate(outcome) for outcome in (Outcome.FAIL, Outcome.PASS, Outcome.UNDECIDED))
        print(f"| {truth} | {rates} | {tally.mean_runs()} |")


def print_bare(studies: int) -> None:
    """Share of studies in which the SD exceeds the budget, which is what a test without intervals fails by."""
    print(f"\nP(FAIL) of the bare comparison `sd <= budget`, {studies} studies\n")
    print(f"| truth / budget | {' | '.join(f'{name}, R = {runs}' for name in SCORES for runs in (10, 30))} |")
    print("|---" * (1 + 2 * len(SCORES)) + "|")
    draw = np.random.default_rng(1)
    sds = [np.array([SCORES[name](draw, r).std(ddof=1) for _ in range(studies)]) for name in SCORES for r in (10, 30)]
    for truth in TRUTHS:
        shares = [(truth * sd > 1).mean() for sd in sds]
        errors = [math.sqrt(share * (1 - share) / studies) for share in shares]
        print(f"| {truth:g} | {' | '.join(shown(s, e, 3) for s, e in zip(shares, errors, strict=True))} |")


def of_scores(studies: int, fewer: int) -> None:
    default = of_sd("defaults", 20)
    found = tally(default, scores("normal", 20, studies), TRUTHS)
    print_course(f"Normal scores, the defaults (ratio 2, R_max 20), {studies} studies", found)
    for setting in (of_sd("alpha 0.01, R_max 25", 25, alpha=0.01), of_sd("ratio 1.5, R_max 55", 55, ratio=1.5)):
        print_course(
            f"Normal scores, {setting.name}, {fewer} studies",
            tally(setting, scores("normal", setting.runs, fewer), TRUTHS),
        )
    for name in list(SCORES)[1:]:
        print_course(f"{name}, the defaults, {fewer} studies", tally(default, scores(name, 20, fewer), TRUTHS))
    for examples in (2, 5):
        setting = Setting("", lambda truth, examples=examples: Budget(accuracy_sd=100 * examples / EXAMPLES), 20)
        found = {t: tally(setting, lattice(t, examples, 20, fewer), [t])[t] for t in TRUTHS}
        print_course(
            f"Accuracy on {EXAMPLES} examples, a budget of {examples} of them, the defaults, {fewer} studies", found
        )


def of_pairs(studies: int) -> None:
    for name, networks in MODELS.items():
        truth = networks().truths()
        setting = Setting("", cache(lambda times, truth=truth: limits(truth, {"disagreement": times})), 20)
        found = tally(setting, pairs(networks(), 20, studies), (0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5))
        percent = f"{truth['disagreement']:.1f} %"
        print_course(f"Disagreement ({percent}), {name}, ratio 1.25, R_max 20, {studies} studies", found)


#: How many times its limit each true spread is.
CASES = {
    "all five at 0.7": dict.fromkeys(METRICS, 0.7),
    "all five at 0.9": dict.fromkeys(METRICS, 0.9),
    "all five at 1": dict.fromkeys(METRICS, 1.0),
    "disagreement at 1.25, the rest at 0.7": dict.fromkeys(METRICS, 0.7) | {"disagreement": 1.25},
    "accuracy SD at 2, the rest at 0.7": dict.fromkeys(METRICS, 0.7) | {"accuracy_sd": 2.0},
}


def of_all_measures(studies: int) -> None:
    for name, networks in MODELS.items():
        truth = networks().truths()
        setting = Setting("", cache(lambda case, truth=truth: limits(truth, CASES[case])), 20)
        found = tally(setting, all_measures(networks(), 20, studies), list(CASES))
        print_course(f"Five limits at once, {name}, the defaults, {studies} studies", found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000, help="of normal scores at the defaults (20000)")
    parser.add_argument("--models-only", action="store_true", help="leave out the SDs of drawn scores")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    intervals._RESAMPLES = 2  # the bootstrap of the "±" is not what is measured here
    if not asked.models_only:
        of_scores(asked.studies, asked.studies // 8)
        print_bare(asked.studies)
    of_pairs(asked.studies // 20)
    of_all_measures(asked.studies // 50)
