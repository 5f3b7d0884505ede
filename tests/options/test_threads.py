"""--stability-threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project


def test_a_run_has_that_many_threads_and_the_process_its_own_again(project: Project) -> None:
    project.tests("""
        threads = []

        def counting(run):
            threads.append(torch.get_num_threads())
            return train(run)

        def test_threads(stability):
            torch.set_num_threads(1)
            study = stability.measure(counting, labels=Y, vary="init", runs=2)
            print("in runs", set(threads), "recorded", study.records[1].environment["threads"])
            print("after", torch.get_num_threads())
    """)
    result = project.run("--stability-threads", 2, "-rP")
    result.stdout.fnmatch_lines(["stability: *, threads 2, *", "in runs {2} recorded 2", "after 1"])


def test_no_thread_at_all_is_refused(project: Project) -> None:
    result = project.run("--stability-threads", 0)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines[0] == "ERROR: Expected --stability-threads >= 1 but got 0."
