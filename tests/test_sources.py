"""Names of sources and perturbations, and what is no name."""

from __future__ import annotations

import pytest

from stabilitykit.errors import PerturbationError, ProtocolError
from stabilitykit.protocol import Perturbation, Source, parse_perturbation, parse_sources


@pytest.mark.parametrize(
    ("vary", "sources"),
    [
        ("init", {Source.INIT}),
        (Source.SHUFFLE, {Source.SHUFFLE}),
        ("shuffle+init", {Source.INIT, Source.SHUFFLE}),
        (" low_level + stochastic ", {Source.LOW_LEVEL, Source.STOCHASTIC}),
        (["augment", Source.INIT], {Source.AUGMENT, Source.INIT}),
        (frozenset({"init"}), {Source.INIT}),
        ("none", set()),
        ((), set()),
        ("all", set(Source)),
    ],
)
def test_vary_names_sources_in_every_form(vary, sources):
    assert parse_sources(vary) == sources


@pytest.mark.parametrize("vary", ["dropout", "init+dropout", ["init", "dropout"], "", "init+", 3, None, [None], "INIT"])
def test_an_unknown_source_is_refused_by_name_with_the_names_there_are(vary):
    with pytest.raises(ProtocolError) as refusal:
        parse_sources(vary)
    assert str(refusal.value).startswith(
        "Expected vary= to name sources out of init, shuffle, augment, stochastic, low_level, joined by '+' or in a "
        "list, or 'all' or 'none', but got "
    )
    assert f"in vary={vary!r}." in str(refusal.value)


def test_a_misspelt_source_is_guessed():
    with pytest.raises(ProtocolError, match=r"but got 'shufle' in vary='init\+shufle'\. Did you mean 'shuffle'\?$"):
        parse_sources("init+shufle")


def test_perturb_names_a_perturbation():
    assert parse_perturbation(None) is None
    assert parse_perturbation("ulp") == Perturbation("ulp")
    assert parse_perturbation("bit") == Perturbation("bit", bit=0)
    given = Perturbation("ulp", parameter="fc.weight")
    assert parse_perturbation(given) is given


@pytest.mark.parametrize("perturb", ["epsilon", 3, True])
def test_an_unknown_perturbation_is_refused(perturb):
    with pytest.raises(PerturbationError) as refusal:
        parse_perturbation(perturb)
    assert str(refusal.value).startswith(
        f"Expected perturb= to be 'ulp', 'bit', a Perturbation or None but got perturb={perturb!r}."
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "nudge"}, "or 'bit' (one bit flipped) but got kind='nudge'."),
        ({"direction": "left"}, "Expected direction='up', 'down' or None but got direction='left'."),
        ({"bit": -1}, "Expected bit= to be a number from 0 (least significant) but got -1."),
        ({"bit": True}, "Expected bit= to be a number from 0 (least significant) but got True."),
        ({"bit": 0.5}, "Expected bit= to be a number from 0 (least significant) but got 0.5."),
        ({"index": 3}, "Expected index= to be a tuple of integers, one a dimension of the parameter, but got 3."),
        ({"index": (0, 1.5)}, "Expected index= to be a tuple of integers, one a dimension of the parameter, but got"),
    ],
)
def test_an_impossible_perturbation_is_refused_by_its_value(values, message):
    with pytest.raises(PerturbationError) as refusal:
        Perturbation(**values)
    assert message in str(refusal.value)


def test_a_perturbation_is_a_value_whatever_sequence_its_index_came_in():
    assert Perturbation(index=[0, 1]) == Perturbation(index=(0, 1))
    assert len({Perturbation(index=[0, 1]), Perturbation(index=(0, 1)), Perturbation()}) == 2


@pytest.mark.parametrize(
    ("values", "fixed"),
    [
        ({}, False),
        ({"index": (0,)}, False),
        ({"direction": "up"}, False),
        ({"index": (0,), "direction": "up"}, True),
        ({"kind": "bit"}, False),
        ({"kind": "bit", "index": (0,)}, True),
    ],
)
def test_a_perturbation_is_fixed_where_nothing_is_left_to_draw(values, fixed):
    assert Perturbation(**values).is_fixed == fixed
