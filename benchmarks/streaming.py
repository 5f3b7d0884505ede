"""Seconds and peak memory of a language study's numbers, against the size of the logits that they are about.

``python benchmarks/streaming.py``. Ten quasi-recurrent networks (embedding 64, hidden 128) with random weights in the
store's files, 80,000 tokens of noise and a vocabulary of 10,000, in one thread: all logits would be 32 GB. The numbers
are those of `LanguageRecipe.measures`; the training is not counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from peak import Peak
from safetensors.torch import save_file

from stabilitykit import Corpus, LanguageRecipe
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_files import StoredWeights
from stabilitykit.zoo.qrnn import QRNN

RUNS, TOKENS, VOCABULARY = 10, int(sys.argv[1]) if len(sys.argv) > 1 else 80_000, 10_000


def records(folder: Path) -> list[RunRecord]:
    torch.manual_seed(0)
    found = []
    for i in range(RUNS):
        path = folder / f"{i}.safetensors"
        save_file(dict(QRNN(VOCABULARY, embedding=64, hidden=128).state_dict()), path)
        about = {"threads": 1, "device": "cpu"}
        found.append(RunRecord(i, {}, "ok", 0, weights=StoredWeights(path), fingerprint=str(i), environment=about))
    return found


def main() -> None:
    tokens = torch.randint(VOCABULARY, (TOKENS + 1,), generator=torch.Generator().manual_seed(0))
    corpus = Corpus(tokens[:1000], tokens[:1000], tokens, tuple(map(str, range(VOCABULARY))))
    recipe = LanguageRecipe(
        model=lambda: QRNN(VOCABULARY, embedding=64, hidden=128),
        corpus=corpus,
        epochs=1,
        batch_size=10,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1.0),
    )
    with tempfile.TemporaryDirectory() as folder:
        runs = records(Path(folder))
        peak = Peak()
        started = time.process_time()
        measures = recipe.measures(runs)
        for name in ("perplexity_sd", "disagreement", "correlation", "perplexity_ensemble_delta"):
            print(f"{name:28}{measures[name]}  {time.process_time() - started:.0f} s of a core so far", flush=True)
        logits = 4 * RUNS * TOKENS * VOCABULARY
        print(f"peak {peak.bytes() / 2**20:.0f} MiB, beside {logits / 2**30:.1f} GiB of logits that are never there")


if __name__ == "__main__":
    main()
