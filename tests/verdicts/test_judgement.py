"""The one shape of every answer: of limits, failed runs, likeness, reduction and a comparison with a baseline."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch

from stabilitykit.estimates.intervals import sd_estimate
from stabilitykit.study.comparison import Comparison, NoWorse
from stabilitykit.study.likeness import alike
from stabilitykit.study.reduction import ReductionJudgement
from stabilitykit.testing import fake_study
from stabilitykit.verdicts.budgets import Verdict
from stabilitykit.verdicts.judgement import WORST_FIRST, Judgement, Outcome, worst
from stabilitykit.verdicts.limits import FailedRuns, Limit

LABELS = torch.arange(60) % 3
SURE = 2.0 * torch.nn.functional.one_hot(LABELS, 3)


def runs(seed: int, scale: float = 1.0) -> torch.Tensor:
    return SURE + scale * torch.randn(6, 60, 3, generator=torch.Generator().manual_seed(seed))


STUDY, NOISY, CALM = fake_study(runs(0), LABELS), fake_study(runs(1, 3.0), LABELS), fake_study(runs(2, 0.5), LABELS)
REDUCED = CALM.reduction_against(STUDY)
SD = sd_estimate([90.0, 91.0, 90.5, 89.0])

#: One of each kind and outcome, and whether it holds a study against others.
JUDGEMENTS: list[tuple[Judgement, Outcome, bool]] = [
    (Limit("accuracy_sd", 0.1).judge(SD, 0.05, 0.05), Outcome.FAIL, False),
    (Limit("accuracy_sd", 0.8).judge(SD, 0.05, 0.05), Outcome.UNDECIDED, False),
    (Limit("accuracy_sd", 9.0).judge(SD, 0.05, 0.05), Outcome.PASS, False),
    (FailedRuns(2, 20, 1), Outcome.FAIL, False),
    (FailedRuns(1, 20, 1), Outcome.PASS, False),
    (alike([STUDY, NOISY], 1.1), Outcome.FAIL, True),
    (alike([STUDY, fake_study(runs(5), LABELS)], 1.5, ["accuracy_sd", "disagreement"]), Outcome.UNDECIDED, True),
    (alike([STUDY, fake_study(runs(5), LABELS)], 50), Outcome.PASS, True),
    (ReductionJudgement(REDUCED, 99, "a"), Outcome.FAIL, True),
    (ReductionJudgement(REDUCED, REDUCED.value, "a"), Outcome.UNDECIDED, True),
    (ReductionJudgement(REDUCED, 0, "a"), Outcome.PASS, True),
    (NoWorse(Comparison.between(STUDY, NOISY)), Outcome.FAIL, True),
    (NoWorse(Comparison.between(STUDY, CALM)), Outcome.PASS, True),
]


@pytest.mark.parametrize(("judgement", "outcome", "is_relative"), JUDGEMENTS)
def test_every_answer_has_a_name_an_outcome_a_reason_and_what_would_settle_it(judgement, outcome, is_relative):
    assert (judgement.outcome, judgement.is_relative) == (outcome, is_relative)
    assert judgement.name
    assert judgement.reason
    if outcome is not Outcome.UNDECIDED:
        assert judgement.runs_to_settle is None
    written = judgement.to_json()
    assert written["outcome"] == outcome.value
    assert written.get("kind", written.get("metric")) == judgement.name
    json.dumps(written, allow_nan=False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        judgement.outcome = Outcome.PASS


def test_the_runs_that_would_settle_a_likeness_settle_every_measure_of_it():
    found = alike([STUDY, fake_study(runs(5), LABELS)], 1.5, ["accuracy_sd", "disagreement"])
    assert found.runs_to_settle == max(of.runs_to_settle or 0 for of in found.measures) > 6


def test_a_verdict_holds_any_and_is_as_bad_as_its_worst():
    for chosen in itertools.combinations([judgement for judgement, _, _ in JUDGEMENTS], 2):
        verdict = Verdict(chosen)
        assert verdict.outcome is min((one.outcome for one in chosen), key=WORST_FIRST.index)
        assert verdict.summary().startswith(verdict.outcome.name)
    assert worst([]) is Outcome.PASS


def test_what_got_worse_is_said_in_words_and_in_the_report():
    worse = NoWorse(Comparison.between(STUDY, NOISY))
    assert worse.reason.startswith("the mean got worse, and ")
    assert worse.reason.endswith(", beyond error")
    assert worse.comparison.to_json()["got_worse"] == list(worse.found)
    assert NoWorse(Comparison.between(NOISY, STUDY)).found == ()
