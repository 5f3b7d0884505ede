"""The items of a Dataset as they count for a key."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from stabilitykit.store.fingerprint import CannotFingerprint
from stabilitykit.training import items
from stabilitykit.training.items import MOST_ITEMS, Items


class Made(Dataset):
    """A Dataset whose items a function makes."""

    def __init__(self, make, length=40):
        self.make, self.length = make, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.make(index)


class InPlace(Made):
    """Adds to the row that it returns, as an augmentation in place does."""

    def __init__(self):
        super().__init__(self.row)
        self.x = np.zeros((40, 3), np.float32)

    def row(self, index):
        self.x[index] += 1
        return self.x[index], 0


class OwnGenerator(Made):
    def __init__(self):
        super().__init__(self.noisy)
        self.generator = np.random.RandomState(0)

    def noisy(self, index):
        return self.generator.normal(), index


class CannotBeCopied(InPlace):
    def __deepcopy__(self, memo):
        raise TypeError("an open file")


def test_every_item_counts_up_to_a_number_of_them():
    wrong = set()
    data = Made(lambda index: (torch.ones(2), int(index in wrong)), MOST_ITEMS)
    before = Items.of(data).hashes
    wrong.add(MOST_ITEMS - 1)
    assert {index for index, text in Items.of(data).hashes.items() if text != before[index]} == wrong


def test_of_more_some_count_and_the_study_says_so():
    read = Items.of(Made(lambda index: (torch.ones(2), 0), 50_000))
    assert len(read.hashes) == 65
    (remark,) = read.remarks
    assert remark.startswith("the data of Made counts by 65 of its 50,000 items")
    assert Items.of(Made(lambda index: (torch.ones(2), 0))).remarks == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.ones(2), torch.zeros(2)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.ones(2), torch.ones(1, 2)),
        (torch.ones(2), np.ones(2, np.float32)),
        (np.ones(2), np.zeros(2)),
        (1, 2),
        (1, True),
        (1, 1.0),
        ("a", "b"),
        ((1, 2), [1, 2]),
        ({"a": 1}, {"a": 2}),
        (None, 0),
    ],
)
def test_an_item_counts_by_its_content(one, other):
    hashes = [Items.of(Made(lambda index, item=item: (item, 0), 1)).hashes for item in (one, other, one)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_reading_changes_neither_the_dataset_nor_the_generators():
    for data in (InPlace(), OwnGenerator()):
        states = torch.get_rng_state(), np.random.get_state()[1].tolist()
        first = Items.of(data)
        assert Items.of(data).hashes == first.hashes
        assert torch.equal(torch.get_rng_state(), states[0])
        assert np.random.get_state()[1].tolist() == states[1]
        assert not getattr(data, "x", np.zeros(1)).any()


@pytest.mark.parametrize("make", [InPlace, OwnGenerator, CannotBeCopied])
def test_items_that_change_when_they_are_read_again_are_told(make):
    read = Items.of(make())
    assert not read.is_repeatable
    assert "changes when it is read again under the same seed" in read.remarks[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda index: (torch.rand(3), index),  # of a generator that training seeds for each item
        lambda index: (np.random.rand(3), index),
        lambda index: (torch.ones(3), index),
    ],
)
def test_draws_under_the_seed_of_an_item_are_the_same_again(make):
    assert Items.of(Made(make)).is_repeatable


def test_a_dataset_that_holds_much_is_read_itself(monkeypatch):
    monkeypatch.setattr(items, "_MOST_COPIED", 8)
    data = InPlace()
    assert not Items.of(data).is_repeatable
    assert data.x.any()


def test_items_without_content_are_refused():
    lock = threading.Lock()
    with pytest.raises(CannotFingerprint, match="lock"):
        Items.of(Made(lambda index: (lock, 0)))


def test_labels_are_known_to_be_of_these_items_or_others():
    x, y = torch.zeros(40, 2), torch.arange(40)
    read = Items.of(TensorDataset(x, y))
    assert read.fits(y)
    assert not read.fits(y + 1)
    assert not read.fits(y[:-1])
    assert not read.fits(torch.zeros(40, 2))
    assert Items.of(Made(lambda index: torch.ones(2))).fits(y)  # no pairs: nothing is known against them
