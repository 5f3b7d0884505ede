"""The state of torch around a measurement: described and put into a child, or refused before anything trains."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from stabilitykit.errors import UsageError
from stabilitykit.execution.child_processes import ChildProcesses
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.run_store import RunStore
from stabilitykit.training import ambient
from stabilitykit.training.environment import current_environment
from stabilitykit.training.gradient_rounding import rounded_gradients
from stabilitykit.training.task import LoopTask
from stabilitykit.training.trainer import Trainer
from tests.store_names import key_of, session_id

OLD = not hasattr(torch._C, "_get_fp32_precision_getter")
_old_api = pytest.mark.skipif(OLD, reason="torch before 2.9 has one precision for all backends")


@contextlib.contextmanager
def putting(put: Callable, value: object, back: object):
    put(value)
    try:
        yield
    finally:
        put(back)


def precision(place: object, value: str):
    return putting(lambda new: setattr(place, "fp32_precision", new), value, "none")


STATES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16, cache_enabled=False),
    "attention": lambda: nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH),
    "denormals": lambda: putting(torch.set_flush_denormal, True, False),
    "device": lambda: torch.device("meta"),
    "default device": lambda: putting(torch.set_default_device, "meta", None),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "half-precision sums": lambda: putting(
        lambda on: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", on), False, True
    ),
    "fastpath": lambda: putting(torch.backends.mha.set_fastpath_enabled, False, True),
    "numpy's errors": lambda: np.errstate(over="raise"),
    "scikit-learn": lambda: pytest.importorskip("sklearn").config_context(assume_finite=True),
    "pandas": lambda: pytest.importorskip("pandas").option_context("compute.use_numexpr", False),
    "quantized engine": lambda: putting(
        lambda name: setattr(torch.backends.quantized, "engine", name), "onednn", torch.backends.quantized.engine
    ),
    "linear algebra": lambda: putting(torch.backends.cuda.preferred_linalg_library, "magma", "default"),
    "nnpack": lambda: torch.backends.nnpack.flags(enabled=False),
}
NEW_STATES = {
    "all": lambda: precision(torch.backends, "tf32"),
    "oneDNN": lambda: precision(torch.backends.mkldnn, "bf16"),
    "oneDNN's products": lambda: precision(torch.backends.mkldnn.matmul, "bf16"),
    "cuDNN's convolutions": lambda: putting(
        lambda new: setattr(torch.backends.cudnn.conv, "fp32_precision", new), "ieee", "tf32"
    ),
}
every_state = pytest.mark.parametrize(
    "state", [*STATES.values(), *(pytest.param(state, marks=_old_api) for state in NEW_STATES.values())],
    ids=[*STATES, *NEW_STATES],
)  # fmt: skip


def test_a_new_process_has_nothing_to_describe():
    assert ambient.described() == {}


def test_how_a_library_prints_is_nothing_to_describe():
    sklearn = pytest.importorskip("sklearn")
    with sklearn.config_context(display="text"), np.printoptions(precision=3):
        assert ambient.described() == {}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@every_state
def test_a_state_is_described_restored_and_part_of_what_must_match(state, tmp_path):
    plain = current_environment("cpu", 1, tmp_path).must_match
    with state():
        found = current_environment("cpu", 1, tmp_path)
    assert found.ambient
    assert found.must_match != plain
    assert {**found.must_match, "ambient": {}, "matmul_precision": "highest"} == plain
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert ambient.described() == {}
    assert restored_in_a_thread(found) == found.ambient


def restored_in_a_thread(environment):
    """What is described once an environment is restored in a thread, whose modes end with it."""
    flags = (*ambient._flags(), *ambient._of_libraries())
    before = {flag.name: flag.get() for flag in flags}
    found = []

    def restore():
        ambient.restore(environment.ambient)
        found.append(ambient.described())
        torch.set_flush_denormal(False)

    thread = threading.Thread(target=restore)
    thread.start()
    thread.join()
    for flag in flags:
        if flag.get() != before[flag.name]:
            flag.put(before[flag.name])
    return found[0]


@_old_api
def test_a_precision_that_follows_none_is_restored_as_it_was():
    with precision(torch.backends, "tf32"), precision(torch.backends.mkldnn.conv, "ieee"):
        found = ambient.described()
    assert "mkldnn.conv.fp32_precision" not in found
    ambient.restore(found)
    try:
        assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
        assert torch.backends.mkldnn.matmul.fp32_precision == "tf32"
    finally:
        for flag in ambient._precisions():
            flag.put(flag.usual[0])


@_old_api
def test_the_new_api_alone_is_no_error(tmp_path):
    """`torch.get_float32_matmul_precision` raises a RuntimeError then."""
    with precision(torch.backends, "tf32"):
        environment = current_environment("cpu", 1, tmp_path)
        environment.restore()
        assert environment.matmul_precision == "by backend"


class Calling(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def hooked(register):
    handle = register(lambda *_: None)
    try:
        yield
    finally:
        handle.remove()


REFUSED = {
    "torch.inference_mode()": torch.inference_mode,
    "the mode tests.training.test_ambient.Calling": Calling,
    "the mode tests.training.test_ambient.Dispatching": Dispatching,
    "hooks on saved tensors": lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x),
    "a hook of all modules or optimizers (forward hooks)": lambda: hooked(
        nn.modules.module.register_module_forward_hook
    ),
    "a hook of all modules or optimizers (backward hooks)": lambda: hooked(
        nn.modules.module.register_module_full_backward_hook
    ),
    "a hook of all modules or optimizers (optimizer pre hooks)": lambda: hooked(
        sys.modules["torch.optim.optimizer"].register_optimizer_step_pre_hook
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_child_can_have_is_refused(what, tmp_path):
    if what == "hooks on saved tensors" and not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"):
        pytest.skip("before torch 2.5 nothing tells of them")
    with REFUSED[what](), pytest.raises(UsageError) as refusal:
        current_environment("cpu", 1, tmp_path)
    assert f"but got {what}" in str(refusal.value)
    current_environment("cpu", 1, tmp_path)


def test_our_own_hooks_are_no_reason():
    weight = nn.Parameter(torch.ones(3))
    with rounded_gradients(1):
        assert ambient.described() == {}
        weight.square().sum().backward()
        torch.optim.SGD([weight]).step()


@pytest.mark.trains
@pytest.mark.parametrize("state", [STATES["autocast"], STATES["autocast to float16"]], ids=["bfloat16", "float16"])
def test_a_child_trains_the_bits_of_its_parent(state, tmp_path):
    def train(run):
        with run.stream("init"):
            model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        run.perturb(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = torch.arange(48.0).reshape(6, 8) / 48
        for _ in run.epochs(3):
            for batch, y in run.batches((x, torch.arange(6) % 3), batch_size=2):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16):  # ends, and so might forget the weights that are cast
                    logits = model(batch)
                nn.functional.cross_entropy(logits.float(), y).backward()
                optimizer.step()
        return model(x).detach().float()

    plan = NoiseProtocol("init", runs=2).plans()[0]
    with state():
        trainer = Trainer(LoopTask(train, torch.arange(6) % 3), "cpu", 1, tmp_path)
        here = trainer.train_once(plan)
        store = RunStore(tmp_path / "store", session_id("one"))
        children = ChildProcesses(trainer, tmp_path, store.session_folder / "tasks", devices=["cpu"])
        training = children.start(plan, log=str(store.experiment(key_of("key"), {}).log_file(0)))
        children.wait([training])
        there = training.outcome
        children.close()
    assert here.status == "ok", here.error
    assert there.fingerprint == here.fingerprint
    without = Trainer(trainer.task, "cpu", 1, tmp_path).train_once(plan)
    assert without.fingerprint != here.fingerprint
