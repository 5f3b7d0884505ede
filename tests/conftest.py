"""What several tests share: a session in a folder of its own, and models that train in milliseconds."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

from stabilitykit.cli import main
from stabilitykit.execution.question import Question
from stabilitykit.execution.session import Session, measure
from stabilitykit.execution.where import Where
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.layout import LAYOUT, Folder
from stabilitykit.store.run_store import RunStore
from stabilitykit.study.study import Study
from stabilitykit.training.recipe import Recipe
from tests.seeds import BASE_SEED
from tests.store.two_experiments import experiment_folder, fill, record
from tests.store_names import session_id

# How long an example takes depends on what else the machine does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Of tensors as small as a test's, two threads spend their time waiting for each other, most of all beside other work.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for each process that a test starts

# No test cuts the power, and waiting for the disk is a fifth of the time of a test that stores runs. What each process
# of its own does is left as it is; the test that lets the call fail holds that it is made.
os.fsync = os.fstat  # type: ignore[assignment]  # as strict about what it is given


@pytest.fixture
def make_session(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """A session by name: two of one name are two workers of one session, two names come one after the other."""
    stores: set[Path] = set()

    def make(name: str = "one", *, cache: Any = "auto", folder: str = "store", **options: Any) -> Session:
        places = {field.name for field in dataclasses.fields(Where)}
        where = {"device": "cpu"} | {name: options.pop(name) for name in places & set(options)}
        stores.add(tmp_path / folder)
        return Session(RunStore(tmp_path / folder, session_id(name), cache), tmp_path, Where(**where), **options)

    yield make
    for store in stores:
        assert not unknown_below(store)


def unknown_below(store: Path) -> list[str]:
    """The paths in a store whose names stabilitykit does not know as its own, and so would not remove."""

    def unknown(folder: Path, rule: Folder) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            entry = rule.find(path.name)
            if entry is None:
                yield path
            elif isinstance(entry, Folder) and path.is_dir() and not path.is_symlink():
                yield from unknown(path, entry)

    return [str(path.relative_to(store)) for path in unknown(store, LAYOUT)] if store.is_dir() else []


@pytest.fixture
def ask(make_session: Callable[..., Session]) -> Callable[..., Study]:
    """Measure in a session of this test: ``ask(task, "init", runs=3)``."""
    session = make_session()

    def ask(task: Any, vary: Any = "none", perturb: Any = None, runs: int = 3, **options: Any) -> Study:
        constants, seed, onset = options.pop("constants", None), options.pop("seed", BASE_SEED), options.pop("onset", 0)
        protocol = NoiseProtocol(vary, perturb, runs, seed, constants, onset)
        return measure(task, protocol, **{"session": session, **options})

    return ask


def study_of(session: Session, task: Any, protocol: NoiseProtocol, **question: Any) -> Study:
    """The study that `measure` or `check` comes to, where they would raise for runs that failed."""
    return session.train(session.prepare(Question.of(task, protocol, **question)))


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads for torch, where a test is to see them put back after one was set."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def start_holder() -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start a process that takes something, prints what it got and lives on; give it and its line."""
    children: list[subprocess.Popen[str]] = []

    def start(script: str, *args: object) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", script, *map(str, args)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout is not None
        return child, child.stdout.readline().strip()

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture(scope="session")
def blobs() -> tuple[Tensor, Tensor]:
    """48 points of 6 numbers in 3 classes that a line can separate."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(48) % 3
    x = torch.randn(48, 6, generator=generator) * 0.1
    x[torch.arange(48), y] += 1.0
    return x, y


@pytest.fixture
def linear(blobs: tuple[Tensor, Tensor]) -> Recipe:
    return recipe_of(lambda: nn.Linear(6, 3), blobs, lr=0.1)


@pytest.fixture
def dropout_net(blobs: tuple[Tensor, Tensor]) -> Recipe:
    """Has something to draw from every source."""

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))

    return recipe_of(model, blobs, lr=0.1, augment=lambda x: x + 0.1 * torch.randn_like(x))


@pytest.fixture
def conv_net() -> Recipe:
    """Convolution and batch normalisation: what an ulp grows in, and what has buffers beside its parameters."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(24, 1, 6, 6, generator=generator)

    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

    return recipe_of(model, (images, torch.arange(24) % 3), lr=0.5)


@pytest.fixture
def unstable_net() -> Recipe:
    """One hidden layer, trained hard on what no line can separate: an ulp grows to ten million times itself."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(300, 6, generator=draw)
    y = (x[:, 0] * x[:, 1] > 0).long()

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))

    recipe = recipe_of(model, (x[:200], y[:200]), lr=0.5, curve=True)
    return dataclasses.replace(recipe, test=(x[200:], y[200:]), epochs=30, batch_size=20)


def recipe_of(model: Callable[[], nn.Module], data: tuple[Tensor, Tensor], lr: float, **options: Any) -> Recipe:
    return Recipe(
        model=model,
        train=data,
        test=data,
        epochs=3,
        batch_size=16,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        **options,
    )


# A store with two experiments, and the command on it


HOLD = """
import sys, time
from pathlib import Path
from stabilitykit.store.run_store import Experiment
claim = Experiment(Path(sys.argv[1]), "busy", {}, worker="gw7", reuse=False).claim(int(sys.argv[2]))
print(claim.index, flush=True)
time.sleep(60)
"""


@pytest.fixture
def stored(tmp_path):
    """A store with two experiments: "ab12cd..." has run 0 and a failed run 1, "ab34ef..." has run 0 of yesterday."""
    store = RunStore(tmp_path / ".stabilitykit", session_id("one"), worker="gw1")
    fill(store, "ab12cd" + "0" * 26, "digits", [record(0), record(1, status="failed", error="Traceback: boom")])
    fill(store, "ab34ef" + "0" * 26, "mlp", [record(0, perturbation={"parameter": "fc.weight", "old": 1.0})])
    store.end_session()
    return store


@pytest.fixture
def carry_out(stored, capsys):
    """Carry out a command on the store, and give its exit code, what it wrote, and what it complained of."""

    def run(*arguments, at=None):
        try:
            code = main(["--store", str(at or stored.folder), *arguments])
        except SystemExit as exit_:
            code = exit_.code
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


@pytest.fixture
def hold(stored):
    """Start a process that trains a run of an experiment for ever."""
    children = []

    def train(key, index):
        command = [sys.executable, "-c", HOLD, str(experiment_folder(stored, key)), str(index)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout.readline() == f"{index}\n"
        return child

    yield train
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def torch_as_installed() -> Iterator[None]:
    """Undo what Lightning and transformers, which tests of adapters import into this process, put into torch."""
    with pytest.MonkeyPatch.context() as patch:  # of its own: a test may undo all of its own in between
        patch.setattr(torch, "compile", inspect.unwrap(torch.compile))
        patch.delattr(nn.Module, "smart_apply", raising=False)
        yield
