"""A ledger of what trains, which no key sees: of a logger, its name counts, and not which handlers it has."""

from __future__ import annotations

import logging

LEDGER = logging.getLogger("tests.ledger")


class Ledger(logging.Handler):
    """Keeps the one argument of each message that a task logs while it trains: ``LEDGER.info("%d", seed)``."""

    def __init__(self, trained: list[int]) -> None:
        super().__init__()
        self.trained = trained

    def emit(self, record: logging.LogRecord) -> None:
        self.trained.append(record.args[0])


def keep_ledger(trained: list[int]) -> None:
    """Let ``trained`` alone receive what is logged from now on."""
    LEDGER.setLevel(logging.INFO)
    LEDGER.propagate = False
    LEDGER.handlers[:] = [Ledger(trained)]
