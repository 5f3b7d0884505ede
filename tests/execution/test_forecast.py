"""A question that is noted in place of a study: it refuses what a study would refuse, and trains nothing."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest

from stabilitykit.errors import BudgetError, ConfigError, UsageError
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.metrics import floor_of_churn
from stabilitykit.execution.forecast import Forecast, _good_runs, summarize_plan
from stabilitykit.execution.question import Question
from stabilitykit.execution.session import measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.render.forecast_table import plan_table
from stabilitykit.store.catalog import Catalog
from stabilitykit.study.asserts import assert_accuracy_sd, assert_correlation, assert_ensemble_delta, assert_within
from stabilitykit.study.planned_study import PlannedStudy
from stabilitykit.testing import FakeTask
from stabilitykit.verdicts.budgets import Budget


class Ends(BaseException):
    """What a test's pass is ended by here."""


def end(what: str) -> NoReturn:
    raise Ends(what)


@pytest.fixture
def ask(make_session):
    def ask(task: Any = None, protocol: Any = None, *, runs: int = 20, vary: str = "init", **more: Any) -> Forecast:
        session = make_session()
        question = Question.of(task or FakeTask(), protocol or NoiseProtocol(vary, runs=runs), **more)
        return Forecast(session.prepare(question), session.store)

    return ask


@pytest.fixture
def no_training(monkeypatch):
    def fit(self: FakeTask, run: object) -> NoReturn:
        raise AssertionError("trained")

    monkeypatch.setattr(FakeTask, "fit", fit)


@pytest.mark.usefixtures("no_training")
def test_nothing_trains_and_nothing_is_stored(ask, tmp_path):
    question = ask(budget=Budget(accuracy_sd=12, disagreement=40), stops_early=True)
    plan = summarize_plan(question, "test_a", workers=1)
    assert plan["stored"] == 0
    assert plan["seconds_a_run"] is None
    assert plan["examples"] == 20
    assert [limit["alpha"] for limit in plan["limits"]] == [0.025, 0.025], "they share alpha"
    assert not list(tmp_path.rglob("runs"))


@pytest.mark.usefixtures("no_training")
def test_assertions_are_noted_and_numbers_end_the_pass(ask):
    forecast = ask()
    noted = forecast.asserted
    asked = forecast.question
    study: Any = PlannedStudy("fake", asked.protocol, asked.task.labels, asked.names, forecast.note, end)
    assert_accuracy_sd(study, at_most=12)
    assert_ensemble_delta(study, at_most=3)
    assert_correlation(study, at_least=0.9)
    assert noted == [Budget(accuracy_sd=12), Budget(ensemble_delta=3), Budget(correlation=0.9)]
    for wants in (lambda: study.accuracy, lambda: study.records[0], lambda: study.judge(noted[0]), lambda: study["f1"]):
        with pytest.raises(Ends):
            wants()
    with pytest.raises(BudgetError, match="never be judged"):
        assert_within(study, Budget(f1_sd=1.0))


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"budget": Budget(f1_sd=1.0)}, BudgetError),
        ({"budget": Budget(accuracy_sd=12), "runs": 2, "stops_early": True}, ConfigError),
        ({"metrics": {"accuracy": len}}, UsageError),
        ({"task": lambda run: None, "outputs": "logits"}, UsageError),
    ],
)
def test_bad_input_is_refused_as_in_earnest(ask, more, error):
    with pytest.raises(error):
        ask(**more)


def test_stored_runs_tell_seconds_spread_and_precision(ask, make_session):
    protocol = NoiseProtocol("init", runs=6)
    study = measure(FakeTask(), protocol, session=make_session())
    question = ask(budget=Budget(disagreement=2 * study.disagreement.value))
    plan = summarize_plan(question, "test_a", workers=2)
    (limit,) = plan["limits"]
    assert plan["stored"] == 6
    assert plan["seconds_a_run"] == pytest.approx(sum(record.seconds for record in study.records) / 6)
    assert limit["stored_share"] == pytest.approx(0.5)
    assert "of 6 stored runs" in limit["assumes"]
    other = summarize_plan(ask(vary="shuffle"), "test_b", workers=2)
    assert other["stored"] == 0
    assert other["seconds_from"] == "this task's runs under other protocols"
    assert summarize_plan(ask(FakeTask(examples=30)), "test_c", workers=2)["seconds_a_run"] is None


def test_an_onset_costs_the_epochs_from_it_on_and_its_part_of_those_before(ask, make_session, linear):
    study = measure(linear, NoiseProtocol("shuffle", runs=2), session=make_session())
    seconds = [record.seconds for record in study.records]
    a_run = (2 * seconds[0] + seconds[1]) / 3  # run 0 is the base run, which is stored with its own protocol too
    for onset, share in ((0, 1), (2, 1 / 3 + 2 / 3 / 5)):  # of 3 epochs
        protocol = NoiseProtocol("low_level", runs=5, onset=onset)
        plan = summarize_plan(ask(linear, protocol), "test_a", workers=1)
        assert plan["seconds_a_run"] == pytest.approx(share * a_run)
        assert plan["seconds_from"] == "this task's runs under other protocols"


def test_runs_with_an_onset_tell_of_whole_ones(ask, make_session, linear):
    study = measure(linear, NoiseProtocol("shuffle", runs=2, onset=1), session=make_session())
    (stored,) = (
        entry for entry in Catalog(make_session().store.folder).entries() if not entry.about["protocol"]["vary"]
    )
    base = next(iter(_good_runs(stored).values()))["record"]["seconds"]  # the base run is a whole one
    whole = (3 / 2 * sum(record.seconds for record in study.records) + base) / 3  # of 3 epochs
    question = ask(linear, NoiseProtocol("shuffle", runs=5))
    assert summarize_plan(question, "test_a", workers=1)["seconds_a_run"] == pytest.approx(whole)


def test_a_spread_that_no_model_can_have_is_not_told_of(ask):
    plan = summarize_plan(ask(budget=Budget(disagreement=60)), "test_a", workers=1)
    assert [prospect["truth"] for prospect in plan["limits"][0]["prospects"]] == [0.5, 1.0, 1.25, 1.5]


@pytest.mark.parametrize(("low", "is_said"), [(12.5, True), (11.5, False)])
def test_the_flip_floor_of_stored_runs_goes_before_that_of_the_budget(ask, monkeypatch, low, is_said):
    floor = Estimate(low + 1, low, low + 2, runs=5, method="jackknife over runs")
    monkeypatch.setattr(Forecast, "estimate", lambda self, metric: floor if metric == "flip_floor" else None)
    plan = summarize_plan(ask(budget=Budget(accuracy_sd=12, disagreement=90)), "test_a", workers=1)
    assert floor_of_churn(90, 20) > 12
    assert ["flips of single examples alone give" in warning for warning in plan["warnings"]] == [True] * is_said


def test_studies_that_share_their_runs_cost_them_once(ask):
    plans = [summarize_plan(ask(runs=runs), name, workers=1) for runs, name in ((10, "a"), (30, "b"))]
    assert plan_table(plans)[-1].startswith("at most 30 runs to train, 0 stored: unknown time with 1 worker,")
