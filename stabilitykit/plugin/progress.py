"""Progress on the terminal while runs train, in this process or in workers."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

#: Seconds between two progress lines of a log: at least, and at most while runs train.
_BETWEEN_LINES, _SILENCE = 5.0, 60.0
#: Seconds after which a run that trains is named.
_LONG_RUN = 60.0


class ProgressLines:
    """Progress of studies: on a TTY written over the line of results, in a log a line for each tenth of the runs."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._finished: dict[str, int] = {}
        self._covered: str | None = None
        self._last = 0.0

    def show(self, progress: dict[str, Any]) -> None:
        """Print how many runs of a study are finished, if that is news and any run had to be trained."""
        reporter = self._reporter
        study, finished, total = f"{progress['test']} {progress['call']}", progress["finished"], progress["total"]
        before = self._finished.get(study, 0)
        if (
            reporter is None
            or finished < before
            or not (progress["new"] or progress["running"] or progress.get("held"))
        ):
            return  # another worker has told more already, or everything was in the store
        silent = _BETWEEN_LINES if 10 * finished // total > 10 * before // total else _SILENCE
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            if reporter.isatty:
                self._finished[study] = finished
                self._cover(reporter, _progress_line(progress))
            elif progress["elapsed"] > silent < time.monotonic() - self._last:
                self._finished[study], self._last = finished, time.monotonic()
                if reporter._tw.width_of_current_line:
                    reporter.write("\n")
                reporter.currentfspath = None  # the next test starts a line with its file's name
                reporter.write_line(_progress_line(progress))

    def clear(self) -> None:
        """Put back the line that progress was written over, before pytest writes on."""
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
        # Written raw, so that pytest's own record of the line stays right.
        if self._covered is None:
            self._covered = reporter._tw._current_line
        width = reporter._tw.fullwidth - 1
        reporter.write_raw("\r" + line[:width].ljust(width), flush=True)


def _progress_line(progress: dict[str, Any]) -> str:
    """Write a study's runs by state and by worker, and name those that take long.

    >>> so_far = {"test": "test_net.py::test_a", "study": "net", "finished": 12, "total": 30, "failed": 1}
    >>> so_far["may_stop_early"] = False
    >>> running = [{"index": 12, "worker": "gw0", "pid": 7, "seconds": 95.0}]
    >>> print(_progress_line({**so_far, "seconds_left": 42, "by_worker": {"gw0": 7, "gw1": 5}, "running": running}))
    stability: test_a (net) 12/30 runs, 1 running, 1 failed, 42 s left; gw0 7, gw1 5; run 12 for 1 min 35 s (gw0, pid 7)
    """
    may_stop = progress["may_stop_early"]
    parts = [f"{progress['finished']}/{progress['total']} runs{' at most' * may_stop}"]
    parts += [f"{len(progress['running'])} running"] if progress["running"] else []
    held = progress.get("held", ())
    parts += [f"waiting for run {held[0]}, which a process holds without saying what it does"] if held else []
    parts += [f"{progress['failed']} failed"] if progress["failed"] else []
    if progress["seconds_left"]:
        parts.append(f"{'at most ' * may_stop}{_duration(progress['seconds_left'])} left")
    by_worker = sorted(progress["by_worker"].items())
    more = [", ".join(f"{worker} {runs}" for worker, runs in by_worker)] * (len(by_worker) > 1)
    for run in progress["running"]:
        if run["seconds"] > _LONG_RUN:
            more.append(f"run {run['index']} for {_duration(run['seconds'])} ({run['worker']}, pid {run['pid']})")
    name = progress["test"].partition("::")[2] or progress["test"]
    return "; ".join([f"stability: {name} ({progress['study']}) {', '.join(parts)}", *more])


def _duration(seconds: float) -> str:
    """Write seconds in the largest units that matter.

    >>> _duration(7.2), _duration(95), _duration(7300)
    ('7 s', '1 min 35 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
