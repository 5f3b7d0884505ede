"""--stability-budget-minutes: what would not end in time does not begin, and is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project


@pytest.mark.slow
def test_the_session_ends_in_time_and_the_next_one_goes_on(project: Project) -> None:
    project.sleep_in_runs(4)
    project.tests("""
        def test_long(stability):
            stability.measure(train, labels=Y, vary="init", runs=20)

        def test_other():
            pass
    """)
    result = project.run("--stability-budget-minutes", 0.4)
    result.assert_outcomes(failed=1, passed=1)
    kept = project.stored()
    why = "the 0.4 minutes of --stability-budget-minutes would not suffice for another run"
    so_far = f"train init: cancelled after {len(kept)} of 20 runs, since {why}. Missing: run *-19. The finished runs*"
    result.stdout.fnmatch_lines([f"E *IncompleteStudyError: {so_far}"])
    assert len(kept) < 20, "five or so, and fewer where the session itself took long to start"
    assert {training.index for training in project.in_ledger()} == set(kept), "nothing that began was lost"
    project.sleep_in_runs(0)
    project.run().assert_outcomes(passed=2)
    assert project.trained() == list(range(20)), "each once, beside the base run's repetition"
