"""A red stays red: retries, caught exceptions, other options and other sessions do not turn it green."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: What a retry changes: the task that the test asks about, as data without a seed do. The first one FAILs.
ANEW = """
    import os

    def flat(run):
        train(run)
        return torch.stack([-1.0 * Y, 1.0 * Y], dim=1)

    def anew():
        is_first = not os.path.exists(f"tried-{os.getpid()}")
        open(f"tried-{os.getpid()}", "w").close()
        return train if is_first else flat
"""

CHECK = """
    def test_check(stability):
        stability.check(anew(), labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=1e-6))
"""

ASSERT_WITHIN = """
    def test_check(stability):
        study = stability.measure(anew(), labels=Y, vary="init", runs=4)
        assert_cross_entropy_sd(study, 1e-6)
"""

PLAIN_ASSERT = """
    def test_check(stability):
        study = stability.measure(anew(), labels=Y, vary="init", runs=4)
        assert study["cross_entropy_sd"].value < 1e-6
"""

IN_A_FIXTURE = """
    @pytest.fixture(scope="module")
    def study(stability):
        study = stability.measure(anew(), labels=Y, vary="init", runs=4)
        assert_cross_entropy_sd(study, 1e-6)
        return study

    def test_check(study):
        pass
"""

UNDECIDED = """
    def test_check(stability):
        stability.check(anew(), labels=Y, vary="init", runs=3, budget=Budget(cross_entropy_sd=0.04, ratio=1.01))
"""

CRASH = """
    MEMO = {}

    def net(run):
        MEMO["loaded"] = True
        if run.index == 1 and not os.path.exists("raised"):
            open("raised", "w").close()
            raise ValueError("once")
        return train(run)

    def test_check(stability):
        stability.measure(net, labels=Y, vary="init", runs=4)
"""

LEAK = """
    MEMO = {}

    def net(run):
        MEMO["loaded"] = True
        count = len(os.listdir("leaks")) if os.path.isdir("leaks") else 0
        os.makedirs(f"leaks/{count}")
        return train(run, rate=0.1 if count > 1 else 0.1 + 0.01 * count)

    def test_check(stability):
        stability.measure(net, labels=Y, vary="init", runs=3)
"""


@pytest.mark.parametrize("test", [CHECK, ASSERT_WITHIN, PLAIN_ASSERT, IN_A_FIXTURE, UNDECIDED, CRASH, LEAK])
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_retry_with_another_key_turns_no_red_to_green(project: Project, test: str, way: str) -> None:
    if way == "n2" and test not in (CHECK, CRASH):
        pytest.skip("two are enough for the other way")
    project.tests(ANEW + test)
    result = project.run("-p", "rerunfailures", "--reruns", "2", way=way)
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str()
    outcomes = result.parseoutcomes()
    assert (outcomes.get("failed", 0) + outcomes.get("errors", 0), outcomes["rerun"]) == (1, 2), result.stdout.str()


@pytest.mark.parametrize("caught", ["except Exception", "except BaseException", "except"])
def test_a_fail_that_the_test_catches_fails_it_all_the_same(project: Project, caught: str) -> None:
    project.tests(f"""
        def test_check(stability):
            try:
                stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=1e-6))
            {caught}:
                pass
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the test went on*"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "expecting",
    [
        "with pytest.raises(BudgetExceededError):",
        "with pytest.raises(AssertionError, match='cross_entropy_sd'):",
        "with __import__('unittest').TestCase().assertRaises(BudgetExceededError):",
    ],
)
def test_a_fail_that_the_test_expects_is_none(project: Project, expecting: str) -> None:
    project.tests(f"""
        def test_check(stability):
            {expecting}
                stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=1e-6))
    """)
    project.run().assert_outcomes(passed=1)


def test_a_fail_that_a_marker_expects_is_none(project: Project) -> None:
    project.tests("""
        @pytest.mark.xfail(reason="known")
        def test_check(stability):
            stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=1e-6))
    """)
    project.run().assert_outcomes(xfailed=1)


def test_a_worker_that_crashes_is_replaced_once_beside_pytest_rerunfailures(project: Project) -> None:
    project.tests(
        """
        import os

        def test_dies_once(stability):
            if not os.path.exists("died"):
                open("died", "w").close()
                os._exit(7)

        def test_other():
            until = time.monotonic() + 60
            while not os.path.exists("died") and time.monotonic() < until:
                time.sleep(0.01)
        """
    )
    result = project.run("-p", "rerunfailures", "--reruns", "2", way="n2")
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["rerun"]) == (2, 1), result.stdout.str()


@pytest.mark.slow
def test_a_red_outlives_the_worker_that_saw_it(project: Project) -> None:
    project.tests(
        ANEW
        + """
    def test_check(stability):
        if os.path.exists("tried") and not os.path.exists("died"):
            open("died", "w").close()
            os._exit(7)
        is_first = not os.path.exists("tried")
        open("tried", "w").close()
        task, budget = train if is_first else flat, Budget(cross_entropy_sd=1e-6)
        stability.check(task, labels=Y, vary="init", runs=4, budget=budget)

    def test_other():
        until = time.monotonic() + 60
        while not os.path.exists("died") and time.monotonic() < until:
            time.sleep(0.01)
    """
    )
    result = project.run("-p", "rerunfailures", "--reruns", "3", way="n2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str()
