"""--stability-device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from .conftest import Project

MEASURES = """
    def test_device(stability):
        study = stability.measure(train, labels=Y, vary="init", runs=2)
        print("trained on", study.records[0].environment["device"])
"""


@pytest.mark.parametrize("given", ["gpu", "cuda:", "meta"])
def test_an_unknown_device_is_refused_before_anything_starts(project: Project, given: str) -> None:
    result = project.run("--stability-device", given)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = f"ERROR: Expected --stability-device to be auto, cpu, cuda or cuda:N but got {given!r}."
    assert result.stderr.lines[0] == message


def test_the_cpu_can_be_asked_for_in_the_ini_file(project: Project) -> None:
    project.tests(MEASURES)
    project.ini("stability_device = cpu")
    project.run("-rP").stdout.fnmatch_lines(["stability: *, device cpu, *", "trained on cpu"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_fails_the_test_that_asks(project: Project) -> None:
    project.tests(MEASURES)
    result = project.run("--stability-device", "cuda")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *ConfigError: Expected a GPU for device='cuda' but torch * sees none here. *"])
    assert project.trained() == []
