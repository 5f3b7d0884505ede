"""The end of all training in one process: because the session ends, or because its time is up."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from ..errors import setting


class Stop:
    """Decides before each run whether it may begin, and can interrupt the run that trains in the main thread.

    >>> stop = Stop()
    >>> stop.reason_against(seconds=3600) is None
    True
    >>> stop.now("another test failed, and -x ends the session")
    >>> stop.reason_against(seconds=1)
    'another test failed, and -x ends the session'
    """

    def __init__(self, deadline: float | None = None, minutes: float | None = None) -> None:
        """Let no run begin that would end after ``deadline``: seconds since the epoch, ``minutes`` from the start."""
        self.reason: str | None = None  #: why the session stopped; None while it goes on
        self._deadline, self._minutes = deadline, minutes
        self._lock = threading.Lock()
        self._is_training = False

    def now(self, reason: str) -> None:
        """End all training; from any thread."""
        with self._lock:
            self.reason = self.reason or reason
            if self._is_training:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def reason_against(self, seconds: float) -> str | None:
        """Return why a run that takes ``seconds`` must not begin now; None if it may."""
        if self.reason is None and self._deadline is not None and time.time() + seconds > self._deadline:
            return f"the {self._minutes:g} minutes of {setting('budget_minutes')} would not suffice for another run"
        return self.reason

    @contextlib.contextmanager
    def interrupts(self) -> Iterator[None]:
        """Let `now` interrupt the block, which then ends without an exception; Ctrl-C raises as ever."""
        try:
            with self._hearing():
                self._set_training(True)
                try:
                    yield
                finally:
                    self._set_training(False)
        except KeyboardInterrupt:
            if self.reason is None:
                raise

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        """Handle SIGINT for the block if the process ignores it, as background jobs of a shell do."""
        is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if not is_ignored or threading.current_thread() != threading.main_thread():
            yield
            return

        def ring(number: int, frame: FrameType | None) -> None:
            if self.reason is not None:
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, ring)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _set_training(self, on: bool) -> None:
        with self._lock:
            self._is_training = on
