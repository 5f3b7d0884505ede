"""Which device a worker trains on: every worker has a slot, and every device a number of them. Pure, no torch."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError


class Slots:
    """The slots of a session's workers, counted from 0: one that died leaves its slot to its replacement.

    >>> slots = Slots()
    >>> slots.take("gw0"), slots.take("gw1"), slots.take("gw2")
    (0, 1, 2)
    >>> slots.give_back("gw1")
    >>> slots.take("gw3")
    1
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}

    def take(self, worker: str) -> int:
        """Return the lowest free slot, which is the worker's until it gives it back."""
        slot = next(slot for slot in range(len(self._taken) + 1) if slot not in self._taken.values())
        self._taken[worker] = slot
        return slot

    def give_back(self, worker: str) -> None:
        """Free the slot of a worker that has ended; nothing happens where it has none."""
        self._taken.pop(worker, None)


def device_of(slot: int, devices: Sequence[str], workers_per_device: int = 1) -> str:
    """Return the device of a slot: one worker a device, then a second on each where that was asked for.

    ``devices`` are counted within what pytest's caller may see: ``cuda:0`` is the first in its CUDA_VISIBLE_DEVICES.

    >>> [device_of(slot, ["cuda:0", "cuda:1"], workers_per_device=2) for slot in range(4)]
    ['cuda:0', 'cuda:1', 'cuda:0', 'cuda:1']
    """
    most = len(devices) * workers_per_device
    if slot >= most:
        raise ConfigError(
            f"Expected at most {most} workers, {workers_per_device} for each of {', '.join(devices)}, but this is "
            f"number {slot + 1}. Ask for -n {most}, or let more workers share a device with "
            f"--stability-workers-per-device {-(-(slot + 1) // len(devices))}, if its memory holds as many trainings."
        )
    return devices[slot % len(devices)]
