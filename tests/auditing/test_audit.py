"""The seed audit sees each fault that is known from public code, names it, and finds none where there is none."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset, random_split

from stabilitykit import Audit, assert_seed_reaches, audit
from stabilitykit.errors import TaskError, UnreachedSourceError

ALL = {"init", "shuffle", "augment", "stochastic"}


class Noisy(Dataset[Any]):
    """Twelve examples with noise, drawn as each is fetched."""

    def __init__(self, draw: Callable[[], float] = lambda: float(torch.rand(()))) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return torch.full((3,), float(index)) + self.draw(), index % 2


def model(*, dropout: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5 if dropout else 0.0), nn.Linear(4, 2))


def fit(
    net: nn.Module, loader: Any, epochs: int = 2, before: Callable[[int], object] = lambda epoch: None
) -> nn.Module:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for epoch in range(epochs):
        before(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net


def right(seed: int = 0, workers: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    loader = DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return fit(model(), loader)


def row(found: Audit, source: str) -> Any:
    (row,) = (row for row in found.rows if row.source == source)
    return row


@pytest.mark.parametrize("workers", [0, 2])
def test_a_right_training_has_no_finding(workers: int) -> None:
    found = audit(right, arguments={"workers": workers})
    assert found.reached("seed") == ALL
    assert not found.findings
    assert not found.notes
    assert found.trainings == 2 + 1
    assert [(seeding.function, seeding.seed, count) for seeding, count in found.reseedings] == [
        ("torch.manual_seed", "0", 1)
    ]
    assert found.reseedings[0][0].line.startswith("test_audit.py:")
    assert_seed_reaches(right, "seed", ALL, arguments={"workers": workers})
    text = str(found)
    for said in ("RandomSampler", "2 passes", "24 items", "4 tensors", "torch.manual_seed(0)", "3 trainings in"):
        assert said in text


def test_a_data_seed_that_is_not_passed_on_moves_nothing() -> None:
    def train(seed: int = 0, data_seed: int | None = None) -> None:
        right(seed)

    found = audit(train)
    assert found.reached("data_seed") == frozenset()
    assert found.reached("seed") == ALL
    (finding,) = found.findings
    assert finding.startswith("data_seed moves nothing: ")
    assert "data_seed=None and data_seed=1" in finding


def test_an_order_that_a_fixed_generator_draws() -> None:
    """A sweep over seeds then varies the initialisation alone: identical data in identical order."""

    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        data = TensorDataset(torch.randn(12, 3, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 2)
        generator = torch.Generator().manual_seed(42)
        fit(model(), DataLoader(data, batch_size=4, shuffle=True, generator=generator))

    found = audit(train)
    assert found.reached("seed") == {"init", "stochastic"}
    (finding,) = found.findings
    assert finding.startswith("seed never reaches the order of examples (RandomSampler, test_audit.py:")
    assert "a torch.Generator with the seed 42" in finding
    with pytest.raises(UnreachedSourceError, match=r"does not reach shuffle: .*\n\nseed audit of train") as raised:
        assert_seed_reaches(train, "seed", {"init", "shuffle"})
    assert isinstance(raised.value, AssertionError)
    assert_seed_reaches(found, "seed", {"init"})


def test_an_order_of_a_sampler_that_knows_the_epoch_alone() -> None:
    def train(seed: int = 0, *, sets_epoch: bool = True) -> None:
        torch.manual_seed(seed)
        data = TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2)
        sampler: Any = DistributedSampler(data, num_replicas=1, rank=0)
        fit(
            model(),
            DataLoader(data, batch_size=4, sampler=sampler),
            2,
            sampler.set_epoch if sets_epoch else lambda e: None,
        )

    found = audit(train)
    assert found.reached("seed") == {"init", "stochastic"}
    assert ["DistributedSampler(seed=0" in finding for finding in found.findings] == [True]
    never, again = audit(train, arguments={"sets_epoch": False}).findings
    assert never.startswith("seed never reaches the order")
    assert again.startswith("Each pass has the same order (DistributedSampler, ")
    assert "set_epoch" in again


def test_parameters_that_are_drawn_before_the_seed_is_set() -> None:
    def train(seed: int = 0) -> None:
        net = model()
        torch.manual_seed(seed)
        fit(net, DataLoader(Noisy(), batch_size=4, shuffle=True))

    found = audit(train)
    assert found.reached("seed") == {"shuffle", "augment", "stochastic"}
    assert found.trainings == 4, "one more, to tell an earlier state from what is new in each call"
    (finding,) = found.findings
    assert finding.startswith("seed never reaches the parameters (SGD, ")
    assert "before a seed is set" in finding
    assert row(found, "init").besides.value == "earlier draws"


def test_some_parameters_that_are_drawn_before_the_seed_is_set() -> None:
    def train(seed: int = 0) -> None:
        body = nn.Linear(3, 4)
        torch.manual_seed(seed)
        fit(nn.Sequential(body, nn.Dropout(), nn.Linear(4, 2)), DataLoader(Noisy(), batch_size=4, shuffle=True))

    found = audit(train)
    (finding,) = found.findings
    assert finding.startswith("2 of 4 parts of the parameters")
    assert "seed (in part)" in str(found)
    assert "init" not in found.reached("seed")


def fixed_numpy_seed(worker: int) -> None:
    np.random.seed(7 + worker)


def numpy_noise() -> float:
    return float(np.random.rand())


def test_augmentation_by_numpy_that_is_the_same_in_each_epoch() -> None:
    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        loader = DataLoader(Noisy(numpy_noise), 4, shuffle=False, num_workers=2, worker_init_fn=fixed_numpy_seed)
        fit(model(), loader)

    found = audit(train)
    assert found.reached("seed") == {"init", "stochastic"}
    never, again = found.findings
    assert never.startswith("seed never reaches the items (Noisy, ")
    assert again.startswith("Each pass draws the same again for the items (Noisy, ")
    assert "No loader shuffles: every pass goes through the examples in one order." in found.notes


def test_augmentation_by_a_generator_without_a_seed() -> None:
    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        rng = np.random.default_rng()
        fit(model(dropout=False), DataLoader(Noisy(lambda: float(rng.random())), 4, shuffle=True))

    found = audit(train)
    assert found.reached("seed") == {"init", "shuffle"}
    (finding,) = found.findings
    assert finding.startswith("seed never reaches the items (Noisy, ")
    assert "the system's entropy" in finding
    assert any("numpy.random.default_rng, without a seed, at test_audit.py:" in note for note in found.notes)


def test_another_order_alone_is_no_other_augmentation() -> None:
    def by_index(index: int) -> float:
        return float(np.random.default_rng(index).random())

    class Fixed(Noisy):
        def __getitem__(self, index: int) -> Any:
            return torch.full((3,), by_index(index)), index % 2

    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        fit(model(), DataLoader(Fixed(), 4, shuffle=True))

    found = audit(train)
    assert {row.source for row in found.rows} == ALL - {"augment"}
    assert "Items are not drawn randomly: no augmentation was seen." in found.notes
    with pytest.raises(UnreachedSourceError, match="Augment: nothing of it is drawn"):
        assert_seed_reaches(found, "seed", "augment")


def test_masks_that_are_seeded_anew_in_each_step() -> None:
    class Loader:
        def __iter__(self) -> Iterator[Any]:
            for batch in DataLoader(TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2), 4, shuffle=True):
                torch.manual_seed(42)
                yield batch

    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        fit(model(), Loader(), epochs=1)

    found = audit(train)
    assert found.reached("seed") == {"init", "shuffle"}
    assert [finding.split(" (")[0] for finding in found.findings] == ["seed never reaches what is drawn in the loop"]
    assert ("torch.manual_seed", "42", 3) in [(seeding.function, seeding.seed, n) for seeding, n in found.reseedings]


def test_a_loop_that_draws_its_own_order_and_mixes_batches() -> None:
    def train(seed: int = 0, *, fixed: bool = False) -> None:
        torch.manual_seed(seed)
        net, x, y = model(dropout=False), torch.zeros(12, 3), torch.arange(12) % 2
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        order = np.random.RandomState(42) if fixed else None
        for _ in range(2):
            places = torch.from_numpy(order.permutation(12)) if order else torch.randperm(12)
            for batch in places.split(4):
                mixed = torch.randperm(4)
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x[batch][mixed]), y[batch]).backward()
                optimizer.step()

    found = audit(train)
    assert found.reached("seed") == {"init", "shuffle", "stochastic"}
    assert (row(found, "shuffle").place.what, row(found, "shuffle").count) == ("torch.randperm", 2)
    assert {row.place.what for row in found.rows if row.source == "stochastic"} == {"torch.randperm"}
    assert not found.findings
    hidden = audit(train, arguments={"fixed": True})
    assert "shuffle" not in hidden.reached("seed")
    assert any(note.startswith("No order was seen") for note in hidden.notes)


def test_a_split_is_data() -> None:
    def train(seed: int = 0, *, fixed: bool = False) -> None:
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(1) if fixed else torch.default_generator
        part, _ = random_split(Noisy(), [8, 4], generator=generator)
        fit(model(), DataLoader(part, batch_size=4, shuffle=True))

    assert audit(train).reached("seed") == ALL | {"data"}
    found = audit(train, arguments={"fixed": True})
    assert found.reached("seed") == ALL
    assert not found.findings, "a fixed split is as it should be"
    assert row(found, "data").own_seed == "a torch.Generator with the seed 1"


def test_examples_that_are_made_under_the_seed_are_no_augmentation() -> None:
    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        fit(model(), DataLoader(TensorDataset(torch.randn(12, 3), torch.arange(12) % 2), 4))

    found = audit(train)
    assert found.reached("seed") == {"init", "stochastic", "data"}
    assert row(found, "data").place.kind.value == "the examples themselves"


class Stream(IterableDataset[Any]):
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[Any]:
        rng = random.Random(self.seed)
        for index in rng.sample(range(12), 12):
            yield torch.full((3,), float(index)), index % 2


@pytest.mark.parametrize("reaches", [True, False])
def test_an_iterable_dataset_is_named_and_its_sequence_compared(reaches: bool) -> None:
    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        fit(model(), DataLoader(Stream(seed if reaches else 42), 4))

    found = audit(train)
    assert ("shuffle" in found.reached("seed")) is reaches
    assert any("Stream at test_audit.py:" in note and "IterableDataset" in note for note in found.notes)


def test_what_moves_the_weights_unseen_is_said() -> None:
    def train(seed: int = 0, noise_seed: int = 0) -> None:
        torch.manual_seed(seed)
        rng = torch.Generator().manual_seed(noise_seed)
        data = DataLoader(TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2), 4, shuffle=True)
        fit(model(), [(x + torch.rand(x.shape, generator=rng), y) for x, y in data])

    (finding,) = audit(train).findings
    assert finding.startswith("noise_seed moves what is trained, but nothing that was seen: ")


def test_one_of_two_loaders_that_one_line_goes_through() -> None:
    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        data, generator = TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2), torch.Generator().manual_seed(42)
        for loader in (DataLoader(data, 4, shuffle=True), DataLoader(data, 4, shuffle=True, generator=generator)):
            fit(model(), loader, epochs=1)

    found = audit(train)
    assert "shuffle" not in found.reached("seed")
    (finding,) = found.findings
    assert finding.startswith("1 of the passes of the order of examples (RandomSampler, ")
    assert "seed (in part)" in str(found)


def test_one_of_two_loaders_is_reached_by_each_seed() -> None:
    def train(seed: int = 0, data_seed: int = 0) -> None:
        torch.manual_seed(seed)
        data, generator = (
            TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2),
            torch.Generator().manual_seed(data_seed),
        )
        for loader in (DataLoader(data, 4, shuffle=True), DataLoader(data, 4, shuffle=True, generator=generator)):
            fit(model(), loader, epochs=1)

    found = audit(train)
    assert not found.findings
    assert not {"shuffle"} & (found.reached("seed") | found.reached("data_seed"))


class Backwards:
    """A sampler that draws nothing, for all that torch knows."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count - 1, -1, -1))

    def __len__(self) -> int:
        return self.count


class ByEpoch(Backwards):
    epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(random.Random(self.epoch).sample(range(self.count), self.count))


def test_a_sampler_written_by_hand() -> None:
    def train(seed: int = 0, kind: type[Backwards] = Backwards) -> None:
        torch.manual_seed(seed)
        fit(model(), DataLoader(TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2), 4, sampler=kind(12)))

    found = audit(train)
    assert not found.findings
    assert any(note.startswith("Not known to draw: Backwards (test_audit.py:") for note in found.notes)
    (finding,) = audit(train, arguments={"kind": ByEpoch}).findings
    assert finding.startswith("seed never reaches the order of examples (ByEpoch, ")


def test_weights_that_move_where_nothing_is_seen_to() -> None:
    entropy = random.SystemRandom()

    def train(seed: int = 0) -> None:
        torch.manual_seed(seed)
        data = DataLoader(TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2), 4, shuffle=True)
        fit(model(), [(x + entropy.random(), y) for x, y in data])

    (finding,) = audit(train).findings
    assert finding.startswith("Two trainings where all is equal end with other weights")


def test_a_training_is_cut_after_the_steps_that_are_asked_for() -> None:
    found = audit(right, steps=2)
    assert found.reached("seed") == ALL
    assert "Only the first 2 steps were looked at." in found.notes


def test_the_process_is_as_before(tmp_path: Path) -> None:
    folder = Path.cwd()

    def train(seed: int = 0) -> None:
        os.chdir(tmp_path)
        os.environ["A_SEED_OF_A_TRAINING"] = str(seed)
        torch.use_deterministic_algorithms(mode=True)
        right(seed)

    before = (
        torch.get_rng_state(),
        DataLoader._get_iterator,
        torch.randperm,
        random.shuffle,
        torch.random.default_generator,
    )
    audit(train)
    after = (
        torch.get_rng_state(),
        DataLoader._get_iterator,
        torch.randperm,
        random.shuffle,
        torch.random.default_generator,
    )
    assert Path.cwd() == folder
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert "A_SEED_OF_A_TRAINING" not in os.environ
    assert not torch.are_deterministic_algorithms_enabled()


# What cannot be audited


def test_a_knob_that_does_not_exist() -> None:
    with pytest.raises(TaskError, match=r"right\(seed, workers\) as a knob but got 'sed'. Did you mean 'seed'?"):
        audit(right, knobs="sed")


def test_no_knob_at_all() -> None:
    with pytest.raises(TaskError, match="a parameter named after a seed"):
        audit(lambda: None)


def test_a_function_that_needs_another_argument() -> None:
    def train(path: str, seed: int = 0) -> None: ...

    with pytest.raises(TaskError, match="Expected a value for path, which train needs"):
        audit(train)
    with pytest.raises(TaskError, match=r"but got 'pth'\. Did you mean 'path'?"):
        audit(train, arguments={"path": "", "pth": ""})


def test_a_training_in_which_nothing_of_torch_is_seen() -> None:
    def train(seed: int = 0) -> None: ...

    with pytest.raises(TaskError, match="nothing was seen"):
        audit(train)


def test_a_training_that_raises_with_one_value() -> None:
    def train(seed: int = 0) -> None:
        right(seed)
        if seed:
            raise ValueError("only 0")

    with pytest.raises(TaskError, match=r"(?s)Expected train to train with seed=1 but it raised:.*ValueError: only 0"):
        audit(train)


@pytest.mark.parametrize("knobs", [{"seed": (1, 1)}, {"seed": 3}])
def test_two_values_that_are_not_two(knobs: Any) -> None:
    with pytest.raises(TaskError, match="two different values for the knob 'seed'"):
        audit(right, knobs=knobs)


def test_sources_that_no_seed_reaches() -> None:
    with pytest.raises(TaskError, match="sources that a seed can reach"):
        assert_seed_reaches(right, "seed", "low_level")
