"""What makes data inside a run draws the same in every run, and moves nothing around it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from stabilitykit.adapters.held_data import held, held_methods
from stabilitykit.protocol import NoiseProtocol, Source
from stabilitykit.training.run import Run

CPU = torch.device("cpu")


def draws() -> list[float]:
    first = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    torch.manual_seed(3)
    return [*first, float(torch.rand(()))]


def run_of(moved: str) -> Run:
    return Run(NoiseProtocol("none", runs=2).moving_only(Source(moved)), CPU)


def test_no_source_moves_a_draw_of_data() -> None:
    found = []
    for moved in ("stochastic", "init", "shuffle"):
        run = run_of(moved)
        with run.interception.on(), run.stream("stochastic"), held(run):
            found.append(draws())
    assert found[0] == found[1] == found[2]


def test_what_is_drawn_after_it_is_where_it_was() -> None:
    run = run_of("init")
    with run.stream("stochastic"):
        state = torch.get_rng_state()
        with held(run):
            draws()
        assert torch.equal(torch.get_rng_state(), state)


def test_methods_are_put_back_after_an_error_too() -> None:
    class Data:
        def setup(self) -> list[float]:
            return draws()

    data = Data()
    data.own = data.setup  # type: ignore[attr-defined]  # an attribute of the object, as a mock is

    def use() -> None:
        with held_methods(data, ("setup", "own"), run_of("init")):
            assert data.setup() == data.setup()
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert list(vars(data)) == ["own"]
