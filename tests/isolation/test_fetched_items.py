"""Items, each under a seed of its own: which are known to draw nothing, and what is sent to a loader process."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from stabilitykit.isolation.fetched_items import Numbered, Numbering, may_draw
from stabilitykit.isolation.interception import Interception
from stabilitykit.isolation.streams import seed_generators
from stabilitykit.protocol import Source

TENSORS = TensorDataset(torch.arange(6.0))


class Items(Dataset):
    """Items that are asked for one by one, or many at once, and may draw."""

    def __init__(self, draws):
        self.draws, self.asked = draws, []

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        self.asked.append([*indices])
        return [float(torch.rand(())) if self.draws else float(index) for index in indices]


def items_of(data, **options):
    with Interception(lambda source: 1).on():
        return [x for batch in DataLoader(data, batch_size=4, **options) for x in batch.tolist()]


def test_only_tensors_that_torch_puts_together_are_known_to_draw_nothing():
    assert not may_draw(DataLoader(TENSORS))
    assert not may_draw(DataLoader(ConcatDataset([TENSORS, Subset(TENSORS, [1])])))
    assert may_draw(DataLoader(Items(False)))
    assert may_draw(DataLoader(Subset(Items(False), [1])))
    assert may_draw(DataLoader(TENSORS, collate_fn=lambda batch: batch))
    assert may_draw(DataLoader(type("Own", (TensorDataset,), {})(torch.arange(2))))


def test_items_that_draw_nothing_are_read_at_once():
    data = Items(draws=False)
    assert items_of(data) == [float(index) for index in range(8)]
    assert data.asked == [[0], [1], [2], [3], [4, 5, 6, 7]]  # the first batch as if they drew


def test_items_that_draw_are_read_one_by_one():
    data = Items(draws=True)
    drawn = items_of(data)
    assert data.asked == [[index] for index in range(8)]
    assert drawn == items_of(Subset(data, range(8)))


def test_items_of_which_some_draw_are_those_of_a_loader_that_reads_one_by_one():
    class Some(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return index + float(torch.rand(()) if index > 5 else 0)

    drawn = items_of(Some())
    assert drawn[:6] == [0, 1, 2, 3, 4, 5]
    assert drawn[6:] == items_of(Subset(Some(), range(8)))[6:] == items_of(Some(), sampler=range(7, -1, -1))[1::-1]


def test_an_item_that_changes_what_it_is_read_from_is_read_once():
    class Growing(Dataset):
        def __init__(self):
            self.held = torch.zeros(8)

        def __len__(self):
            return 8

        def __getitem__(self, index):
            self.held[index] += torch.rand(())
            return self.held[index].clone()

    assert max(items_of(Growing())) < 1
    torch.manual_seed(1)
    drawn = items_of(Growing())
    torch.manual_seed(2)
    assert items_of(Growing()) == drawn


def test_an_item_that_comes_again_in_a_pass_draws_again():
    drawn = items_of(Items(draws=True), sampler=[3, 3, 5, 3])
    assert len(set(drawn)) == 4
    again = items_of(Items(draws=True), sampler=[5, 3, 3, 3])
    assert again == [drawn[2], drawn[0], drawn[1], drawn[3]]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_sampler": [(3, 3), (5, 3)]},
        {"batch_sampler": [torch.tensor([3, 3]), torch.tensor([5, 3])]},
        {"batch_size": None, "sampler": [3, 3, 5, 3]},
    ],
)
def test_it_does_so_however_its_index_is_given(options):
    with Interception(lambda source: 1).on():
        drawn = [torch.as_tensor(batch).flatten() for batch in DataLoader(Items(draws=True), **options)]
    expected = items_of(Items(draws=True), sampler=[3, 3, 5, 3])
    assert torch.equal(torch.cat(drawn).float(), torch.tensor(expected).float())


def test_batches_are_numbered_and_can_be_sent():
    numbering = Numbering(1, 2, repeats=True)
    assert numbering.number([3, 3, 4]) == Numbered([3, 3, 4], 1, 2, 0, (0, 1, 0))
    assert pickle.loads(pickle.dumps(numbering.number([3]))) == Numbered([3], 1, 2, 1, (2,))
    assert Numbering(1, 2, repeats=True, batches=False).number([3, 3]).times == (0,)  # one item of two indices
    assert Numbering(1, 2, repeats=False).number([3]).times == ()


def test_what_puts_a_batch_together_draws_by_its_position_alone():
    def collate(batch):
        return torch.rand(1)

    def drawn(data, shuffle):
        seeds = {Source.SHUFFLE: shuffle, Source.AUGMENT: 1}
        with Interception(seeds.get).on():
            return [float(x) for x in DataLoader(data, batch_size=4, shuffle=True, collate_fn=collate)]

    for data in (TENSORS, Items(draws=True)):
        assert drawn(data, 1) == drawn(data, 2)
        assert len({*drawn(data, 1)}) == 2


def test_a_first_look_moves_no_generator():
    seed_generators(1, torch.device("cpu"))
    expected = float(torch.rand(()))
    seed_generators(1, torch.device("cpu"))
    items_of(Items(draws=True))
    assert float(torch.rand(())) == expected
