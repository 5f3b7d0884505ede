"""What one ulp does to a language model under several optimizers, beside a new initialisation.

``python benchmarks/text.py``. The QRNN of `stability_tests` at the scale small (embedding 64, hidden 128, 12 epochs,
batches of 8, segments of about 35) on the text of Python's own documentation, three runs a study.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from stabilitykit import NoiseProtocol, measure, python_topics, warmup_cosine
from stabilitykit.execution.session import Session
from stabilitykit.store.run_store import RunStore
from stabilitykit.zoo import QRNN, penn_treebank

RUNS = 3
LESS_DROPOUT = dict(zip(("words", "input", "hidden", "output", "weights"), (0.05, 0.2, 0.15, 0.2, 0.05), strict=True))
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD, rate 30": lambda model: torch.optim.SGD(model.parameters(), lr=30, weight_decay=1.2e-6),
    "SGD, rate 10": lambda model: torch.optim.SGD(model.parameters(), lr=10, weight_decay=1.2e-6),
    "Adam, rate 0.01": lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
}


def main() -> None:
    corpus = python_topics()
    dropout = {f"dropout_{place}": share for place, share in LESS_DROPOUT.items()}
    model = partial(QRNN, len(corpus), embedding=64, hidden=128, **dropout)
    settings = {"model": model, "epochs": 12, "batch_size": 8, "segment": 35, "schedule": warmup_cosine(0.5)}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(RunStore(Path(folder)), Path(__file__).parent)
        for name, optimizer in OPTIMIZERS.items():
            recipe = penn_treebank(corpus, optimizer=optimizer, **settings)
            for protocol in (NoiseProtocol("none", "ulp", RUNS), NoiseProtocol("init", runs=RUNS)):
                study = measure(recipe, protocol, session=session)
                numbers = {
                    "perplexity": study.perplexity,
                    "SD": study.perplexity_sd,
                    "disagreement, %": study.disagreement,
                    "ensemble delta": study.ensemble_delta,
                }
                shown = ", ".join(f"{title} {number.value:.3g}" for title, number in numbers.items())
                print(f"{name:16}{protocol.name:6}{shown}", flush=True)


if __name__ == "__main__":
    main()
