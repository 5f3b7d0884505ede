"""Silence: what libraries say of a training that is one of many, such as which devices they found."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(*packages: str, categories: tuple[type[Warning], ...] = ()) -> Iterator[None]:
    """Keep these packages from logging less than errors and from warning, in a block; ``categories`` are theirs.

    >>> with silenced("lightning"):
    ...     logging.getLogger("lightning").warning("found a device")
    """
    loggers = [logging.getLogger(package) for package in packages]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for package in packages:
            warnings.filterwarnings("ignore", module=rf"{re.escape(package)}(\.|$)")
        for category in categories:
            warnings.simplefilter("ignore", category)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
