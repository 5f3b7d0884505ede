"""The place where the runs of a session are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..training.environment import resolve_device

#: In this process, in a child forked from a server, or in a new interpreter.
Isolation: TypeAlias = Literal["none", "process", "spawn"]


@dataclass(frozen=True)
class Where:
    """Device, threads and processes of a session's trainings, and how long each may take."""

    device: str = "auto"  #: "auto", "cpu", "cuda", "cuda:N"
    slot: int = 0  #: number of this worker among the session's; decides between several GPUs
    workers_per_device: int = 1  #: trainings that share a GPU
    threads: int = 1  #: CPU threads of one run
    isolation: Isolation = "none"  #: where a run is trained
    workers: int = 1  #: runs that train at once, each in a child process
    run_timeout: float | None = None  #: seconds that one run may take

    def device_for(self, child: int = 0) -> str:
        """Return the device of this worker, or of one of the ``workers`` children that train for it at once."""
        return resolve_device(self.device, self.slot + child, self.workers_per_device)
