"""Hugging Face's Trainer as a task: each source moves its own draws alone, and nothing is left behind."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from stabilitykit.errors import IsolationError, MissingModuleError, TaskError
from stabilitykit.protocol import NoiseProtocol, Perturbation
from stabilitykit.store.fingerprint import fingerprint
from tests.adapters.drawing import (
    PAGE,
    SEEN,
    SOURCES,
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

hf = pytest.importorskip("transformers", reason="needs the extra `transformers`")
pytest.importorskip("accelerate", reason="needs the extra `transformers`")

from stabilitykit.adapters.transformers import TrainerTask  # noqa: E402  # after the skip

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")


class Named(Dataset[Any]):
    """Examples by name, as models of transformers take them."""

    def __init__(self, examples: Any) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, y = self.examples[index]
        return {"x": x, "labels": y}


class Classifier(nn.Module):
    """A model in the manner of transformers' own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def arguments(**options: Any) -> Any:
    given = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "use_cpu": True, "data_seed": 5, "seed": 3}
    return hf.TrainingArguments(**{"output_dir": "kept", **given, **options})


def make(
    workers: int = 0, kind: str = "model", trainer: Any = hf.Trainer, callbacks: Any = None, **options: Any
) -> Any:
    hf.set_seed(3)
    made = {"model_init": Classifier} if kind == "model_init" else {"model": Classifier()}
    args = arguments(dataloader_num_workers=workers, **options)
    return trainer(**made, args=args, train_dataset=Named(Noisy()), eval_dataset=Named(Plain()), callbacks=callbacks)


def task_of(test: Any = None, labels: Any = None, outputs: Any = None, **options: Any) -> Any:
    made = functools.partial(make, **options)
    return TrainerTask(made, test or Named(Plain()), labels=labels, outputs=outputs)


class TestSources:
    @pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
    def test_each_source_moves_its_own_draws_and_nothing_else(self, tmp_path: Path, workers: int) -> None:
        found = row("transformers", workers, lambda: task_of(workers=workers), tmp_path)
        assert found == f"| transformers | {workers} | it | it | it | it | nothing |"
        assert found in PAGE.read_text(encoding="utf-8").splitlines()

    def test_a_model_made_by_the_trainer_is_of_init_too(self, tmp_path: Path) -> None:
        base = drawn(task_of(kind="model_init"), tmp_path)
        for source in SOURCES:
            moved = drawn(task_of(kind="model_init"), tmp_path, source)
            assert different(base, moved) == {source, "outputs"}

    @pytest.mark.parametrize("options", [{}, {"kind": "model_init"}, {"full_determinism": True}])
    def test_the_control_is_exact(self, tmp_path: Path, options: Any) -> None:
        assert proof(task_of(**options), tmp_path).scope == "one run twice, bit-identical"

    def test_a_draw_that_no_seed_reaches_is_found(self, tmp_path: Path) -> None:
        class Leaks(hf.Trainer):
            def compute_loss(self, *args: Any, **options: Any) -> Any:
                loss = super().compute_loss(*args, **options)
                return loss if isinstance(loss, tuple) else loss * float(np.random.default_rng().random())

        with pytest.raises(IsolationError, match="after epoch 0"):
            proof(task_of(trainer=Leaks, optim="sgd"), tmp_path)  # Adam would take no notice of a factor

    def test_its_own_seeds_move_nothing(self, tmp_path: Path) -> None:
        assert different(drawn(task_of(), tmp_path), drawn(task_of(data_seed=6), tmp_path)) == set()


class TestEpochs:
    @pytest.mark.parametrize("options", [{"num_train_epochs": 5}, {"max_steps": 18}])
    def test_a_rehearsal_trains_only_the_first(self, tmp_path: Path, options: Any) -> None:
        control = proof(task_of(**options), tmp_path, epochs=2)
        assert (control.scope, control.planned_epochs) == ("the first 2 epochs twice, bit-identical", 5)
        assert len(SEEN["shuffle"]) == 2 * 2 * N // 4  # that many batches, and not only that many counted
        assert control.is_cut
        assert control.trace == trained(task_of(**options), tmp_path).trace

    def test_from_an_onset_on_orders_differ(self, tmp_path: Path) -> None:
        check_orders_differ_from_the_onset(task_of, tmp_path)

    def test_the_best_model_is_scored_where_that_is_asked_for(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)

        class Worsens(hf.Trainer):
            def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
                return {**super().evaluate(*args, **options), "eval_loss": float(self.state.global_step)}

        options = {"trainer": Worsens, "eval_strategy": "epoch", "save_strategy": "epoch"}
        best = trained(task_of(load_best_model_at_end=True, **options), tmp_path / "a")
        last = trained(task_of(**options), tmp_path / "a")
        assert best.fingerprint != last.fingerprint
        assert not (tmp_path / "kept").exists()


class TestTrainers:
    def test_nothing_is_left_nor_said(self, tmp_path: Path, monkeypatch: Any, capfd: Any, caplog: Any) -> None:
        monkeypatch.chdir(tmp_path)
        args = arguments(report_to="tensorboard", logging_steps=1) if _has_tensorboard() else arguments(logging_steps=1)
        before = dict(vars(args))

        def made() -> Any:
            return hf.Trainer(Classifier(), args, train_dataset=Named(Noisy()))

        trained(TrainerTask(made, Named(Plain())), tmp_path)
        trained(task_of(save_strategy="epoch", disable_tqdm=False), tmp_path)
        assert os.listdir(tmp_path) == []  # noqa: PTH208  # hidden ones too
        assert capfd.readouterr() == ("", "")
        assert not caplog.records
        assert vars(args) == before  # they are the user's, made once for all runs

    def test_full_determinism_ends_with_the_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG"):
            monkeypatch.delenv(name, raising=False)
        trained(task_of(full_determinism=True), tmp_path)
        assert not torch.are_deterministic_algorithms_enabled()
        assert not {"CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG"} & os.environ.keys()

    @pytest.mark.parametrize(
        ("made", "said"),
        [
            (lambda: 3, "make= to return a transformers.Trainer but got int"),
            (lambda one=[]: one[0] if one else one.append(make()) or one[0], ""),  # the default is kept
            (lambda: make(push_to_hub=True), "a run would publish what it trains"),
        ],
    )
    def test_what_cannot_be_a_run_is_refused_before_anything_trains(self, tmp_path: Path, made: Any, said: str) -> None:
        if not said:
            trained(TrainerTask(made, Named(Plain())), tmp_path)
            said = "make= to return a new Trainer but it was made before"
        SEEN.clear()
        with pytest.raises(TaskError, match=said):
            trained(TrainerTask(made, Named(Plain())), tmp_path)
        assert not SEEN.get("shuffle")


def _has_tensorboard() -> bool:
    return bool(hf.integrations.is_tensorboard_available())


class TestGiven:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ((3, Named(Plain())), "make= to be a function that returns a new Trainer but got int"),
            ((nn.Linear(2, 2), Named(Plain())), "got Linear: each run trains one of its own"),
            ((lambda seed: 0, Named(Plain())), r"one parameter 'run', but it takes \(seed\)"),
            ((make, iter([])), "a dataset whose examples have an order but got list_iterator"),
            ((make, [{"x": 0}]), "label under one of labels, label, label_ids but there is none"),
        ],
    )
    def test_each_fault_is_one_error(self, given: tuple[Any, Any], said: str) -> None:
        with pytest.raises(TaskError, match=said):
            TrainerTask(*given).check(NoiseProtocol("init", runs=2), CPU)

    def test_a_function_may_take_the_run(self, tmp_path: Path) -> None:
        def made(run: Any) -> Any:
            assert run.index == 0
            return make()

        trained(TrainerTask(made, Named(Plain())), tmp_path)

    def test_labels_of_tokens_are_padded(self) -> None:
        tokens = [{"labels": [0, 1]}, {"labels": [1]}]
        assert TrainerTask(make, tokens).labels.tolist() == [[0, 1], [1, -100]]

    def test_another_order_of_the_predictions_is_found(self, tmp_path: Path) -> None:
        class Reorders(hf.Trainer):
            def predict(self, test_dataset: Any, *args: Any, **options: Any) -> Any:
                return super().predict([test_dataset[i] for i in range(1, N)] + [test_dataset[0]], *args, **options)

        with pytest.raises(TaskError, match="go through test= in its order"):
            trained(task_of(trainer=Reorders), tmp_path)

    def test_of_several_predictions_the_first_is_scored(self, tmp_path: Path) -> None:
        class Two(hf.Trainer):
            def predict(self, *args: Any, **options: Any) -> Any:
                found = super().predict(*args, **options)
                return found._replace(predictions=(found.predictions, np.zeros(3)))

        one, two = trained(task_of(), tmp_path), trained(task_of(trainer=Two), tmp_path)
        assert torch.equal(one.logits, two.logits)  # type: ignore[arg-type]  # both are there

    def test_the_key_is_of_all_that_is_given(self, tmp_path: Path) -> None:
        def key(task: Any) -> str:
            return fingerprint(task.content(), tmp_path)

        base = key(task_of())
        assert key(task_of()) == base
        others = [task_of(learning_rate=1.0), task_of(test=Named(Noisy()), labels=[0] * N), task_of(outputs="logits")]
        assert len({base, *map(key, others)}) == 4

    def test_without_transformers_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingModuleError, match=r"pip install 'stabilitykit\[transformers\]'"):
            task_of().check(NoiseProtocol("init", runs=2), CPU)


# The library's own models, of random weights


def bert() -> Any:
    config = hf.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    return hf.BertForSequenceClassification(config)


TOKENS = [{"input_ids": torch.tensor([1, 2 + i % 8, 3 + i % 5]), "labels": i % 2} for i in range(N)]


def make_bert(adapter: bool = False) -> Any:
    model = bert()
    if adapter:
        peft = pytest.importorskip("peft", reason="needs peft, of the extra `transformers`")
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["query", "value"]))
    return hf.Trainer(model, arguments(num_train_epochs=1), train_dataset=TOKENS)


@pytest.mark.parametrize("adapter", [False, True])
def test_each_source_of_a_transformer_is_alive_and_held(ask: Callable[..., Any], adapter: bool) -> None:
    made = functools.partial(make_bert, adapter)
    for source in ("init", "shuffle", "stochastic"):
        line = ask(TrainerTask(made, TOKENS), source, runs=2).certificate.line()
        assert line.startswith(f"held: the whole run twice, bit-identical; alive: {source}; traced: ")


def test_of_an_adapter_only_its_weights_move_and_are_kept(tmp_path: Path) -> None:
    (which, *_) = NoiseProtocol("none", runs=2, seed=BASE_SEED, perturb=Perturbation("ulp")).plans()
    record = trained(TrainerTask(functools.partial(make_bert, True), TOKENS, keep_weights=True), tmp_path, which)
    assert record.weights is not None
    assert all("lora" in name or "classifier" in name for name in record.weights)
    assert record.perturbation is not None
    assert "lora_A" in record.perturbation["parameter"]


def test_a_study_is_answered_from_the_store(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = ask(TrainerTask(make_bert, TOKENS), "init", runs=2)
    monkeypatch.setattr(TrainerTask, "fit", None)
    again = ask(TrainerTask(make_bert, TOKENS), "init", runs=2)
    assert [one.fingerprint for one in again.records] == [one.fingerprint for one in first.records]
