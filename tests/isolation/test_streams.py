"""Streams: what is drawn in one depends on its seed alone, and leaves the process's own generators where they were."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.isolation.streams import GeneratorStates, Stream, seed_generators

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    """One number of each global generator."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_stream_is_its_seed_whatever_was_drawn_before():
    with Stream(7):
        first = draw()
    seed_generators(99, CPU)
    draw()
    with Stream(7):
        assert draw() == first
    with Stream(8):
        other = draw()
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_the_three_generators_of_a_stream_are_seeded_each():
    for kind, make in enumerate([random.random, np.random.rand, lambda: float(torch.rand(()))]):
        with Stream(3):
            one = make()
        with Stream(3):
            assert make() == one, kind


def test_a_stream_goes_on_where_it_left_off():
    with Stream(7):
        both = [draw(), draw()]
    stream = Stream(7)
    with stream:
        first = draw()
    draw()
    with stream:
        assert [first, draw()] == both


def test_the_process_draws_on_as_if_there_had_been_no_stream():
    seed_generators(5, CPU)
    expected = [draw(), draw()]
    seed_generators(5, CPU)
    first = draw()
    with Stream(7):
        draw()
        np.random.standard_normal()  # leaves half a pair behind in numpy's generator
        random.gauss(0, 1)  # and in python's
    assert [first, draw()] == expected


def test_an_exception_puts_the_generators_back_and_the_stream_goes_on():
    seed_generators(5, CPU)
    expected = draw()
    seed_generators(5, CPU)
    stream = Stream(7)
    drawn = []

    def interrupted():
        with stream:
            drawn.append(draw())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert draw() == expected
    with stream:
        drawn.append(draw())
    with Stream(7):
        assert [draw(), draw()] == drawn


def test_a_stream_inside_itself_changes_nothing():
    stream = Stream(7)
    with stream:
        outer = draw()
        with stream:
            inner = draw()
        after = draw()
    with Stream(7):
        assert [draw(), draw(), draw()] == [outer, inner, after]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
def test_streams_do_not_disturb_each_other_in_any_order(visits):
    alone = []
    for seed in range(3):
        with Stream(seed):
            alone.append([draw() for _ in visits])
    streams, seen = [Stream(seed) for seed in range(3)], [0, 0, 0]
    for which in visits:
        with streams[which]:
            assert draw() == alone[which][seen[which]]
        seen[which] += 1


def test_streams_of_different_sources_nest():
    with Stream(1):
        ones = [draw(), draw()]
    with Stream(2):
        two = draw()
    with Stream(1):
        first = draw()
        with Stream(2):
            assert draw() == two
        assert [first, draw()] == ones


def test_states_are_read_and_put_back():
    seed_generators(1, CPU)
    states = GeneratorStates.now(CPU)
    one = draw()
    draw()
    states.put_back(CPU)
    assert draw() == one
    assert states.cuda is None
