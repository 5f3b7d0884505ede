"""Lightning modules as tasks: each source moves its own draws alone, and nothing is left behind."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from stabilitykit.errors import IsolationError, MissingModuleError, TaskError
from stabilitykit.protocol import NoiseProtocol, Perturbation
from stabilitykit.store.fingerprint import fingerprint
from stabilitykit.training.trainer import Trainer
from tests.adapters.drawing import (
    PAGE,
    SEEN,
    N,
    Net,
    Noisy,
    Plain,
    check_orders_differ_from_the_onset,
    drawn,
    plan,
    proof,
    row,
    trained,
)
from tests.seeds import BASE_SEED

L = pytest.importorskip("lightning", reason="needs the extra `lightning`")

from stabilitykit.adapters.lightning import LightningTask  # noqa: E402  # after the skip

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")
TEST = DataLoader(Plain(), batch_size=5)


class Module(L.LightningModule):
    """As Lightning's users write one; it seeds everything, since somebody once put that there."""

    def __init__(self, seeds: bool = False) -> None:
        super().__init__()
        if seeds:
            L.seed_everything(3, workers=True, verbose=False)
        self.net = Net()

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def seeding() -> Module:
    return Module(seeds=True)


class Loaders:
    """What returns a pair of loaders: the order of the first is drawn, as is the noise of both."""

    def __init__(self, workers: int = 0) -> None:
        self.options: dict[str, Any] = {"batch_size": 4, "num_workers": workers, "persistent_workers": workers > 0}

    def __call__(self) -> tuple[Any, Any]:
        return DataLoader(Noisy(), shuffle=True, **self.options), DataLoader(Noisy(), **self.options)


def task_of(module: Any = Module, data: Any = None, trainer: Any = None, test: Any = TEST, **options: Any) -> Any:
    return LightningTask(
        module, Loaders() if data is None else data, trainer or {"max_epochs": 2}, test=test, **options
    )


class TestSources:
    @pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
    def test_each_source_moves_its_own_draws_and_nothing_else(self, tmp_path: Path, workers: int) -> None:
        found = row("Lightning", workers, lambda: task_of(seeding, Loaders(workers)), tmp_path)
        assert found == f"| Lightning | {workers} | it | it | it | it | nothing |"
        assert found in PAGE.read_text(encoding="utf-8").splitlines()

    @pytest.mark.parametrize("module", [Module, seeding])
    def test_the_control_is_exact(self, tmp_path: Path, module: Any) -> None:
        control = proof(task_of(module), tmp_path)
        assert control.proven
        assert control.scope == "one run twice, bit-identical"

    def test_a_draw_that_no_seed_reaches_is_found(self, tmp_path: Path) -> None:
        class Leaks(Module):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                return super().training_step(batch, batch_idx) * float(np.random.default_rng().random())

        with pytest.raises(IsolationError, match="after epoch 0"):
            proof(task_of(Leaks), tmp_path)

    def test_a_sanity_check_and_a_validation_move_no_order(self, tmp_path: Path) -> None:
        quiet = {"max_epochs": 2, "num_sanity_val_steps": 0, "limit_val_batches": 0}
        assert drawn(task_of(), tmp_path)["shuffle"] == drawn(task_of(trainer=quiet), tmp_path)["shuffle"]

    def test_an_epoch_has_an_order_of_its_own(self, tmp_path: Path) -> None:
        order = drawn(task_of(), tmp_path)["shuffle"]
        assert order[:4] != order[4:]

    def test_what_makes_data_is_held(self, tmp_path: Path) -> None:
        kept: list[list[float]] = []

        class Split(L.LightningDataModule):
            def setup(self, stage: str) -> None:
                random.seed(5)
                drawn = [random.random(), float(np.random.rand()), float(torch.rand(()))]
                train, _ = random_split(TensorDataset(torch.randn(20, 4), torch.arange(20) % 2), [16, 4])
                kept.append([*drawn, *train.indices])
                self.train = train

            def train_dataloader(self) -> Any:
                return DataLoader(self.train, batch_size=4, shuffle=True)

        for which in (None, "shuffle", "stochastic"):
            trained(task_of(data=Split, trainer={"max_epochs": 1, "limit_val_batches": 0}), tmp_path, plan(which))
        assert len(kept) >= 3
        assert all(one == kept[0] for one in kept)
        module = Split()
        before = dict(vars(module))
        trained(task_of(data=module, trainer={"max_epochs": 1, "limit_val_batches": 0}), tmp_path)
        assert {"setup", "prepare_data"}.isdisjoint(vars(module).keys() - before.keys())


class TestEpochs:
    @pytest.mark.parametrize("trainer", [{"max_epochs": 5}, {"max_epochs": 5, "min_epochs": 4}, {"max_steps": 18}])
    def test_a_rehearsal_trains_only_the_first(self, tmp_path: Path, trainer: Any) -> None:
        control = proof(task_of(trainer=trainer), tmp_path, epochs=2)
        assert (control.scope, control.planned_epochs) == ("the first 2 epochs twice, bit-identical", 5)
        assert len(SEEN["shuffle"]) == 2 * 2 * N // 4  # that many batches, and not only that many counted
        assert control.is_cut
        assert control.trace == trained(task_of(trainer=trainer), tmp_path).trace

    def test_a_run_counts_its_epochs(self, tmp_path: Path) -> None:
        trainer = Trainer(task_of(trainer={"max_epochs": 3}), "cpu", 1, tmp_path)
        SEEN.update(init=[], shuffle=[], augment=[], stochastic=[])
        run = trainer.rehearse(plan(), None)
        assert (run.planned_epochs, run.trained_epochs, run.is_cut) == (3, 3, False)

    def test_an_early_stop_is_the_users(self, tmp_path: Path) -> None:
        stop = L.pytorch.callbacks.EarlyStopping("val_loss", patience=1, min_delta=100)
        task = task_of(trainer={"max_epochs": 9, "callbacks": [stop]})
        first, second = trained(task, tmp_path), trained(task, tmp_path)
        assert len(SEEN["shuffle"]) == 2 * N // 4
        assert first.fingerprint == second.fingerprint  # though a callback keeps what it has seen

    def test_an_interruption_is_no_failed_run(self, tmp_path: Path) -> None:
        class Interrupted(Module):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                raise KeyboardInterrupt

        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            trained(task_of(Interrupted), tmp_path)
        assert signal.getsignal(signal.SIGINT) is handler

    def test_from_an_onset_on_orders_differ(self, tmp_path: Path) -> None:
        check_orders_differ_from_the_onset(task_of, tmp_path)

    def test_a_weight_moves_before_training(self, tmp_path: Path) -> None:
        (which, *_) = NoiseProtocol("none", runs=2, seed=BASE_SEED, perturb=Perturbation("ulp")).plans()
        record = trained(task_of(), tmp_path, which)
        assert record.perturbation is not None
        assert record.perturbation["parameter"] == "net.layer.weight"


class TestTrainers:
    def test_nothing_is_left_nor_said(self, tmp_path: Path, monkeypatch: Any, capfd: Any, caplog: Any) -> None:
        monkeypatch.chdir(tmp_path)
        kept = L.pytorch.callbacks.ModelCheckpoint(monitor="val_loss")

        def trainer() -> Any:
            logger = L.pytorch.loggers.CSVLogger("logs")
            return L.Trainer(max_epochs=1, accelerator="cpu", logger=logger, callbacks=[kept])

        for made in (trainer, {"max_epochs": 1, "callbacks": [kept], "logger": True, "enable_checkpointing": True}):
            trained(task_of(trainer=made), tmp_path)
        assert os.listdir(tmp_path) == []  # noqa: PTH208  # hidden ones too
        assert capfd.readouterr() == ("", "")
        assert not caplog.records
        assert logging.getLogger("lightning.pytorch").level == logging.INFO

    def test_a_logger_is_there_and_keeps_nothing(self, tmp_path: Path) -> None:
        class Logs(Module):
            def on_train_epoch_end(self) -> None:
                self.logger.experiment.add_histogram("weights", self.net.layer.weight)
                self.logger.log_hyperparams({"a": 1})

        monitor = L.pytorch.callbacks.LearningRateMonitor()
        trained(task_of(Logs, trainer={"max_epochs": 1, "callbacks": monitor}), tmp_path)

    def test_variables_that_lightning_sets_are_put_back(self, tmp_path: Path) -> None:
        trained(task_of(seeding), tmp_path)
        assert not [name for name in os.environ if name.startswith("PL_")]

    @pytest.mark.parametrize(
        ("trainer", "said"),
        [
            ({"strategy": "ddp", "devices": 2}, "got strategy='ddp': it would start this program, pytest, once more"),
            ({"strategy": "fsdp"}, "got strategy='fsdp'"),
            ({"strategy": "deepspeed"}, "got strategy='deepspeed'"),
            ({"accelerator": "cpu", "devices": 2}, "it would start this program"),
            (lambda: L.Trainer(strategy="ddp", accelerator="cpu", devices=2), "got strategy='DDPStrategy'"),
            ({"max_epoch": 2}, "trainer= to hold arguments of lightning.pytorch.Trainer, which says: .*max_epoch"),
            ({"max_time": "00:00:01:00"}, "how much a run learns would depend on how busy the machine is"),
            ({"max_epochs": -1}, "a Trainer that ends"),
            (lambda: 3, "trainer= to return a lightning.pytorch.Trainer but got builtins.int"),
            (L.Trainer(accelerator="cpu", logger=False), "each run needs a Trainer that has trained nothing"),
        ],
    )
    def test_what_cannot_be_a_run_is_refused_before_anything_trains(
        self, tmp_path: Path, trainer: Any, said: str
    ) -> None:
        SEEN.clear()
        with pytest.raises(TaskError, match=said):
            trained(task_of(trainer=trainer), tmp_path)
        assert not SEEN.get("shuffle")


class TestGiven:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"module": L.LightningModule()}, "each run makes its own. Write module=lambda: Net"),
            ({"module": lambda: nn.Linear(2, 2)}, "module= to return a LightningModule but got Linear"),
            ({"data": (1, 2, 3)}, r"one loader or a pair \(train, validation\) but got 3"),
            ({"data": lambda: 3}, "data= to be loaders or a LightningDataModule of lightning.pytorch but got"),
            ({"test": 3}, "test= to be a loader but got int"),
            ({"test": DataLoader(Plain(), shuffle=True)}, r"test= in one order.*RandomSampler.*Leave out shuffle=True"),
            ({"test": DataLoader(Plain(), drop_last=True)}, "it has drop_last=True"),
            ({"test": DataLoader(torch.rand(4, 4))}, r"batches \(inputs, labels\) in test= but got Tensor"),
        ],
    )
    def test_each_fault_is_one_error(self, tmp_path: Path, given: dict[str, Any], said: str) -> None:
        def ask() -> None:
            task = task_of(**given)
            task.check(NoiseProtocol("init", runs=2), CPU)
            trained(task, tmp_path)

        with pytest.raises(TaskError, match=said):
            ask()

    def test_labels_are_those_of_the_test_loader_or_given(self) -> None:
        assert task_of().labels.tolist() == [index % 2 for index in range(N)]
        unlabelled = DataLoader(torch.rand(4, 4), batch_size=2)
        assert task_of(test=unlabelled, labels=[0, 1, 1, 0]).labels.tolist() == [0, 1, 1, 0]

    def test_a_predict_step_says_what_is_scored(self, tmp_path: Path) -> None:
        class Predicts(Module):
            def predict_step(self, batch: Any, batch_idx: int) -> Any:
                return torch.full((len(batch[0]), 2), 0.5)

        class PredictsNothing(Module):
            def predict_step(self, batch: Any, batch_idx: int) -> Any:
                return {"logits": 0}

        record = trained(task_of(Predicts), tmp_path)
        assert record.logits is not None
        assert record.logits.unique().tolist() == [0.5]
        with pytest.raises(TaskError, match=r"predict_step\(batch, batch_idx\) that returns the outputs alone"):
            trained(task_of(PredictsNothing), tmp_path)

    def test_the_key_is_of_all_that_is_given(self, tmp_path: Path) -> None:
        def key(task: Any) -> str:
            return fingerprint(task.content(), tmp_path)

        base = key(task_of())
        assert key(task_of()) == base
        others = [
            task_of(seeding),
            task_of(data=Loaders(1)),
            task_of(trainer={"max_epochs": 3}),
            task_of(test=DataLoader(Noisy(), batch_size=5)),
            task_of(outputs="logits"),
        ]
        assert len({base, *map(key, others)}) == 6

    def test_without_lightning_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingModuleError, match=r"pip install 'stabilitykit\[lightning\]'"):
            task_of().check(NoiseProtocol("init", runs=2), CPU)


@pytest.mark.slow
def test_the_other_package_of_lightning_is_as_good(tmp_path: Path) -> None:
    text = """
import pytorch_lightning as pl, torch, sys
from torch.utils.data import DataLoader, TensorDataset
from stabilitykit import NoiseProtocol, measure
from stabilitykit.adapters.lightning import LightningTask

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
    def forward(self, x): return self.layer(x)
    def training_step(self, batch, i): return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)

data = TensorDataset(torch.eye(3).repeat(4, 1), torch.arange(12) % 2)
task = LightningTask(Net, DataLoader(data, shuffle=True), {"max_epochs": 1}, test=DataLoader(data))
print(measure(task, NoiseProtocol("init", runs=2)).certificate.line())
assert "lightning" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "bit-identical; alive: init" in done.stdout, done.stderr
    assert done.stderr == ""


class Bare(L.LightningModule):
    """Notes nothing that it draws, since that would be a part of its key."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.layer(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_study_is_answered_from_the_store(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(task_of(Bare), "init", runs=2)
    assert first.certificate.line() == "held: the whole run twice, bit-identical; alive: init"
    monkeypatch.setattr(LightningTask, "fit", None)
    again = ask(task_of(Bare), "init", runs=2)
    assert [one.fingerprint for one in again.records] == [one.fingerprint for one in first.records]
