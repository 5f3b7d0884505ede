"""intercept=: a function of a seed whose sources are told apart, in the table and with several workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

TESTS = """
    from torch.utils.data import DataLoader, TensorDataset

    def script(seed):
        torch.manual_seed(42)
        model = torch.nn.Linear(X.shape[1], 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model(X)

    def test_shuffle(stability):
        study = stability.measure(script, labels=Y, vary="shuffle", runs=3)
        print("prints", sorted(record.fingerprint for record in study.records))

    def test_compared(stability):
        stability.compare(script, script, labels=Y, vary="init", runs=3)

    def test_dead(stability):
        stability.check(script, labels=Y, vary="augment", runs=3, budget=Budget(accuracy_sd=50))

    def test_refused(stability):
        stability.measure(script, labels=Y, vary="shuffle", runs=3, intercept=False)
"""


@pytest.mark.slow
def test_a_script_of_one_seed_is_measured_source_by_source(project: Project) -> None:
    project.tests(TESTS)
    result = project.run("-rP")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines_random([
        "*isolated by interception: orders 1, re-seedings 1 (torch.manual_seed, *",
        "*augment never reaches the weights of this task*",
        "*Expected vary='all' for script(seed) but got 'shuffle'*",
    ])  # fmt: skip
    here = [line for line in result.stdout.lines if line.startswith("prints")]
    there = project.run("-rP", "--stability-cache", "off", way="n2")
    there.assert_outcomes(passed=2, failed=2)
    assert [line for line in there.stdout.lines if line.startswith("prints")] == here
