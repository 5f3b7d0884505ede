"""Epochs of another library's loop, counted as those of a loop of the user's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stabilitykit.adapters.counted_epochs import CountedEpochs
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.run import Run

CPU = torch.device("cpu")
PLAN = NoiseProtocol("none", runs=2).plans()[0]


def loop(run: Run, count: int) -> int:
    epochs = CountedEpochs(run, count)
    for trained in range(1, count + 1):
        if not epochs.end():
            return trained
    return count


@pytest.mark.parametrize(("stop_after", "trained", "is_cut"), [(None, 5, False), (2, 2, True), (5, 5, False)])
def test_a_rehearsal_ends_after_the_first(stop_after: int | None, trained: int, is_cut: bool) -> None:
    run = Run(PLAN, CPU, stop_after=stop_after)
    run.perturb(nn.Linear(2, 2))
    assert loop(run, 5) == trained
    assert (run.planned_epochs, run.trained_epochs, run.is_cut, len(run.trace)) == (5, trained, is_cut, 2)


def test_a_loop_that_goes_on_past_its_count_is_not_stopped() -> None:
    run = Run(PLAN, CPU)
    epochs = CountedEpochs(run, 1)
    assert epochs.end()
    assert epochs.end()
