"""`scripts/gpu-check` where there is no GPU: every part at toy sizes, and what it says when a part breaks."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def load(name: str) -> types.ModuleType:
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_").removesuffix(".py"), str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # where dataclasses look for it
    loader.exec_module(module)
    return module


gpu_check, gpu_measure = load("gpu-check"), load("gpu_measure.py")


@pytest.fixture
def check(tmp_path: Path) -> object:
    return gpu_check.Check("cpu", tmp_path, {"ALL": 600.0, **dict.fromkeys(("TESTS", "STEPS", "WAY"), 100.0)})


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, object]]]:
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]


#: A test that says that it has begun, and never ends.
HANGS = "import pathlib, time\ndef test_b(): pathlib.Path(__file__).with_name('hangs').touch(); time.sleep(600)"


def time_is_up_at(sign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the time of a command be up once it has made a file, however fast this machine is."""
    waited = gpu_check.code_within

    def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
        if seconds != 100:
            return waited(process, seconds)
        while process.poll() is None and not sign.exists():
            time.sleep(0.02)
        return process.poll()

    monkeypatch.setattr(gpu_check, "code_within", wait)


@pytest.mark.slow
def test_all_of_it_runs_at_toy_sizes_on_a_cpu() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "gpu-check", "--device", "cpu"], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    parts = list(dict.fromkeys(line["part"] for line in lines))
    assert parts == ["machine", "tests", "steps", "control", "by hand", "runs", "main job", "all"]
    assert lines[0]["device"] == "cpu, toy sizes: no figure below is about a GPU"
    ways = {line["way"]: line for line in lines if "way" in line and line["part"] == "steps"}
    assert list(ways) == ["recipe, low_level held", "recipe, low_level varied", "by hand"]
    assert all(way["steps_per_second"] > 0 and 0 <= way["idle"] < 1 for way in ways.values())
    held, varied = (line for line in lines if "native_low_level" in line)
    assert (held["native_low_level"], varied["native_low_level"]) == ("off", "on")
    assert held["bits_equal"]
    runs = [line for line in lines if line["part"] == "runs"]
    assert [(line["workers"], line["by"]) for line in runs] == [(1, "one process"), (2, "pytest-xdist")]
    assert all(line["runs"] == 2 and line["steps_per_second"] > 0 for line in runs)
    assert runs[0]["accuracy"] == runs[1]["accuracy"], "the number of workers changes no number"
    assert all(line["passed"] > 0 for line in lines if line["part"] in ("tests", "main job"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_fails_and_says_so() -> None:
    done = subprocess.run([sys.executable, SCRIPTS / "gpu-check"], capture_output=True, text=True, check=False)
    machine, whole = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert machine["failed"].startswith("Expected a GPU but torch ")
    assert (whole["failed"], whole["not_run"]) == (["machine"], [])


# What it says


def test_the_exit_code_tells_failed_from_not_run() -> None:
    report = gpu_check.Report()
    assert report.exit_code() == 0
    report.say("runs", not_run="4 s were left")
    assert report.exit_code() == 3
    report.say("tests", failed="2 failed")
    assert report.exit_code() == 1


@pytest.mark.parametrize(
    ("test", "options", "found", "counts"),
    [
        ("def test_it(): pass", (), None, (1, 0, 0, 0)),
        ("def test_it(): assert False", (), "failed", (0, 1, 0, 0)),
        ("import nothing_of_that_name", (), "failed", (0, 0, 1, 0)),
        ("import pytest\ndef test_it(): pytest.skip()", (), "failed", (0, 0, 0, 1)),
        ("def test_it(): pass", ("-k", "another"), "failed", (0, 0, 0, 0)),
        ("def test_it(): pass", ("--no-such-option",), "failed", ()),
        (f"def test_a(): pass\n{HANGS}", (), "not_run", (1, 0, 0, 0)),
        (f"def test_a(): assert 0\n{HANGS}", (), "failed", (0, 1, 0, 0)),
    ],
)
def test_a_part_of_tests_passes_only_where_one_passed_and_all_ended(
    check: gpu_check.Check,
    said,
    monkeypatch: pytest.MonkeyPatch,
    test: str,
    options: tuple[str, ...],
    found: str | None,
    counts: tuple[int, ...],
) -> None:
    if HANGS in test:
        time_is_up_at(check.folder / "hangs", monkeypatch)
    (check.folder / "pytest.ini").write_text("[pytest]\n")
    (check.folder / "test_toy.py").write_text(test)
    command = [*gpu_check.pytest_command(*options), str(check.folder / "test_toy.py")]
    gpu_check.judged(check, "tests", ["toy"], command, 100)
    (line,) = said()
    assert {"failed", "not_run"} & set(line) == ({found} if found else set())
    assert tuple(line[name] for name in ("passed", "failures", "errors", "skipped") if name in line) == counts


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = tmp_path / "beat"
    child = f"import pathlib, time\nwhile True: pathlib.Path({str(beat)!r}).touch(); time.sleep(0.02)"
    command = (
        f"import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    )
    time_is_up_at(beat, monkeypatch)
    monkeypatch.setattr(gpu_check, "GRACE", 0.1)
    assert gpu_check.run(["-c", command], 100, tmp_path, tmp_path).code is None
    last = beat.stat().st_mtime_ns
    time.sleep(1)
    assert beat.stat().st_mtime_ns == last


def test_a_measurement_that_crashes_has_failed(check: gpu_check.Check, said, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = check.folder / "broken.py"
    noise = """import sys; print("noise", file=sys.stderr, end=""); print("{noise"); print(3)"""
    broken.write_text(f"""{noise}; print('{{"way": "first"}}'); raise SystemExit("out of memory")""")
    monkeypatch.setattr(gpu_check, "MEASURE", broken)
    assert gpu_check.measured(check, "steps", "STEPS") is None
    first, second = said()
    assert first == {"part": "steps", "way": "first"}
    assert second == {"part": "steps", "failed": "exit code 1: noiseout of memory"}


def test_what_is_missing_is_named_with_what_is_not_run(
    check: gpu_check.Check, said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gpu_check, "is_here", lambda package: package not in ("xdist", "cloudpickle", "sklearn", "tomlkit")
    )
    assert gpu_check.look_around(check)
    lines = {line.get("missing"): line for line in said()}
    assert {"xdist", "cloudpickle", "sklearn", "tomlkit"} < set(lines)
    assert "not_run" not in lines["tomlkit"]
    assert lines["sklearn"]["not_run"] == "the main job, which trains on scikit-learn's digits"
    assert check.report.exit_code() == 3
    gpu_check.with_workers(check, epochs=2, workers=4)
    gpu_check.run_main_job(check)  # was named above
    (line,) = said()
    assert line["not_run"] == "there is neither pytest-xdist nor cloudpickle"


@pytest.mark.parametrize("package", ["torch", "numpy", "scipy"])
def test_nothing_is_run_where_torch_or_what_the_package_imports_is_missing(
    check: gpu_check.Check, said, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(gpu_check, "is_here", lambda name: name != package)
    assert not gpu_check.look_around(check)
    assert said()[-1]["failed"] == "Expected torch, numpy and scipy for anything to be run."
    assert check.report.exit_code() == 1


def test_workers_are_those_of_xdist_or_else_children(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_check.workers_by(1) == []
    assert gpu_check.workers_by(4)[:2] == ["-n", "4"]
    monkeypatch.setattr(gpu_check, "is_here", lambda package: package != "xdist")
    children = gpu_check.workers_by(4)
    assert children == ["--stability-workers", "4", "--stability-workers-per-device", "4"]
    assert gpu_check.by_name(children) == "child processes"
    assert "xdist" not in gpu_check.pytest_command()


def test_time_that_is_up_is_said(check: gpu_check.Check, said) -> None:
    check.started -= 3600
    gpu_check.with_workers(check, epochs=2, workers=1)
    gpu_check.run_main_job(check)
    assert [line["not_run"] for line in said()] == ["0 s were left"] * 2


@pytest.mark.parametrize(
    ("code", "failed"), [(0, None), (1, "1 failed"), (None, "all was trained, but the session did not end")]
)
def test_a_session_that_has_trained_must_also_end_well(
    check: gpu_check.Check, said, monkeypatch: pytest.MonkeyPatch, code: int | None, failed: str | None
) -> None:
    def run(check: gpu_check.Check, command: object, limit: object, cwd: Path) -> object:
        (cwd / "times.json").write_text('{"runs": 10, "between": [0, 1]}')
        return gpu_check.Ended(code, "1 failed", "", 5.0)

    monkeypatch.setattr(gpu_check.Check, "run", run)
    gpu_check.with_workers(check, epochs=2, workers=1)
    (line,) = said()
    assert (line["runs"], line.get("failed")) == (10, failed)


def test_the_tests_for_gpus_are_all_among_the_files_that_it_names() -> None:
    names = [path.name for path in (SCRIPTS.parent / "tests").rglob("test_*.py") if gpu_check.is_marked(path)]
    assert "test_gpu.py" in names


# Whether the device idles


def test_the_devices_idle_share_is_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 100; echo 50; echo '[N/A]'; echo 30; exec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    begin = time.time()
    with gpu_check.Utilisation("cuda") as utilisation:
        deadline = time.monotonic() + 30
        while len(utilisation._samples) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert utilisation.between(begin, time.time()) == {"idle": 0.4, "idle_by": "nvidia-smi, 3 samples"}
    assert utilisation.between(0, begin - 1) == {"idle": None, "idle_by": "no sample of nvidia-smi"}


def test_events_that_overlap_are_busy_once() -> None:
    def event(start: float, end: float, kind: str = "kernel") -> dict[str, object]:
        return {"cat": kind, "ts": start * 1e6, "dur": (end - start) * 1e6}

    events = [event(4, 5), event(0, 2), event(1, 3), event(1.5, 2.5, "gpu_memcpy"), event(0, 9, "cpu_op"), {"ph": "M"}]
    assert gpu_measure.busy_seconds(events, {"kernel", "gpu_memcpy"}) == 4
    assert gpu_measure.busy_seconds([], {"kernel"}) == 0


# What it measures


def test_a_leak_turns_the_control_red(said, monkeypatch: pytest.MonkeyPatch) -> None:
    leak = np.random.default_rng(0)
    recipe_of = gpu_measure.recipe_of

    def leaking(size: object, epochs: int) -> object:
        return gpu_measure.replace(recipe_of(size, epochs), augment=lambda x: x + leak.standard_normal())

    monkeypatch.setattr(gpu_measure, "recipe_of", leaking)
    gpu_measure.control("cpu", {})
    off, on, _ = said()
    assert off["failed"] == "two trainings of one plan have other bits"
    assert on["failed"].startswith("Expected two trainings under one plan to be bit-identical")


def test_the_loop_by_hand_has_the_settings_of_the_recipe() -> None:
    """Equal settings, so that the two rates can be compared."""
    recipe = gpu_measure.recipe_of(gpu_measure.TOY, epochs=4)
    group = recipe.optimizer(recipe.model()).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.4, 0.9, 5e-4)
    assert recipe.schedule == gpu_measure.warmup_cosine(gpu_measure.warmup_of(4))
    assert (recipe.augment.padding, recipe.augment.flip) == (4, True)
    assert recipe.memory_format is torch.channels_last


def test_the_loop_by_hand_crops_and_mirrors() -> None:
    x = torch.randn(64, 3, 8, 8)
    crops = gpu_measure.crop_and_flip(x, padding=0)
    is_same, is_mirrored = ((crops == other).flatten(1).all(1) for other in (x, x.flip(3)))
    assert (is_same | is_mirrored).all()
    assert 0 < is_same.sum() < 64  # by chance all or none once in 2 ** 63
    black = gpu_measure.crop_and_flip(torch.ones(64, 3, 8, 8), padding=4) == 0
    assert 0 < black.float().mean() < 1
