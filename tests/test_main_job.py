"""The main job turns red where it must: faults are planted into it, and one of its tests is run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Faults as pytest plugins, each loaded before the main job begins.
FAULTS = {
    "a source that leaks": """
        import torch
        from stabilitykit import RandomCropFlip

        seeded = RandomCropFlip.__call__

        def unseeded(self, x, generator):
            generator = torch.Generator()
            generator.seed()  # from the system's entropy
            return seeded(self, x, generator)

        RandomCropFlip.__call__ = unseeded
    """,
    "a network that does not train": """
        from stabilitykit.zoo import settings

        trained = settings._sgd
        settings._sgd = lambda model, lr, momentum, weight_decay: trained(model, 0.0, momentum, weight_decay)
    """,
    "a gate that passes everything": """
        from stabilitykit.study.likeness import MeasureLikeness
        from stabilitykit.verdicts.judgement import Outcome
        from stabilitykit.verdicts.limits import Limit

        MeasureLikeness._decide = lambda self, ratios: Outcome.PASS
        Limit.decide = lambda self, estimate, alpha, beta: Outcome.PASS
    """,
    "nothing": "",
}


@pytest.fixture
def main_job(tmp_path):
    """Run one test of the main job with a fault planted, in a store of this test."""

    def main_job(fault: str, test: str, runs: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / "planted.py").write_text("\n".join(line[8:] for line in FAULTS[fault].splitlines()))
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        options = ["-p", "planted", f"--stability-runs={runs}", f"--stability-store={tmp_path / 'store'}", "-n", "0"]
        command = [sys.executable, "-m", "pytest", f"stability_tests/test_findings.py::{test}", *options]
        environment = os.environ | {"PYTHONPATH": path}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    return main_job


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "test", "said"),
    [
        ("a source that leaks", "test_averages_of_two_differ_less", "IsolationError"),
        ("a network that does not train", "test_it_grows", "it has not learned its task"),
    ],
)
def test_a_planted_fault_turns_the_main_job_red(main_job, fault, test, said):
    result = main_job(fault, test, runs=2)  # both are told before any number is
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert said in result.stdout


@pytest.mark.slow
def test_wrong_claims_are_refused_and_a_gate_that_passes_everything_turns_the_main_job_red(main_job):
    result = main_job("nothing", "test_a_wrong_claim_is_refused", runs=3)
    assert result.returncode == pytest.ExitCode.OK, result.stdout
    assert "HOLDS  A check of the checks: " in result.stdout
    # Of the same runs, which the store has.
    result = main_job("a gate that passes everything", "test_a_wrong_claim_is_refused", runs=3)
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 failed" in result.stdout
