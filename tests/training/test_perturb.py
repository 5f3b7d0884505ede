"""The smallest step of one weight, against `torch.nextafter` and `struct`, for every float that torch trains in."""

from __future__ import annotations

import collections
import copy
import math
import struct
import warnings

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from stabilitykit.errors import PerturbationError
from stabilitykit.protocol import Perturbation
from stabilitykit.training.perturb import _shuffled, perturb_model
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask

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


class Tables(nn.Module):
    """A transformer's beginning: tables before the first layer."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.registers = nn.Parameter(torch.randn(1, 2, 4))
        self.pos_embed = nn.Parameter(torch.randn(5, 4))
        self.norm = nn.LayerNorm((5, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(4, 2)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(12, 8), nn.Linear(8, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.embed(tokens).mean(1))


def pruned():
    layer = nn.Linear(12, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prune.random_unstructured(layer, "weight", amount=0.9)
    return layer


def hooked_weight_norm(layer):
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(layer)


class TestTheWeightThatCounts:
    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (Tables, "attention.in_proj_weight"),
            (lambda: nn.Sequential(weight_norm(nn.Linear(4, 3))), "0.parametrizations.weight.original1"),
            (lambda: nn.Sequential(spectral_norm(nn.Linear(4, 3))), "0.parametrizations.weight.original"),
            (lambda: weight_norm(nn.Linear(4, 3)), "parametrizations.weight.original1"),
            (lambda: hooked_weight_norm(nn.Linear(4, 3)), "weight_v"),
            (lambda: nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2)), "1.weight"),
            (lambda: nn.Sequential(zeros(nn.Linear(4, 4)), nn.Linear(4, 2)), "1.weight"),
            (lambda: nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 3)), "1.weight_ih_l0"),
            (lambda: nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4)), "0.weight"),
        ],
        ids=[
            "tables",
            "weight norm",
            "spectral norm",
            "bare",
            "old weight norm",
            "frozen",
            "zeros",
            "rows",
            "only rows",
        ],
    )
    @pytest.mark.parametrize("position", range(3))
    def test_is_one_of_the_first_layer_that_has_a_direction(self, make, name, position):
        assert perturb_model(make(), Perturbation(), seed=1, position=position).parameter == name

    def test_is_one_that_a_mask_keeps(self):
        for position in range(40):
            layer = pruned()
            record = perturb_model(layer, Perturbation(), seed=1, position=position)
            assert record.parameter == "weight_orig"
            assert layer.weight_mask[record.index] == 1

    def test_is_one_with_a_gradient(self):
        gradients = {"weight": torch.zeros(3, 4), "bias": None}
        gradients["weight"][1, 2] = gradients["weight"][2, 0] = 1e-30
        records = [perturb_model(nn.Linear(4, 3), Perturbation(), 5, position, gradients) for position in range(5)]
        assert {record.index for record in records[:4]} == {(1, 2), (2, 0)}
        assert len({(record.index, upwards(record)) for record in records[:4]}) == 4
        assert records[4].index == records[0].index

    def test_is_one_with_the_gradient_that_it_already_has(self):
        model = nn.Sequential(nn.Embedding(2000, 4, sparse=True), nn.Linear(4, 2))
        model(torch.tensor([7, 1500])).sum().backward()
        records = [perturb_model(model, Perturbation(), seed=5, position=position) for position in range(16)]
        assert {record.parameter for record in records} == {"0.weight"}
        assert {record.index[0] for record in records} == {7, 1500}
        assert len({(*record.index, upwards(record)) for record in records}) == 16

    def test_no_gradient_is_asked_for_where_none_is_known(self):
        model = nn.Linear(4, 3)
        known = {"weight": torch.ones(3, 4), "bias": torch.ones(3)}
        plain = [perturb_model(copy.deepcopy(model), Perturbation(), 3, i) for i in range(5)]
        assert plain == [perturb_model(copy.deepcopy(model), Perturbation(), 3, i, known) for i in range(5)]

    def test_the_choices_that_count_keep_their_order(self):
        known = {"weight": torch.ones(3, 4), "bias": None}
        known["weight"][:, 0] = 0
        model = nn.Linear(4, 3)
        of_all = [perturb_model(copy.deepcopy(model), Perturbation(), 3, i) for i in range(24)]
        of_those = [perturb_model(copy.deepcopy(model), Perturbation(), 3, i, known) for i in range(18)]
        assert of_those == [record for record in of_all if record.index[1]]

    @pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
    def test_a_tied_weight_has_two_names(self, name):
        model = Tied()
        before = model.embed.weight.detach().clone()
        model(torch.arange(6).reshape(2, 3)).sum().backward()
        assert perturb_model(model, Perturbation(parameter=name), seed=0).parameter == name
        assert int((model.embed.weight != before).sum()) == 1

    def test_a_weight_that_is_named_by_its_index_is_moved_whatever_it_is(self):
        model = zeros(nn.Linear(4, 3))
        record = perturb_model(model, Perturbation(index=(0, 0), direction="up"), seed=0)
        assert (record.old, model.weight[0, 0].item()) == ("0x0.0p+0", 2**-149)

    def test_a_parameter_that_is_named_is_moved_though_none_of_it_counts(self):
        assert perturb_model(zeros(nn.Linear(4, 3)), Perturbation(parameter="bias"), seed=0).parameter == "bias"

    @pytest.mark.parametrize("kind", ["ulp", "bit"])
    def test_a_model_without_such_a_weight_is_refused(self, kind):
        with pytest.raises(PerturbationError) as refusal:
            perturb_model(zeros(nn.Linear(4, 3)), Perturbation(kind), seed=0)
        assert str(refusal.value) == (
            f"Expected a weight of Linear that is felt when it moves, but each is 0, masked, frozen or without a "
            f"gradient in the first step. Name one: Perturbation({kind!r}, parameter='weight')."
        )

    def test_a_complex_weight_moves_in_its_real_part(self):
        model = nn.Module()
        model.weight = nn.Parameter(torch.full((2, 3), 1 + 2j, dtype=torch.complex64))
        record = perturb_model(model, Perturbation(direction="up"), seed=0)
        assert model.weight[record.index].item() == 1 + 2**-23 + 2j


def zeros(layer):
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(5000, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(nn.functional.dropout(self.norm(self.embed(tokens).mean(1)), 0.2, self.training))


@pytest.mark.trains
def test_a_recipe_moves_a_row_that_its_first_batch_uses_and_trains_as_without(train):
    tokens, labels = torch.arange(40).reshape(20, 2) + 100, torch.arange(20) % 3
    recipe = Recipe(
        Bag,
        (tokens, labels),
        (tokens, labels),
        epochs=2,
        batch_size=8,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.5),
    )
    moved = [train(recipe, perturb="ulp", index=index) for index in range(3)]
    assert all(100 <= record.perturbation["index"][0] < 140 for record in moved)
    assert len({record.fingerprint for record in moved}) == 3
    # Looking for the weight changes nothing else: a step that is too small to be felt leaves the training as it is.
    lost = Perturbation(parameter="norm.bias")  # all 0
    assert torch.equal(train(recipe).logits, train(recipe, perturb=lost).logits)


@pytest.mark.trains
def test_a_loop_of_ones_own_can_let_the_first_gradient_choose(train):
    tokens, labels = torch.arange(40).reshape(20, 2) + 100, torch.arange(20) % 3

    def loop(run):
        with run.stream("init"):
            model = Bag()
        nn.functional.cross_entropy(model(tokens), labels).backward()
        run.perturb(model)
        return model.eval()(tokens)

    record = train(LoopTask(loop, labels), perturb="ulp")
    assert record.perturbation["parameter"] == "embed.weight"
    assert 100 <= record.perturbation["index"][0] < 140


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
