"""What can be audited: functions of a run, by source; functions in files; scripts with a command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from stabilitykit import Run, audit
from stabilitykit.auditing.audit import audit_subject
from stabilitykit.auditing.subjects import FileSubject, ScriptSubject
from stabilitykit.errors import TaskError
from tests.auditing.test_audit import Noisy, fit, model

# By source


def test_a_function_of_a_run_is_audited_by_source() -> None:
    def train(run: Run, seed: int = 42) -> None:
        torch.manual_seed(seed)
        with run.stream("init"):
            net = model()
        fit(net, DataLoader(Noisy(), 4, shuffle=True, generator=torch.Generator().manual_seed(3)))

    found = audit(train)
    assert not found.findings
    for source in ("init", "shuffle", "augment"):
        assert found.reached(source) == {source}
    assert found.reached("stochastic") == found.reached("seed") == {"stochastic"}, "the seed is set in the loop"
    assert [row.count for row in found.rows if row.source == "stochastic"] == [6], "one for each step"
    ((seeding, count),) = found.reseedings
    assert (seeding.function, seeding.line.split(":")[0], count) == ("torch.manual_seed", "test_subjects.py", 1)


def test_a_function_of_a_run_that_takes_its_batches_from_it() -> None:
    def train(run: Run) -> None:
        with run.stream("init"):
            net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        data = torch.arange(36.0).reshape(12, 3), torch.arange(12) % 2
        for _ in run.epochs(2):
            for x, y in run.batches(data, 4, augment=lambda x: x + torch.rand(x.shape)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()

    found = audit(train)
    assert not found.findings
    assert {source: found.reached(source) for source in ("init", "shuffle", "augment", "stochastic")} == {
        source: {source} for source in ("init", "shuffle", "augment", "stochastic")
    }


def test_a_model_that_is_made_outside_of_its_stream_is_found() -> None:
    def train(run: Run) -> None:
        fit(model(), DataLoader(Noisy(), 4, shuffle=True))

    nothing, wrong = audit(train).findings
    assert nothing.startswith("init moves nothing")
    assert wrong.startswith("stochastic also moves the parameters")


# Files and scripts

_TRAINING = """\
import argparse, torch
from torch.utils.data import DataLoader, TensorDataset
import beside

drawn_once = torch.Generator().manual_seed(42)  # goes on from call to call where a process lives on

def main(seed=0, epochs=2):
    torch.manual_seed(seed)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    data = TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2)
    for _ in range(epochs):
        for x, y in DataLoader(data, 4, shuffle=True, generator=drawn_once):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return beside.CALLS.append(seed) or len(beside.CALLS)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=1)
    main(**vars(parser.parse_args()))
"""


@pytest.fixture
def training(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(_TRAINING)
    (tmp_path / "beside.py").write_text("CALLS = []\n")
    return tmp_path / "train.py"


def test_a_function_in_a_file_is_read_anew_for_each_training(training: Path) -> None:
    before = set(sys.modules), list(sys.path), list(sys.argv), Path.cwd()
    found = audit_subject(FileSubject(training, "main", None, {"epochs": 1}))
    assert found.reached("seed") == {"init"}
    (finding,) = found.findings
    assert "a torch.Generator with the seed 42" in finding, "and not what lives on from one call to the next"
    assert (set(sys.modules), list(sys.path), list(sys.argv), Path.cwd()) == before


def test_a_file_within_a_package(training: Path) -> None:
    package = training.parent / "package" / "inner"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "beside.py").write_text("CALLS = []\n")
    (package / "train.py").write_text(_TRAINING.replace("import beside", "from . import beside"))
    assert audit_subject(FileSubject(package / "train.py", "main", None, {})).reached("seed") == {"init"}
    assert not [name for name in sys.modules if name.startswith("package")]


def test_a_file_that_cannot_be_imported(training: Path) -> None:
    training.write_text("import nothing_of_that_name\n")
    with pytest.raises(TaskError, match=r"(?s)Expected to import train\.py but it raised:.*ModuleNotFoundError"):
        FileSubject(training, "main", None, {})


def test_a_module_of_the_same_name_is_kept(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "train", sys)
    audit_subject(FileSubject(training, "main", None, {}))
    assert sys.modules["train"] is sys


def test_a_script_is_audited_by_its_command_line(training: Path) -> None:
    found = audit_subject(ScriptSubject(training, ["--seed", "{seed}", "--epochs=2"]))
    assert found.knobs == (("seed", 0, 1),)
    assert found.reached("seed") == {"init"}
    assert [row.count for row in found.rows if row.source == "shuffle"] == [2]
    found = audit_subject(ScriptSubject(training, ["--seed={number}"], {"number": (3, 5)}))
    assert found.reached("number") == {"init"}


@pytest.mark.parametrize(
    ("arguments", "knobs"), [([], None), (["--seed", "3"], None), (["--seed", "{seed}"], ["seed", "other"])]
)
def test_a_script_without_the_place_of_a_knob(training: Path, arguments: list[str], knobs: Any) -> None:
    with pytest.raises(TaskError, match=r"among the arguments of .*train\.py, where a knob's value goes"):
        ScriptSubject(training, arguments, knobs)


def test_a_script_that_does_not_take_its_arguments(training: Path) -> None:
    with pytest.raises(TaskError, match="ended with exit code 2"):
        audit_subject(ScriptSubject(training, ["--sed", "{seed}"]))


def test_a_function_that_a_file_does_not_have(training: Path) -> None:
    with pytest.raises(TaskError, match=r"Expected a function 'man' in train.py but it has none. It has main\."):
        FileSubject(training, "man", None, {})
