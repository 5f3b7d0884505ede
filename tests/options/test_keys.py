"""Which tests share their runs, and which must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: Both ids train a function of the same code; they differ in what it has captured.
CAPTURED = """
    import functools
    import helper

    def with_rate(run, rate):
        return train(run, rate * helper.FACTOR)

    @pytest.mark.parametrize("rate", [0.1, 0.3])
    def test_closure(stability, rate):
        def of_closure(run):
            return train(run, rate)

        study = stability.measure(of_closure, labels=Y, vary="init", runs=2)
        print("closure", rate, study.records[0].fingerprint)

    @pytest.mark.parametrize("rate", [0.1, 0.3])
    def test_partial(stability, rate):
        stability.measure(functools.partial(with_rate, rate=rate), labels=Y, vary="init", runs=2)
"""


@pytest.mark.slow
def test_ids_that_differ_in_a_captured_value_never_share_and_an_edited_helper_retrains(project: Project) -> None:
    project.tests(CAPTURED)
    project.write("helper.py", "FACTOR = 1\n")
    result = project.run("-rP")
    result.assert_outcomes(passed=4)
    assert project.trained() == [0] * 4 + [1] * 4
    shown = {line for line in result.stdout.lines if line.startswith("closure")}
    assert len({line.split()[2] for line in shown}) == 2
    project.run("-k", "partial and 0.3").assert_outcomes(passed=1)
    assert project.trained() == [], "the selection of tests is no part of the key"
    project.write("helper.py", "FACTOR = 2\n")
    project.run().assert_outcomes(passed=4)
    # The file imports the helper, so all its tests might depend on it.
    assert project.trained() == [0] * 4 + [1] * 4


def test_tests_that_differ_in_their_labels_do_not_share_a_failure(project: Project) -> None:
    project.tests("""
        def test_wrong(stability):
            stability.measure(train, labels=Y[:9], vary="init", runs=2)

        def test_right(stability):
            stability.measure(train, labels=Y, vary="init", runs=2)
    """)
    project.run().assert_outcomes(passed=1, failed=1)


@pytest.mark.slow
def test_a_task_without_a_fingerprint_keeps_its_runs_to_itself_and_its_workers(project: Project) -> None:
    project.meet(2)
    project.tests("""
        import threading

        @pytest.mark.parametrize("name", "ab")
        def test_lock(stability, name):
            lock = threading.Lock()

            def locked(run):
                with lock:
                    return train(run)

            stability.measure(locked, labels=Y, vary="init", runs=6)
    """)
    for _ in range(2):
        result = project.run(way="n2")
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["note: runs not kept, nor verdicts: * (test_lock[[]a[]], test_lock[[]b[]])"])
        trainings = project.ledger()
        assert sorted(training.index for training in trainings) == sorted([*range(6), *range(6)])
        assert len({training.pid for training in trainings}) == 2
        assert project.stored() == []
        assert not list((project.path / ".stabilitykit" / "sessions").iterdir())
