"""Headers and the arrays that they name: the bytes of format 2, of shared epochs and of baselines stay as they are."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from stabilitykit.store.baseline_files import BaselineFiles
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_files import RunFiles
from stabilitykit.store.run_store import make_store
from stabilitykit.store.shared_epochs import Prefixes
from tests.store_names import key_of

KEY = key_of("key")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_store(tmp_path / "store")
    return tmp_path / "store"


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file but the headers, by name."""
    files = [path for path in folder.iterdir() if path.suffix != ".json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def npy(array: np.ndarray) -> str:
    """The sha256 of the file that NumPy writes."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def test_a_run_is_written_as_ever(store: Path) -> None:
    files = RunFiles(store / "v2" / KEY)
    files.folder.mkdir(parents=True)
    logits, weights = np.array([[0.25, -1.5], [2.0, 0.0]], "<f4"), {"b": torch.tensor([1.0]), "a": torch.zeros(2, 1)}
    files.write(7, RunRecord(7, {"init": 3}, "ok", 1.5).to_json(), logits, weights)
    one, other = npy(logits), hashlib.sha256(save(weights)).hexdigest()
    assert digests(files.folder) == {f"0007.{one[:12]}.npy": one, f"0007.{other[:12]}.safetensors": other}
    assert (files.folder / "0007.json").read_text() == (
        f'{{"format": "2", "arrays": {{"file": "0007.{one[:12]}.npy", "sha256": "{one}", "dtype": "<f4", '
        f'"shape": [2, 2]}}, "weights": {{"file": "0007.{other[:12]}.safetensors", "sha256": "{other}"}}, '
        '"record": {"index": 7, "seeds": {"init": 3}, "status": "ok", "seconds": 1.5, "fingerprint": "", "trace": [], '
        '"curve": [], "perturbation": null, "low_level": "deterministic", "error": "", "environment": {}, '
        '"trained_by": {}}}'
    )


def test_a_run_without_arrays_is_written_as_ever(store: Path) -> None:
    files = RunFiles(store / "v2" / KEY)
    files.folder.mkdir(parents=True)
    files.write(8, RunRecord(8, {"init": 4}, "failed", 0.5, error="\u00e9").to_json(), None)
    assert digests(files.folder) == {}
    assert (files.folder / "0008.json").read_text() == (
        '{"format": "2", "arrays": null, "record": {"index": 8, "seeds": {"init": 4}, "status": "failed", '
        '"seconds": 0.5, "fingerprint": "", "trace": [], "curve": [], "perturbation": null, '
        '"low_level": "deterministic", "error": "\\u00e9", "environment": {}, "trained_by": {}}}'
    )


def test_logits_in_any_order_of_memory_are_written_in_c_order(store: Path) -> None:
    files = RunFiles(store / "v2" / KEY)
    files.folder.mkdir(parents=True)
    logits = np.arange(6, dtype="<f8").reshape(2, 3)
    header = files.write(0, RunRecord(0, {}, "ok", 1.0).to_json(), np.asfortranarray(logits))
    assert header is not None
    assert header["arrays"]["sha256"] == npy(logits)
    assert np.array_equal(np.load(files.folder / header["arrays"]["file"]), logits)


def test_a_state_before_an_onset_is_written_as_ever(store: Path) -> None:
    prefixes, w = Prefixes(store / "v2" / KEY, {"task": "digits"}), torch.tensor([0.5, 2.0])
    prefixes.keep(5, {"model": {"w": w}, "epoch": 5})
    state = '{"dict": [["model", {"dict": [["w", {"tensor": "0", "strides": null, "home": "cpu"}]]}], ["epoch", 5]]}'
    tensors = save({"0": w})
    both = hashlib.sha256(state.encode() + tensors).hexdigest()
    assert digests(prefixes.folder) == {f"0005.{both[:12]}.safetensors": hashlib.sha256(tensors).hexdigest()}
    assert (prefixes.folder / "0005.json").read_text() == f'{{"format": 1, "sha256": "{both}", "state": {state}}}'


def test_a_baseline_is_written_as_ever(store: Path) -> None:
    baseline, answers = BaselineFiles(store, "main"), np.array([[1, 0], [1, 1]], "<i8")
    baseline.write("tests/test_a.py::test_b", 1, {"commit": "abc", "saved": 2.0}, answers)
    stem, digest = "df9b21a761afebc33ff9e501.1", npy(answers)
    assert digests(baseline.folder) == {f"{stem}.{digest[:12]}.npy": digest}
    assert (baseline.folder / f"{stem}.json").read_text() == (
        '{"format": 1, "test": "tests/test_a.py::test_b", "call": 1, "commit": "abc", "saved": 2.0, '
        f'"array": {{"file": "{stem}.{digest[:12]}.npy", "sha256": "{digest}"}}}}'
    )
