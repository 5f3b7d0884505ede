"""What the harness itself costs: at start-up, for each run, and for each step of a training.

Run it on a quiet machine: ``python benchmarks/overhead.py``. Figures are medians; what is compared ran in turn.
"""

from __future__ import annotations

import contextlib
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from stabilitykit import NoiseProtocol, Recipe, Run
from stabilitykit.execution.child_processes import ChildProcesses
from stabilitykit.execution.executor import Executor, InProcess
from stabilitykit.execution.runner import Runner, Wanted
from stabilitykit.store.run_store import RunStore
from stabilitykit.training.task import as_task
from stabilitykit.training.trainer import Trainer

ROUNDS = 7


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def start_up() -> None:
    """A session with one empty test, with the plugin and without."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_nothing.py").write_text("def test_nothing(): pass\n")
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]

        def session(*more: str) -> float:
            return seconds(lambda: subprocess.run([*pytest, *more], cwd=folder, check=True, capture_output=True))

        pairs = [(session(), session("-p", "no:stabilitykit")) for _ in range(ROUNDS)]
        extra = statistics.median(one - other for one, other in pairs)
        print(f"start-up: {1000 * extra:.0f} ms over {1000 * statistics.median(p[1] for p in pairs):.0f} ms of pytest")


def each_run() -> None:
    """A run that trains nothing: seeds, streams, fingerprint, claim, result on disk; here, and in children."""

    def train(run: Run) -> torch.Tensor:
        return logits

    logits = torch.randn(2000, 10)
    labels = torch.zeros(2000, dtype=torch.long)
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        trainer = Trainer(as_task(train, labels), "cpu", 1, Path(folder))

        def per_run(executor: Executor, runs: int) -> float:
            plans = NoiseProtocol("init", runs=runs).plans()
            wanted = Wanted(store.experiment(secrets.token_hex(16), {}), plans)
            return seconds(Runner(wanted, executor).gather) / runs

        plan = NoiseProtocol("init", runs=2).plans()[0]
        alone = [seconds(lambda: trainer.train_once(plan)) for _ in range(50 * ROUNDS)]
        here = [per_run(InProcess(trainer), 50) for _ in range(ROUNDS)]
        with contextlib.closing(
            ChildProcesses(trainer, Path(folder), store.session_folder / "tasks", devices=["cpu"])
        ) as children:
            per_run(children, 2)  # starts the server
            there = [per_run(children, 10) for _ in range(ROUNDS)]
    whole, bare, child = (1000 * statistics.median(times) for times in (here, alone, there))
    print(
        f"each run: {whole:.1f} ms (2,000 x 10 logits, kept with fsync), {whole / 10:.2f} % of a run of 1 s; "
        f"{bare:.1f} ms without the store; {child:.0f} ms in a child"
    )


def each_step() -> None:
    """A recipe against the same loop written by hand, on a net so small that a step is mostly overhead."""
    x, y = torch.randn(4096, 32), torch.randint(0, 10, (4096,))

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 10))

    def sgd(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def by_hand() -> None:
        model = net()
        optimizer = sgd(model)
        for _ in range(10):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
        with torch.inference_mode():
            model.eval()(x[:1000])

    recipe = Recipe(model=net, train=(x, y), test=(x[:1000], y[:1000]), epochs=10, batch_size=64, optimizer=sgd)
    trainer = Trainer(recipe, "cpu", 1, Path.cwd())
    plan = NoiseProtocol("init", runs=2).plans()[0]
    torch.set_num_threads(1)
    by_hand()
    trainer.train_once(plan)
    pairs = [(seconds(lambda: trainer.train_once(plan)), seconds(by_hand)) for _ in range(ROUNDS)]
    ratio = statistics.median(one / other for one, other in pairs)
    steps = 10 * 64
    print(f"each step: {ratio:.3f} of the time by hand ({1e6 * statistics.median(p[1] for p in pairs) / steps:.0f} us)")


if __name__ == "__main__":
    start_up()
    each_run()
    each_step()
