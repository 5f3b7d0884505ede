"""--stability-selftest: each judged study's gate is shown faults, and a gate that stays green fails its test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: Normal noise beside the right answer, of which all is known: each run flips 1.7 % of the examples, so that the SD
#: of the accuracy is 1.6 points and two runs disagree on 3.3 %. Under 150 seeds of 150 each of these gates passed and
#: turned red for each fault. No training is in it, so that a base seed for which they pass is one on every machine.
NOISY = """
    def noisy(run):
        run.perturb(nn.Linear(1, 1))  # which nothing trains: the control has weights to compare
        for _ in run.epochs(1):
            with run.stream("shuffle"):
                noise = torch.randn(64, 2)
        note(run, time.time())
        return 3 * nn.functional.one_hot(Y, 2) + noise
"""
GATES = (
    NOISY
    + """
    def black_box(seed):
        noise = torch.randn(64, 2, generator=torch.Generator().manual_seed(seed))
        return 3 * nn.functional.one_hot(Y, 2) + noise

    def test_check(stability):
        stability.check(noisy, labels=Y, vary="shuffle", runs=6, budget=Budget(disagreement=20, accuracy_sd=4))

    def test_asserts(stability):
        study = stability.measure(noisy, labels=Y, vary="shuffle", runs=6)
        assert_disagreement(study, at_most=20)
        assert_accuracy_sd(study, at_most=4)

    def test_black_box(stability):
        assert_accuracy_sd(stability.measure(black_box, labels=Y, runs=6), at_most=12)
"""
)

LOOSE = (
    NOISY
    + """
    def test_loose(stability):
        stability.check(noisy, labels=Y, vary="shuffle", runs=6, budget=Budget(disagreement=90))
"""
)


@pytest.mark.slow
def test_gates_turn_red_for_planted_faults_and_nothing_more_is_trained(project: Project, way: str) -> None:
    project.tests(GATES)
    result, without = project.study(way=way)
    result.assert_outcomes(passed=3)
    trained = project.trained()
    project.forget()
    result, report = project.study("--stability-selftest", way=way)
    result.assert_outcomes(passed=3)
    assert project.trained() == trained
    result.stdout.fnmatch_lines(
        [
            "note: self-test: 3 planted faults turned it red (test_check, test_asserts)",
            "note: self-test: 2 planted faults turned it red; a leaked seed it cannot notice*(test_black_box)",
        ],
        consecutive=False,
    )
    for one, other in zip(project.timeless(without)["studies"], project.timeless(report)["studies"], strict=True):
        assert any(note.startswith("self-test: ") for note in other["notes"])
        other["notes"] = [note for note in other["notes"] if not note.startswith("self-test: ")]
        assert one == other  # the flip list and the verdict too


@pytest.mark.slow
def test_a_loose_gate_fails_its_test_and_the_message_says_what_to_do(project: Project, way: str) -> None:
    project.tests(LOOSE)
    project.run(way=way).assert_outcomes(passed=1)
    result, report = project.study("--stability-selftest", way=way)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *SelfTestError: Expected Budget(disagreement=90.0) to turn red for every planted fault, but*",
            "E *this gate cannot fire: however much the deviations of the * runs from one another are amplified, *",
        ]
    )
    (study,) = report["studies"]
    assert study["verdict"] == "pass"  # as it was judged: the gate failed, not the study
    assert project.trained() != []


@pytest.mark.slow
def test_a_gate_that_always_passes_is_found_out(project: Project) -> None:
    project.write(
        "conftest.py",
        """
        from stabilitykit.verdicts.judgement import Outcome
        from stabilitykit.verdicts.limits import Limit

        Limit.decide = lambda limit, estimate, alpha, beta: Outcome.PASS
        """,
    )
    project.tests(GATES)
    project.run().assert_outcomes(passed=3)
    result = project.run("--stability-selftest")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["E *one run broken: the outputs of one run of *"])


def test_what_fails_anyway_shows_its_own_verdict(project: Project) -> None:
    project.tests(GATES.replace("disagreement=20, accuracy_sd=4", "cross_entropy_sd=1e-6"))
    result = project.run("--stability-selftest", "-k", "test_check")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *FAIL *cross_entropy_sd *"])
    result.stdout.no_fnmatch_line("*SelfTestError*")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["stability_selftest = true", "stability_selftest = 1"])
def test_the_ini_file_can_ask_for_it(project: Project, line: str) -> None:
    project.tests(GATES)
    project.ini(line)
    result = project.run("-k", "black_box")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["note: self-test: *"])
