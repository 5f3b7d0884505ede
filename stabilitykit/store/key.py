"""The key of a run: the name under which the store keeps it, a hash of its ingredients."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..protocol import NoiseProtocol
from .compiled_files import outdated
from .fingerprint import CannotFingerprint, read
from .layout import PARTS, ROLE
from .loaded_files import Stamp, changed_since_import, imported_for


@dataclass(frozen=True)
class Ingredients:
    """What the key of a study is made of."""

    about: Mapping[str, Any]
    private: str = ""  #: why the runs are not kept; empty if they are
    stamps: Mapping[str, Stamp] = field(default_factory=dict)  #: the state of each source file that was read


def ingredients(
    content: Callable[[], object],
    protocol: NoiseProtocol,
    environment: Mapping[str, object],
    rootdir: Path,
    also: Collection[Path],
    name: str = "",
) -> Ingredients:
    """Return the ingredients of the key; private if the ``content`` of a task cannot be hashed, or has been edited.

    The user's own code counts by its content wherever it lies, and so do the files ``also`` with all that they have
    imported. ``name`` is what the content is called where a difference in it is named.
    """
    about = {"protocol": protocol_ingredients(protocol), "environment": environment, "fingerprint": ""}
    try:
        reading = read(content(), rootdir, [*also, *imported_for(also)], name)
    except CannotFingerprint as error:
        return Ingredients(about, str(error))
    stamps = reading.sources.stamps()
    about |= {"fingerprint": reading.digest, PARTS: dict(reading.parts)}
    return Ingredients(about, _not_what_stands_there(reading.sources.paths, stamps), stamps)


def _not_what_stands_there(paths: Iterable[Path], stamps: Mapping[str, Stamp]) -> str:
    """Say of which source files another text trains than the one that the key is made of; empty if of none."""
    if changed := [path.name for path in changed_since_import(sorted(paths))]:
        return f"{', '.join(changed)} was edited after it had been imported"
    if old := [Path(path).name for path in outdated(stamps)]:
        return (
            f"Python runs an older text of {', '.join(old)}: it keeps what it has compiled in __pycache__, and the new "
            f"text has the same size and time. Remove __pycache__, or touch the file"
        )
    return ""


#: What is kept beside the ingredients of a key: a name, who asked, and what the fingerprint was made of.
_FOR_PEOPLE = frozenset({PARTS, "task", "asked_by", "session", ROLE})


def key_of(about: Mapping[str, Any]) -> str:
    """Return the name of the experiment with these ingredients, 32 hex digits."""
    counts = {name: value for name, value in about.items() if name not in _FOR_PEOPLE}
    return hashlib.sha256(json.dumps(counts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def protocol_ingredients(protocol: NoiseProtocol) -> dict[str, Any]:
    """Return the part of a protocol that a run depends on; not R, so that 30 runs extend 10."""
    return {
        "vary": sorted(source.value for source in protocol.vary),
        "perturb": dataclasses.asdict(protocol.perturb) if protocol.perturb else None,
        "seed": protocol.seed,
        "constants": {source.value: constant for source, constant in protocol.constants},
        **({"onset": protocol.onset} if protocol.onset else {}),  # not in the keys of runs that have none
    }
