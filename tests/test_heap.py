"""What a step frees stays in the process for the next one, and only while a block trains."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stabilitykit import heap
from stabilitykit.heap import _mallopt, kept_memory

needs_glibc = pytest.mark.skipif(_mallopt() is None, reason="the heap is not glibc's, or its options are set outside")

#: In a process of its own, since the heap remembers whatever was freed before.
STEPS = """
import resource, torch
from stabilitykit.heap import kept_memory

def step():
    held = [torch.ones(1_000_000) for _ in range(6)]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
with kept_memory():
    faults()  # the first steps take what there is to keep
    print(faults())
"""


@needs_glibc
def test_a_step_takes_the_memory_that_the_last_one_freed():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    # Ten steps of 24 MB are 60,000 pages.
    assert int(done.stdout) < 1_000


def test_after_the_block_memory_goes_back_to_the_system_again(monkeypatch):
    options = {}
    monkeypatch.setattr(heap, "_mallopt", lambda: options.__setitem__)
    with kept_memory():
        assert options[heap._TRIM_THRESHOLD] == -1, "never"
    assert options[heap._TRIM_THRESHOLD] == 2 * options[heap._MMAP_THRESHOLD], "as glibc sets the one by the other"


@needs_glibc
def test_options_set_outside_are_left_alone(monkeypatch):
    for name, value in (("MALLOC_TRIM_THRESHOLD_", "1000000"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")):
        _mallopt.cache_clear()
        with monkeypatch.context() as environment:
            environment.setenv(name, value)
            assert _mallopt() is None
            with kept_memory():
                pass
    _mallopt.cache_clear()
    assert _mallopt() is not None
