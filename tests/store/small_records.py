"""One experiment and its small records, for the tests of the store."""

from __future__ import annotations

import contextlib

import torch

from stabilitykit.store.record import RunRecord
from tests.store_names import key_of

KEY = key_of("key")

LOGITS = torch.tensor([[0.25, -1.5], [2.0, 0.0]])


def record(index=0, **values):
    values = {"status": "ok", "seconds": 0.5, "logits": LOGITS, "seeds": {"init": 3, "low_level": None}} | values
    if values["status"] != "ok":
        values["logits"] = None
    return RunRecord(index=index, **values)


@contextlib.contextmanager
def claimed(experiment, index):
    """Hold the claim on a run for a block; None if another process holds it, or the run is finished."""
    claim = experiment.claim(index)
    try:
        yield claim
    finally:
        if claim is not None:
            experiment.release(claim)


def publish(experiment, *records):
    for made in records:
        with claimed(experiment, made.index) as claim:
            assert claim is not None
            experiment.publish(claim, made)
