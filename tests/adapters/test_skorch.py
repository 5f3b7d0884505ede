"""skorch's nets as tasks: each source moves its own draws alone, and nothing is left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stabilitykit.errors import IsolationError, MissingModuleError, TaskError
from stabilitykit.protocol import NoiseProtocol, Perturbation
from stabilitykit.store.fingerprint import fingerprint
from tests.adapters.drawing import (
    PAGE,
    SEEN,
    N,
    Net,
    Noisy,
    Plain,
    check_orders_differ_from_the_onset,
    different,
    drawn,
    proof,
    row,
    trained,
)
from tests.seeds import BASE_SEED

skorch = pytest.importorskip("skorch", reason="needs the extra `skorch`")

from skorch.callbacks import Callback, Checkpoint, EarlyStopping, ProgressBar  # noqa: E402  # as above

from stabilitykit.adapters.skorch import NetTask  # noqa: E402  # after the skip

pytestmark = pytest.mark.trains

Y = [index % 2 for index in range(N)]


class Seeding(Net):
    """Seeds everything, since somebody once put that there."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        np.random.seed(3)
        super().__init__()


class Seeds(Callback):
    """Seeds as training begins: the callback of skorch's own documentation."""

    def on_train_begin(self, net: Any, **_: Any) -> None:
        torch.manual_seed(3)


def net_of(module: Any = Net, workers: int = 0, kind: Any = skorch.NeuralNetClassifier, **options: Any) -> Any:
    given = {"max_epochs": 2, "batch_size": 4, "train_split": None, "criterion": nn.CrossEntropyLoss}
    given |= {"iterator_train__shuffle": True, "iterator_train__num_workers": workers}
    return kind(module, **{**given, **options})


def task_of(test: Any = None, outputs: Any = None, **options: Any) -> Any:
    return NetTask(net_of(**options), Noisy(), None, Plain() if test is None else test, Y, outputs=outputs)


class TestSources:
    @pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
    def test_each_source_moves_its_own_draws_and_nothing_else(self, tmp_path: Path, workers: int) -> None:
        options = {"module": Seeding, "workers": workers, "callbacks": [Seeds()]}
        found = row("skorch", workers, lambda: task_of(**options), tmp_path)
        assert found == f"| skorch | {workers} | it | it | it | it | nothing |"
        assert found in PAGE.read_text(encoding="utf-8").splitlines()

    def test_the_control_is_exact(self, tmp_path: Path) -> None:
        assert proof(task_of(module=Seeding), tmp_path).scope == "one run twice, bit-identical"

    def test_a_draw_that_no_seed_reaches_is_found(self, tmp_path: Path) -> None:
        class Leaks(Net):
            def forward(self, x: Any) -> Any:
                return super().forward(x) * float(np.random.default_rng().random())

        with pytest.raises(IsolationError, match="after epoch 0"):
            proof(task_of(module=Leaks), tmp_path)

    def test_a_module_that_a_callback_makes_again_is_of_init(self, tmp_path: Path) -> None:
        class Again(Callback):
            def on_train_begin(self, net: Any, **_: Any) -> None:
                net.set_params(module__again=True)

        class Sized(Net):
            def __init__(self, again: bool = False) -> None:
                super().__init__()

        task = task_of(module=Sized, callbacks=[Again()])
        assert different(drawn(task, tmp_path), drawn(task, tmp_path, "init")) == {"init", "outputs"}
        assert different(drawn(task, tmp_path), drawn(task, tmp_path, "stochastic")) == {"stochastic", "outputs"}
        assert len(SEEN["init"]) == 2


class TestEpochs:
    def test_a_rehearsal_trains_only_the_first(self, tmp_path: Path) -> None:
        control = proof(task_of(max_epochs=5), tmp_path, epochs=2)
        assert (control.scope, control.planned_epochs) == ("the first 2 epochs twice, bit-identical", 5)
        assert len(SEEN["shuffle"]) == 2 * 2 * N // 4  # that many batches, and not only that many counted
        assert control.is_cut
        assert control.trace == trained(task_of(max_epochs=5), tmp_path).trace

    def test_an_early_stop_is_the_users(self, tmp_path: Path) -> None:
        stop = EarlyStopping("train_loss", patience=1, threshold=1e9, threshold_mode="abs")
        trained(task_of(max_epochs=9, callbacks=[stop]), tmp_path)
        assert len(SEEN["shuffle"]) < 9 * N // 4

    def test_an_interruption_is_no_end_of_training(self, tmp_path: Path) -> None:
        class Interrupted(Net):
            def forward(self, x: Any) -> Any:
                if self.training:  # else it would be seen where the test set is predicted
                    raise KeyboardInterrupt
                return super().forward(x)

        with pytest.raises(KeyboardInterrupt):
            trained(task_of(module=Interrupted), tmp_path)

    def test_from_an_onset_on_orders_differ(self, tmp_path: Path) -> None:
        check_orders_differ_from_the_onset(task_of, tmp_path)

    @pytest.mark.parametrize("callbacks", [None, "disable"])
    def test_a_weight_moves_before_training(self, tmp_path: Path, callbacks: Any) -> None:
        (which, *_) = NoiseProtocol("none", runs=2, seed=BASE_SEED, perturb=Perturbation("ulp")).plans()
        record = trained(task_of(callbacks=callbacks), tmp_path, which)
        assert record.perturbation is not None
        assert len(record.trace) == 2


class TestNets:
    def test_nothing_is_left_nor_said(self, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
        monkeypatch.chdir(tmp_path)
        net = net_of(callbacks=[Checkpoint(monitor=None), ("bar", ProgressBar())])
        trained(NetTask(net, Noisy(), None, Plain(), Y), tmp_path)
        assert os.listdir(tmp_path) == []  # noqa: PTH208  # hidden ones too
        assert capfd.readouterr() == ("", "")
        assert not net.initialized_  # each run fits a clone

    @pytest.mark.parametrize(
        ("kind", "options", "shape"),
        [
            (skorch.NeuralNetClassifier, {}, (N, 2)),
            (skorch.NeuralNet, {}, (N, 2)),
            (skorch.NeuralNetClassifier, {"verbose": 1}, (N, 2)),
        ],
    )
    def test_what_is_scored(self, tmp_path: Path, kind: Any, options: Any, shape: tuple[int, ...]) -> None:
        record = trained(task_of(kind=kind, **options), tmp_path)
        assert record.logits is not None
        assert record.logits.shape == shape
        probable = torch.allclose(record.logits.sum(1), torch.ones(N))
        assert probable == (kind is not skorch.NeuralNet)

    def test_a_regression(self, tmp_path: Path) -> None:
        x, y = np.eye(8, 3, dtype=np.float32), np.arange(8, dtype=np.float32)[:, None]
        net = skorch.NeuralNetRegressor(nn.Linear, module__in_features=3, module__out_features=1, max_epochs=1)
        record = trained(NetTask(net, x, y, x, y[:, 0]), tmp_path)
        assert record.logits is not None
        assert record.logits.shape == (8,)

    def test_a_function_may_make_the_net(self, tmp_path: Path) -> None:
        trained(NetTask(net_of, Noisy(), None, Plain(), Y), tmp_path)

    def test_an_order_that_nothing_draws_is_said(self) -> None:
        (remark,) = task_of(iterator_train__shuffle=False).remarks
        assert "iterator_train__shuffle is not set" in remark
        assert task_of().remarks == ()


class TestGiven:
    @pytest.mark.parametrize("net", [3, nn.Linear(2, 2), lambda: 3])
    def test_what_is_no_net_is_refused(self, net: Any) -> None:
        with pytest.raises(TaskError, match="a net of skorch's, or a function that returns one, but got"):
            NetTask(net, Noisy(), None, Plain(), Y)

    def test_the_best_weights_of_a_file_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TaskError, match="EarlyStopping\\(load_best=True\\), which keeps them in memory"):
            trained(task_of(callbacks=[Checkpoint(monitor="train_loss_best", load_best=True)]), tmp_path)

    def test_the_key_is_of_all_that_is_given(self, tmp_path: Path) -> None:
        def key(task: Any) -> str:
            return fingerprint(task.content(), tmp_path)

        base = key(task_of())
        assert key(task_of()) == base
        others = [task_of(lr=0.5), task_of(module=Seeding), task_of(test=Noisy()), task_of(outputs="logits")]
        assert len({base, *map(key, others)}) == 5

    def test_without_skorch_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "skorch", None)
        with pytest.raises(MissingModuleError, match=r"pip install 'stabilitykit\[skorch\]'"):
            task_of()


def test_a_study_is_answered_from_the_store(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.eye(8, 3, dtype=np.float32), np.arange(8) % 2
    options = {"module__in_features": 3, "module__out_features": 2, "criterion": nn.CrossEntropyLoss, "max_epochs": 2}
    net = skorch.NeuralNetClassifier(nn.Linear, **options, train_split=None)
    first = ask(NetTask(net, x, y, x, y), "init", runs=2)
    monkeypatch.setattr(NetTask, "fit", None)
    again = ask(NetTask(net, x, y, x, y), "init", runs=2)
    assert [one.fingerprint for one in again.records] == [one.fingerprint for one in first.records]
