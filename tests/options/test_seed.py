"""--stability-seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project


def test_another_seed_is_another_study(project: Project) -> None:
    project.tests("""
        def test_seed(stability):
            stability.measure(train, labels=Y, vary="init", runs=3)
    """)
    fingerprints = []
    for seed in (0, 7):
        result, report = project.study("--stability-seed", seed)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines([f"stability: *, seed {seed}, *"])
        (study,) = report["studies"]
        assert study["seed"] == seed
        fingerprints.append([record["fingerprint"] for record in study["records"]])
    zero, seven = fingerprints
    assert not set(zero) & set(seven)


def test_a_negative_seed_is_refused(project: Project) -> None:
    result = project.run("--stability-seed=-1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines[0] == "ERROR: Expected --stability-seed >= 0 but got -1."
