"""Functions of torch that a test has replaced: each is found, counts by its content, and can be sent to a child."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from unittest import mock

import cloudpickle
import pytest
import torch
from torch import nn

from stabilitykit.errors import UsageError
from stabilitykit.training import replaced_functions
from stabilitykit.training.environment import current_environment

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("torch_as_installed")


def mine(x, inplace=False):
    return x


def other(x, inplace=False):
    return -x


class MyLinear(nn.Linear):
    pass


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def softmax(self, x, dim):
        return self.scale * x


def torchs_wrapper_around(function):
    return torch.no_grad()(function)


REPLACED = {
    "torch.nn.functional.relu": (nn.functional, "relu", mine),
    "torch.optim.sgd.SGD.step": (torch.optim.SGD, "step", mine),
    "torch.optim.adam.Adam.step": (torch.optim.Adam, "step", torchs_wrapper_around(mine)),
    "torch.nn.modules.linear.Linear.forward": (nn.Linear, "forward", lambda self, x: x),
    "torch.sin": (torch, "sin", mine),
    "torch.Tensor.backward": (torch.Tensor, "backward", mine),
    "torch.nn.init.kaiming_uniform_": (
        nn.init,
        "kaiming_uniform_",
        functools.wraps(nn.init.kaiming_uniform_)(lambda x: x),
    ),
    "torch.nn.modules.linear.Linear": (nn.modules.linear, "Linear", MyLinear),
    "torch.nn.functional.gelu": (nn.functional, "gelu", nn.functional.silu),
    "torch.tanh": (torch, "tanh", torch.sigmoid),
    "torch.Tensor.tanh": (torch.Tensor, "tanh", torch.Tensor.sigmoid),
    "torch.nn.functional.dropout": (nn.functional, "dropout", functools.partial(nn.functional.dropout, p=0.1)),
    "torch.nn.functional.softmax": (nn.functional, "softmax", Scaled(2).softmax),
    "torch.nn.modules.activation.ReLU.forward": (nn.ReLU, "forward", functools.partialmethod(mine, inplace=True)),
}


def test_nothing_is_found_where_nothing_is_replaced():
    nn.Linear(1, 1)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)]).step()  # of which torch wraps the method, once
    assert replaced_functions.find(ROOT) == ({}, {})


@pytest.mark.parametrize("name", REPLACED)
def test_a_replaced_function_is_found_wherever_it_is(name, monkeypatch):
    owner, member, value = REPLACED[name]
    monkeypatch.setattr(owner, member, value)
    hashes, values = replaced_functions.find(ROOT)
    assert name in hashes
    assert hashes.keys() == values.keys()


def test_torchs_own_wrapper_around_a_replaced_step_changes_nothing(monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", mine)
    before = replaced_functions.find(ROOT)
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    assert torch.optim.SGD.step is not mine
    assert replaced_functions.find(ROOT) == before


def test_two_of_another_content_do_not_match(monkeypatch, tmp_path):
    found = []
    for function in (mine, other, mine):
        monkeypatch.setattr(nn.functional, "relu", function)
        found.append(current_environment("cpu", 1, tmp_path).must_match)
    monkeypatch.undo()
    plain = current_environment("cpu", 1, tmp_path).must_match
    assert found[0] == found[2]
    assert len({str(one["replaced"]) for one in [*found, plain]}) == 3


def test_bound_arguments_count(monkeypatch):
    found = []
    for p in (0.1, 0.2):
        monkeypatch.setattr(nn.functional, "dropout", functools.partial(nn.Dropout.forward, p=p))
        found.append(replaced_functions.find(ROOT)[0])
        monkeypatch.setattr(nn.functional, "dropout", Scaled(p).softmax)
        found.append(replaced_functions.find(ROOT)[0])
    assert len({str(hashes) for hashes in found}) == len(found)


def test_another_process_is_given_them(monkeypatch, tmp_path):
    monkeypatch.setattr(nn.functional, "relu", mine)
    monkeypatch.setattr(torch.optim.SGD, "step", other)
    sent = cloudpickle.dumps(current_environment("cpu", 1, tmp_path))
    monkeypatch.undo()
    received = cloudpickle.loads(sent)
    monkeypatch.setattr(nn.functional, "relu", nn.functional.relu)  # to be put back
    monkeypatch.setattr(torch.optim.SGD, "step", torch.optim.SGD.step)
    received.restore()
    assert nn.functional.relu(-1) == -1
    assert torch.optim.SGD.step(3) == -3
    assert current_environment("cpu", 1, tmp_path).must_match == received.must_match


def test_one_that_cannot_be_read_is_refused(monkeypatch):
    lock = threading.Lock()
    monkeypatch.setattr(torch, "sin", lambda x: lock and x)
    with pytest.raises(UsageError, match=r"^Expected torch.sin to be torch's own, or a function of Python that can be"):
        replaced_functions.find(ROOT)


def test_a_mock_is_found(monkeypatch):
    monkeypatch.setattr(torch, "sin", mock.MagicMock())
    assert [name for name, _ in replaced_functions._replaced()] == ["torch.sin"]


def test_code_that_is_put_into_a_function_of_torch_is_found_and_so_is_its_return(monkeypatch):
    assert not replaced_functions.find(ROOT)[0]
    monkeypatch.setattr(nn.functional.relu, "__code__", mine.__code__)
    assert "torch.nn.functional.relu" in replaced_functions.find(ROOT)[0]
    monkeypatch.undo()
    assert not replaced_functions.find(ROOT)[0]


def test_all_functions_are_looked_at_again_only_where_one_may_be_another(monkeypatch):
    def looks():
        return {*map(id, replaced_functions._looks.values())}

    nothing, before = replaced_functions.find(ROOT), looks()
    nn.Linear(1, 1).register_forward_hook(lambda *_: None).remove()  # a class of torch's counts its hooks
    assert replaced_functions.find(ROOT) == nothing
    assert looks() == before
    monkeypatch.setattr(nn.functional, "relu", mine)
    replaced_functions.find(ROOT)
    assert looks() != before
