"""What figure 2 costs: five onsets, their first epochs trained once and branched, against each run from its start.

``python benchmarks/onset.py`` trains a tiny CNN for 20 epochs from 10, 30, 50, 70 and 90 % of them on, five runs each,
both ways in turn, onset by onset, in one process and one thread. Controls and the store are part of the seconds.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabilitykit import NoiseProtocol, Recipe, measure, warmup_cosine
from stabilitykit.execution.session import Session
from stabilitykit.execution.where import Where
from stabilitykit.store.run_store import RunStore
from stabilitykit.store.shared_epochs import Prefixes
from stabilitykit.study.study import Study

POINTS = (0.1, 0.3, 0.5, 0.7, 0.9)


class Nothing(Prefixes):
    """Keeps nothing, so that every run is trained from its start."""

    def latest(self, epoch: int, device: torch.device | str = "cpu") -> tuple[int, dict[str, Any] | None]:
        return 0, None

    def keep(self, epoch: int, state: Mapping[str, Any]) -> None:
        pass


def forgetful(folder: Path) -> RunStore:
    """A store that keeps no epochs."""
    store = RunStore(folder)

    def none(key: str, about: Mapping[str, Any], *, private: bool = False) -> Prefixes:
        return Nothing(store.session_folder / key, about)

    store.prefixes = none  # type: ignore[method-assign]
    return store


def model() -> nn.Module:
    widths = (3, 8, 16)
    layers = [
        layer
        for before, after in itertools.pairwise(widths)
        for layer in (nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(16 * 16, 10))


def recipe_of(epochs: int) -> Recipe:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(1000, 3, 16, 16, generator=draw), torch.arange(1000) % 10
    x += 0.3 * torch.randn(10, 3, 16, 16, generator=draw)[y]
    return Recipe(
        model=model,
        train=(x[:800], y[:800]),
        test=(x[800:], y[800:]),
        epochs=epochs,
        batch_size=64,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        schedule=warmup_cosine(1),
    )


def timed(store: RunStore, recipe: Recipe, onset: int, runs: int) -> tuple[float, Study]:
    session = Session(store, Path(__file__).parent, Where("cpu"))
    started = time.perf_counter()
    study = measure(recipe, NoiseProtocol("shuffle", runs=runs, onset=onset), session=session)
    return time.perf_counter() - started, study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    recipe = recipe_of(asked.epochs)
    total = {"branched": 0.0, "from the start": 0.0}
    bare = 0.0
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            "branched": RunStore(Path(folder) / "branched"),
            "from the start": forgetful(Path(folder) / "straight"),
        }
        timed(forgetful(Path(folder) / "warm"), recipe_of(2), 1, 2)
        for point in POINTS:
            onset = round(point * asked.epochs)
            seconds, prints = {}, {}
            for way, store in stores.items():
                seconds[way], study = timed(store, recipe, onset, asked.runs)
                total[way] += seconds[way]
                prints[way] = [record.fingerprint for record in study.records]
                sd = study.accuracy_sd.value
            bare += sum(record.seconds for record in study.records)
            assert prints["branched"] == prints["from the start"]
            told = ", ".join(f"{way} {spent:.1f} s" for way, spent in seconds.items())
            print(f"onset {onset} of {asked.epochs}: {told}; accuracy SD {sd:.2f} points", flush=True)
        kept = sum(path.stat().st_size for path in Path(folder).glob("branched/**/prefix/*"))
    ratio, of_bare = total["branched"] / total["from the start"], total["branched"] / bare
    print(
        f"in all: {total['branched']:.1f} s / {total['from the start']:.1f} s = {100 * ratio:.0f} %; against the runs "
        f"alone, without their controls, {bare:.1f} s: {100 * of_bare:.0f} %; stored {kept / 1e6:.2f} MB, same bits"
    )


if __name__ == "__main__":
    main()
