"""A study as JSON: what `--stability-json` promises to whoever reads it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from stabilitykit.errors import BudgetExceededError, RunsFailedError
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.execution.session import measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.study.asserts import assert_alike, assert_reduction, assert_within
from stabilitykit.study.study import check_trained
from stabilitykit.study.summary import FORMAT, document, summarize
from stabilitykit.testing import FakeTask, fake_study
from stabilitykit.verdicts.budgets import Budget, Verdict
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.verdicts.limits import Limit, LimitJudgement
from tests.conftest import study_of

LABELS = torch.arange(30) % 3
LOGITS = nn.functional.one_hot(LABELS, 3) + torch.randn(5, 30, 3, generator=torch.Generator().manual_seed(0))


def test_a_study_is_its_question_its_numbers_and_its_runs(ask):
    study = ask(FakeTask(name="digits"), "init+shuffle", runs=3, seed=4)
    summary = summarize(study, "test_a.py::test_b[init]")
    question = ("test", "task", "vary", "perturb", "name", "seed", "runs", "verdict", "judgements", "notes")
    assert {name: summary[name] for name in question} == {
        "test": "test_a.py::test_b[init]",
        "task": "digits",
        "vary": ["init", "shuffle"],
        "perturb": None,
        "name": "init+shuffle",
        "seed": 4,
        "runs": 3,
        "verdict": None,
        "judgements": [],
        "notes": [],
    }
    assert summary["metrics"]["accuracy_sd"] == study.accuracy_sd.to_json()
    assert set(summary["metrics"]["accuracy_sd"]) == {"value", "low", "high", "sd_of_sd"}
    assert set(summary["metrics"]["disagreement"]) == {"value", "low", "high"}
    assert summary["environment"]["torch"] == torch.__version__
    assert summary["certificate"]["proven"] is True


def test_each_run_is_there_with_its_seeds_and_scores(ask):
    study = ask(FakeTask(), "all", perturb="ulp", runs=3)
    for index, (record, run) in enumerate(zip(summarize(study, "t")["records"], study.records, strict=True)):
        assert record["index"] == index
        assert record["seeds"] == dict(run.seeds)
        assert record["fingerprint"] == run.fingerprint
        assert record["status"] == "ok"
        assert record["seconds"] == run.seconds
        assert record["accuracy"] == pytest.approx(100 * (run.logits.argmax(-1) == study.labels).double().mean().item())
        assert record["cross_entropy"] == pytest.approx(
            nn.functional.cross_entropy(run.logits.double(), study.labels).item()
        )
        assert record["perturbation"] == dict(run.perturbation)
        assert "error" not in record


def test_the_document_says_a_shared_environment_once():
    one, two = (summarize(fake_study(LOGITS, LABELS), name) for name in "ab")
    for summary in (one, two):
        summary["environment"] = {"torch": "2"}
    odd = summarize(fake_study(LOGITS, LABELS), "c") | {"environment": {"torch": "3"}}
    made = document([one, two, odd])
    assert made["format"] == FORMAT == 1
    assert made["environment"] == {"torch": "2"}
    assert [study.get("environment") for study in made["studies"]] == [None, None, {"torch": "3"}]
    assert one["environment"] == {"torch": "2"}  # the summaries stay as they were
    assert document([]) == {"format": 1, "environment": {}, "studies": [], "comparisons": []}


def test_it_is_json_without_nan_or_infinity(ask):
    studies = [
        ask(FakeTask(), "all", runs=2),  # one pair has no interval
        fake_study(torch.ones(3, 30, 3), LABELS),  # constant outputs have no correlation
        fake_study(LOGITS[..., 0], LABELS.float()),
        fake_study(LOGITS, LABELS, metrics={"mine": lambda logits, labels: 1.0}),
    ]
    made = document(summarize(study, "t") for study in studies)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["studies"][0]["metrics"]["disagreement"]["high"] is None
    assert made["studies"][1]["metrics"]["correlation"]["value"] is None
    assert set(made["studies"][2]["metrics"]) == {"rmse", "rmse_sd", "correlation", "rmse_ensemble_delta"}
    assert set(made["studies"][2]["records"][0]) >= {"rmse"}
    assert {"mine", "mine_sd", "mine_ensemble_delta"} <= set(made["studies"][3]["metrics"])


def test_it_does_not_depend_on_who_trained_the_runs(make_session):
    def told(name, folder):
        study = measure(FakeTask(), NoiseProtocol("all", runs=3), session=make_session(name, folder=folder))
        summary = summarize(study, "t")
        for record in summary["records"]:
            del record["seconds"]
        return summary

    assert told("one", "a") == told("two", "a") == told("one", "b")


def test_a_failed_study_fails_without_numbers_and_names_its_error(make_session):
    def train(seed):
        raise ValueError("boom")

    study = study_of(make_session(), train, NoiseProtocol("all", runs=2), labels=LABELS)
    with pytest.raises(RunsFailedError):
        check_trained(study)
    summary = summarize(study, "t")
    assert summary["verdict"] == "fail"
    assert summary["metrics"] == {}
    assert [record["status"] for record in summary["records"]] == ["failed", "failed"]
    assert "ValueError: boom" in summary["records"][0]["error"]
    assert "accuracy" not in summary["records"][0]


def test_every_judgement_is_there_with_its_reason():
    study = fake_study(LOGITS, LABELS)
    assert_within(study, Budget(accuracy_sd=50))
    with pytest.raises(BudgetExceededError):
        assert_within(study, Budget(disagreement=0))
    summary = summarize(study, "t")
    assert summary["verdict"] == "fail"
    assert [(j["metric"], j["limit"], j["outcome"]) for j in summary["judgements"]] == [
        ("accuracy_sd", 50.0, "pass"),
        ("failed_runs", 0, "pass"),
        ("disagreement", 0.0, "fail"),
        ("failed_runs", 0, "pass"),
    ]
    assert [j["ratio"] for j in summary["judgements"]] == [2.0, None, 1.25, None]
    assert all(j["runs"] == len(study.records) for j in summary["judgements"])
    assert all(j["reason"].startswith(j["metric"]) for j in summary["judgements"] if j["metric"] != "failed_runs")


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        ([], None),
        (["pass"], "pass"),
        (["pass", "undecided", "pass"], "undecided"),
        (["undecided", "fail", "pass"], "fail"),
    ],
)
def test_the_worst_verdict_is_the_studys(outcomes, worst):
    estimate = Estimate(1, 0, 2, 3, "x")
    study = fake_study(LOGITS, LABELS)
    study.verdicts.extend(
        Verdict((LimitJudgement(Limit("a_sd", 1.0), estimate, 0.05, 0.05, Outcome(outcome)),)) for outcome in outcomes
    )
    assert summarize(study, "t")["verdict"] == worst


def test_what_was_judged_beside_others_is_there_and_counts():
    study, other = fake_study(LOGITS, LABELS, vary="init"), fake_study(LOGITS.flip(0) * 1.01, LABELS, vary="shuffle")
    assert_alike([study, other], within=1.5, measures=["disagreement"])
    summary = summarize(study, "t")
    assert summary["verdict"] == "pass"
    (relation,) = summary["relations"]
    assert relation == summarize(other, "t")["relations"][0]
    assert {name: relation[name] for name in ("kind", "outcome", "within", "studies")} == {
        "kind": "likeness",
        "outcome": "pass",
        "within": 1.5,
        "studies": ["init", "shuffle"],
    }
    (measure,) = relation["measures"]
    assert measure["metric"] == "disagreement"
    assert measure["low"] <= measure["value"] == 1.0 <= measure["high"] <= 1.5
    with pytest.raises(BudgetExceededError):
        assert_reduction(study, other, at_least=50)
    summary = summarize(study, "t")
    assert summary["verdict"] == "fail"
    assert summary["relations"][1]["kind"] == "reduction"
    assert summary["relations"][1]["baseline"] == other.task
    assert summary["relations"][1]["mean"]["value"] < 50
    json.dumps(summary, allow_nan=False)


def test_the_curve_of_each_run_is_there_where_it_was_asked_for(ask, linear):
    import dataclasses

    study = ask(dataclasses.replace(linear, curve=True), "init", runs=2)
    record = summarize(study, "t")["records"][1]
    assert [set(point) for point in record["curve"]] == [{"accuracy", "cross_entropy"}] * 3
    assert "curve" not in summarize(ask(linear, "init", runs=2), "t")["records"][1]
