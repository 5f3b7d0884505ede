"""--stability-undecided: fail, pass, skip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: The limit lies between the lower bound and half the upper one, so the runs cannot tell: whatever the SD of four is,
#: its upper bound is more than twice that. No two runs have one cross-entropy, whereas their accuracies may tie.
UNDECIDED = """
    def test_undecided(stability):
        study = stability.measure(train, labels=Y, vary="init", runs=4)
        assert_within(study, Budget(disagreement=100, cross_entropy_sd=0.99 * study.cross_entropy_sd.value))
"""


@pytest.mark.trains
def test_undecided_fails_by_default_and_says_how_many_runs_would_settle_it(project: Project) -> None:
    project.tests(UNDECIDED)
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *UNDECIDED  cross_entropy_sd * nats over 4 runs is neither shown to be beyond the budget of * nor *",
            "test_undecided *UNDECIDED",
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_undecided_can_skip_with_the_reason_at_the_users_line(project: Project, way: str) -> None:
    project.tests(UNDECIDED)
    result = project.run("--stability-undecided", "skip", "-rs", way=way)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        [
            "test_undecided *UNDECIDED",
            "SKIPPED [[]1[]] test_toy.py:*: UNDECIDED  cross_entropy_sd * is neither shown to be beyond the budget *",
        ]
    )


def test_undecided_can_pass_and_the_table_still_tells(project: Project) -> None:
    project.tests(UNDECIDED)
    project.ini("stability_undecided = pass")
    result = project.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["test_undecided *UNDECIDED"])


@pytest.mark.trains
def test_what_fails_is_not_excused(project: Project) -> None:
    project.tests("""
        def test_fails(stability):
            assert_cross_entropy_sd(stability.measure(train, labels=Y, vary="init", runs=4), at_most=1e-6)
    """)
    result = project.run("--stability-undecided", "pass")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *FAIL *cross_entropy_sd * nats*", "test_fails *FAIL"])


#: The shuffle adds next to nothing to what the initialisation does: the ratio of the SDs is 1.00 to 1.02 under five
#: base seeds. Four runs show no ratio below 3 or so to be beyond 1.01, and none to be within it.
ALIKE = """
    def test_alike(stability):
        studies = [stability.measure(train, labels=Y, vary=source, runs=4) for source in ("init", "init+shuffle")]
        assert_alike(studies, within=1.01, measures=["cross_entropy_sd"])
"""


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize(("policy", "outcome"), [("fail", "failed"), ("pass", "passed"), ("skip", "skipped")])
def test_studies_that_may_be_alike_go_by_the_same_policy(project: Project, policy: str, outcome: str) -> None:
    project.tests(ALIKE)
    result = project.run("--stability-undecided", policy, "-rs")
    result.assert_outcomes(**{outcome: 1})
    said = "UNDECIDED  cross_entropy_sd of * times that of *, neither shown to be within a factor of 1.01 nor beyond *"
    if policy != "pass":
        result.stdout.fnmatch_lines([f"*{said}*"])
    result.stdout.fnmatch_lines(["*within a factor of 1.01 of init, init+shuffle: UNDECIDED cross_entropy_sd*"])
