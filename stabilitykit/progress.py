"""Progress on the terminal while runs train, in this process or in workers."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

#: Seconds between two progress lines of a log.
_BETWEEN_LINES = 5.0


class ProgressLines:
    """Progress on the terminal: on a TTY written over the line of results, in a log a line for each tenth of the runs.

    A log gets no two lines within a few seconds, and none about a study that takes less.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._finished: dict[str, int] = {}
        self._covered: str | None = None
        self._last = 0.0

    def show(self, progress: dict[str, Any]) -> None:
        """Print how far a study is, if that is news and something had to be trained."""
        reporter = self._reporter
        study, finished, total = f"{progress['test']} {progress['call']}", progress["finished"], progress["total"]
        before = self._finished.get(study, 0)
        if reporter is None or progress["new"] == 0 or finished <= before:  # another worker may have told it first
            return
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            if reporter.isatty:
                self._finished[study] = finished
                self._cover(reporter, _progress_line(progress))
            elif 10 * finished // total > 10 * before // total and self._is_time(progress["elapsed"]):
                self._finished[study], self._last = finished, time.monotonic()
                if reporter._tw.width_of_current_line:
                    reporter.write("\n")
                reporter.currentfspath = None  # the next test starts a line with its file's name
                reporter.write_line(_progress_line(progress))

    def clear(self) -> None:
        """Put back what the progress was written over, before anything else is written."""
        reporter = self._reporter
        if reporter is not None and self._covered is not None:
            self._cover(reporter, self._covered)
            reporter.write_raw("\r" + self._covered, flush=True)
            self._covered = None

    @property
    def _reporter(self) -> Any:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        return reporter if reporter is not None and self._config.get_verbosity() >= 0 else None

    def _cover(self, reporter: Any, line: str) -> None:
        # Written raw, so that pytest goes on to know its own line.
        if self._covered is None:
            self._covered = reporter._tw._current_line
        width = reporter._tw.fullwidth - 1
        reporter.write_raw("\r" + line[:width].ljust(width), flush=True)

    def _is_time(self, elapsed: float) -> bool:
        return elapsed > _BETWEEN_LINES < time.monotonic() - self._last


def _progress_line(progress: dict[str, Any]) -> str:
    failed = f", {progress['failed']} failed" if progress["failed"] else ""
    left = progress["seconds_left"]
    time_left = f", {_duration(left)} left" if left else ""
    name = progress["test"].partition("::")[2] or progress["test"]
    return f"stability: {name} ({progress['study']}) {progress['finished']}/{progress['total']} runs{failed}{time_left}"


def _duration(seconds: float) -> str:
    """Write a time as a person would.

    >>> _duration(7.2), _duration(95), _duration(7300)
    ('7 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
