"""Progress while runs train."""

from __future__ import annotations

import os
import pty
import re
import select
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

SLOW = """
    def test_fast():
        pass

    def test_slow(stability):
        stability.measure(train, labels=Y, vary="init", runs=8)
"""
#: A study that has nothing to train, once the one above has.
STORED = """
    def test_stored(stability):
        stability.measure(train, labels=Y, vary="init", runs=6)
"""
#: A line of progress of each study needs that it took some seconds; for this test a tenth of one.
HURRY = """
    import stabilitykit.plugin.progress

    stabilitykit.plugin.progress._BETWEEN_LINES = 0.1
"""
LINE = r"stability: test_slow \(train init\) ([1-8])/8 runs(, [12] running)?(, \d+ s left)?(; gw0 \d, gw1 \d)?"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_log_has_lines_of_their_own(project: Project, way: str) -> None:
    project.tests(SLOW)
    project.write("conftest.py", HURRY)
    project.sleep_in_runs(0.3)
    result = project.run(way=way)
    result.assert_outcomes(passed=2)
    lines = [line for line in result.stdout.lines if "stability: test" in line and "base run" not in line]
    counts = [int(found[1]) for line in lines if (found := re.fullmatch(LINE, line))]
    assert len(counts) == len(lines), "nothing else on the line"
    assert counts
    assert counts == sorted(set(counts)), "each told once, in order"


@pytest.mark.slow
@pytest.mark.parametrize(("way", "isolation"), [("plain", "none"), ("n2", "process")])
def test_a_run_that_takes_long_is_named_from_time_to_time(project: Project, way: str, isolation: str) -> None:
    project.tests("""
        def test_long(stability):
            stability.measure(train, labels=Y, vary="init", runs=2)
    """)
    project.write(
        "conftest.py",
        """
        import stabilitykit.plugin.progress
        import stabilitykit.execution.runner

        stabilitykit.plugin.progress._SILENCE = stabilitykit.plugin.progress._LONG_RUN = 0.5
        stabilitykit.execution.runner._HEARTBEAT = 0.5
        """,
    )
    project.sleep_in_runs(3)
    result = project.run("--stability-isolation", isolation, way=way)
    result.assert_outcomes(passed=1)
    told = [
        line for line in result.stdout.lines if re.search(r" [12] running.*; run \d for \d s \(\w+, pid \d+\)", line)
    ]
    assert told, result.stdout.str()


@pytest.mark.slow
def test_fast_studies_leave_no_lines(project: Project) -> None:
    project.tests(SLOW)
    project.write("conftest.py", HURRY.replace("0.1", "3600"))  # this machine may be slow today
    project.run(way="n2").stdout.no_fnmatch_line("*stability: test*")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_terminal_shows_it_over_the_line_of_results_and_puts_that_back(project: Project, way: str) -> None:
    project.tests(SLOW + STORED)
    project.sleep_in_runs(0.1)
    raw = on_a_terminal(project, way)
    shown = [int(found[1]) for found in re.finditer(LINE, raw)]
    assert shown == sorted(shown)
    assert shown[-1] == 8
    screen = as_seen(raw)
    assert not [line for line in screen if "8 runs" in line]
    (results,) = [line for line in screen if line.endswith("[100%]")]
    assert re.fullmatch(r"(test_toy\.py )?\.\.\. +\[100%\]", results)


@pytest.mark.slow
def test_quiet_sessions_show_none(project: Project) -> None:
    project.tests(SLOW)
    project.sleep_in_runs(0.05)
    assert "stability: test" not in on_a_terminal(project, "plain", "-q")


def on_a_terminal(project: Project, way: str, *args: str) -> str:
    """Run pytest on a pseudo terminal, and return every byte that it wrote there."""
    ours, theirs = pty.openpty()
    process = project.start(*args, "--color=no", way=way, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b"".join(iter(lambda: read(ours), b""))
    assert process.wait(300) == 0
    os.close(ours)
    return written.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536) if select.select([terminal], [], [], 300)[0] else b""
    except OSError:  # the other end is closed
        return b""


def as_seen(raw: str) -> list[str]:
    """Return the lines that a reader has before him: a carriage return writes over what was there."""
    lines = []
    for line in raw.replace("\r\n", "\n").split("\n"):
        seen = ""
        for part in line.split("\r"):
            seen = part + seen[len(part) :]
        lines.append(seen.rstrip())
    return lines
