"""All pairwise measures at scale: seconds, how many times faster than a loop over pairs, and peak memory.

Run it on a quiet machine: ``python benchmarks/pairwise.py``. R models of 10,000 examples and 10 classes in float32, on
one thread of torch and on as many as it takes by itself. Figures are medians of five; what is compared ran in turn, and
gave the same numbers.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import torch
from peak import Peak
from torch import Tensor
from torch.nn import functional

from stabilitykit.estimates import metrics
from stabilitykit.estimates.measures import Measures

ROUNDS = 5
EXAMPLES, CLASSES = 10_000, 10

#: What both ways compute. The estimates' intervals are no part of it.
NAMES = ("accuracy", "cross_entropy", "disagreement", "correlation", "accuracy_delta", "cross_entropy_delta")


def models(runs: int) -> tuple[Tensor, Tensor]:
    """Logits of models that are right in about 90 % of examples and disagree on about 10 %, as the paper's are."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(CLASSES, (EXAMPLES,), generator=generator)
    shared = torch.randn(EXAMPLES, CLASSES, generator=generator) + 4 * functional.one_hot(labels, CLASSES)
    logits = torch.empty(runs, EXAMPLES, CLASSES)
    for run in logits:
        run.copy_(1.5 * shared + 0.7 * torch.randn(EXAMPLES, CLASSES, generator=generator))
    return logits, labels


def ours(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    predicted = metrics.predictions(logits)
    return {
        "accuracy": metrics.percent_right(predicted, labels),
        "cross_entropy": metrics.cross_entropy(logits, labels),
        "disagreement": metrics.disagreement(predicted),
        "correlation": metrics.spearman(logits),
        "accuracy_delta": metrics.accuracy_ensemble_delta(logits, labels, predicted),
        "cross_entropy_delta": metrics.cross_entropy_ensemble_delta(logits),
    }


def ranks(outputs: Tensor) -> Tensor:
    return outputs.flatten().argsort().argsort().double()


def plain_loop(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """One pair after the other, each with what it needs: as one writes it down, with torch's own functions."""
    runs = len(logits)
    found = {name: torch.zeros(runs, runs, dtype=torch.float64) for name in NAMES[2:]}
    found["correlation"].fill_diagonal_(1)

    def accuracy(run: Tensor) -> Tensor:
        return 100 * (run.argmax(-1) == labels).double().mean()

    def cross_entropy(run: Tensor) -> Tensor:
        return functional.cross_entropy(run, labels)

    for i, j in itertools.combinations(range(runs), 2):
        one, two = logits[i], logits[j]
        both = (one + two) / 2
        pair = {
            "disagreement": 100 * (one.argmax(-1) != two.argmax(-1)).double().mean(),
            "correlation": torch.corrcoef(torch.stack([ranks(one), ranks(two)]))[0, 1],
            "accuracy_delta": accuracy(both) - (accuracy(one) + accuracy(two)) / 2,
            "cross_entropy_delta": cross_entropy(both) - (cross_entropy(one) + cross_entropy(two)) / 2,
        }
        for name, value in pair.items():
            found[name][i, j] = found[name][j, i] = value
    scores = {"accuracy": accuracy, "cross_entropy": cross_entropy}
    return {name: torch.stack([score(run).double() for run in logits]) for name, score in scores.items()} | found


def check_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Up to what the loop rounds, which is float32 but for its ranks and gives equal outputs different ones."""
    for name in NAMES:
        torch.testing.assert_close(
            one[name], other[name], rtol=1e-5, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def speed() -> None:
    logits, labels = models(20)
    check_equal(ours(logits, labels), plain_loop(logits, labels))
    pairs = [
        (seconds(lambda: ours(logits, labels)), seconds(lambda: plain_loop(logits, labels))) for _ in range(ROUNDS)
    ]
    ratio = statistics.median(loop / fast for fast, loop in pairs)
    fast, loop = (statistics.median(side) for side in zip(*pairs, strict=True))
    threads = f"{torch.get_num_threads()} thread(s)"
    print(f"{threads}, R = 20: {fast:.3f} s, a loop over pairs {loop:.1f} s, {ratio:.0f} times as long")
    logits, labels = models(100)
    times = [seconds(lambda: ours(logits, labels)) for _ in range(ROUNDS)]
    print(f"{threads}, R = 100: {statistics.median(times):.2f} s")


def memory(runs: int) -> None:
    """In a fresh process: the peak of computing every measure with its interval, logits and all, in bytes."""
    peak = Peak()
    logits, labels = models(runs)
    Measures(logits, labels).compute(Measures.names(labels))
    print(peak.bytes())


def memory_of(runs: int) -> None:
    peak = int(subprocess.run([sys.executable, __file__, str(runs)], check=True, capture_output=True, text=True).stdout)
    logits = runs * EXAMPLES * CLASSES * 4
    print(f"R = {runs}: peak memory {peak / 2**20:.0f} MiB, {peak / logits:.2f} times the logits")


if __name__ == "__main__":
    default = torch.get_num_threads()
    if len(sys.argv) > 1:
        memory(int(sys.argv[1]))
    else:
        for threads in sorted({1, default}):
            torch.set_num_threads(threads)
            speed()
        for runs in (2, 20, 100):  # 2: mostly what torch and NumPy load the first time
            memory_of(runs)
