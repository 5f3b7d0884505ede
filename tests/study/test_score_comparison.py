"""Two studies of scores alone: score by score, either way, paired where seeds are shared."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats

from stabilitykit.errors import TaskError
from stabilitykit.study.comparison import compare
from stabilitykit.study.score_comparison import Unchanged
from stabilitykit.testing import fake_scores, fake_study
from stabilitykit.verdicts.judgement import Outcome

BASELINE = [450.0, 455.0, 452.0, 449.0, 460.0]


def test_means_are_those_of_scipy_paired_and_not():
    candidate = [453.0, 456.5, 456.0, 451.0, 462.0]
    paired = compare(fake_scores(reward=BASELINE), fake_scores(reward=candidate))
    assert paired.paired
    wanted = scipy.stats.ttest_rel(candidate, BASELINE, alternative="greater")
    assert paired["reward"].mean.p_more == pytest.approx(wanted.pvalue)
    apart = compare(fake_scores(reward=BASELINE), fake_scores(reward=candidate[:4]))
    assert not apart.paired
    welch = scipy.stats.ttest_ind(candidate[:4], BASELINE, equal_var=False, alternative="greater")
    assert apart["reward"].mean.p_more == pytest.approx(welch.pvalue)


def test_each_score_has_its_own_answers():
    lower = [value - 30 for value in BASELINE]
    wide = [10 * value for value in (1.0, -1.0, 2.0, -2.0, 3.0)]
    found = compare(
        fake_scores(reward=BASELINE, loss=[1.0, -1.0, 2.0, -2.0, 3.0]), fake_scores(reward=lower, loss=wide)
    )
    assert (found["reward"].mean.is_less, found["reward"].spread.is_more) == (True, False)
    assert (found["loss"].mean.is_more, found["loss"].spread.is_more) == (False, True)
    assert found.changed == ("the mean of reward changed", "the spread of loss got larger")
    assert "The mean of reward is lower, by 30" in found.conclusion
    assert "It varies more, 10" in found.conclusion
    assert "mean reward" in str(found)
    assert json.loads(json.dumps(found.to_json()))["scores"].keys() == {"reward", "loss"}


def test_equal_scores_are_identical():
    found = compare(fake_scores(reward=BASELINE), fake_scores(reward=BASELINE))
    assert found.identical
    assert found.changed == ()
    assert Unchanged(found).outcome is Outcome.PASS
    assert found.conclusion == "Run for run, both have the same scores: there is no difference to judge."


@pytest.mark.parametrize("shift", [-30, 30])
def test_a_baseline_turns_red_either_way(shift):
    found = compare(fake_scores(reward=BASELINE), fake_scores(reward=[value + shift for value in BASELINE]))
    assert Unchanged(found).outcome is Outcome.FAIL
    assert Unchanged(found).reason == "the mean of reward changed, beyond error"
    assert Unchanged(found).to_json()["got_worse"] == ["the mean of reward changed"]


def test_what_is_no_question_about_scores_is_refused_with_the_way_out():
    found = compare(fake_scores(reward=BASELINE), fake_scores(reward=BASELINE))
    with pytest.raises(TaskError, match=r"Ask comparison\['reward'\].mean.is_less"):
        _ = found.is_better
    with pytest.raises(TaskError, match=r"Expected a score of both studies but got 'loss'\. They have reward"):
        _ = found["loss"]
    with pytest.raises(AttributeError):
        _ = found.rewards


def test_studies_of_other_scores_are_not_compared():
    with pytest.raises(TaskError, match="but the baseline has reward and the candidate loss"):
        compare(fake_scores(reward=BASELINE), fake_scores(loss=BASELINE))


def test_scores_are_not_compared_with_outputs():
    outputs = np.random.default_rng(0).normal(size=(3, 6, 2))
    with pytest.raises(TaskError, match="return scores alone"):
        compare(fake_scores(reward=BASELINE), fake_study(outputs, [0, 1] * 3))
    with pytest.raises(TaskError, match=r"0 < alpha < 0\.5"):
        compare(fake_scores(reward=BASELINE), fake_scores(reward=BASELINE), alpha=1)


def test_an_unchanged_model_fails_its_baseline_as_rarely_as_it_may():
    draw, red = np.random.default_rng(0), 0
    for _ in range(300):
        old, new = (fake_scores(vary=vary, reward=draw.normal(size=8)) for vary in ("init", "shuffle"))
        red += bool(compare(old, new, alpha=0.05 / 3).changed)
    assert red / 300 < 0.05 + 3 * 0.0126
