"""The self-test: sound gates turn red for every fault, loose and broken ones are found out, the study stays itself."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from torch import nn

from stabilitykit.errors import BudgetExceededError, SelfTestError, StabilityError
from stabilitykit.estimates.meaning import Meaning
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.study import selftest as module
from stabilitykit.study.asserts import assert_alike, assert_disagreement, assert_reduction, assert_within
from stabilitykit.study.selftest import selftest
from stabilitykit.study.study import Policy, Study
from stabilitykit.testing import FakeTask, fake_scores, fake_study
from stabilitykit.training.certificate import Certificate
from stabilitykit.verdicts.budgets import Budget
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.verdicts.limits import FailedRuns, Limit
from stabilitykit.verdicts.thresholds import at_least, at_most


def study_of(runs: int = 10, examples: int = 600, noise: float = 1.0, **options) -> Study:
    """A model of ten classes that is right about 88 % of the examples."""
    generator = torch.Generator().manual_seed(runs)
    labels = torch.arange(examples) % 10
    sure = 4 * nn.functional.one_hot(labels, 10) + torch.randn(examples, 10, generator=generator)
    return fake_study(sure + noise * torch.randn(runs, examples, 10, generator=generator), labels, **options)


def traced(study: Study) -> Study:
    records = tuple(dataclasses.replace(record, trace=("a", "b")) for record in study.records)
    certificate = Certificate(True, "two epochs", ("a", "b"))
    return dataclasses.replace(
        study, records=records, certificate=certificate, protocol=NoiseProtocol("init", runs=len(records))
    )


def budget_of(study: Study, metric: str, times: float | None = None) -> Budget:
    """Leave an SD more room than a mean over pairs, which is known better."""
    times = times or (1.2 if metric.endswith("_sd") else 1.05)
    value = study[metric].value
    return Budget(**{metric: 1 - times * (1 - value) if metric == "correlation" else times * abs(value)})


SOUND = ["accuracy_sd", "flip_floor", "cross_entropy_sd", "disagreement", "correlation"]


@pytest.mark.slow
@pytest.mark.parametrize("metric", SOUND)
@pytest.mark.parametrize("runs", [3, 5, 10, 20])
def test_a_budget_near_what_was_measured_turns_red_for_every_fault(metric, runs):
    study = traced(study_of(runs))
    selftest(study, budget_of(study, metric))
    assert study.journal.selftests == ["self-test: 3 planted faults turned it red"]
    assert study.notes[-1] == study.journal.selftests[0]


def test_several_limits_are_one_gate_in_which_each_limit_can_fire():
    study = traced(study_of())
    limits = {name: limit for metric in SOUND for name, limit in budget_of(study, metric).limits.items()}
    selftest(study, Budget(**limits))
    assert len(study.journal.selftests) == 1
    loose = Budget(**limits | {"correlation": -1})
    with pytest.raises(
        SelfTestError, match=r"this gate cannot fire: however much the deviations of the 10 runs .* correlation comes"
    ):
        selftest(study, loose)


def test_a_loose_budget_does_not_notice_a_broken_run_and_one_that_would_is_named():
    study = study_of(20)
    with pytest.raises(SelfTestError, match="one run broken: the outputs of one run of 20") as failure:
        selftest(study, Budget(disagreement=60))
    message = str(failure.value)
    assert "the self-test planted 1 fault that it does not notice" in message
    assert f"disagreement from {study.disagreement} to " in message
    tight, loose = map(float, re.search(r"disagreement from ([\d.]+) to ([\d.]+) would notice it", message).groups())
    for limit in (1.01 * tight, 0.99 * loose):
        selftest(study, Budget(disagreement=limit))
        assert study.judge(Budget(disagreement=limit)).outcome is not Outcome.FAIL
    with pytest.raises(SelfTestError):
        selftest(study, Budget(disagreement=1.02 * loose))


@pytest.mark.parametrize("times", [1.1, 2.0])
def test_one_of_a_hundred_runs_is_noticed_by_an_sd_and_by_no_mean_over_pairs(times):
    """Then no user could tighten the budget, so it is said and not refused."""
    study = traced(study_of(100, examples=300))
    selftest(study, budget_of(study, "disagreement", times))
    (note,) = study.journal.selftests
    assert note.startswith(
        "self-test: 2 planted faults turned it red; one broken run of 100 it cannot notice, whatever"
    )
    assert "limit accuracy_sd too" in note
    selftest(study, budget_of(study, "accuracy_sd", times))
    assert study.journal.selftests[1] == "self-test: 3 planted faults turned it red"


@pytest.mark.parametrize("runs", [6, 20])
def test_an_ensemble_delta_is_lowered_by_a_broken_run_and_says_so(runs):
    """Of few runs the interval gets so wide that a tight budget would be undecided: no reason to ask for that."""
    study = traced(study_of(runs))
    selftest(study, budget_of(study, "ensemble_delta", 1.6))
    assert f"one broken run of {runs} it cannot notice" in study.journal.selftests[0]
    with pytest.raises(SelfTestError, match="this gate cannot fire"):
        selftest(study, Budget(ensemble_delta=90))


def test_models_that_learned_nothing_are_no_fault_of_the_gate():
    labels = torch.arange(300) % 2
    study = traced(fake_study(torch.randn(20, 300, 2, generator=torch.Generator().manual_seed(0)), labels))
    selftest(study, budget_of(study, "cross_entropy_sd", 6))
    assert "which is hardly worse than the others" in study.journal.selftests[0]


@pytest.mark.parametrize(
    "budget", [Budget(disagreement=95), Budget(accuracy_sd=50), Budget(correlation=-1), Budget(ensemble_delta=99)]
)
def test_a_budget_that_nothing_can_exceed_is_told(budget):
    with pytest.raises(SelfTestError, match="this gate cannot fire"):
        selftest(study_of(5), budget)


@pytest.mark.parametrize("metric", ["accuracy_sd", "disagreement", "cross_entropy_sd", "correlation"])
def test_equal_runs_get_noise_to_amplify(metric):
    one = study_of(5).records[0].logits
    study = traced(fake_study(one.expand(6, -1, -1), study_of(5).labels))
    selftest(study, Budget(**{metric: 1 if metric == "correlation" else 0}))
    assert study.journal.selftests == ["self-test: 3 planted faults turned it red"]


def test_an_accuracy_sd_beyond_what_flips_can_give_is_reached_by_models_that_get_worse():
    """Twice the budget is 6 points: 600 examples that flip on their own give 2 at most."""
    study = traced(study_of(10))
    selftest(study, Budget(accuracy_sd=3))
    assert study.journal.selftests == ["self-test: 3 planted faults turned it red"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_outputs_of_any_precision(dtype):
    study = study_of(6)
    logits = [record.logits.to(dtype) for record in study.records]
    other = fake_study(logits, study.labels)
    selftest(other, budget_of(other, "disagreement"))


def test_a_regression_is_judged_by_its_own_measures():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(200, generator=generator)
    study = traced(fake_study(targets + 0.1 * torch.randn(8, 200, generator=generator), targets))
    for metric in ("rmse_sd", "correlation"):
        selftest(study, budget_of(study, metric))
    assert study.journal.selftests == ["self-test: 3 planted faults turned it red"]


def test_tokens_without_a_label_are_left_where_they_are():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (30, 12), generator=generator)
    labels[:, 9:] = -100
    logits = 3 * nn.functional.one_hot(labels.clamp(min=0), 4) + torch.randn(8, 30, 12, 4, generator=generator)
    study = traced(fake_study(logits, labels))
    shuffled = module._shuffled(logits[0], Meaning.of(labels))
    assert torch.equal(shuffled[labels == -100], logits[0][labels == -100])
    assert torch.equal(shuffled[labels != -100].sort(0).values, logits[0][labels != -100].sort(0).values)
    assert not torch.equal(shuffled, logits[0])
    selftest(study, budget_of(study, "disagreement"))


def test_a_metric_of_ones_own_is_doubled_too_and_may_raise_on_a_broken_model():
    def f1(logits, labels):
        return float((logits.argmax(-1) == labels).double().mean())

    def picky(logits, labels):
        if (score := f1(logits, labels)) < 0.5:
            raise ZeroDivisionError("nothing to divide by")
        return score

    for metric in (f1, picky):
        study = study_of(6, metrics={"f1": metric})
        selftest(study, Budget(f1_sd=1.2 * study["f1_sd"].value))
        assert study.journal.selftests[0].startswith("self-test: 2 planted faults turned it red")


# What it proves: a gate in which a fault was planted does not get through


@pytest.mark.parametrize("metric", ["accuracy_sd", "cross_entropy_sd", "disagreement", "correlation"])
def test_a_gate_that_always_passes_is_found_out_for_both_kinds_of_faults(metric, monkeypatch):
    study = study_of()
    monkeypatch.setattr(Limit, "decide", lambda limit, estimate, alpha, beta: Outcome.PASS)
    with pytest.raises(SelfTestError) as failure:
        selftest(study, budget_of(study, metric))
    assert f"the spread doubled: at {metric} " in str(failure.value)
    assert "one run broken: " in str(failure.value)
    assert "a fault of the gate and not of your budget" in str(failure.value)
    assert study.journal.selftests == []


def test_a_gate_that_forgets_a_limit_is_found_out(monkeypatch):
    study, decide = study_of(), Limit.decide

    def forgetful(limit, estimate, alpha, beta):
        return Outcome.PASS if limit.metric == "disagreement" else decide(limit, estimate, alpha, beta)

    monkeypatch.setattr(Limit, "decide", forgetful)
    limits = {**budget_of(study, "accuracy_sd").limits, **budget_of(study, "disagreement").limits}
    with pytest.raises(SelfTestError) as failure:
        selftest(study, Budget(**limits))
    assert "the spread doubled: at disagreement" in str(failure.value)
    assert "accuracy_sd" not in str(failure.value).split("\n\n", 1)[1]


def test_a_comparison_of_traces_that_sees_nothing_is_found_out(monkeypatch):
    study = traced(study_of())
    monkeypatch.setattr(module, "check_bits", lambda study: None)
    with pytest.raises(SelfTestError, match="a seed leaked: run 0 with other weights"):
        selftest(study, budget_of(study, "disagreement"))


def test_where_undecided_does_not_fail_it_is_not_red():
    study = traced(study_of(10))
    budget = budget_of(study, "disagreement")  # one broken run makes the interval wide
    selftest(study, budget)
    selftest(study, budget, undecided_is_red=False)
    assert study.journal.selftests[0] == "self-test: 3 planted faults turned it red"
    assert "one broken run of 10 it cannot notice, whatever the budget for disagreement" in study.journal.selftests[1]


# What it leaves alone


def test_the_study_keeps_its_runs_its_numbers_and_its_verdicts():
    study = study_of()
    before = [record.logits.clone() for record in study.records]
    numbers = {name: study[name] for name in study.measures}
    budget = budget_of(study, "disagreement")
    assert_within(study, budget)
    verdicts = list(study.verdicts)
    selftest(study, budget)
    assert study.verdicts == verdicts
    assert {name: study[name] for name in study.measures} == numbers
    assert all(torch.equal(a, record.logits) for a, record in zip(before, study.records, strict=True))


def test_it_plants_the_same_faults_each_time():
    def message() -> str:
        with pytest.raises(SelfTestError) as failure:
            selftest(study_of(20), Budget(disagreement=60))
        return str(failure.value)

    assert message() == message()


def test_what_does_not_fail_is_tried_and_what_fails_is_not():
    tried = []
    study = dataclasses.replace(study_of(), policy=Policy(judged=lambda study, budget: tried.append(budget.limits)))
    assert_disagreement(study, at_most=40)
    assert tried == [{"disagreement": 40.0}]
    with pytest.raises(BudgetExceededError):
        assert_disagreement(study, at_most=1)
    assert len(tried) == 1


def test_a_failure_is_an_assertion_error_and_one_of_ours():
    with pytest.raises(AssertionError) as failure:
        selftest(study_of(), Budget(correlation=-1))
    assert isinstance(failure.value, StabilityError)


def test_the_control_of_a_real_study_notices_a_leaked_seed_and_a_black_box_says_that_it_cannot(ask):
    study = ask(FakeTask(examples=200, noise=0.5), "init", runs=5)
    assert study.control.trace
    selftest(study, Budget(accuracy_sd=1.2 * study.accuracy_sd.value))
    assert study.journal.selftests == ["self-test: 3 planted faults turned it red"]

    def black_box(seed):
        return torch.randn(90, 3, generator=torch.Generator().manual_seed(seed)) + 4 * nn.functional.one_hot(labels)

    labels = torch.arange(90) % 3
    study = ask(black_box, "all", runs=5, labels=labels)
    selftest(study, Budget(disagreement=1.2 * study.disagreement.value))
    assert study.journal.selftests[0].startswith(
        "self-test: 2 planted faults turned it red; a leaked seed it cannot notice"
    )


def test_runs_that_may_fail_are_no_part_of_the_faults():
    study = study_of(8)
    failed = dataclasses.replace(study.records[2], status="failed", logits=None)
    records = (*study.records[:2], failed, *study.records[3:])
    study = dataclasses.replace(study, records=records, max_failed_runs=1)
    selftest(study, Budget(disagreement=1.2 * study.disagreement.value, max_failed_runs=1))
    assert isinstance(study.judge(Budget(disagreement=50, max_failed_runs=1)).judgements[-1], FailedRuns)


# Gates that hold a study against others


def relatives_of(study, others, within, **measured):
    """What `assert_alike` hands to a self-test."""
    tried = []
    quiet = {"policy": Policy(lambda message: None, lambda study, gate: tried.append(gate))}
    first = dataclasses.replace(study, **quiet)
    assert_alike([first, *others], within, **measured)
    (gates,) = tried
    return first, gates


def test_alike_studies_turn_red_in_each_measure():
    study, gates = relatives_of(study_of(), [study_of(9)], 1.5, measures=["disagreement", "correlation"])
    selftest(study, gates)
    assert study.journal.selftests == ["self-test: 2 planted faults turned it red"]


def test_a_factor_that_nothing_can_exceed_is_found_out():
    """Two runs cannot disagree on more than nine tenths of ten classes' examples for long."""
    loud = study_of(9, noise=20.0)
    assert loud.disagreement.value > 60
    study, gates = relatives_of(study_of(10, noise=20.0), [loud], 2.0, measures=["disagreement"])
    with pytest.raises(SelfTestError, match=r"cannot fire: .* disagreement beside .* comes to 0\.\d+ times what is"):
        selftest(study, gates)


def test_a_likeness_that_is_left_undecided_is_no_gate_where_that_is_green():
    study, gates = relatives_of(study_of(3), [study_of(4)], 2.0, measures=["accuracy_sd"])
    selftest(study, gates)
    with pytest.raises(SelfTestError, match=r"the spread doubled: with accuracy_sd beside all .*Train more runs"):
        selftest(study, gates, undecided_is_red=False)


def test_a_reduction_turns_red_where_there_is_none():
    tried = []
    calm = dataclasses.replace(study_of(9, noise=0.3), policy=Policy(judged=lambda study, gate: tried.append(gate)))
    assert_reduction(calm, study_of(), at_least=10)
    selftest(calm, tried[0])
    assert calm.journal.selftests == ["self-test: 1 planted fault turned it red"]


@pytest.mark.parametrize(
    ("outputs", "labels", "limits"),
    [
        (lambda z: z.softmax(-1), lambda y: y, ["cross_entropy_sd"]),
        (lambda z: z.masked_fill(torch.arange(z.shape[-1]) == 7, -torch.inf), lambda y: y, ["disagreement"]),
        (lambda z: z[..., :1].sigmoid(), lambda y: (y == 0).float()[:, None], ["disagreement"]),
        (lambda z: z, lambda y: torch.nn.functional.one_hot(y, 10).bool(), ["label_disagreement"]),
    ],
)
def test_faults_are_planted_into_every_kind_of_outputs(outputs, labels, limits):
    y = torch.arange(400) % 7
    z = torch.randn(8, 400, 10, generator=torch.Generator().manual_seed(0)) + 3 * torch.nn.functional.one_hot(y, 10)
    for stated in (None, fake_study(outputs(z), labels(y)).measures.reading.word):
        check_faults_are_noticed(fake_study(outputs(z), labels(y), outputs=stated), limits)


def check_faults_are_noticed(study: Study, limits: list[str]) -> None:
    copies = module._Copies(study, undecided_is_red=True)
    unchanged = copies.of_outputs(copies._outputs)
    for name in limits:
        assert unchanged[name].value == pytest.approx(study[name].value, rel=1e-5)
    budget = Budget(**{name: 1.05 * study[name].value for name in limits})
    note = module.try_budget(study, budget, undecided_is_red=True)
    assert "planted fault" in note
    assert "turned it red" in note


class TestScores:
    """Studies of scores alone, and scores beside outputs."""

    def tried(self, budget, **options):
        study = fake_scores(reward=[450.0, 455.0, 452.0, 449.0, 460.0, 447.0, 451.0, 453.0], loss=[0.1] * 8)
        selftest(study, budget, **options)
        return study.journal.selftests

    def test_a_doubled_spread_and_missed_limits_turn_it_red(self):
        (note,) = self.tried(Budget(reward_sd=1e6, loss_sd=1e-6, loss=at_most(0.5), reward=at_least(440, mean=True)))
        assert note.startswith("self-test: 2 planted faults turned it red; one broken run it cannot plant")

    def test_a_limit_that_so_few_runs_cannot_break_is_found(self):
        assert self.tried(Budget(loss=at_most(0.5, share=0.4)), undecided_is_red=False)
        with pytest.raises(
            SelfTestError, match=r"all runs missed: with loss at 1.5 in each of 8 runs, at_most\(0.5, shar"
        ):
            self.tried(Budget(loss=at_most(0.5, share=0.3, alpha=0.01)), undecided_is_red=False)

    def test_a_gate_that_never_fires_is_found(self, monkeypatch):
        monkeypatch.setattr(Limit, "decide", lambda *_: Outcome.PASS)
        with pytest.raises(SelfTestError, match="the spread doubled: at reward_sd 20"):
            self.tried(Budget(reward_sd=10))

    def test_other_studies_are_said_not_to_be_tried(self):
        (note,) = self.tried([])
        assert note == "self-test: not possible beside other studies, since the runs leave scores and no outputs"
