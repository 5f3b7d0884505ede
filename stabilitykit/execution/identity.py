"""The ingredients of a study's key: two runs with equal ingredients are the same run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..protocol import NoiseProtocol
from ..store.fingerprint import CannotFingerprint, fingerprint
from ..training.environment import Environment
from ..training.task import Task


def identity(
    task: Task, protocol: NoiseProtocol, environment: Environment, rootdir: Path, also: Iterable[Path]
) -> tuple[dict[str, Any], str]:
    """Return the ingredients of the key, and why the runs are private if the task's content cannot be hashed.

    Code below ``rootdir`` counts by its content, and so do the files ``also``.
    """
    about = {"protocol": protocol_identity(protocol), "environment": environment.must_match, "fingerprint": ""}
    try:
        return about | {"fingerprint": fingerprint(task.content(), rootdir, also)}, ""
    except CannotFingerprint as error:
        return about, str(error)


def key_of(about: Mapping[str, Any]) -> str:
    """Return the name of the experiment with these ingredients, 32 hex digits."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]


def protocol_identity(protocol: NoiseProtocol) -> dict[str, Any]:
    """Return the part of a protocol that a run depends on; not R, so that 30 runs extend 10."""
    return {
        "vary": sorted(source.value for source in protocol.vary),
        "perturb": dataclasses.asdict(protocol.perturb) if protocol.perturb else None,
        "seed": protocol.seed,
        "constants": {source.value: constant for source, constant in protocol.constants},
        **({"onset": protocol.onset} if protocol.onset else {}),  # not in the keys of runs that have none
    }
