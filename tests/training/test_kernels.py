"""The fingerprint of a platform: equal wherever the kernels are, another where they compute other bits."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from stabilitykit.training import kernels
from stabilitykit.training.kernels import kernels_fingerprint
from tests import platforms

_PRINT = "from stabilitykit.training.kernels import kernels_fingerprint as f; print(f('cpu', 1))"


def in_a_process(code=_PRINT, **variables):
    """The fingerprint of a new process with these variables."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def computed_anew():
    kernels._fingerprint.cache_clear()
    return kernels_fingerprint("cpu", 1)


def of_a_child(pipe):
    pipe.send(computed_anew())


def test_it_is_computed_once_a_process_for_each_count_of_threads():
    one = computed_anew()
    assert len(one) == 16
    began = time.perf_counter()
    assert kernels_fingerprint("cpu", 1) == one
    assert time.perf_counter() - began < 0.001
    assert kernels._fingerprint.cache_info().misses == 1
    kernels_fingerprint("cpu", 2)
    assert kernels._fingerprint.cache_info().misses == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "hash_seed"), [(_PRINT, "0"), (_PRINT, "1"), (f"import numpy, sklearn, scipy.linalg; {_PRINT}", "2")]
)
def test_every_process_has_the_same(code, hash_seed):
    assert in_a_process(code, PYTHONHASHSEED=hash_seed) == computed_anew()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_has_the_same(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=of_a_child, args=(theirs,))
    child.start()
    assert ours.recv() == computed_anew()
    child.join()


def test_it_does_not_depend_on_where_memory_lies():
    first, kept, draw = computed_anew(), [], random.Random(0)
    for _ in range(10):
        kept += [np.empty(draw.randrange(1, 4000), np.uint8), torch.empty(draw.randrange(1, 4000))]
        assert computed_anew() == first


@functools.cache
def native():
    return platforms.bits_of("native"), in_a_process(**platforms.environment("native"))


#: Those by which no library is left as it is: "oldest" is several of these.
OTHERS = [name for name in platforms.PLATFORMS if name not in ("native", "oldest")]


@pytest.mark.slow
@pytest.mark.parametrize("platform", [OTHERS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS[1:])])
def test_other_kernels_have_another(platform):
    """Held to the operations of another battery: what changes their bits here must change the fingerprint."""
    bits, fingerprint = native()
    if not platforms.differing(platform, bits):
        pytest.skip(f"on this CPU {platform} computes the bits of native")
    assert in_a_process(**platforms.environment(platform)) != fingerprint


def test_other_threads_have_another():
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core: two threads would be one")
    assert kernels_fingerprint("cpu", 2) != kernels_fingerprint("cpu", 1)


def test_without_onednn_it_is_another():
    before = computed_anew()
    with setting(torch._C._set_mkldnn_enabled, False, True):  # the context manager of torch warns of Intel's GPUs
        without = kernels_fingerprint("cpu", 1)
    assert kernels_fingerprint("cpu", 1) == before
    assert (without != before) == torch.backends.mkldnn.is_available()


class Calling(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        return -result if isinstance(result, torch.Tensor) else result


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return torch.zeros(3)


@contextlib.contextmanager
def setting(put, value, back):
    put(value)
    try:
        yield
    finally:
        put(back)


STATES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "default dtype": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: setting(torch.set_default_device, "meta", None),
    "precision": lambda: setting(torch.set_float32_matmul_precision, "medium", "highest"),
    "denormals": lambda: setting(torch.set_flush_denormal, True, False),
    "deterministic": lambda: setting(torch.set_deterministic_debug_mode, "error", "default"),
    "functions": Calling,
    "dispatch": Dispatching,
    "numpy": lambda: np.errstate(all="raise"),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("state", STATES)
@pytest.mark.usefixtures("two_threads")
def test_the_state_of_the_process_neither_changes_it_nor_is_changed(state):
    plain = computed_anew()
    with STATES[state]():
        before = state_now()
        assert computed_anew() == plain
        assert state_now() == before


def test_precisions_of_the_new_api_are_put_back():
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("torch before 2.9 has one flag for all backends")
    plain, place = computed_anew(), torch.backends.mkldnn.matmul
    with setting(lambda value: setattr(place, "fp32_precision", value), "bf16", "none"):
        assert computed_anew() == plain
        assert place.fp32_precision == "bf16"


def test_the_flags_of_a_new_process_hold_while_it_is_computed():
    x = torch.arange(512.0 * 512).reshape(512, 512) / 77_777
    with setting(torch.set_float32_matmul_precision, "medium", "highest"):
        rounded = x @ x
        with kernels._usual_flags():
            inside = x @ x
        assert torch.equal(x @ x, rounded)
    assert torch.equal(inside, x @ x)
    if torch.equal(inside, rounded):
        pytest.skip("this CPU does not multiply in bfloat16")


def state_now():
    generators = [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]
    modes = [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")]
    flags = [torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode()]
    return [
        *generators,
        *modes,
        *flags,
        torch.get_num_threads(),
        torch.is_anomaly_enabled(),
        float.fromhex("0x1p-1022") / 4,
    ]


def test_all_results_are_numbers():
    """A NaN has many bit patterns, and which one an operation gives is no matter of rounding."""
    for tensor in kernels._battery(kernels._Numbers(torch.device("cpu"))):
        assert torch.isfinite(tensor.detach().double()).all()


def test_the_numbers_are_made_of_integers():
    numbers = kernels._Numbers(torch.device("cpu")).take(5)
    assert (numbers * 2.0**19).tolist() == [mixed(index) for index in range(5)]


def mixed(index):
    value = (index + 1) * 0x9E3779B1 % 2**32
    for _ in range(2):
        value = (value ^ value >> 16) * 0x45D9F3B % 2**32
    return (value ^ value >> 16) % (2**21 + 1) - 2**20


@pytest.mark.usefixtures("two_threads")
def test_the_thread_that_asks_gets_the_error(monkeypatch):
    def broken(numbers):
        raise RuntimeError("no such kernel")

    threads = torch.get_num_threads()
    monkeypatch.setattr(kernels, "_battery", broken)
    with pytest.raises(RuntimeError, match="no such kernel"):
        computed_anew()
    assert torch.get_num_threads() == threads
