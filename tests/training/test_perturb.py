"""The smallest step of one weight, against `torch.nextafter` and `struct`, for every float that torch trains in."""

from __future__ import annotations

import collections
import copy
import math
import struct

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from stabilitykit.errors import PerturbationError
from stabilitykit.protocol import Perturbation
from stabilitykit.training.perturb import _shuffled, perturb_model

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def holding(*values: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([values], dtype=dtype))
    return model


def step(model: nn.Module, direction: str, column: int = 0) -> object:
    return perturb_model(model, Perturbation("ulp", index=(0, column), direction=direction), seed=0)


class TestUlp:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("value", [1.0, -1.0, 0.1, -3.7, 2.0, 1e-7, 0.0, -0.0])
    @pytest.mark.parametrize(("direction", "towards"), [("up", math.inf), ("down", -math.inf)])
    def test_a_step_goes_to_the_next_float(self, dtype, value, direction, towards):
        model = holding(value, dtype=dtype)
        old = model.weight.data.clone()
        record = step(model, direction)
        # torch.nextafter, of which float16 has none on every version, goes by the value in that dtype.
        if dtype is not torch.float16:
            assert torch.equal(model.weight.data, torch.nextafter(old, torch.full_like(old, towards)))
        assert (model.weight.data > old).item() == (direction == "up")
        assert (float.fromhex(record.old), float.fromhex(record.new)) == (old.item(), model.weight.item())

    @given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), up=st.booleans())
    def test_a_step_and_a_step_back_is_no_step(self, value, up):
        model = holding(value)
        try:
            step(model, "up" if up else "down")
        except PerturbationError:
            assert abs(value) == torch.finfo(torch.float32).max
            return
        assert model.weight.item() != value
        step(model, "down" if up else "up")
        assert model.weight.item() == value

    def test_the_record_names_the_bits_that_changed(self):
        record = step(holding(1.0), "up")
        assert (record.kind, record.parameter, record.index) == ("ulp", "weight", (0, 0))
        assert (record.old, record.new) == ((1.0).hex(), (1 + 2**-23).hex())
        assert record.bits == (0,)
        # From 1 down the exponent changes, and with it every bit of the fraction.
        assert step(holding(1.0), "down").bits == tuple(range(24))

    def test_only_the_one_weight_moves(self):
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
        model = model.to(memory_format=torch.channels_last)
        before = copy.deepcopy(model.state_dict())
        record = perturb_model(model, Perturbation("ulp"), seed=3)
        changed = {name: int((value != before[name]).sum()) for name, value in model.state_dict().items()}
        assert changed.pop(record.parameter) == 1
        assert set(changed.values()) == {0}
        assert model.state_dict()[record.parameter][record.index] != before[record.parameter][record.index]

    @pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
    def test_a_weight_without_a_next_float_is_refused(self, value):
        with pytest.raises(PerturbationError, match=r"^Expected a finite weight to step from, but weight holds"):
            step(holding(value), "up")

    def test_a_step_beyond_the_largest_float_is_refused_and_undone(self):
        largest = torch.finfo(torch.float32).max
        model = holding(largest)
        with pytest.raises(PerturbationError, match=r"but 3\.40\d*e\+38 would become inf"):
            step(model, "up")
        assert model.weight.item() == largest


class TestBit:
    @given(value=st.floats(width=32, allow_nan=False, allow_infinity=False), bit=st.integers(0, 31))
    @example(value=1.0, bit=30)
    def test_one_bit_is_flipped(self, value, bit):
        (old,) = struct.unpack("<I", struct.pack("<f", value))
        (expected,) = struct.unpack("<f", struct.pack("<I", old ^ (1 << bit)))
        model = holding(value)
        flip = Perturbation("bit", index=(0, 0), bit=bit)
        if not math.isfinite(expected):
            with pytest.raises(PerturbationError, match=r"Choose another weight, or a lower bit to flip\.$"):
                perturb_model(model, flip, seed=0)
            assert model.weight.item() == value
            return
        record = perturb_model(model, flip, seed=0)
        assert model.weight.item() == expected
        assert math.copysign(1, model.weight.item()) == math.copysign(1, expected)
        assert record.bits == (bit,)

    @pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 16), (torch.float32, 32), (torch.float64, 64)])
    def test_a_bit_beyond_the_width_is_refused(self, dtype, width):
        with pytest.raises(PerturbationError, match=rf"Expected bit < {width}, the width of weight \({dtype}\)"):
            perturb_model(holding(1.0, dtype=dtype), Perturbation("bit", index=(0, 0), bit=width), seed=0)


class TestChoice:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Linear(3, 2))

    def moved(self, seed: int, **values: object) -> object:
        return perturb_model(copy.deepcopy(self.model), Perturbation(**values), seed)

    def test_the_default_is_a_weight_of_the_first_layer_and_no_scale_or_bias(self):
        assert {self.moved(seed).parameter for seed in range(20)} == {"1.weight"}

    def test_the_seed_draws_index_and_direction(self):
        assert self.moved(3) == self.moved(3)
        records = [self.moved(seed) for seed in range(100)]
        assert len({record.index for record in records}) == 12
        assert 20 < sum(map(upwards, records)) < 80

    @pytest.mark.parametrize(
        ("values", "choices"),
        [
            ({}, 24),
            ({"direction": "down"}, 12),
            ({"kind": "bit"}, 12),
            ({"index": (1, 2)}, 2),
            ({"kind": "bit", "index": (1, 2)}, 1),
        ],
    )
    def test_the_runs_of_a_study_move_all_differently_while_there_are_choices(self, values, choices):
        records = [
            perturb_model(copy.deepcopy(self.model), Perturbation(**values), seed=5, position=position)
            for position in range(choices + 2)
        ]
        assert len({(record.index, record.new) for record in records}) == choices
        assert records[choices] == records[0]
        if "index" in values:
            assert {record.index for record in records} == {(1, 2)}
        if "direction" in values:
            assert not any(map(upwards, records))

    def test_drawing_touches_no_global_generator(self):
        state = torch.get_rng_state()
        self.moved(3)
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_weight_can_be_named(self):
        record = self.moved(0, parameter="2.weight", index=(1, 2))
        assert (record.parameter, record.index) == ("2.weight", (1, 2))

    def test_a_single_number_is_a_parameter_too(self):
        model = nn.Module()
        model.scale = nn.Parameter(torch.tensor(2.0))
        assert perturb_model(model, Perturbation(), seed=0).index == ()
        assert model.scale.item() != 2.0

    def test_a_name_that_does_not_exist_is_refused_with_those_near_it(self):
        with pytest.raises(PerturbationError) as refusal:
            self.moved(0, parameter="1.wieght")
        assert str(refusal.value).startswith(
            "Expected parameter= to be a name in model.named_parameters() but got '1.wieght'. Near it: 1.weight"
        )

    @pytest.mark.parametrize("index", [(3, 0), (0,), (0, 0, 0), (-1, 0)])
    def test_an_index_outside_is_refused(self, index):
        with pytest.raises(PerturbationError) as refusal:
            self.moved(0, index=index)
        assert str(refusal.value) == (f"Expected index= to lie inside '1.weight', of shape (3, 4), but got {index!r}.")

    def test_integer_weights_are_refused(self):
        model = nn.Module()
        model.codes = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
        with pytest.raises(PerturbationError, match=r"but Module has only torch\.int8 parameters"):
            perturb_model(model, Perturbation(), seed=0)
        with pytest.raises(PerturbationError, match=r"but 'codes' is torch\.int8: integers have no neighbouring float"):
            perturb_model(model, Perturbation(parameter="codes"), seed=0)

    def test_a_model_without_parameters_or_with_an_empty_one_is_refused(self):
        with pytest.raises(PerturbationError, match="Expected a model with parameters to perturb, but ReLU has none"):
            perturb_model(nn.ReLU(), Perturbation(), seed=0)
        model = nn.Module()
        model.nothing = nn.Parameter(torch.zeros(0, 2))
        with pytest.raises(PerturbationError, match=r"but 'nothing' is empty, of shape \(0, 2\)"):
            perturb_model(model, Perturbation(), seed=0)


def upwards(record: object) -> bool:
    return float.fromhex(record.new) > float.fromhex(record.old)


class TestShuffle:
    @given(count=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
    def test_each_number_comes_once_and_then_they_begin_again(self, count, seed):
        order = [_shuffled(count, seed, position) for position in range(count)]
        assert sorted(order) == list(range(count))
        assert _shuffled(count, seed, count) == order[0]

    @given(count=st.integers(10**6, 10**12), seed=st.integers(0, 2**32 - 1))
    def test_a_few_of_very_many_do_not_repeat(self, count, seed):
        order = [_shuffled(count, seed, position) for position in range(30)]
        assert len(set(order)) == 30
        assert all(0 <= number < count for number in order)

    def test_every_order_is_as_likely(self):
        orders = collections.Counter(tuple(_shuffled(3, seed, i) for i in range(3)) for seed in range(3000))
        assert len(orders) == 6
        assert all(400 < times < 600 for times in orders.values())  # 500 expected, SD 20


def test_a_record_is_written_as_json():
    record = step(holding(1.0), "up")
    assert record.to_json() == {
        "kind": "ulp",
        "parameter": "weight",
        "index": (0, 0),
        "old": "0x1.0000000000000p+0",
        "new": "0x1.0000020000000p+0",
        "bits": (0,),
    }
