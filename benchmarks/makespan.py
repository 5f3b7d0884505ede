"""How well the runs of tests fill the workers: from the first start to the last end, against the ideal.

    python benchmarks/makespan.py [--pairs 5]

A run sleeps, so nothing but the distribution is measured. ``one`` is a test of 30 runs of 0.2 s, ideally 3.0 s on two
workers; ``three`` are tests of 30 runs of 0.05, 0.1 and 0.4 s, ideally 8.25 s. Each session begins with an empty store.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = """
import time

import pytest
import torch


Y = torch.arange(64) % 2


def sleeper(seconds):
    def train(run):
        started = time.time()
        time.sleep(seconds)
        with open("ledger.txt", "a") as ledger:
            ledger.write(f"{started} {time.time()}\\n")
        with run.stream("init"):
            return torch.randn(64, 2)

    return train


@pytest.mark.parametrize("seconds", SECONDS)
def test_sleeps(stability, seconds, monkeypatch):
    # The certificate would train a loop without epochs several times in full: this measures the distribution alone.
    for proof in ("begin", "end", "join"):
        monkeypatch.setattr(f"stabilitykit.execution.certifier.Certifier.{proof}", lambda *_: None)
    monkeypatch.setattr("stabilitykit.execution.certifier.Certifier.can_join", lambda *_: True)
    stability.measure(sleeper(seconds), labels=Y, vary="init", runs=30)
"""
CASES = {"one": (0.2,), "three": (0.05, 0.1, 0.4)}
DISTS = ("load", "loadscope", "loadfile", "loadgroup", "worksteal")


def span(seconds: tuple[float, ...], *args: str) -> float:
    """Seconds from the start of the first run to the end of the last."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_sleep.py").write_text(TESTS.replace("SECONDS", repr(seconds)))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout)
        lines = [line.split() for line in (Path(folder) / "ledger.txt").read_text().splitlines()]
        assert len(lines) == 30 * len(seconds)
        return max(float(end) for _, end in lines) - min(float(start) for start, _ in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="sessions a figure (default: 5)")
    pairs = parser.parse_args().pairs
    for name, seconds in CASES.items():
        ideal = 30 * sum(seconds) / 2
        ways = {f"-n 2 --dist {dist}": ("-n", "2", "--dist", dist) for dist in DISTS}
        ways["--stability-workers 2"] = ("--stability-workers", "2")
        for way, args in ways.items():
            ratios = [span(seconds, *args) / ideal for _ in range(pairs)]
            print(f"{name}, {way}: {statistics.median(ratios):.3f} of the ideal {ideal:.2f} s", flush=True)


if __name__ == "__main__":
    main()
