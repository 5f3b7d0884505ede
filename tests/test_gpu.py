"""What only a CUDA device can show. Everything else about devices is tested on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from stabilitykit.control import prove_isolation
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.run import Run
from stabilitykit.task import Recipe
from stabilitykit.training import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, 3, 8, 8, generator=generator), torch.randint(0, 4, (256,), generator=generator)

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(576, 4)
        )

    def sgd(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    recipe = Recipe(model=model, train=(x, y), test=(x, y), epochs=3, batch_size=32, optimizer=sgd)
    return Trainer(recipe, "cuda:0", 1, tmp_path)


@pytest.mark.parametrize("source", ["init", "shuffle", "augment", "stochastic"])
def test_every_held_source_is_held_on_a_gpu(trainer: Trainer, source: str) -> None:
    assert prove_isolation(trainer, NoiseProtocol(source, runs=2)).proven


def test_one_plan_trains_the_same_bits_twice_on_a_gpu(trainer: Trainer) -> None:
    plan = NoiseProtocol("init", runs=2).plans()[0]
    assert trainer.train_once(plan).fingerprint == trainer.train_once(plan).fingerprint


def test_low_level_is_native_on_a_gpu_and_its_flags_are_put_back(trainer: Trainer) -> None:
    plan = NoiseProtocol("low_level", runs=2).plans()[0]
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    state = torch.cuda.get_rng_state()
    with trainer.under(Run(plan, trainer.device)):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    assert trainer.low_level(plan) == "native"
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == before
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_bare_cuda_in_a_run_is_the_workers_own_gpu(trainer: Trainer, tmp_path: Path) -> None:
    plan = NoiseProtocol("init", runs=2).plans()[0]
    second = Trainer(trainer.task, "cuda:1", 1, tmp_path)
    with second.under(Run(plan, second.device)):
        assert torch.zeros(1, device="cuda").device.index == 1
    assert torch.cuda.current_device() == 0
