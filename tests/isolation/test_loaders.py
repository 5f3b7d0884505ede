"""Loaders: passes that are left early, nested, or begun side by side, and the user's own settings."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

from stabilitykit.isolation.interception import Interception
from stabilitykit.isolation.loaders import OwnLoader
from stabilitykit.isolation.streams import seed_generators

DATA = TensorDataset(torch.arange(24))


def loader(kind=DataLoader, **options):
    return kind(DATA, batch_size=4, **{"shuffle": True, **options})


def order(batches):
    return [x for (batch,) in batches for x in batch.tolist()]


def intercepted(use, shuffle=1):
    with Interception(lambda source: shuffle).on():
        return use()


def test_a_pass_that_is_left_early_is_one_pass():
    def orders(batches):
        one = loader()
        for _, _batch in zip(range(batches), one, strict=False):
            pass
        return order(one)

    assert intercepted(lambda: orders(1)) == intercepted(lambda: orders(6))


def test_another_loader_in_between_moves_no_pass():
    def orders(*, evaluates):
        one, other = loader(), loader(shuffle=False)
        found = []
        for _ in range(2):
            found.append(order(one))
            if evaluates:
                order(other)
        return found

    assert intercepted(lambda: orders(evaluates=True)) == intercepted(lambda: orders(evaluates=False))


def test_two_loaders_of_one_dataset_have_two_orders():
    one, other = intercepted(lambda: [order(loader()), order(loader())])
    assert one != other


def test_passes_side_by_side_and_nested_are_those_of_their_loader():
    def nested(workers):
        one, other = loader(num_workers=workers), loader(num_workers=workers)
        inner = []
        outer = []
        for (batch,) in one:
            outer += batch.tolist()
            inner.append(order(other))
        return outer, inner

    def side_by_side(workers):
        one, other = loader(num_workers=workers), loader(num_workers=workers)
        second, first = iter(other), iter(one)
        return order(batch for pair in zip(first, second, strict=True) for batch in pair)

    outer, inner = intercepted(lambda: nested(0))
    assert outer == intercepted(lambda: order(loader()))
    assert len({tuple(one) for one in inner}) == 6
    assert (outer, inner) == intercepted(lambda: nested(2))
    assert intercepted(lambda: side_by_side(0)) == intercepted(lambda: side_by_side(2))


def test_a_loader_has_the_users_settings_after_each_pass():
    mine = torch.Generator().manual_seed(1)
    one = loader(generator=mine, worker_init_fn=print)
    state = mine.get_state()
    intercepted(lambda: order(one))
    assert one.generator is mine
    assert one.sampler.generator is mine
    assert one.worker_init_fn is print
    assert torch.equal(mine.get_state(), state)


def test_a_loader_moves_no_generator_around_it():
    def drawn(count, **options):
        seed_generators(3, torch.device("cpu"))
        for _ in range(count):
            order(loader(**options))
        return float(torch.rand(()))

    assert intercepted(lambda: drawn(1)) == intercepted(lambda: drawn(3)) == intercepted(lambda: drawn(0))
    assert intercepted(lambda: drawn(1, num_workers=2)) == intercepted(lambda: drawn(0))


def test_a_loader_of_ours_is_left_as_it_is():
    torch.manual_seed(5)
    expected = order(loader(num_workers=2))

    def ours():
        torch.default_generator.manual_seed(5)
        return order(loader(OwnLoader, num_workers=2, sampler=None, shuffle=False))

    assert intercepted(ours) == sorted(expected)


def test_an_iterator_from_before_goes_on_as_it_began():
    torch.manual_seed(5)
    expected = order(loader())
    torch.manual_seed(5)
    batches = iter(loader())
    first = next(batches)
    assert order([first]) + intercepted(lambda: order(batches)) == expected
