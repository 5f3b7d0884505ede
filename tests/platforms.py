"""Other machines on this one: run what trains where the kernels compute other bits, and under other base seeds.

    python tests/platforms.py                                   every platform, base seed 0
    python tests/platforms.py --only native --seeds 0 1 2 3 4
    python tests/platforms.py --main-job                        the main job instead of the tests
    python tests/platforms.py --bits                            which operations have other bits where

A platform is what variables of the environment make of the libraries that torch uses. What they change depends on the
CPU, so a battery of small operations is hashed on each, and it is said how many of them differ from `native`. The
tests are those that are marked `trains`. Exit code 1 where any run failed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_HOOK = {"PYTHONPATH": str(ROOT / "tests" / "emulated")}
_OTHER_KERNELS = {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}

PLATFORMS: dict[str, dict[str, str]] = {
    "native": {},
    "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
    "mkl-avx2": {"MKL_CBWR": "AVX2"},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn-sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "mkldnn-off": {"STABILITYKIT_TEST_TORCH": "mkldnn=off", **_HOOK},
    "threads-2": {
        "STABILITYKIT_TEST_TORCH": "threads=2",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",  # else each waits for the other at full speed, for minutes beside other load
        **_HOOK,
    },
    # All of the old kernels at once.
    "oldest": {"STABILITYKIT_TEST_TORCH": "mkldnn=off", **_OTHER_KERNELS, **_HOOK},
}
#: Set on no platform but where it is named: what the caller's own environment says would make each the same.
_VARIABLES = sorted({name for variables in PLATFORMS.values() for name in variables} - {"PYTHONPATH"})
MAIN_JOB = ["stability_tests"]
#: Left out by --quick: these start pytest for each test, or hold bits against bits of one process, whichever they are.
_NOT_QUICK = ("tests/options/", "tests/cases/", "tests/training/test_control.py", "tests/store/test_shared_epochs.py")


class Run(NamedTuple):
    """How one pytest session on one platform ended."""

    passed: int
    failed: int
    skipped: int
    code: int
    cpu_seconds: float
    wall_seconds: float
    output: str

    def __str__(self) -> str:
        count = f"{self.passed} passed" + f", {self.failed} FAILED" * bool(self.failed)
        count += f", {self.skipped} skipped" * bool(self.skipped)
        how = "" if self.code == 0 or self.failed else f", exit code {self.code}"
        return f"{count}{how} in {self.wall_seconds:.0f} s ({self.cpu_seconds:.0f} s of CPU)"


def environment(platform: str, seed: int = 0) -> dict[str, str]:
    """The variables of a process on a platform, which the processes that it starts inherit."""
    own = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    path = os.pathsep.join(filter(None, [PLATFORMS[platform].get("PYTHONPATH"), os.environ.get("PYTHONPATH")]))
    return own | PLATFORMS[platform] | ({"PYTHONPATH": path} if path else {}) | {"STABILITYKIT_TEST_SEED": str(seed)}


def run(platform: str, seed: int, arguments: list[str], workers: int) -> Run:
    began, before = time.monotonic(), _children_cpu()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers), *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(platform, seed), capture_output=True, text=True, check=False
    )
    counts = dict.fromkeys(("passed", "failed", "error", "errors", "skipped"), 0)
    last = done.stdout.rstrip().rpartition("\n")[2]
    counts |= {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last)}
    failed = counts["failed"] + counts["error"] + counts["errors"]
    cpu, wall = _children_cpu() - before, time.monotonic() - began
    return Run(counts["passed"], failed, counts["skipped"], done.returncode, cpu, wall, done.stdout + done.stderr)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# The bits of a platform


def battery() -> dict[str, str]:
    """Hash what small operations compute here, each by its name."""
    import torch  # in a process of the platform, and in no other
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:  # exact on every machine, whereas normal ones come from a logarithm
        return torch.randint(-(2**20), 2**20, shape, generator=draw) / 2.0**19

    def digest(*tensors: torch.Tensor) -> str:
        data = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in tensors)
        return hashlib.sha256(data).hexdigest()[:12]

    def convolution(layout: torch.memory_format) -> str:
        x, weight = numbers(16, 8, 10, 10).to(memory_format=layout), numbers(16, 8, 3, 3).to(memory_format=layout)
        weight.requires_grad_()
        y = functional.conv2d(x, weight, padding=1)
        y.square().sum().backward()
        return digest(y, weight.grad)

    def training(model: nn.Module, x: torch.Tensor, rate: float) -> str:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(numbers(*parameter.shape) / 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        for batch in torch.arange(48).split(16):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[batch]), batch % 3).backward()
            optimizer.step()
        return digest(*model.state_dict().values())

    x, images = numbers(64, 64), numbers(48, 1, 6, 6)
    return {
        "product": digest(numbers(64, 128) @ numbers(128, 32)),
        "small product": digest(numbers(16, 4) @ numbers(4, 8)),
        "sum": digest(numbers(100_000).sum(), numbers(333, 77).mean(0)),
        "softmax": digest(functional.log_softmax(x, 1)),
        "exp, tanh": digest(x.exp(), x.tanh()),
        "batch norm": digest(functional.batch_norm(numbers(16, 8, 10, 10), None, None, training=True)),
        "convolution": convolution(torch.contiguous_format),
        "channels last": convolution(torch.channels_last),
        "normal draws": digest(torch.randn(1000, generator=draw)),
        "linear training": training(nn.Linear(6, 3), numbers(48, 6), 0.1),
        "hidden layer": training(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), numbers(48, 6), 0.1),
        "conv training": training(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), images, 0.1
        ),
    }


def bits_of(platform: str) -> dict[str, str]:
    command = [sys.executable, __file__, "--battery"]
    done = subprocess.run(command, env=environment(platform), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def differing(platform: str, native: dict[str, str]) -> list[str]:
    """The operations of the battery that have other bits than on this machine as it is."""
    return [name for name, bits in bits_of(platform).items() if bits != native[name]]


# The command


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.battery:
        print(json.dumps(battery()))
        return 0
    if options.list:
        for name, variables in PLATFORMS.items():
            print(f"{name:16}", *(f"{key}={value}" for key, value in variables.items() if key != "PYTHONPATH"))
        return 0
    native, width = bits_of("native"), max(map(len, options.only))
    for name in options.only:
        others = differing(name, native)
        print(f"{name:{width}}  {len(others):2} of {len(native)} operations have other bits", *others, sep="  ")
    return 0 if options.bits else _run_all(options, width)


def _run_all(options: argparse.Namespace, width: int) -> int:
    failed = []
    for name in options.only:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory(prefix="platforms-") as store:
                found = run(name, seed, _session(options, seed, store), options.workers)
            print(f"{name:{width}}  base seed {seed}  {found}", flush=True)
            if found.code:
                failed.append(found)
    for found in failed:
        print(found.output)
    return 1 if failed else 0


def files_that_train() -> list[str]:
    """The test files of which some test is marked: to collect all the others takes longer than some of these train."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path.relative_to(ROOT)) for path in files if "mark.trains" in path.read_text(encoding="utf-8")]


def _session(options: argparse.Namespace, seed: int, store: str) -> list[str]:
    if options.main_job:
        return [*MAIN_JOB, f"--stability-seed={seed}", f"--stability-store={store}", *options.arguments]
    files = [path for path in files_that_train() if not (options.quick and path.startswith(_NOT_QUICK))]
    return ["-m", "trains and not slow" if options.quick else "trains", *files, *options.arguments]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = parser.add_argument("--only", nargs="+", choices=list(PLATFORMS), default=list(PLATFORMS), metavar="NAME")
    names.help = f"these platforms alone: {', '.join(PLATFORMS)}"
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="base seeds, 0 where none is")
    parser.add_argument("--quick", action="store_true", help="a minute of CPU: without slow tests and child sessions")
    parser.add_argument("--main-job", action="store_true", help="stability_tests, each with a store of its own")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="pytest-xdist's, 0 for none")
    parser.add_argument("--list", action="store_true", help="name the platforms and stop")
    parser.add_argument("--bits", action="store_true", help="say which operations have other bits, and stop")
    parser.add_argument("--battery", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
