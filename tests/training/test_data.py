"""Batches: every example once, tensors and Datasets alike, and bits that depend on no number of loader processes."""

from __future__ import annotations

import random
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset

from stabilitykit.errors import TaskError
from stabilitykit.training.data import (
    DatasetExamples,
    Layout,
    TensorExamples,
    check_data,
    examples_of,
    split_indices,
    takes_generator,
)
from stabilitykit.training.images import RandomCropFlip

CPU = Layout(torch.device("cpu"))


class Noisy(Dataset):
    """Draws from each of the three global generators for every item."""

    def __init__(self, length: int = 12) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = [random.random(), float(np.random.rand()), float(torch.rand(()))]
        return torch.tensor([float(index), *noise]), index % 3


class TestSplitting:
    @given(count=st.integers(1, 50), size=st.integers(1, 60), drop_last=st.booleans())
    def test_batches_hold_the_order_in_full_but_for_a_dropped_rest(self, count, size, drop_last):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
        batches = split_indices(order, size, drop_last=drop_last)
        whole, rest = divmod(count, size)
        assert [len(batch) for batch in batches] == [size] * whole + [rest] * (rest > 0 and not drop_last)
        assert [index for batch in batches for index in batch.tolist()] == order.tolist()[: sum(map(len, batches))]


class TestTensors:
    x, y = torch.arange(24.0).reshape(12, 2), torch.arange(12)
    order = torch.tensor([3, 1, 2, 0, 11, 5])

    def test_a_batch_holds_the_examples_that_its_indices_name(self):
        batches = list(TensorExamples(self.x, self.y, CPU).batches(split_indices(self.order, 4), item_seed=0))
        assert torch.equal(torch.cat([x for x, _ in batches]), self.x[self.order])
        assert torch.equal(torch.cat([y for _, y in batches]), self.y[self.order])
        assert [len(y) for _, y in batches] == [4, 2]

    def test_inputs_take_the_dtype_and_labels_keep_theirs(self):
        examples = TensorExamples(self.x, self.y, Layout(torch.device("cpu"), torch.float64))
        ((x, y),) = examples.batches([self.order], item_seed=0)
        assert (x.dtype, y.dtype) == (torch.float64, torch.int64)

    def test_integer_inputs_keep_their_dtype(self):
        examples = TensorExamples(self.x.long(), self.y, Layout(torch.device("cpu"), torch.float64))
        ((x, _),) = examples.batches([self.order], item_seed=0)
        assert x.dtype == torch.int64

    def test_channels_last_holds_for_each_batch_and_changes_no_value(self):
        images = torch.randn(12, 3, 4, 5, generator=torch.Generator().manual_seed(0))
        layout = Layout(torch.device("cpu"), memory_format=torch.channels_last)
        for examples in (TensorExamples(images, self.y, layout), DatasetExamples(Pairs(images, self.y), layout)):
            ((x, _),) = examples.batches([self.order], item_seed=0)
            assert x.is_contiguous(memory_format=torch.channels_last)
            assert not x.is_contiguous()
            assert torch.equal(x, images[self.order])

    def test_a_memory_format_leaves_inputs_of_other_dimensions_alone(self):
        examples = TensorExamples(self.x, self.y, Layout(torch.device("cpu"), memory_format=torch.channels_last))
        ((x, _),) = examples.batches([self.order], item_seed=0)
        assert torch.equal(x, self.x[self.order])


class TestConvertingOnce:
    """Every pass of one run shares what was converted; another run converts anew."""

    doubles = Layout(torch.device("cpu"), torch.float64)

    def make(self):
        return torch.randn(12, 2), torch.arange(12)

    def test_each_pass_shares_one_conversion(self):
        x, y = self.make()
        run = {}
        examples = examples_of((x, y), self.doubles, converted=run)
        assert examples_of((x, y), self.doubles, converted=run) is examples
        other = examples_of((x, y), Layout(torch.device("cpu"), torch.bfloat16), converted=run)
        assert other.x.dtype is torch.bfloat16
        assert examples_of((x, y), self.doubles, converted=run) is examples
        assert examples_of((x, y), self.doubles, converted={}) is not examples

    def test_what_needs_no_conversion_is_the_users_own_tensor(self):
        x, y = self.make()
        assert examples_of((x, y), CPU).x is x

    def test_a_change_in_place_or_other_labels_convert_anew(self):
        x, y = self.make()
        run = {}
        examples_of((x, y), self.doubles, converted=run)
        x += 1
        assert torch.equal(examples_of((x, y), self.doubles, converted=run).x, x.double())
        y += 1
        assert torch.equal(examples_of((x, y), self.doubles, converted=run).y, y)
        assert torch.equal(examples_of((x, y.flip(0)), self.doubles, converted=run).y, y.flip(0))

    @pytest.mark.parametrize("layout", [CPU, doubles])
    def test_nothing_outlives_the_users_tensor_and_the_run(self, layout):
        x, y = self.make()
        run = {}
        examples = weakref.ref(examples_of((x, y), layout, converted=run).x)
        alive = weakref.ref(x), weakref.ref(y)
        del x, y, run
        assert [ref() for ref in (*alive, examples)] == [None] * 3

    def test_an_array_may_change_behind_its_tensors_back(self):
        array, y = np.zeros((12, 2), np.float32), torch.arange(12)
        x = torch.from_numpy(array)
        run = {}
        examples_of((x, y), self.doubles, converted=run)
        array += 1
        assert examples_of((x, y), self.doubles, converted=run).x.min() == 1

    def test_tensors_made_in_inference_mode_are_taken_too(self):
        with torch.inference_mode():
            x, y = self.make()
        assert torch.equal(examples_of((x, y), self.doubles, converted={}).x, x.double())


class Pairs(Dataset):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[index], self.y[index]


class TestDatasets:
    order = torch.tensor([7, 1, 2, 0, 11, 5])

    def rows(
        self, *, order: torch.Tensor | None = None, seed: int = 0, workers: int = 0, size: int = 4
    ) -> torch.Tensor:
        order = self.order if order is None else order
        examples = examples_of(Noisy(), CPU, num_workers=workers)
        return torch.cat([x for x, _ in examples.batches(split_indices(order, size), item_seed=seed)])

    def test_loader_processes_draw_the_same_bits(self):
        assert torch.equal(self.rows(), self.rows(workers=2))

    def test_an_items_draws_depend_on_the_seed_and_the_item_and_on_no_order_or_batch(self):
        ordered = torch.arange(12)
        rows = self.rows(order=ordered)
        assert torch.equal(rows[:, 0], ordered.float())
        assert torch.equal(self.rows(), rows[self.order])
        assert torch.equal(self.rows(size=1), rows[self.order])
        assert (self.rows(seed=1)[:, 1:] != self.rows()[:, 1:]).all()
        assert len(rows[:, 1:].unique()) == 36  # no two items draw the same

    @pytest.mark.parametrize("workers", [0, 2])
    def test_loading_moves_no_generator_of_the_process(self, workers):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = random.random(), np.random.rand(), torch.rand(1)
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        self.rows(workers=workers)
        assert (random.random(), np.random.rand(), torch.rand(1)) == expected

    @pytest.mark.parametrize(
        ("items", "got"),
        [
            ([{"x": 1.0, "y": 2}], "a dict"),
            ([(1.0, 2, 3)], "a list of Tensor, Tensor, Tensor"),
            ([((1.0, 2.0), 3)], "a list of list, Tensor"),
            ([("text", 1)], "a list of tuple, Tensor"),
            ([1.0], "a Tensor"),
        ],
    )
    def test_items_that_are_no_pairs_are_refused(self, items, got):
        with pytest.raises(TaskError) as refusal:
            list(examples_of(items, CPU).batches([torch.tensor([0])], item_seed=0))
        assert str(refusal.value).startswith("Expected every item of list to be (input, label)")
        assert f"but a batch of them is {got}." in str(refusal.value)

    def test_items_become_tensors(self):
        ((x, y),) = examples_of(Noisy(2), CPU).batches([torch.tensor([1, 0])], item_seed=0)
        assert x.shape == (2, 4)
        assert torch.equal(y, torch.tensor([1, 0]))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


class SizedStream(Stream):
    """With a length for its progress bar, and the ``__getitem__`` that every Dataset inherits."""

    def __len__(self):
        return 5


class Unfinished(Dataset):
    def __len__(self):
        return 5


class TestChecking:
    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ((torch.zeros(2),), "Expected train= to be (inputs, labels), two tensors, or a Dataset but got (Tensor)."),
            (
                (np.zeros(2), torch.zeros(2)),
                "Expected train= to be (inputs, labels), two tensors, or a Dataset but got (ndarray, Tensor).",
            ),
            (
                (torch.zeros(3, 2), torch.zeros(2)),
                "Expected one label an example in train= but got 3 inputs and 2 labels.",
            ),
            (
                (torch.zeros(0, 2), torch.zeros(0)),
                "Expected one label an example in train= but got 0 inputs and 0 labels.",
            ),
            (Noisy(0), "Expected train= to hold examples but its length is 0."),
        ],
    )
    def test_data_that_cannot_be_trained_on_is_refused(self, data, message):
        with pytest.raises(TaskError) as refusal:
            check_data("train", data)
        assert str(refusal.value) == message

    @pytest.mark.parametrize(
        ("data", "mend"),
        [
            *[(data, "An iterable dataset has no order") for data in (Stream(), SizedStream(), Unfinished(), 3, None)],
            (torch.zeros(3, 2), "An iterable dataset has no order"),
            (torch.utils.data.DataLoader(Noisy()), "Give what it loads, loader.dataset, and its batch_size."),
            ({"x": torch.zeros(3), "labels": torch.zeros(3)}, "Give a Dataset whose items are dicts of one example"),
        ],
    )
    def test_data_without_items_by_index_is_refused(self, data, mend):
        with pytest.raises(TaskError) as refusal:
            check_data("test", data)
        assert str(refusal.value).startswith("Expected test= to be (inputs, labels) or a map-style Dataset")
        assert f"but got {type(data).__name__}. {mend}" in str(refusal.value)

    def test_pairs_and_map_style_datasets_are_taken(self):
        check_data("train", (torch.zeros(2, 3), torch.zeros(2)))
        check_data("train", Noisy())
        check_data("train", [(torch.zeros(2), 1)])


def test_a_change_that_takes_a_generator_is_given_one():
    assert takes_generator(RandomCropFlip())
    assert takes_generator(lambda x, generator: x)
    assert not takes_generator(lambda x: x)
    assert not takes_generator(torch.relu)
