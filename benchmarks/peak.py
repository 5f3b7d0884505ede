"""The most memory that a process has held, over what it held at first."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


class Peak:
    """Counts from where it is made. The mark only rises, so make it in a fresh process, before there is much."""

    def __init__(self) -> None:
        self._before = _kept("VmRSS")

    def bytes(self) -> int:
        return _kept("VmHWM") - self._before


def _kept(field: str) -> int:
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage, whose mark a process has from the one that started it.
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])
