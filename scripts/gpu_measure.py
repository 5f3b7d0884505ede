"""What `gpu-check` measures in a process of its own: the machine, single steps, the control, a loop by hand.

``python scripts/gpu_measure.py PART --device cuda --settings '{}'`` prints one JSON object a line.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabilitykit.errors import IsolationError
from stabilitykit.execution.executor import InProcess
from stabilitykit.protocol import NoiseProtocol, RunPlan
from stabilitykit.training.control import prove_isolation
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.schedule import warmup_cosine
from stabilitykit.training.trainer import Trainer
from stabilitykit.zoo import cifar10, resnet14


@dataclass(frozen=True)
class Size:
    """How much is trained: images of CIFAR's shape, in the paper's setting."""

    train: int
    test: int
    batch_size: int
    width: float
    pixels: int
    runs: int  #: R
    run_seconds: float  #: that one training should take


#: ResNet-14 and its batch are the paper's; the images are fewer, so that ten runs of each way fit.
FULL = Size(train=12_800, test=2_000, batch_size=512, width=1, pixels=32, runs=10, run_seconds=1.5)
TOY = Size(train=32, test=16, batch_size=16, width=0.5, pixels=8, runs=2, run_seconds=0.1)


def size_on(device: str) -> Size:
    """Return the size for a device: a CPU is there to try the script."""
    return TOY if device == "cpu" else FULL


def say(**found: Any) -> None:
    """Print one line."""
    print(json.dumps(found), flush=True)


def images(size: Size, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make images that can be learnt: a pattern for each class, below noise of its size."""
    draw = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 3, size.pixels, size.pixels, generator=draw)
    draw.manual_seed(seed)
    y = torch.randint(0, 10, (count,), generator=draw)
    return patterns[y] + torch.randn(count, 3, size.pixels, size.pixels, generator=draw), y


def recipe_of(size: Size, epochs: int) -> Recipe:
    """Return the paper's setting (section 3.2) for these images."""
    model = functools.partial(resnet14, width=size.width)
    train, test = images(size, size.train, seed=1), images(size, size.test, seed=2)
    settings = {"epochs": epochs, "warmup_epochs": warmup_of(epochs), "batch_size": size.batch_size}
    return cifar10(model, train, test, **settings)


def warmup_of(epochs: int) -> float:
    """Return the paper's warm-up where there is time for it."""
    return min(3, epochs / 2)


def plan_of(vary: str) -> RunPlan:
    return NoiseProtocol(vary, runs=2).plans()[0]


# Parts


def machine(device: str, _: dict[str, Any]) -> None:
    """Say what this is measured on."""
    about = {"python": platform.python_version(), "torch": torch.__version__, "cores": torch.get_num_threads()}
    if device == "cpu":
        say(device="cpu, toy sizes: no figure below is about a GPU", **about)
    elif not torch.cuda.is_available():
        say(failed=f"Expected a GPU but torch {torch.__version__} (CUDA {torch.version.cuda}) sees none here.")
    else:
        gigabytes = round(torch.cuda.get_device_properties(0).total_memory / 2**30)
        say(device=torch.cuda.get_device_name(0), gigabytes=gigabytes, cuda=torch.version.cuda, **about)
        tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        say(cudnn=torch.backends.cudnn.version(), tf32_of_convolutions=tf32[0], tf32_of_products=tf32[1])


def steps(device: str, _: dict[str, Any]) -> None:
    """Time a step of each way, and how long the device has nothing to do meanwhile; choose the epochs of a run."""
    size = size_on(device)
    a_step = -(-size.train // size.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe_of(size, 2), device, 1, Path(folder))
        ways: dict[str, Callable[[int], None]] = {
            f"recipe, low_level {kind}": functools.partial(train, trainer, plan_of(vary))
            for kind, vary in (("held", "init"), ("varied", "low_level"))
        }
        data = [part.to(device) for part in (*images(size, size.train, seed=1), *images(size, size.test, seed=2))]
        ways["by hand"] = lambda epochs: by_hand_once(size, epochs, 0, data)
        first = seconds_of(lambda: ways["recipe, low_level held"](1))  # loads and chooses kernels
        once = seconds_of(lambda: ways["recipe, low_level held"](2))
        epochs = max(2, min(100, round(2 * size.run_seconds / once)))
        for name, way in ways.items():
            way(1)
            took = statistics.median(seconds_of(functools.partial(way, epochs)) for _ in range(3))
            rate = a_step * epochs / took
            say(way=name, steps_per_second=round(rate, 1), seconds_a_run=round(took, 3), **idle_of(way, epochs, took))
        say(first_seconds=round(first, 2), epochs=epochs, steps_a_run=a_step * epochs, batch_size=size.batch_size)


def train(trainer: Trainer, plan: RunPlan, epochs: int) -> None:
    assert isinstance(trainer.task, Recipe)
    trainer.task = lasting(trainer.task, epochs)
    record = trainer.train_once(plan)
    if record.status != "ok":
        raise RuntimeError(record.error)


def lasting(recipe: Recipe, epochs: int) -> Recipe:
    """Return a recipe with other epochs, and the data that was prepared for it."""
    return replace(recipe, epochs=epochs, schedule=warmup_cosine(warmup_of(epochs)))


def seconds_of(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()  # it fetches outputs, so that the device has nothing left to do
    return time.perf_counter() - started


def idle_of(way: Callable[[int], None], epochs: int, seconds: float) -> dict[str, Any]:
    """Return the share of a run in which no kernel ran: kernels by the profiler, the whole by the clock without it."""
    on_gpu = torch.cuda.is_available()
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(activities=[activity]) as profile:
            way(epochs)
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(f"{folder}/trace.json").read_text())["traceEvents"]
    busy = busy_seconds(events, {"kernel", "gpu_memcpy", "gpu_memset"} if on_gpu else {"cpu_op"})
    if not busy:
        return {"idle": None, "idle_by": "the profiler saw no kernel"}
    return {"idle": round(max(0.0, 1 - busy / seconds), 3), "idle_by": "profiler", "busy_seconds": round(busy, 3)}


def busy_seconds(events: Iterable[dict[str, Any]], kinds: set[str]) -> float:
    """Return for how long at least one event of some kinds lasted; times of a trace are microseconds.

    >>> at = lambda start, length: {"cat": "kernel", "ts": start * 1e6, "dur": length * 1e6}
    >>> busy_seconds([at(4, 1), at(0, 2), at(1, 2)], {"kernel"})
    4.0
    """
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("cat") in kinds)
    busy, reached = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / 1e6


def control(device: str, _: dict[str, Any]) -> None:
    """Train one plan twice with low-level operations held, and twice with those of the kernels themselves."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer = Trainer(recipe_of(size_on(device), 2), device, 1, Path(folder))
        for vary, name in (("init", "off"), ("low_level", "on")):
            started = time.perf_counter()
            first, second = (trainer.train_once(plan_of(vary)) for _ in range(2))
            seconds = time.perf_counter() - started
            equal = first.status == "ok" and first.fingerprint == second.fingerprint
            found = {"native_low_level": name, "acts_by": first.low_level, "bits_equal": equal}
            wrong = first.error or ("" if equal or name == "on" else "two trainings of one plan have other bits")
            scope, leak = proof(trainer, vary)
            found |= {"seconds": round(seconds, 2), "control": scope}
            say(**found, **({"failed": wrong or leak} if wrong or leak else {}))
    named = sorted({str(one.message).partition(" does not have a deterministic")[0] for one in seen if is_alert(one)})
    say(without_deterministic_kernel=named)


def proof(trainer: Trainer, vary: str) -> tuple[str, str]:
    """Return what the control proved, and what is wrong where it proved nothing."""
    try:
        shown = prove_isolation(InProcess(trainer).call, trainer, plan_of(vary))
    except IsolationError as error:
        return "", str(error)
    return shown.scope, "" if shown.proven else shown.scope


def is_alert(warning: warnings.WarningMessage) -> bool:
    """Whether torch names an operation that it cannot hold."""
    return "does not have a deterministic" in str(warning.message)


def by_hand(device: str, settings: dict[str, Any]) -> None:
    """Train R runs in the fastest loop that is easily written: all data on the device, nothing held, no harness."""
    size = size_on(device)
    data = [part.to(device) for part in (*images(size, size.train, seed=1), *images(size, size.test, seed=2))]
    by_hand_once(size, 1, 0, data)
    epochs = int(settings["epochs"])
    took = seconds_of(lambda: [by_hand_once(size, epochs, seed, data) for seed in range(size.runs)])
    rate = size.runs * epochs * -(-size.train // size.batch_size) / took
    say(way="by hand, in sequence", runs=size.runs, training_seconds=round(took, 2), steps_per_second=round(rate, 1))


@contextlib.contextmanager
def fastest_kernels() -> Iterator[None]:
    """Let cuDNN time its kernels and take the fastest, as the native low-level source does."""
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


@fastest_kernels()
def by_hand_once(size: Size, epochs: int, seed: int, data: list[Tensor]) -> None:
    x, y, test_x, _ = data
    torch.manual_seed(seed)
    model = resnet14(width=size.width).to(x.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9, weight_decay=5e-4)
    schedule = warmup_cosine(warmup_of(epochs))
    a_step = -(-len(x) // size.batch_size)
    for epoch in range(epochs):
        for step, indices in enumerate(torch.randperm(len(x), device=x.device).split(size.batch_size), start=1):
            optimizer.zero_grad()
            functional.cross_entropy(model(crop_and_flip(x[indices])), y[indices]).backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.4 * schedule(epoch + step / a_step, epochs)
            optimizer.step()
    predict(model, test_x)


def predict(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(part) for part in x.split(1000)]).cpu()


def crop_and_flip(x: Tensor, padding: int = 4) -> Tensor:
    count, channels, height, width = x.shape
    padded = functional.pad(x.permute(0, 2, 3, 1), [0, 0, *[padding] * 4])
    rows = torch.randint(0, 2 * padding + 1, (count, 1), device=x.device) + torch.arange(height, device=x.device)
    columns = torch.randint(0, 2 * padding + 1, (count, 1), device=x.device) + torch.arange(width, device=x.device)
    columns = torch.where(torch.rand(count, 1, device=x.device) < 0.5, columns.flip(1), columns)
    starts = (torch.arange(count, device=x.device)[:, None] * padded.shape[1] + rows) * padded.shape[2]
    pixels = (starts[:, :, None] + columns[:, None, :]).reshape(-1)
    gathered = padded.reshape(-1, channels).index_select(0, pixels)
    return gathered.view(count, height, width, channels).permute(0, 3, 1, 2)


PARTS = {"machine": machine, "steps": steps, "control": control, "by hand": by_hand}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--settings", type=json.loads, default={})
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(PARTS[chosen.part](chosen.device, chosen.settings))
