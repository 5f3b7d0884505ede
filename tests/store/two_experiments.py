"""A store with two experiments: what the tests of the command and of the modules below it put in and look for."""

from __future__ import annotations

import os
import time

import torch

from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_files import FORMAT
from tests.store.small_records import claimed
from tests.store_names import key_of, session_id

DAY = 86_400
DEAD, KEY = session_id("dead"), key_of("key")
ABOUT = {"protocol": {"vary": ["init"], "perturb": None, "seed": 0, "constants": {}}, "environment": {"torch": "2.9"}}


def record(index, status="ok", **values):
    logits = torch.zeros(50, 2) if status == "ok" else None
    values = {"curve": ({"accuracy": 87.5}, {"accuracy": 90.0}), "environment": {"torch": "2.9"}} | values
    return RunRecord(index, {"init": 3 + index, "low_level": None}, status, 1.25, logits, **values)


def fill(store, key, task, records):
    experiment = store.experiment(key, {"task": task, **ABOUT})
    for made in records:
        with claimed(experiment, made.index) as claim:
            experiment.publish(claim, made)


def keys(store):
    return sorted(path.name[:6] for path in (store.folder / f"v{FORMAT}").iterdir())


def experiment_folder(store, key):
    (found,) = (store.folder / f"v{FORMAT}").glob(f"{key}*")
    return found


def make_old(path, days):
    then = time.time() - days * DAY
    for inside in (*path.rglob("*"), path):
        os.utime(inside, (then, then))
