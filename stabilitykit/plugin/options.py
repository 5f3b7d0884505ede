"""What the command line and the ini file ask for, as one frozen value."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, ProtocolError, is_count

#: The file of reviewed budgets, in the rootdir.
BUDGETS = "stability-budgets.toml"


def _truth(text: str | bool) -> bool:
    truths = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    return text if isinstance(text, bool) else truths[text.strip().lower()]


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
        """The option's name on the command line."""
        return f"--stability-{self.name.replace('_', '-')}"

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value on the command line; the ini file says true or false."""
        return self.parse is _truth

    @property
    def key(self) -> str:
        """The option's key in the ini file, and the name of its value in pytest's namespace."""
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
    Option(
        "isolation",
        "where a run trains: none, in the worker's own process (default); process, each in a child forked from a "
        "server that has torch loaded, so that a crash loses one run; spawn, each in a new Python",
        choices=("none", "process", "spawn"),
    ),
    Option("workers", "runs that train at once without pytest-xdist, each in a child (default: 1)", int, metavar="N"),
    Option("workers_per_device", "workers that may share one GPU (default: 1)", int, metavar="N"),
    Option("run_timeout", "seconds that one run may take; then it has failed (default: no limit)", float, metavar="S"),
    Option(
        "budget_minutes",
        "begin no run that would end later than this after the session's start; the session says how many runs are "
        "missing, and the next one trains them (default: no limit)",
        float,
        metavar="M",
    ),
    Option(
        "store",
        "folder of finished runs, which machines may share (default: .stabilitykit in the rootdir); write it with =, "
        "since pytest can take a path after a space for the path of a test",
        os.path.expanduser,  # the shell expands ~ at the start of a word, but not after =
        metavar="PATH",
    ),
    Option(
        "plan",
        "train nothing and run no other tests: enter each stability test as far as it goes without numbers, and say "
        "how many runs and minutes its budgets need, and what their verdicts are worth",
        _truth,
    ),
    Option("calibrate", "measure, and propose budgets in stability-budgets.toml for checks that name none", _truth),
    Option("update", "let --stability-calibrate and --stability-save replace what is there", _truth),
    Option("save", "keep every study of this session as the baseline NAME", metavar="NAME"),
    Option("compare", "fail where mean or spread got worse beyond error than in the baseline NAME", metavar="NAME"),
    Option("selftest", "plant faults into a copy of each judged study, and fail where it still passes", _truth),
    Option("json", "write every study, its numbers, verdict and runs to PATH", os.path.expanduser, metavar="PATH"),
)


@dataclass(frozen=True)
class StabilityConfig:
    """The values of `OPTIONS`; code that is given them need not know that pytest exists."""

    runs: int = 10  #: R, independent trainings of each study
    seed: int = 0  #: base seed
    device: str = "auto"
    threads: int = 1  #: CPU threads of one run
    cache: Literal["auto", "refresh", "off"] = "auto"  #: auto, refresh or off
    undecided: str = "fail"  #: fail, pass or skip
    isolation: Literal["none", "process", "spawn"] = "none"  #: none, process or spawn
    workers: int = 1  #: runs at once in one process's children
    workers_per_device: int = 1
    run_timeout: float | None = None  #: seconds
    budget_minutes: float | None = None  #: minutes from the session's start to the end of its last run
    store: str | None = None  #: folder of finished runs
    plan: bool = False  #: train nothing
    calibrate: bool = False  #: write budgets
    update: bool = False  #: replace budgets and baselines
    save: str | None = None  #: name of the baseline to keep
    compare: str | None = None  #: name of the baseline to hold the studies against
    selftest: bool = False  #: plant faults into copies of the judged studies
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
        for name in ("threads", "workers", "workers_per_device"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected {spelled(name)} >= 1 but got {getattr(self, name)}.")
        for name in ("run_timeout", "budget_minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"Expected {spelled(name)} to be above 0 but got {value:g}.")
        if self.workers > 1 and self.isolation == "none":
            raise ConfigError(
                f"Expected --stability-isolation process with --stability-workers {self.workers} but got none: one "
                f"process trains one run at a time. Leave the isolation out, or use -n {self.workers} of pytest-xdist."
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"Expected --stability-device to be auto, cpu, cuda or cuda:N but got {self.device!r}.")
        for name in ("save", "compare"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"\w[\w.-]*", value):
                raise ConfigError(
                    f"Expected {spelled(name)} to be a name of letters, digits, '_', '-' and '.' but got {value!r}. It "
                    f"names a folder of the run store."
                )
        if self.plan and (self.calibrate or self.save or self.compare or self.selftest):
            raise ConfigError("Expected --stability-plan alone: it trains nothing, so there is nothing else to do.")
        if self.update and not (self.calibrate or self.save):
            raise ConfigError("Expected --stability-update beside --stability-calibrate or --stability-save.")
        if self.json is not None and Path(self.json).is_dir():
            raise ConfigError(f"Expected --stability-json to name a file but {self.json!r} is a folder.")
        for option in OPTIONS:
            value = getattr(self, option.name)
            if option.choices and value not in option.choices:
                raise ConfigError(f"Expected {option.flag} to be one of {', '.join(option.choices)} but got {value!r}.")

    @classmethod
    def from_values(cls, given: Mapping[str, Any]) -> StabilityConfig:
        """Make the configuration from the given options by name; text, as ini files hold it, is parsed."""
        values: dict[str, Any] = {}
        for option in OPTIONS:
            if (value := given.get(option.name)) is None:
                continue
            try:
                values[option.name] = option.parse(value)
            except (KeyError, ValueError):
                kind = "true or false" if option.is_flag else "a whole number" if option.parse is int else "a number"
                raise ConfigError(f"Expected {option.key} to be {kind} but got {value!r}.") from None
        if values.get("workers", 1) > 1:
            values.setdefault("isolation", "process")
        return cls(**values)


def spelled(name: str, value: object = None) -> str:
    """Write a setting as its option: ``--stability-runs 10``."""
    option = next(option for option in OPTIONS if option.name == name)
    if value is None or option.is_flag:
        return option.flag
    # pytest can take a path that stands apart for that of a test.
    return f"{option.flag}{'=' if option.metavar == 'PATH' else ' '}{value}"


def check_baselines(store: Path, *, save: str | None, compare: str | None, update: bool) -> None:
    """Raise `ConfigError` for a baseline that is not there, or one that would be replaced without being asked."""
    from ..store.baseline_files import BaselineFiles

    if save is not None and save == compare:
        raise ConfigError(
            f"Expected --stability-save and --stability-compare to name two baselines but both name {save!r}: a study "
            f"would be held against itself when its test is run again. Compare first, then save."
        )
    if compare is not None and not BaselineFiles(store, compare).exists():
        names = ", ".join(baseline.name for baseline in BaselineFiles.all(store)) or "none"
        raise ConfigError(
            f"Expected --stability-compare to name a baseline but {store} has no {compare!r}. There are: {names}. Keep "
            f"one with --stability-save {compare} on the commit to compare with."
        )
    if save is not None and not update and BaselineFiles(store, save).exists():
        raise ConfigError(
            f"Expected --stability-save to name a new baseline but {store} has {save!r}. Choose another name, or "
            f"replace the studies of this session in it with --stability-update."
        )


@dataclass(frozen=True)
class MarkerConfig:
    """The arguments that ``@pytest.mark.stability(...)`` may have."""

    runs: int | None = None
    vary: Any = None

    @classmethod
    def from_marker(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any], test: str) -> MarkerConfig:
        """Check a marker's arguments; ``test`` is named in the error."""
        names, expected = [field.name for field in fields(cls)], f"Expected the stability marker of {test} to"
        if args:
            example = "write @pytest.mark.stability(runs=30, vary='init')"
            raise ConfigError(f"{expected} name its arguments but got {args!r}; {example}.")
        for name in kwargs:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise ConfigError(f"{expected} have {' or '.join(names)} but got {name!r}.{hint}")
        marker = cls(**kwargs)
        if marker.runs is not None and not is_count(marker.runs, 2):
            raise ConfigError(f"Expected runs >= 2 in the stability marker of {test} but got runs={marker.runs!r}.")
        if marker.vary is not None:
            from ..protocol import parse_sources

            try:
                parse_sources(marker.vary)
            except ProtocolError as error:
                raise ConfigError(f"In the stability marker of {test}: {error}") from None
        return marker
