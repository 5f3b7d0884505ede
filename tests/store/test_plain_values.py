"""Plain values and tensors come back from JSON and arrays as they were, or are refused."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stabilitykit.store.plain_values import CannotKeep, flatten, unflatten

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | inner.map(lambda item: {"dict": item, "tuple": [item], "tensor": "0"})
    ),
    max_leaves=20,
)


def through_json(value):
    plain, tensors = flatten(value)
    return unflatten(json.loads(json.dumps(plain)), tensors)


@given(values)
def test_values_come_back_with_their_types(value):
    assert repr(through_json(value)) == repr(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_come_back_to_the_bit_in_memory_of_their_own(dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    back = through_json([tensor])[0]
    assert back.dtype is dtype
    assert torch.equal(back, tensor)
    back.zero_()
    assert tensor.any()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(3, 4).T,
        torch.randn(3, 1).expand(3, 4),
        torch.randn(10)[::2],
        torch.tensor(math.nan),
        torch.empty(0, 3),
    ],
)
def test_tensors_lie_in_memory_as_they_did_where_each_element_has_a_place(tensor):
    back = through_json(tensor)
    assert torch.equal(back, tensor) or tensor.isnan().all()
    if torch.ops.aten.is_non_overlapping_and_dense(tensor):
        assert back.stride() == tensor.stride()


@pytest.mark.parametrize(
    "value",
    [object(), {1.5: 2}, {"a": {"b": {1, 2}}}, torch.eye(2).to_sparse(), nn.Linear(1, 1)],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_value_is_refused(value):
    with pytest.raises(CannotKeep):
        flatten([value])
