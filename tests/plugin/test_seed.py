"""--stability-seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project


def test_another_seed_is_another_study_and_the_same_seed_the_same(project: Project) -> None:
    project.tests("""
        def test_seed(stability):
            stability.measure(train, labels=Y, vary="init", runs=3)
    """)
    fingerprints = []
    for seed in (0, 7, 7):
        result, report = project.study("--stability-seed", seed, "--stability-cache", "off")
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"stability: *, seed {seed}, *"])
        (study,) = report["studies"]
        assert study["seed"] == seed
        fingerprints.append([record["fingerprint"] for record in study["records"]])
    zero, seven, again = fingerprints
    assert seven == again
    assert not set(zero) & set(seven)


@pytest.mark.parametrize(("given", "message"), [(-1, "Expected --stability-seed >= 0 but got -1.")])
def test_a_negative_seed_is_refused(project: Project, given: int, message: str) -> None:
    result = project.run(f"--stability-seed={given}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines[0] == f"ERROR: {message}"
