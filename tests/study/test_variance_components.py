"""Does the conclusion depend on the constant? Studies crossed over constants of held sources, and others."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from stabilitykit.errors import ProtocolError, TaskError
from stabilitykit.estimates.anova import MeanSquares
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.study.variance_components import variance_components
from stabilitykit.testing import FakeTask, fake_study


@pytest.fixture
def crossed(ask):
    def crossed(task, vary="init", *, runs=5, source="shuffle", constants=(0, 1, 2), **options):
        return [ask(task, vary, runs=runs, constants={source: k}, **options) for k in constants]

    return crossed


def studies_of(table, **changes):
    """A column of losses each: two equal logits, the right class ahead by what gives the loss."""
    found = []
    for k, column in enumerate(np.asarray(table, dtype=np.float64).T):
        logits = [[[-math.log(math.expm1(loss)), 0.0]] for loss in column]
        study = fake_study(torch.tensor(logits, dtype=torch.float64), [0])
        protocol = NoiseProtocol("init", runs=len(column), constants={"shuffle": k})
        found.append(dataclasses.replace(study, protocol=protocol, **changes))
    return found


class TestNumbers:
    table = 1 + 0.01 * np.random.default_rng(0).normal(size=(6, 3)) + [0.0, 0.1, 0.3]

    def test_are_those_of_the_table_of_scores(self):
        found = variance_components(studies_of(self.table), "cross_entropy")
        squares = MeanSquares.of(self.table)
        assert found.rest.value == pytest.approx(squares.rest.value)
        assert found.columns.value == pytest.approx((squares.columns.value - squares.rest.value) / 6)
        assert found.within.value == pytest.approx(self.table.var(axis=0, ddof=1).mean())
        assert [sd.value for sd in found.sds] == pytest.approx(list(self.table.std(axis=0, ddof=1)))
        assert found.ratio.value == pytest.approx(
            max(found.sds[i].value for i in range(3)) / min(found.sds[i].value for i in range(3))
        )
        assert found.sd("columns").value == pytest.approx(math.sqrt(found.columns.value))

    @pytest.mark.trains
    def test_are_those_of_real_studies(self, crossed, dropout_net):
        studies = crossed(dropout_net)
        found = variance_components(studies, "cross_entropy")
        assert [sd.value for sd in found.sds] == [study["cross_entropy_sd"].value for study in studies]
        assert [sd.low for sd in found.sds] == [study["cross_entropy_sd"].low for study in studies]
        assert found.constants == ({"shuffle": 0}, {"shuffle": 1}, {"shuffle": 2})
        assert (found.varies, found.runs) == ("init", 5)

    def test_the_seeds_of_what_varies_are_those_of_every_study(self, crossed, dropout_net):
        studies = crossed(dropout_net)
        seeds = [[(record.seeds["init"], record.seeds["augment"]) for record in s.records] for s in studies]
        assert seeds[0] == seeds[1] == seeds[2]
        assert len({study.records[0].seeds["shuffle"] for study in studies}) == 3

    @pytest.mark.trains
    def test_a_constant_that_reaches_nothing_leaves_nothing_but_the_rows(self, crossed, linear):
        found = variance_components(crossed(linear, source="stochastic"), "cross_entropy")
        assert found.columns.value == found.rest.value == 0
        assert found.rows.value == pytest.approx(found.within.value)
        assert found.rows.value > 0
        assert found.ratio.value == 1
        assert not found.depends_on_constant

    def test_of_one_weight_moved_may_be_asked_as_well(self, ask, conv_net):
        studies = [ask(conv_net, perturb="ulp", runs=4, constants={"init": k}) for k in (0, 1)]
        assert variance_components(studies, "cross_entropy").varies == "ulp"

    def test_constants_of_several_sources_are_a_column_by_their_combination(self, ask):
        constants = ({"shuffle": 1}, {"augment": 1}, {"shuffle": 1, "augment": 1, "stochastic": 0})
        found = variance_components([ask(FakeTask(), "init", constants=c) for c in constants], "accuracy")
        assert found.constants == (
            {"augment": 0, "shuffle": 1},
            {"augment": 1, "shuffle": 0},
            {"augment": 1, "shuffle": 1},
        )

    def test_a_spread_that_depends_on_the_constant_is_found(self):
        draw = np.random.default_rng(1)
        table = 2 + draw.normal(size=(12, 2)) * [0.01, 0.1]
        found = variance_components(studies_of(table), "cross_entropy")
        assert found.depends_on_constant
        assert "the SD depends on the constant of shuffle: largest ratio of two" in str(found)


class TestText:
    def test_is_a_table_of_sds_and_the_answer(self):
        lines = str(variance_components(studies_of(TestNumbers.table), "cross_entropy")).splitlines()
        assert lines[0] == "SD of cross_entropy of fake by source, 6 seeds under 3 constants"
        names = [line.split("  ")[0] for line in lines[1:-1]]
        assert names == [
            "init, whatever shuffle",
            "shuffle, whatever init",
            "interaction and residual",
            "init under one constant",
            "under shuffle=0",
            "under shuffle=1",
            "under shuffle=2",
        ]
        assert lines[-1].startswith("the SD is not shown to depend on the constant of shuffle: largest ratio of two ")

    def test_says_where_nothing_varies_and_where_one_constant_alone_stands_still(self):
        still = variance_components(studies_of(np.ones((4, 2))), "cross_entropy")
        assert str(still).endswith("nothing varies under any constant of shuffle")
        half = variance_components(studies_of([[1, 1], [1, 2], [1, 3.0]]), "cross_entropy")
        assert str(half).endswith("under one constant all runs are equal, and under another they are not")

    def test_json_has_every_number(self):
        found = variance_components(studies_of(TestNumbers.table), "cross_entropy")
        read = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert read["variances"]["rest"]["value"] == found.rest.value
        assert read["component_sds"]["rest"]["value"] == math.sqrt(found.rest.value)
        assert read["constants"][1] == {"shuffle": 1}
        assert read["largest_ratio"]["low"] == found.ratio.low
        two = variance_components(studies_of([[1, 1], [2, 3.0]]), "cross_entropy").to_json()
        assert two["largest_ratio"]["high"] is None


class TestErrors:
    def test_fewer_than_two_studies(self, ask):
        with pytest.raises(ProtocolError, match="two constants or more but got 1"):
            variance_components([ask(FakeTask(), "init")], "accuracy")

    def test_what_is_no_study(self, ask):
        with pytest.raises(TaskError, match="Expected a study but got"):
            variance_components([ask(FakeTask(), "init"), FakeTask()], "accuracy")

    def test_different_tasks(self, crossed):
        one, two = crossed(FakeTask(), constants=(0, 1))
        with pytest.raises(TaskError, match="one task but got fake and other"):
            variance_components([one, dataclasses.replace(two, task="other")], "accuracy")
        with pytest.raises(TaskError, match="with other labels"):
            variance_components([one, dataclasses.replace(two, labels=two.labels[1:])], "accuracy")

    def test_two_tasks_of_one_name(self, ask, linear):
        longer = dataclasses.replace(linear, epochs=linear.epochs + 1)
        other_rate = dataclasses.replace(linear, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01))
        one = ask(linear, "init", runs=3)
        for task in (longer, other_rate):
            two = ask(task, "init", runs=3, constants={"shuffle": 1})
            with pytest.raises(TaskError, match="differ in model, data or settings"):
                variance_components([one, two], "accuracy")

    @pytest.mark.parametrize("onset", [0, 2])
    def test_another_onset_is_another_question(self, ask, linear, onset):
        one = ask(linear, "shuffle", runs=3, onset=1)
        two = ask(linear, "shuffle", runs=3, onset=onset, constants={"init": 1})
        with pytest.raises(ProtocolError, match="vary='shuffle@1' and vary='shuffle"):
            variance_components([one, two], "accuracy")

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"vary": "augment"}, "vary='init' and vary='augment'"),
            ({"perturb": "ulp"}, r"vary='init' and vary='init\+ulp'"),
            ({"seed": 1}, "seed=0 and seed=1"),
            ({"runs": 4}, "the same runs in every study but got 3 and 4"),
        ],
    )
    def test_studies_that_are_not_crossed(self, ask, other, message):
        one = ask(FakeTask(), "init")
        two = ask(FakeTask(), **{"vary": "init", "constants": {"shuffle": 1}, **other})
        with pytest.raises(ProtocolError, match=message):
            variance_components([one, two], "accuracy")

    def test_one_constant_twice_though_it_is_named_once(self, ask):
        one, two = ask(FakeTask(), "init"), ask(FakeTask(), "init", constants={"shuffle": 0})
        with pytest.raises(ProtocolError, match="got one twice"):
            variance_components([one, two], "accuracy")
        three = ask(FakeTask(), "init", constants={"shuffle": 1})
        with pytest.raises(ProtocolError, match=r"got one twice \(shuffle=1\)"):
            variance_components([one, three, three], "accuracy")

    def test_an_unknown_score_and_an_unknown_component(self, crossed):
        studies = crossed(FakeTask())
        with pytest.raises(TaskError, match=r"got 'acc'\. It has accuracy, cross_entropy"):
            variance_components(studies, "acc")
        with pytest.raises(ProtocolError, match="Expected rows, columns, rest or within but got 'row'"):
            variance_components(studies, "accuracy").sd("row")
