"""The weights that a run keeps: the final state dict, bit for bit, read when it is asked for."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from stabilitykit.errors import StoreError
from stabilitykit.execution.session import measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.run import combined_digest, state_digest
from tests.seeds import BASE_SEED
from tests.store_names import session_id

pytestmark = pytest.mark.trains

PROTOCOL = NoiseProtocol("init", runs=2, seed=BASE_SEED)


@pytest.fixture
def keeping(dropout_net):
    return dataclasses.replace(dropout_net, keep_weights=True)


def test_the_weights_are_those_that_the_fingerprint_is_of(ask, keeping):
    study = ask(keeping, "init", runs=2)
    for record in study.records:
        model = keeping.model()
        model.load_state_dict(dict(record.weights))
        assert combined_digest(state_digest(model)) == record.fingerprint


def test_a_model_with_the_weights_gives_the_logits(ask, keeping):
    record = ask(keeping, "init", runs=2).records[1]
    model = keeping.model()
    model.load_state_dict(dict(record.weights))
    with torch.no_grad():
        assert torch.equal(model.eval()(keeping.test[0]), record.logits)


def test_none_are_kept_unless_asked_for(ask, dropout_net, tmp_path):
    study = ask(dropout_net, "init", runs=2)
    assert all(record.weights is None for record in study.records)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_keeping_them_changes_no_bit_of_the_training(ask, dropout_net, keeping):
    one, other = ask(dropout_net, "all", runs=2), ask(keeping, "all", runs=2)
    assert [r.fingerprint for r in one.records] == [r.fingerprint for r in other.records]


def test_a_second_session_finds_them(make_session, keeping):
    first = measure(keeping, PROTOCOL, session=make_session("one"))
    second = measure(keeping, PROTOCOL, session=make_session("two"))
    assert [r.trained_by["session"] for r in second.records] == [session_id("one")] * 2
    for one, other in zip(first.records, second.records, strict=True):
        assert one.weights.keys() == other.weights.keys()
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_damaged_weights_are_trained_again(make_session, keeping, tmp_path):
    measure(keeping, PROTOCOL, session=make_session("one"))
    damaged = sorted(tmp_path.rglob("0001.*.safetensors"))[0]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    study = measure(keeping, PROTOCOL, session=make_session("two"))
    assert [r.trained_by["session"] for r in study.records] == [session_id("one"), session_id("two")]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.one.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.other(self.one(x)))


def test_tied_weights_are_kept_under_both_names(ask, keeping):
    weights = ask(dataclasses.replace(keeping, model=Tied), "init", runs=2).records[0].weights
    assert torch.equal(weights["one.weight"], weights["other.weight"])
    assert len(weights) == 6


def test_an_unknown_name_is_a_key_error(ask, keeping):
    weights = ask(keeping, "init", runs=2).records[0].weights
    assert "nothing" not in weights
    with pytest.raises(KeyError, match="nothing"):
        weights["nothing"]


def test_weights_that_were_pruned_while_they_are_used_are_an_error_that_says_so(ask, keeping, tmp_path):
    weights = ask(keeping, "init", runs=2).records[0].weights
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(StoreError, match="was the store pruned"):
        dict(weights)


@pytest.mark.slow
def test_a_child_process_sends_them(make_session, keeping):
    here = measure(keeping, PROTOCOL, session=make_session("one", folder="here"))
    there = measure(keeping, PROTOCOL, session=make_session("one", folder="there", isolation="process"))
    for one, other in zip(here.records, there.records, strict=True):
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_ensembles_have_none(ask, keeping):
    study = ask(keeping, "init", runs=4).ensembles(2)
    assert study.recipe is None
    assert all(record.weights is None for record in study.records)
