"""Splits are data: no source moves them."""

from __future__ import annotations

import torch
from torch.utils.data import random_split

from stabilitykit.isolation.intercepted import Intercepted
from stabilitykit.isolation.replacement import Replacements
from stabilitykit.isolation.splits import replacements


def split(counts=None, seed=0, **options):
    """Two splits of a training, whatever was drawn before."""
    held = Replacements(replacements(counts or Intercepted()))
    torch.manual_seed(seed)
    held.put()
    try:
        return [random_split(range(10), [5, 5], **options)[0].indices for _ in range(2)]
    finally:
        held.put_back()


def test_a_split_is_the_same_in_each_training_and_another_than_the_one_before():
    first, second = split(seed=1)
    assert [first, second] == split(seed=2)
    assert first != second


def test_a_split_by_a_generator_of_the_users_is_theirs():
    counts = Intercepted()
    theirs = random_split(range(10), [5, 5], generator=torch.Generator().manual_seed(42))[0].indices
    assert split(counts, generator=torch.Generator().manual_seed(42))[0] == theirs
    assert (counts.splits, counts.own_splits) == (0, 2)
