"""Files that a task reads and changes, though nothing tells of it: written in C++, or by a program that it starts.

While one training runs, a change by the training cannot be told from an edit by another process. A second training can:
what the task does, it does again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..store.record import RunRecord
from ..store.traced_inputs import ABSENT, Inputs, all_in_words


class UnheardWrites:
    """Decides of each run of a task, by the runs before, what the files were that changed while it trained."""

    def __init__(self) -> None:
        self.known: set[str] = set()  #: files that the task is known to write
        self._touched: dict[str, str] = {}  #: digests of files of which the task changes no byte, but the time or inode
        self._once: dict[int, Mapping[str, str]] = {}  #: what changed in the first training of a run, by its index

    def settled(self, record: RunRecord) -> RunRecord | None:
        """Return what a run comes to: itself, or a failure; None where only a second training can tell."""
        changed = Inputs.from_json(record.inputs) if record.inputs else Inputs()
        before = self._once.pop(record.index, None)
        if before is not None:
            self._learn(before, changed)
        unknown = [name for name, digest in changed.unheard.items() if not self._knows(name, digest)]
        if unknown and before is None:
            self._once[record.index] = changed.unheard
            return None
        if unknown:
            error = _not_known(unknown)
            return replace(record, inputs={}, status="failed", error=error, logits=None, weights=None, scores={})
        if not changed.unheard:
            return record
        written = [name for name in changed.unheard if name in self.known]
        return replace(record, inputs=changed.explained(written).to_json())

    def _knows(self, name: str, digest: str) -> bool:
        return name in self.known or self._touched.get(name) == digest

    def _learn(self, before: Mapping[str, str], inputs: Inputs) -> None:
        """Learn from the second training of a run, and from the files that changed in the first."""
        for name in before.keys() & inputs.unheard.keys():
            digest, is_lost = inputs.unheard[name], inputs.files[name] == ABSENT
            if is_lost and digest == before[name] != ABSENT:
                self._touched[name] = digest
            else:
                self.known.add(name)


def _not_known(names: list[str]) -> str:
    return (
        f"{', '.join(all_in_words(names))} changed while the run read it: which content it was trained on is not "
        f"known. Either another process edits it, or the training does in a way that Python does not tell of: in C++ "
        f"(torch.jit.save, safetensors, HDF5), or by a program that it starts. Let it write to another file than the "
        f"one that it reads."
    )
