"""Budgets from data: the factors of docs/statistics.md, against SciPy, and how often an unchanged model fails them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit import Budget, Outcome
from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.intervals import mean_estimate, pairwise_estimate, sd_estimate
from stabilitykit.verdicts.calibration import Calibration, Proposal, environment_line, false_alarm, propose
from stabilitykit.verdicts.gate import Gate

#: By runs of the calibration: the factor on the SD, docs/statistics.md.
FACTORS = {5: 2.37, 10: 1.65, 20: 1.37, 30: 1.28, 50: 1.20}


def limits_of(measures: Mapping[str, Estimate], examples: int = 100_000) -> dict[str, float]:
    return {proposal.metric: proposal.limit for proposal in propose(measures, examples)}


def scores(runs: int, seed: int = 0) -> np.ndarray:
    return 90 + np.random.default_rng(seed).normal(size=runs)


def pairs_of(values: np.ndarray, scale: float = 1.0) -> np.ndarray:
    pairs = scale * (10 + values[:, None] + values[None, :])
    np.fill_diagonal(pairs, 0)
    return pairs


def outward(number: float) -> float:
    """A second author: the next number of three digits."""
    step = 10.0 ** (math.floor(math.log10(number)) - 2)
    return math.ceil(number / step) * step


@pytest.mark.parametrize("runs", FACTORS)
def test_an_sd_gets_its_upper_chi_square_bound(runs: int) -> None:
    values = scores(runs)
    sd = values.std(ddof=1)
    factor = math.sqrt((runs - 1) / scipy.stats.chi2.ppf(0.05, runs - 1))
    assert factor == pytest.approx(FACTORS[runs], abs=0.005)
    limit = limits_of({"accuracy_sd": sd_estimate(values)})["accuracy_sd"]
    assert limit == pytest.approx(outward(factor * sd), rel=1e-12)


def test_the_kurtosis_of_a_heavy_tailed_score_takes_degrees_of_freedom() -> None:
    values = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98, 1.0, 3.0, 1.01])
    df = 9 / (1 + scipy.stats.kurtosis(values, bias=False) / 2)
    wanted = values.std(ddof=1) * math.sqrt(df / scipy.stats.chi2.ppf(0.05, df))
    measures = {"cross_entropy": mean_estimate(values), "cross_entropy_sd": sd_estimate(values, robust=True)}
    assert limits_of(measures)["cross_entropy_sd"] == pytest.approx(outward(wanted), rel=1e-12)


@pytest.mark.parametrize("runs", [3, 10, 30])
def test_a_mean_over_pairs_gets_its_upper_jackknife_bound(runs: int) -> None:
    pairs = pairs_of(0.3 * np.random.default_rng(runs).normal(size=runs))
    of_run = pairs.sum(axis=1) / (runs - 1)
    error = math.sqrt(4 * (runs - 1) / (runs * (runs - 2) ** 2) * np.square(of_run - of_run.mean()).sum())
    wanted = of_run.mean() + scipy.stats.t.isf(0.05, runs - 1) * error
    assert limits_of({"disagreement": pairwise_estimate(pairs)})["disagreement"] == pytest.approx(outward(wanted))


def test_a_correlation_gets_its_lower_bound_and_keeps_three_digits_of_what_it_lacks() -> None:
    def limit(value: float, low: float) -> float:
        return limits_of({"correlation": Estimate(value, low, 1, 10, "jackknife over runs")})["correlation"]

    assert limit(0.9, 0.8732) == 0.873
    assert limit(0.9999, 0.999877) == 0.999877
    assert limit(0.1, -0.2468) == -0.25
    assert limit(0.1, -1.0) == -1.0


@pytest.mark.parametrize(
    ("value", "low", "high", "limit"), [(0.5, 0.1, 0.9, 0.9), (-0.5, -0.9, -0.1, 0.9), (0.01, -0.3, 0.32, 0.32)]
)
def test_an_ensemble_delta_is_limited_by_its_size(value: float, low: float, high: float, limit: float) -> None:
    delta = Estimate(value, low, high, 10, "jackknife over runs")
    assert limits_of({"ensemble_delta": delta}) == {"ensemble_delta": limit}


@given(number=st.floats(1e-9, 49))
def test_a_limit_is_rounded_outward_to_three_digits(number: float) -> None:
    estimate = Estimate(number, number / 2, number, 10, "chi-square")
    limit = limits_of({"accuracy_sd": estimate}, examples=10**15)["accuracy_sd"]
    assert number <= limit <= 1.01 * number
    assert float(f"{limit:.2e}") == limit


def test_every_measure_of_the_task_that_a_budget_knows_is_proposed_and_the_users_own_sds() -> None:
    sd, pairs = sd_estimate(scores(5)), pairwise_estimate(pairs_of(np.arange(5) / 10))
    mean = mean_estimate(scores(5))
    likeness = Estimate(0.9, 0.8, 0.95, 5, "jackknife over runs")
    score = dict.fromkeys(("accuracy", "cross_entropy", "f1"), mean)
    spread = {f"{name}_sd": sd for name in score}
    delta = dict.fromkeys(("ensemble_delta", "cross_entropy_ensemble_delta", "f1_ensemble_delta"), pairs)
    classes = {
        **score,
        **spread,
        "training_sd": sd,
        "flip_floor": pairs,
        "disagreement": pairs,
        "correlation": likeness,
        "pearson": likeness,
        **delta,
    }
    paper = ["accuracy_sd", "cross_entropy_sd", "disagreement", "correlation", "ensemble_delta"]
    assert list(limits_of(classes)) == [*paper, "f1_sd"]
    regression = {"rmse": mean, "rmse_sd": sd, "correlation": likeness, "rmse_ensemble_delta": pairs}
    assert list(limits_of(regression)) == ["rmse_sd", "correlation", "rmse_ensemble_delta"]


def test_what_has_no_value_gets_no_limit() -> None:
    undefined = Estimate.undefined(5, "constant outputs")
    assert list(limits_of({"accuracy_sd": sd_estimate(scores(5)), "correlation": undefined})) == ["accuracy_sd"]


def identical(runs: int = 10) -> dict[str, Estimate]:
    same, pairs = np.full(runs, 80.0), np.zeros((runs, runs))
    return {
        "accuracy": mean_estimate(same),
        "accuracy_sd": sd_estimate(same),
        "cross_entropy": mean_estimate(same / 100),
        "cross_entropy_sd": sd_estimate(same / 100),
        "disagreement": pairwise_estimate(pairs),
        "correlation": pairwise_estimate(pairs + 1),
        "ensemble_delta": pairwise_estimate(pairs),
    }


def test_runs_that_are_all_equal_get_the_least_limit_that_can_be_told_and_no_rate() -> None:
    proposals = {proposal.metric: proposal for proposal in propose(identical(), examples=2000)}
    two_examples = {"accuracy_sd", "disagreement", "ensemble_delta"}
    assert {name: p.limit for name, p in proposals.items()} == {
        **dict.fromkeys(two_examples, 0.1),
        "cross_entropy_sd": 8e-7,
        "correlation": 0.999999,
    }
    for name, proposal in proposals.items():
        least = "2 test examples" if name in two_examples else "rounding"
        assert f"no run differs, so the limit is {least}; P(a run differs) <= 28 %" in proposal.comment()
        assert proposal.alarm is None
        assert "unchanged" not in proposal.comment()


def test_runs_that_are_all_equal_again_pass_and_one_example_more_or_less_does_not_fail() -> None:
    budget = Budget(**limits_of(identical(), examples=2000))
    assert budget.judge(identical(20)).outcome is Outcome.PASS
    one_differs = identical(20) | {"accuracy_sd": sd_estimate([80.0] * 19 + [80.05])}
    assert budget.judge(one_differs).outcome is Outcome.PASS


def test_no_limit_is_finer_than_two_test_examples() -> None:
    tiny = Estimate(0.01, 0.005, 0.02, 10, "chi-square")
    (proposal,) = propose({"accuracy_sd": tiny}, examples=1000)
    assert proposal.limit == 0.2
    assert "the limit is 2 test examples, the least to be told" in proposal.comment()
    (proposal,) = propose({"accuracy_sd": tiny}, examples=100_000)
    assert (proposal.limit, proposal.meaning) == (0.02, "")


@given(st.integers(0, 10**6), st.sampled_from([0.01, 1.0, 30.0]), st.integers(3, 6))
def test_a_budget_takes_whatever_is_proposed(seed: int, scale: float, runs: int) -> None:
    draw = np.random.default_rng(seed)
    pairs = pairs_of(draw.normal(size=runs), scale=min(scale / 10, 1))
    delta = pairs_of(draw.normal(size=runs) * scale) - 10 * scale
    measures = {
        "accuracy_sd": sd_estimate(scale * draw.normal(size=runs)),
        "disagreement": pairwise_estimate(pairs, least=0, most=100),
        "ensemble_delta": pairwise_estimate(delta),
    }
    limits = limits_of(measures, examples=500)
    assert Budget(**limits).limits == limits


# What an unchanged model does


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the bootstrap of the "±", which no gate reads."""
    monkeypatch.setattr(intervals, "_RESAMPLES", 2)


def share_that_fails(runs: int, at_value: bool, robust: bool, models: int = 2500) -> float:
    """Train each model for its budget, and again in the package's own gate, at its defaults."""
    draw, failed = np.random.default_rng(runs), 0
    for _ in range(models):
        before = sd_estimate(draw.normal(size=runs), robust=robust)
        gate = Gate(Budget(f1_sd=before.value if at_value else before.high), runs=20)
        after = draw.normal(size=20)
        while gate.next_look:
            gate.look({"f1_sd": sd_estimate(after[: gate.next_look], robust=robust)})
        failed += gate.verdict.outcome is Outcome.FAIL
    return failed / models


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("runs", [5, 10])
def test_an_unchanged_model_fails_as_often_as_is_said(runs: int, robust: bool) -> None:
    said = false_alarm("chi-square, kurtosis df" if robust else "chi-square", runs)
    assert said is not None
    for rate, at_value in zip(said, (False, True), strict=True):
        error = math.sqrt(rate * (1 - rate) / 2500)
        assert share_that_fails(runs, at_value, robust) == pytest.approx(rate, abs=3 * error + 0.0005)


def test_the_rate_lies_between_those_of_the_numbers_of_runs_around() -> None:
    rates = [false_alarm("chi-square", runs) for runs in range(2, 200)]
    assert all(rate is not None for rate in rates)
    assert rates[10 - 2] == (0.011, 0.192)
    assert rates[12 - 2] == pytest.approx((0.0101, 0.1709), abs=1e-4)  # a share ln(1.2) / ln(1.5) of the way to 15
    assert rates[0] == rates[1]
    assert rates[-1] == rates[100 - 2]
    assert false_alarm("some other method", 10) is None


def test_a_calibration_crosses_as_json() -> None:
    proposal = Proposal("accuracy_sd", 0.6, "0.37 [0.27, 0.60]", 10, 0.011, 0.192)
    calibration = Calibration("t.py::t", 2, 7, "Net", "init", 10, "torch 2", (proposal,), ("correlation",))
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))) == calibration
    assert calibration.name == "t.py::t (check 2)"


def test_an_environment_in_one_line() -> None:
    values = {"torch": "2.14.1", "device": "NVIDIA H100", "cpu_capability": "AVX512", "threads": 2, "host": "h"}
    assert environment_line(values) == "torch 2.14.1, NVIDIA H100, AVX512, 2 threads"
