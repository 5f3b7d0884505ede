"""The seed audit of trainings by other libraries, as their users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stabilitykit import audit

#: What a library itself warns of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")


def rows(found: Any) -> dict[str, tuple[tuple[str, ...], str]]:
    return {row.source: (row.moved_by, row.besides.value) for row in found.rows}


def test_args_seed_of_transformers_never_reaches_a_head_that_is_made_before(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=16, max_position_embeddings=8, num_labels=2, **sizes)
    data = [{"input_ids": torch.arange(4) + i % 8, "labels": i % 2} for i in range(8)]

    def train(seed: int = 0, data_seed: int | None = None, *, model_init: bool = False) -> None:
        def make() -> Any:
            return transformers.BertForSequenceClassification(config)

        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            seed=seed,
            data_seed=data_seed,
            num_train_epochs=2,
            per_device_train_batch_size=4,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        model = {"model_init": make} if model_init else {"model": make()}
        transformers.Trainer(args=arguments, train_dataset=data, **model).train()

    found = audit(train)
    assert rows(found) == {
        "init": ((), "earlier draws"),
        "shuffle": (("seed", "data_seed"), "-"),
        "stochastic": (("seed",), "-"),
    }
    (finding,) = found.findings
    assert finding.startswith("None of seed, data_seed reaches the parameters (AdamW, test_libraries.py:")
    assert "model_init=" in finding
    assert ("transformers.set_seed", "0") in [(seeding.function, seeding.seed) for seeding, _ in found.reseedings]
    assert audit(train, arguments={"model_init": True}).reached("seed") == {"init", "shuffle", "stochastic"}


def test_a_lightning_module_that_is_made_before_the_seed_is_set(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]  # the library may not be installed
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(3, 2)

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            return torch.nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def train(seed: int = 0) -> None:
        module = Module()
        lightning.seed_everything(seed, verbose=False)
        data = torch.utils.data.TensorDataset(torch.ones(12, 3), torch.arange(12) % 2)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **quiet)
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4, shuffle=True))

    found = audit(train)
    assert rows(found) == {"init": ((), "earlier draws"), "shuffle": (("seed",), "-")}
    (seeding,) = {one for one, _ in found.reseedings if one.line.startswith("test_libraries.py")}
    assert (seeding.function.partition(".")[2], seeding.seed) == ("seed_everything", "0")
