"""The most memory that a process has held, and how much more that is than it held before."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


class Peak:
    """Counts from where it is made: resident memory then, and the process's highest mark later.

    The mark is the process's own, so nothing may have gone above it before: make one in a fresh process.
    """

    def __init__(self) -> None:
        self._before = self._high()
        if sys.platform == "linux":
            self._before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def bytes(self) -> int:
        return self._high() - self._before

    def _high(self) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
