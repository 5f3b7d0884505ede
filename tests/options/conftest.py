"""A project of a user, in which real pytest processes train a toy that keeps a ledger of its trainings."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest

from tests.conftest import unknown_below
from tests.options.warm_python import warm_python
from tests.seeds import BASE_SEED

TOY = """
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn

from stabilitykit import *


def how(name, default):
    # How a test lets it train is no input of the training: C tells what Python's tracing would see.
    import ctypes

    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    found = getenv(name.encode())
    return default if found is None else found.decode()


# Its runs have an SD of the cross-entropy of 0.03 to 0.05 nats where `init` varies, under five base seeds. A limit of
# 10^-6 is therefore broken by three runs, and one of 2 is kept: the SD of three normal numbers is a 10,000th of what
# it should be once in 10^8 times, and ten times that never. In 40 studies of 40 base seeds both verdicts were that
# each time. Accuracies tie and predictions agree by chance (of four runs, 36 of 40 studies break a limit of 1 % for
# the disagreement), so that no verdict rests on them.
X = torch.randn(64, 4, generator=torch.Generator().manual_seed(7))
Y = (X.sum(1) > 0).long()

# The function of that name and torch.optim import torch's compiler, which costs a process another second and a half.
torch.use_deterministic_algorithms = lambda mode, warn_only=False: torch.set_deterministic_debug_mode(int(mode))


def train(run, rate=0.1):
    started = time.time()
    with run.stream("init"):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(run.device)
    run.perturb(model)
    for epoch in run.epochs(3):
        if epoch == 2 and not run.is_rehearsed:  # a look at the first epochs stops before
            meet(int(how("TOY_MEET", "1")))
            time.sleep(float(how("TOY_SECONDS", "0")))
            suffer(run)
        for x, y in run.batches((X, Y), 16):
            step(model, nn.functional.cross_entropy(model(x), y), rate)
    if epoch == 2 and not run.is_rehearsed:
        note(run, started)
    with torch.inference_mode():
        return model(X)


def meet(count):
    # The first training of each process goes on when so many processes have begun one: none does all the work alone,
    # however slowly the others start. Where they never come, it goes on without them.
    mine = Path(f"met-{os.getpid()}")
    if count > 1 and not mine.exists():
        mine.touch()
        for place in range(count):  # not a list of the files: what a folder holds would be an input of the training
            if not os.path.exists(f"met-at-{place}"):
                Path(f"met-at-{place}").touch()
                break
        until = time.monotonic() + 100
        while not os.path.exists(f"met-at-{count - 1}") and time.monotonic() < until:
            time.sleep(0.01)


def suffer(run):
    # `exit 3 once` ends the process in run 3, the first time only.
    what, index, *once = how("TOY_FAULT", "none -1").split()
    if run.index != int(index) or (once and os.path.exists("suffered")):
        return
    open("suffered", "w").close()
    if what == "exit":
        os._exit(7)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ValueError("in the user's code")
    elif what == "leave":
        raise SystemExit(7)
    elif what == "hang":
        print("about to hang", flush=True)
        time.sleep(1000)
    elif what == "wait":
        while not os.path.exists("go"):
            time.sleep(0.01)


def step(model, loss, rate):
    model.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= rate * parameter.grad


def note(run, started):
    seeds = sum(seed or 0 for seed in run.seeds.values())
    with open("ledger.txt", "a") as ledger:
        ledger.write(f"{os.getpid()} {run.index} {seeds} {started} {time.time()}\\n")
"""

#: What the toy's processes need not load: it saves a second each.
_WITHOUT = [
    *("hypothesispytest", "timeout", "randomly", "rerunfailures", "pytest_cov"),
    *("html", "html_fixtures", "metadata", "platformdirs"),
]

WAYS = {"plain": ["-p", "no:xdist"], "n0": ["-n", "0"], "n2": ["-n", "2"]}


class Training(NamedTuple):
    """One line of the ledger: a training that came to its end, in whichever process."""

    pid: int
    index: int
    seeds: int  #: their sum, to tell one study's runs from another's
    started: float
    ended: float


class Project:
    """A folder of tests, and the processes that run them."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, python: str | Path) -> None:
        self._pytester = pytester
        self.python = python  #: what `run` runs; it has loaded torch, which `sys.executable` has not
        self._runs = itertools.count()
        self._monkeypatch = monkeypatch
        self.path = pytester.path
        pytester.makeini("[pytest]\nfilterwarnings = error\nxfail_strict = true\n")
        self.write("toy.py", TOY)
        for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
            monkeypatch.delenv(name)  # of the session that runs this very test

    def write(self, name: str, content: str) -> None:
        """Make a file, of another second than the one that it replaces: Python caches what it compiled by that."""
        file = self.path / name
        before = int(file.stat().st_mtime) if file.exists() else 0
        file.write_text(dedent(content))
        if before and int(file.stat().st_mtime) <= before:
            os.utime(file, (before + 1, before + 1))

    def tests(self, content: str, name: str = "test_toy.py") -> None:
        """Make a test file with the toy at hand."""
        self.write(name, "import pytest\nfrom toy import *\n\n" + dedent(content))

    def ini(self, lines: str) -> None:
        """Add lines to the ini file."""
        ini = self.path / "tox.ini"
        ini.write_text(f"{ini.read_text()}\n{dedent(lines)}\n")

    def run(self, *args: object, way: str = "plain") -> pytest.RunResult:
        """Run pytest in a process of its own, in one of `WAYS`; ``-p timeout`` among others loads what is left out."""
        self._part()
        own = [*_of_base_seed(args), f"--basetemp={self.path / f'run-{next(self._runs)}'}", *_without(args), *WAYS[way]]
        return self._pytester.run(self.python, "-m", "pytest", *own, *map(str, args), timeout=500)

    def study(self, *args: object, way: str = "plain") -> tuple[pytest.RunResult, dict[str, Any]]:
        """Run pytest, and return its `--stability-json` as well."""
        result = self.run("--stability-json", "report.json", *args, way=way)
        return result, json.loads((self.path / "report.json").read_text(), parse_constant=_no_nan)

    def start(self, *args: object, way: str = "plain", **options: Any) -> subprocess.Popen[bytes]:
        """Start pytest at the head of a process group of its own, which hears Ctrl-C wherever these tests run."""
        command = [sys.executable, "-m", "pytest", *_of_base_seed(args), *_without(args), *WAYS[way], *map(str, args)]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is ignored here, it would ignore
        try:
            return subprocess.Popen(command, cwd=self.path, start_new_session=True, **options)
        finally:
            signal.signal(signal.SIGINT, before)

    def sleep_in_runs(self, seconds: float) -> None:
        """Let each run of the toy take that long."""
        self._monkeypatch.setenv("TOY_SECONDS", str(seconds))

    def meet(self, count: int) -> None:
        """Let each process's first training of the toy last until so many processes have begun one."""
        self._monkeypatch.setenv("TOY_MEET", str(count))

    def _part(self) -> None:
        for path in self.path.glob("met-*"):
            path.unlink()

    def suffer(self, fault: str) -> None:
        """Let a run of the toy come to grief: `exit`, `kill`, `raise`, `leave` or `hang`, its index, and `once`.

        One that is to `wait` does so until there is a file named ``go``.
        """
        self._monkeypatch.setenv("TOY_FAULT", fault)

    def has_suffered(self) -> bool:
        """Whether a run has come to the place where it is to suffer."""
        return (self.path / "suffered").exists()

    def ledger(self) -> list[Training]:
        """Return the trainings that ended since the last call."""
        trainings = self.in_ledger()
        (self.path / "ledger.txt").unlink(missing_ok=True)
        # The certificate of each task repeats its base run: last, and before that in a second worker that comes early.
        of_base = [(training.index, training.seeds) for training in trainings if training.index == 0]
        counts = {base: of_base.count(base) for base in set(of_base)}
        repeated = {base: count - 1 if count <= 3 else count // 2 for base, count in counts.items()}
        for base, count in repeated.items():
            for repetition in [one for one in trainings if (one.index, one.seeds) == base][:count]:
                trainings.remove(repetition)
        return trainings

    def trained_by(self) -> set[int]:
        """Return the processes whose trainings ended since the last call, those that repeated the base run too."""
        pids = {training.pid for training in self.in_ledger()}
        self.ledger()
        return pids

    def in_ledger(self) -> list[Training]:
        """Return the trainings that ended since the last call of `ledger`, and leave the ledger as it is."""
        file = self.path / "ledger.txt"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [Training(int(a), int(b), int(c), float(d), float(e)) for a, b, c, d, e in lines]

    def processes(self) -> list[int]:
        """Return the living processes that work in this folder."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                dead = "\nState:\tZ" in (folder / "status").read_text()
                if not dead and (folder / "cwd").resolve() == self.path.resolve():
                    found.append(int(folder.name))
        return [pid for pid in found if pid != os.getpid()]

    def trained(self) -> list[int]:
        """Return the sorted indices of the runs that were trained since the last call."""
        return sorted(training.index for training in self.ledger())

    def went_on(self, kept: list[int], runs: int) -> bool:
        """Whether the runs trained since the last call are those that were missing, and at most the base run once more.

        Its repetition comes last, so a session that was cut leaves it to the next one.
        """
        missing = [index for index in range(runs) if index not in kept]
        return self.trained() in (missing, [0, *missing])

    def stored(self) -> list[int]:
        """Return the sorted indices of the runs in the store."""
        return sorted(
            int(path.stem)
            for path in self.path.glob(".stabilitykit/v2/*/runs/*.json")
            if not (path.parents[1] / "certificate.json").exists()  # where the base run lies, for all studies
        )

    def claims(self) -> list[str]:
        """Return the names of the claims that somebody has left or holds."""
        return sorted(path.name for path in self.path.glob(".stabilitykit/**/claims/*.json"))

    @staticmethod
    def timeless(report: dict[str, Any]) -> dict[str, Any]:
        """Return a report without what differs between two equal sessions: seconds, and which worker came late."""
        for study in report["studies"]:
            assert study["certificate"].pop("joined") <= 1
            study["certificate"].pop("line")
            for record in study["records"]:
                assert record.pop("seconds") >= 0
        return report

    def forget(self) -> None:
        """Remove the store."""
        shutil.rmtree(self.path / ".stabilitykit", ignore_errors=True)


def _of_base_seed(args: tuple[object, ...]) -> list[str]:
    is_asked = any(str(arg).startswith("--stability-seed") for arg in args)
    return [f"--stability-seed={BASE_SEED}"] if BASE_SEED and not is_asked else []


def _without(args: tuple[object, ...]) -> list[str]:
    return [word for name in _WITHOUT if name not in args for word in ("-p", f"no:{name}")]


def _no_nan(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | Path]:
    """The Python that a project's tests are run by."""
    if hasattr(os, "pidfd_open"):
        with warm_python(tmp_path_factory.mktemp("python")) as launcher:
            yield launcher
    else:  # not Linux
        yield sys.executable


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, python: str | Path) -> Iterator[Project]:
    project = Project(pytester, monkeypatch, python)
    yield project
    assert not unknown_below(project.path / ".stabilitykit")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each of the ways to run pytest: without xdist, without workers, with two."""
    return str(request.param)


@pytest.fixture
def wait_for() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Wait until a condition holds, and return what it returned."""

    def wait(condition: Callable[[], Any], seconds: float = 300.0) -> Any:  # guards a hang, and nothing else
        until = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.02)
        return found

    return wait
