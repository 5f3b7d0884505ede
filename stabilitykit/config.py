"""What the command line and the ini file ask for, as one frozen value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import ConfigError, ProtocolError


@dataclass(frozen=True)
class Option:
    """One option, on the command line as ``--stability-<name>`` and in the ini file as ``stability_<name>``."""

    name: str
    help: str
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return f"--stability-{self.name}"

    @property
    def key(self) -> str:
        """Its name in the ini file, and of its value in pytest's namespace."""
        return f"stability_{self.name}"


OPTIONS: tuple[Option, ...] = (
    Option("runs", "R, independent trainings of each study (default: 10, at least 2)", int, metavar="N"),
    Option("seed", "base seed; another one gives another, independent study (default: 0)", int, metavar="N"),
    Option("device", "where to train: auto, cpu, cuda, cuda:N (default: auto)", metavar="DEVICE"),
    Option("threads", "CPU threads of one run; they change its bits (default: 1)", int, metavar="N"),
    Option(
        "cache",
        "auto: reuse finished runs from .stabilitykit/ (default); refresh: train them again; off: keep none",
        choices=("auto", "refresh", "off"),
    ),
    Option(
        "undecided",
        "what an UNDECIDED verdict does to its test (default: fail, with the number of runs that would settle it)",
        choices=("fail", "pass", "skip"),
    ),
    Option("json", "write every study, its numbers, verdict and runs to PATH", metavar="PATH"),
)


@dataclass(frozen=True)
class StabilityConfig:
    """The answers to `OPTIONS`; past this value nobody knows that pytest exists."""

    runs: int = 10  #: R, independent trainings a study
    seed: int = 0  #: base seed
    device: str = "auto"
    threads: int = 1  #: CPU threads of one run
    cache: str = "auto"  #: auto, refresh or off
    undecided: str = "fail"  #: fail, pass or skip
    json: str | None = None  #: where to write the report

    def __post_init__(self) -> None:
        """Refuse values that mean nothing, before a test is collected."""
        if self.runs < 2:
            raise ConfigError(
                f"Expected --stability-runs >= 2 but got {self.runs}. A spread is between runs, so it needs two; "
                f"ten is a usual start."
            )
        if self.seed < 0:
            raise ConfigError(f"Expected --stability-seed >= 0 but got {self.seed}.")
        if self.threads < 1:
            raise ConfigError(f"Expected --stability-threads >= 1 but got {self.threads}.")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"Expected --stability-device to be auto, cpu, cuda or cuda:N but got {self.device!r}.")
        if self.json is not None and Path(self.json).is_dir():
            raise ConfigError(f"Expected --stability-json to name a file but {self.json!r} is a folder.")
        for option in OPTIONS:
            value = getattr(self, option.name)
            if option.choices and value not in option.choices:
                raise ConfigError(f"Expected {option.flag} to be one of {', '.join(option.choices)} but got {value!r}.")

    @classmethod
    def from_values(cls, given: Mapping[str, Any]) -> StabilityConfig:
        """Make it from the values by name that were given; text, as ini files hold it, is parsed."""
        values: dict[str, Any] = {}
        for option in OPTIONS:
            value = given.get(option.name)
            if value is None:
                continue
            try:
                values[option.name] = option.parse(value)
            except ValueError:
                raise ConfigError(f"Expected {option.key} to be a whole number but got {value!r}.") from None
        return cls(**values)


@dataclass(frozen=True)
class MarkerConfig:
    """What ``@pytest.mark.stability(...)`` may say about its test."""

    runs: int | None = None
    vary: Any = None

    @classmethod
    def from_marker(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any], test: str) -> MarkerConfig:
        """Check a marker's arguments; ``test`` is named in the error."""
        names = [field.name for field in fields(cls)]
        example = "write @pytest.mark.stability(runs=30, vary='init')"
        if args:
            raise ConfigError(
                f"Expected the stability marker of {test} to name its arguments but got {args!r}; {example}."
            )
        for name in kwargs:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ConfigError(
                    f"Expected the stability marker of {test} to have {' or '.join(names)} but got {name!r}.{hint}"
                )
        marker = cls(**kwargs)
        if marker.runs is not None and (
            isinstance(marker.runs, bool) or not isinstance(marker.runs, int) or marker.runs < 2
        ):
            raise ConfigError(f"Expected runs >= 2 in the stability marker of {test} but got runs={marker.runs!r}.")
        if marker.vary is not None:
            from .sources import parse_sources

            try:
                parse_sources(marker.vary)
            except ProtocolError as error:
                raise ConfigError(f"In the stability marker of {test}: {error}") from None
        return marker
