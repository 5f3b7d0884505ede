"""The fixture's audit: in a test it trains, and in a plan it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

TESTS = """
    from torch.utils.data import DataLoader, TensorDataset

    def seeded(seed=0, order_seed=0):
        Path("trained").touch()
        torch.manual_seed(order_seed)
        for batch in DataLoader(TensorDataset(X), 16, shuffle=True):
            pass

    def test_right(stability):
        assert stability.audit(seeded, knobs="order_seed").reached("order_seed") == {"shuffle"}

    def test_wrong(stability):
        assert_seed_reaches(stability.audit(seeded), "seed", "shuffle")
"""


@pytest.mark.slow
def test_an_audit_in_a_test(project: Project, way: str) -> None:
    project.tests(TESTS)
    result = project.run(way=way)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*UnreachedSourceError: Expected seed of seeded to reach shuffle but it does not reach shuffle: *",
            "*seed audit of seeded: seed 0 or 1, order_seed 0 or 1",
            "*order of examples  RandomSampler  test_*  1 pass     order_seed  -",
            "*! seed moves nothing: *",
        ]
    )


@pytest.mark.slow
def test_a_plan_trains_nothing_and_ends_at_an_audit(project: Project) -> None:
    project.tests(TESTS)
    result = project.run("--stability-plan")
    result.assert_outcomes(skipped=2)
    assert not (project.path / "trained").exists()
