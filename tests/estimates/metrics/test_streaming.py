"""What is summed over chunks is what whole logits give."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stabilitykit.errors import TaskError
from stabilitykit.estimates.metrics import (
    Overlaps,
    cross_entropy,
    cross_entropy_ensemble_delta,
    ensemble_delta,
    perplexity_ensemble_delta,
    predictions,
    sampled_places,
    spearman,
    token_scores,
)

R, N, C = 4, 57, 300


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(N, C, generator=generator) + torch.randn(R, N, C, generator=generator)


@pytest.fixture
def targets() -> Tensor:
    return torch.randint(C, (N,), generator=torch.Generator().manual_seed(1))


def perplexity(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels).exp()


@pytest.mark.parametrize("size", [1, 10, N, 100])
def test_one_model_in_chunks_scores_as_whole_logits_do(logits: Tensor, targets: Tensor, size: int) -> None:
    every = torch.arange(N * C)
    scores = [token_scores(torch.split(run, size), targets, every) for run in logits]
    torch.testing.assert_close(
        torch.tensor([score.cross_entropy for score in scores], dtype=torch.float64),
        cross_entropy(logits, targets),
        rtol=1e-13,
        atol=0,
    )
    assert torch.equal(torch.stack([score.predicted for score in scores]).long(), predictions(logits))
    assert all(torch.equal(score.sample, run.flatten()) for score, run in zip(scores, logits, strict=True))


def test_the_sample_is_that_of_the_places_whatever_the_chunks(logits: Tensor, targets: Tensor) -> None:
    places = sampled_places(N * C, size=500)
    for size in (1, 7, N):
        score = token_scores(torch.split(logits[0], size), targets, places)
        assert torch.equal(score.sample, logits[0].flatten()[places])


def test_log_probabilities_of_each_token_are_those_of_the_softmax(logits: Tensor, targets: Tensor) -> None:
    score = token_scores(torch.split(logits[0], 10), targets, torch.arange(0))
    naive = [float(row.double().log_softmax(0)[target]) for row, target in zip(logits[0], targets, strict=True)]
    torch.testing.assert_close(score.log_probabilities, torch.tensor(naive).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1, 10, N])
def test_overlaps_in_chunks_are_those_of_whole_logits(logits: Tensor, size: int) -> None:
    overlaps = Overlaps(R)
    for chunk in torch.split(logits, size, dim=1):
        overlaps.add(chunk)
    whole = cross_entropy_ensemble_delta(logits)
    torch.testing.assert_close(overlaps.cross_entropy_ensemble_delta(), whole, rtol=1e-12, atol=1e-15)


def test_models_that_are_equal_in_some_chunks_only_are_not_taken_for_equal(logits: Tensor) -> None:
    mixed = torch.stack([logits[0], torch.cat([logits[0][:30], logits[1][30:]]), logits[0]])
    overlaps = Overlaps(3)
    for chunk in torch.split(mixed, 30, dim=1):
        overlaps.add(chunk)
    delta = overlaps.cross_entropy_ensemble_delta()
    assert delta[0, 2] == 0
    assert delta[0, 1] < -0.001
    assert delta[1, 0] == delta[1, 2] == delta[2, 1]


def test_perplexity_of_a_pair_is_that_of_its_mean_logits(logits: Tensor, targets: Tensor) -> None:
    found = perplexity_ensemble_delta(cross_entropy(logits, targets), cross_entropy_ensemble_delta(logits))
    torch.testing.assert_close(found, ensemble_delta(logits, targets, perplexity), rtol=1e-11, atol=1e-10)
    assert torch.equal(found.diagonal(), torch.zeros(R, dtype=torch.float64))
    assert (found <= 0).all()


def test_sampled_places_are_one_of_each_stretch() -> None:
    places = sampled_places(1003, size=100, seed=3)
    stretches = itertools.pairwise(i * 1003 // 100 for i in range(101))
    assert all(low <= place < high for place, (low, high) in zip(places.tolist(), stretches, strict=True))
    assert not torch.equal(places, sampled_places(1003, size=100, seed=4))


def test_sampled_places_meet_every_class_alike() -> None:
    counts = torch.bincount(sampled_places(10**7, size=10**5) % 100, minlength=100).double()
    assert counts.min() > 850  # of 1000 expected, SD 32
    assert counts.max() < 1150


def test_spearman_of_a_sample_is_near_that_of_all_logits(logits: Tensor) -> None:
    some = [run.flatten()[sampled_places(N * C, size=5000)] for run in logits]
    standard_error = (1 - 0.78**2) / 5000**0.5
    assert (spearman(some) - spearman(logits)).abs().max() < 4 * standard_error


@pytest.mark.parametrize("tokens", [N - 1, N + 1])
def test_logits_of_more_or_fewer_tokens_than_targets_are_an_error(logits: Tensor, tokens: int) -> None:
    targets = torch.zeros(tokens, dtype=torch.long)
    with pytest.raises(TaskError, match=f"Expected logits of {tokens} tokens"):
        token_scores(torch.split(logits[0], 10), targets, torch.arange(0))


#: Scores so many chunks of 16 MB of logits, and prints by how many bytes the process grew at most.
SCORING = """
import re, sys, torch
from stabilitykit.estimates.metrics import sampled_places, token_scores

def kept(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])

torch.set_num_threads(1)
chunks, tokens, words = int(sys.argv[1]), 400, 10_000
targets, places = torch.zeros(chunks * tokens, dtype=torch.long), sampled_places(chunks * tokens * words, 1_000_000)
before = kept("VmRSS")
token_scores((torch.full((tokens, words), float(i)) for i in range(chunks)), targets, places)
print(kept("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc that counts a process's memory")
def test_memory_does_not_grow_with_the_text() -> None:
    # What is freed goes back at once, so that nothing but what is held counts, and not the holes of malloc's heap.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    few, many = (
        int(subprocess.check_output([sys.executable, "-c", SCORING, chunks], env=environment))
        for chunks in ("10", "50")
    )
    assert many < few + 16e6  # one of 40 chunks more, 640 MB
