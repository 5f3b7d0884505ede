"""Files that a task reads and changes, though nothing tells of it: written in C++, or by a program that it starts.

While one training runs, a change by the training cannot be told from an edit by another process. A second training can:
what the task does, it does again.
"""

from __future__ import annotations

from dataclasses import replace

from ..store.record import RunRecord
from ..store.traced_inputs import Inputs, in_words


class UnheardWrites:
    """Decides of each run of a task, by the runs before, what the files were that changed while it trained."""

    def __init__(self) -> None:
        self.known: set[str] = set()  #: files that the task is known to write
        self._once: dict[int, frozenset[str]] = {}  #: files that changed in the first training of a run, by its index

    def settled(self, record: RunRecord) -> RunRecord | None:
        """Return what a run comes to: itself, or a failure; None where only a second training can tell."""
        changed = frozenset(record.inputs.get("unheard", ()))
        before = self._once.pop(record.index, None)
        if before is not None:
            self.known |= changed & before
        elif changed - self.known:
            self._once[record.index] = changed
            return None
        if others := sorted(changed - self.known):
            return replace(record, inputs={}, status="failed", error=_not_known(others), logits=None, weights=None)
        if not changed:
            return record
        return replace(record, inputs=Inputs.from_json(record.inputs).changing(sorted(changed)).to_json())


def _not_known(names: list[str]) -> str:
    return (
        f"{', '.join(map(in_words, names))} changed while the run read it: which content it was trained on is not "
        f"known. Either another process edits it, or the training does in a way that Python does not tell of: in C++ "
        f"(torch.jit.save, safetensors, HDF5), or by a program that it starts. Let it write to another file than the "
        f"one that it reads."
    )
