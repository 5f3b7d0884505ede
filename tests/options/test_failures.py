"""What a test that fails says: the user's line, the reason, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project


@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_failure_is_told_once_with_the_users_line_and_all_numbers(project: Project, way: str) -> None:
    project.tests("""
        def test_beyond(stability):
            budget = Budget(disagreement=1, correlation=-1)
            stability.check(train, labels=Y, vary="init", runs=20, budget=budget)

        def fails_once(run):
            if run.index == 1:
                raise ValueError("in the user's code")
            return train(run)

        def test_run(stability):
            stability.measure(fails_once, labels=Y, vary="init", runs=3)

        def test_labels(stability):
            stability.measure(train, labels=Y[:9], vary="init", runs=2)

        def test_leak(stability):
            generator = torch.Generator()

            def leaks(run):
                return torch.randn(64, 2, generator=generator)

            stability.measure(leaks, labels=Y, vary="init", runs=2)

        def test_question(stability):
            stability.measure(train, labels=Y, vary="initt")

        def test_budget(stability):
            stability.check(train, labels=Y, vary="init", budget=Budget(accuracy_sd=1, max_failed_runs=-1))

        def broken_model():
            raise OSError("no such weights")

        def test_recipe(stability):
            recipe = Recipe(model=broken_model, train=(X, Y), test=(X, Y), epochs=1, batch_size=4, optimizer=print)
            stability.measure(recipe)

        @pytest.mark.xfail(raises=BudgetExceededError)
        def test_expected(stability):
            stability.check(train, labels=Y, vary="init", runs=20, budget=Budget(disagreement=1))
    """)
    result = project.run(way=way)
    result.assert_outcomes(failed=7, xfailed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    sections = {name: text.partition(f"_ test_{name} _")[2].partition("____\n")[2].partition("\n____")[0] for name in (
        "beyond", "run", "labels", "leak", "question", "budget", "recipe",
    )}  # fmt: skip
    for name, section in sections.items():
        assert section.count("\n>  ") == 1 + (name == "recipe"), "one frame, and where the error is the user's, his"
    for wanted in (
        "budget=budget)",
        "FAIL",
        "disagreement ",
        " is beyond the budget of 1 %, and so is its whole interval.",
        "PASS       correlation",
        "accuracy %      acc. SD",
    ):
        assert wanted in sections["beyond"]
    for wanted in (
        "Expected 3 trained models but 1 of fails_once [init] failed: run 1.",
        "seeds {'init': ",
        "in fails_once",
        "ValueError: in the user's code",
    ):
        assert wanted in sections["run"]
    assert "one row a test label, but got [64, 2]" in sections["labels"]
    assert "IsolationError: Expected two trainings under one plan to be bit-identical" in sections["leak"]
    assert "Did you mean 'init'?" in sections["question"]
    assert "Expected max_failed_runs >= 0 but got max_failed_runs=-1" in sections["budget"]
    assert "OSError: no such weights" in sections["recipe"]
    assert "INTERNALERROR" not in text


def test_a_method_that_dataclass_wrote_for_us_is_no_frame_of_the_users(project: Project) -> None:
    """It has no file, so that nothing but its module tells that it is ours."""
    project.tests("""
        from stabilitykit import Budget, Perturbation

        def test_question(stability):
            stability.check(train, labels=Y, vary="init", runs=2, budget=Budget(disagreement=50))

        def test_perturbation():
            Perturbation("bitt")
    """)
    text = project.run().stdout.str()
    assert "Expected at least 3 runs for a check but got 2" in text
    assert "<string>" not in text


def test_full_trace_shows_our_frames_as_well(project: Project) -> None:
    project.tests("""
        def test_question(stability):
            stability.measure(train, labels=Y, vary="initt")
    """)
    project.run("--full-trace").stdout.fnmatch_lines(["*stabilitykit*protocol.py:*"])


@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_store_that_cannot_be_written_is_one_clear_error(project: Project, way: str) -> None:
    project.write("test_any.py", "def test_any(stability):\n    pass\n")
    project.write("file", "a file where a folder should be")
    result = project.run("--stability-store", "file", way=way)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*Expected the run store to be a folder but * is a file."])
    result = project.run("--stability-store", "file/below", way=way)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["StoreError: Expected to write * but got: *"])
    result.stdout.no_fnmatch_line("*stabilitykit/*.py*")
    result.stdout.no_fnmatch_line("INTERNALERROR*")


def test_a_warning_means_the_same_whichever_worker_trains_the_run(project: Project) -> None:
    project.meet(2)
    project.tests("""
        import warnings

        def warns(run):
            logits = train(run)
            if run.index:  # not in the control
                warnings.warn("look out")
            return logits

        def test_is_an_error(stability):
            stability.measure(warns, labels=Y, vary="init", runs=6)

        @pytest.mark.filterwarnings("ignore")
        def test_is_ignored(stability):
            stability.measure(warns, labels=Y, vary="shuffle", runs=6)
    """)
    result = project.run("--dist", "loadfile", way="n2")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["E *Expected 6 trained models but 5 of warns *failed: run 1, 2, 3, 4, 5.*"])
    assert len(project.trained_by()) == 2


@pytest.mark.parametrize(
    ("option", "isolation"), [("-x", "none"), pytest.param("--maxfail=1", "process", marks=pytest.mark.slow)]
)
def test_the_failure_that_ends_the_session_ends_a_study_elsewhere(
    project: Project, option: str, isolation: str
) -> None:
    project.sleep_in_runs(0.5)
    project.tests("""
        def test_long(stability):
            stability.measure(train, labels=Y, vary="init", runs=200)
    """)
    project.write(
        "test_zero.py",
        """
        import time
        from pathlib import Path

        def test_zero():
            until = time.monotonic() + 300
            while not list(Path(".stabilitykit").glob("v*/*/runs/*.json")) and time.monotonic() < until:
                time.sleep(0.05)
            assert False
        """,
    )
    result = project.run(option, "-rfs", "--dist", "loadfile", "--stability-isolation", isolation, way="n2")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    cancelled = "cancelled after * of 200 runs, since the session ends after 1 failure. Missing: run *"
    result.stdout.fnmatch_lines(["FAILED test_zero.py::test_zero*", "*stopping after 1 failures*"])
    result.stdout.fnmatch_lines([f"SKIPPED * train init: {cancelled}"])
    assert 1 <= len(project.stored()) < 200
    assert project.claims() == []
