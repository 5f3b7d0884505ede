"""What was given is said in a few words."""

from __future__ import annotations

import torch

from stabilitykit.training.description import described


def test_values_are_described_by_their_kinds():
    assert described([torch.ones(2), {"a": 1}]) == "a list of (Tensor [2], dict with 'a')"
    assert described(torch.ones(2).long()) == "Tensor [2] of torch.int64"
    assert described({}) == "a dict with nothing"
    assert described([torch.ones(2)] * 300) == "list"
