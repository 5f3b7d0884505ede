"""Passes are counted by object."""

from __future__ import annotations

import gc
import weakref

from stabilitykit.isolation.passes import Passes


class Loader:
    pass


def test_a_loader_that_is_gone_does_not_stay_in_memory_and_gives_its_number_to_nobody():
    passes = Passes()
    numbers = []
    for _ in range(5):
        loader = Loader()
        numbers.append(passes.begin(loader))
        gone = weakref.ref(loader)
        del loader
        gc.collect()
        assert gone() is None
    assert numbers == [(number, 0) for number in range(5)]


def test_an_object_without_weak_references_is_counted_too():
    passes, order = Passes(), [3, 1, 2]
    assert [passes.begin(order) for _ in range(3)] == [(0, 0), (0, 1), (0, 2)]
