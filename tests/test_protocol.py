"""Which seed each run gets for each source: the whole of what "varies" and "held" mean."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.errors import PerturbationError, ProtocolError
from stabilitykit.protocol import (
    NoiseProtocol,
    Perturbation,
    RunPlan,
    Source,
    derive_seed,
    parse_perturbation,
    parse_sources,
)

SEEDED = [source for source in Source if source is not Source.LOW_LEVEL]

LATE = [source for source in Source if source is not Source.INIT]

sources = st.frozensets(st.sampled_from(Source))
base_seeds = st.integers(0, 2**70)


@given(vary=sources, seed=base_seeds, runs=st.integers(2, 12))
def test_what_varies_has_another_seed_in_each_run_and_what_is_held_one_in_all(vary, seed, runs):
    plans = NoiseProtocol(vary, runs=runs, seed=seed).plans()
    for source in SEEDED:
        assert len({plan.seed(source) for plan in plans}) == (runs if source in vary else 1)
    low_level = {plan.low_level for plan in plans}
    assert len(low_level) == runs if Source.LOW_LEVEL in vary else low_level == {None}
    assert [plan.index for plan in plans] == list(range(runs))


@given(vary=sources, perturb=st.sampled_from([None, "ulp", "bit"]), seed=base_seeds, runs=st.integers(2, 6))
def test_more_runs_extend_a_study(vary, perturb, seed, runs):
    few, many = (NoiseProtocol(vary, perturb, runs=r, seed=seed).plans() for r in (runs, runs + 5))
    assert many[:runs] == few


@given(one=sources, other=sources, seed=base_seeds)
def test_the_seed_of_a_source_does_not_depend_on_what_else_varies(one, other, seed):
    first, second = NoiseProtocol(one, seed=seed).plans(), NoiseProtocol(other, seed=seed).plans()
    for source in SEEDED:
        if (source in one) == (source in other):
            assert [plan.seed(source) for plan in first] == [plan.seed(source) for plan in second]


@given(seed=base_seeds)
def test_every_seed_fits_every_generator(seed):
    for plan in NoiseProtocol("all", "ulp", runs=3, seed=seed).plans():
        assert len(plan.seeds) == 6
        assert all(0 <= value < 2**32 for value in plan.seeds.values())


def test_seeds_stay_below_2_to_32_where_counting_crosses_it():
    # The offset of this base seed is so near the end that run 300,000 is beyond it.
    seed = next(s for s in range(100_000) if derive_seed(s, "init") > 2**32 - 300_000)
    seeds = [NoiseProtocol("init", seed=seed)._plan(index).init for index in range(0, 600_000, 1000)]
    assert max(seeds) > 2**32 - 300_000
    assert min(seeds) < 300_000
    assert len(set(seeds)) == len(seeds)


def test_another_base_seed_is_another_study():
    one, other = (NoiseProtocol("all", "ulp", seed=seed).plans() for seed in (0, 1))
    assert not {s for plan in one for s in plan.seeds.values()} & {s for plan in other for s in plan.seeds.values()}


def test_held_sources_do_not_share_a_seed():
    plan = NoiseProtocol().plans()[0]
    assert len({plan.seed(source) for source in SEEDED}) == len(SEEDED)


def test_a_constant_moves_the_seed_of_its_held_source_and_no_other():
    plain, moved = NoiseProtocol("init").plans()[0], NoiseProtocol("init", constants={"shuffle": 7}).plans()[0]
    assert moved.shuffle != plain.shuffle
    assert dataclasses.replace(moved, shuffle=plain.shuffle) == plain
    assert NoiseProtocol("init", constants={"shuffle": 0}).plans()[0] == plain


def test_the_perturbation_has_one_seed_that_the_index_reads_on_in():
    plans = NoiseProtocol(perturb="ulp", runs=4).plans()
    assert {plan.perturbation_seed for plan in plans} == {derive_seed(0, "perturbation")}
    assert len({dataclasses.replace(plan, index=0) for plan in plans}) == 1
    assert set(plans[0].seeds) == {"init", "shuffle", "augment", "stochastic", "low_level", "perturbation"}
    assert set(NoiseProtocol().plans()[0].seeds) == {"init", "shuffle", "augment", "stochastic", "low_level"}


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        (NoiseProtocol(), "none"),
        (NoiseProtocol("shuffle+init"), "init+shuffle"),
        (NoiseProtocol("all"), "all"),
        (NoiseProtocol(perturb="ulp"), "ulp"),
        (NoiseProtocol("init", "bit"), "init+bit"),
    ],
)
def test_a_protocol_is_named_for_what_differs(protocol, name):
    assert protocol.name == name


def test_protocols_and_plans_are_values():
    one = NoiseProtocol("init+shuffle", "ulp", runs=4, constants={"augment": 3, "stochastic": 1})
    two = NoiseProtocol([Source.SHUFFLE, "init"], Perturbation(), 4, constants={"stochastic": 1, Source.AUGMENT: 3})
    assert one == two
    assert len({one, two, NoiseProtocol()}) == 2
    assert len({*one.plans(), *two.plans()}) == 4
    assert pickle.loads(pickle.dumps(one)) == one
    assert isinstance(one.plans()[0], RunPlan)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.runs = 5


@pytest.mark.parametrize("runs", [1, 0, -3, 2.0, "10", True, None])
def test_fewer_than_two_runs_are_refused(runs):
    with pytest.raises(ProtocolError) as refusal:
        NoiseProtocol("init", runs=runs)
    assert str(refusal.value) == (
        f"Expected runs >= 2 but got runs={runs!r}. A spread is between runs, so it needs two; ten is a usual start."
    )


@pytest.mark.parametrize("seed", [-1, 0.5, "0", True, None])
def test_a_seed_that_is_no_number_is_refused(seed):
    with pytest.raises(ProtocolError, match=r"^Expected seed >= 0 but got seed="):
        NoiseProtocol("init", seed=seed)


def test_a_study_in_which_nothing_can_differ_by_mistake_is_refused():
    fixed = Perturbation(index=(0, 0), direction="up")
    with pytest.raises(ProtocolError, match="moves the same weight the same way in every run"):
        NoiseProtocol(perturb=fixed)
    assert NoiseProtocol("init", fixed).name == "init+ulp"


@pytest.mark.parametrize(
    ("vary", "constants", "message"),
    [
        ("init", {"init": 1}, "Expected constants= to name held sources, but got 'init': it varies."),
        ("init", {"low_level": 1}, "but got 'low_level': held, it is deterministic and has no seed."),
        ("init", {"all": 1}, "Expected each key of constants= to name one source but got 'all'."),
        ("init", {"shufle": 1}, "Did you mean 'shuffle'?"),
        ("init", {"shuffle": 0.5}, "Expected constants['shuffle'] to be an integer but got 0.5."),
    ],
)
def test_a_constant_of_what_is_not_held_is_refused(vary, constants, message):
    with pytest.raises(ProtocolError) as refusal:
        NoiseProtocol(vary, constants=constants)
    assert message in str(refusal.value)


def test_derived_seeds_are_the_same_on_every_machine():
    # What was trained elsewhere or by an earlier version can only be compared while these stay.
    assert derive_seed(0, "init") == 4_188_475_442
    assert NoiseProtocol("shuffle").plans()[1].seeds == {
        "init": 4_188_475_442,
        "shuffle": derive_seed(0, "shuffle") + 1,
        "augment": 2_735_765_783,
        "stochastic": 1_117_299_376,
        "low_level": None,
    }


class TestOnset:
    """From an epoch on, what varies varies; before it all runs are one."""

    @given(vary=st.frozensets(st.sampled_from(LATE), min_size=1), onset=st.integers(1, 50), seed=base_seeds)
    def test_all_runs_begin_under_one_plan_in_which_everything_is_held(self, vary, onset, seed):
        protocol = NoiseProtocol(vary, runs=4, seed=seed, onset=onset)
        plans = protocol.plans()
        (before,) = {plan.at_start for plan in plans}
        assert before == NoiseProtocol("none", runs=2, seed=seed).plans()[0] == protocol.base.plans()[0]
        assert {plan.first_varied_epoch for plan in plans} == {onset}
        assert all(plan.onset.vary == vary for plan in plans)

    @given(vary=st.frozensets(st.sampled_from(LATE), min_size=1), onset=st.integers(1, 50), runs=st.integers(2, 5))
    def test_the_seeds_after_it_are_those_of_a_study_without(self, vary, onset, runs):
        plans = NoiseProtocol(vary, runs=runs, onset=onset).plans()
        assert [dataclasses.replace(plan, onset=None) for plan in plans] == [*NoiseProtocol(vary, runs=runs).plans()]
        assert NoiseProtocol(vary, runs=runs, onset=onset).extended_to(9).plans()[:runs] == plans

    def test_none_is_a_plan_like_any_before(self):
        plan = NoiseProtocol("all", runs=2, onset=0).plans()[1]
        assert plan == NoiseProtocol("all", runs=2).plans()[1]
        assert plan.onset is None
        assert plan.at_start is plan
        assert plan.first_varied_epoch == 0

    def test_constants_hold_before_it_too(self):
        protocol = NoiseProtocol("shuffle", constants={"init": 3}, onset=2)
        assert protocol.plans()[0].at_start.init == protocol.plans()[0].init != NoiseProtocol("shuffle").plans()[0].init

    @pytest.mark.parametrize(
        ("vary", "onset", "name"),
        [("shuffle", 5, "shuffle@5"), ("augment+shuffle", 1, "shuffle+augment@1"), ("shuffle", 0, "shuffle")],
    )
    def test_tables_name_it(self, vary, onset, name):
        assert NoiseProtocol(vary, onset=onset).name == name

    @pytest.mark.parametrize("onset", [-1, 2.0, "3", None, True])
    def test_what_is_no_epoch_is_refused(self, onset):
        with pytest.raises(ProtocolError, match=f"Expected onset >= 0 but got onset={onset!r}"):
            NoiseProtocol("shuffle", onset=onset)

    @pytest.mark.parametrize(
        ("question", "message"),
        [
            ({"vary": "init"}, "'init', which has happened before training. With onset=3 write vary='shuffle'"),
            ({"vary": "all"}, r"write vary='shuffle\+augment\+stochastic\+low_level'\."),
            ({"vary": "init+augment"}, "write vary='augment'"),
            ({"vary": "none"}, "Expected something to vary from epoch 3 on"),
            (
                {"vary": "none", "perturb": "ulp"},
                "Expected onset= without perturb= but got onset=3 and perturb='ulp': the",
            ),
            ({"vary": "shuffle", "perturb": "bit"}, "Expected onset= without perturb="),
        ],
    )
    def test_what_cannot_begin_late_is_refused(self, question, message):
        with pytest.raises(ProtocolError, match=message):
            NoiseProtocol(**question, onset=3)
        NoiseProtocol(**question, onset=0)

    def test_its_plans_can_be_sent_to_another_process(self):
        plan = NoiseProtocol("shuffle", onset=3).plans()[1]
        assert pickle.loads(pickle.dumps(plan)) == plan


# The names of sources and perturbations


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
