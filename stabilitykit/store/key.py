"""The key of a run: the name under which the store keeps it, a hash of its ingredients."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..protocol import NoiseProtocol
from .fingerprint import CannotFingerprint, fingerprint


def ingredients(
    content: Callable[[], object],
    protocol: NoiseProtocol,
    environment: Mapping[str, object],
    rootdir: Path,
    also: Iterable[Path],
) -> tuple[dict[str, Any], str]:
    """Return the ingredients of the key, and why the runs are private if the ``content`` of a task cannot be hashed.

    Code below ``rootdir`` counts by its content, and so do the files ``also``.
    """
    about = {"protocol": protocol_ingredients(protocol), "environment": environment, "fingerprint": ""}
    try:
        return about | {"fingerprint": fingerprint(content(), rootdir, also)}, ""
    except CannotFingerprint as error:
        return about, str(error)


def key_of(about: Mapping[str, Any]) -> str:
    """Return the name of the experiment with these ingredients, 32 hex digits."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]


def protocol_ingredients(protocol: NoiseProtocol) -> dict[str, Any]:
    """Return the part of a protocol that a run depends on; not R, so that 30 runs extend 10."""
    return {
        "vary": sorted(source.value for source in protocol.vary),
        "perturb": dataclasses.asdict(protocol.perturb) if protocol.perturb else None,
        "seed": protocol.seed,
        "constants": {source.value: constant for source, constant in protocol.constants},
        **({"onset": protocol.onset} if protocol.onset else {}),  # not in the keys of runs that have none
    }
