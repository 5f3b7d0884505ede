"""Whether pytest took the value of one of our options for the path of a test.

pytest looks for its rootdir and ini file before it knows the options of plugins. In ``--stability-store /shared/runs``
it sees an unknown flag and a path, and where that path exists, it looks for the project there.
"""

from __future__ import annotations

import inspect
import itertools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.config.findpaths import determine_setup  # the one that pytest uses; there is no public way to ask

from .config import OPTIONS
from .errors import ConfigError


def check_rootdir(config: pytest.Config) -> None:
    """Raise `ConfigError` where pytest's rootdir or ini file would be others without the values of our options."""
    words = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *config.invocation_params.args]
    values = dict(_values_apart(list(map(str, words))))
    if not any((config.invocation_params.dir / value).exists() for value in values.values()):
        return
    found = _setup(config, list(map(str, words)))
    for place, value in values.items():
        flag = str(words[place - 1])
        without = [str(word) for index, word in enumerate(words) if index != place]
        if _setup(config, without) != found:
            raise ConfigError(
                f"Expected {flag}={value} but got {flag} {value}: pytest looks for its rootdir before it knows the "
                f"options of plugins, takes {value!r} for the path of a test, and so took {config.rootpath} for your "
                f"project. Write {flag}={value}, with an equals sign."
            )


def _values_apart(words: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the values that are words of their own, with their places."""
    flags = {option.flag for option in OPTIONS if not option.is_flag}
    for place, (word, following) in enumerate(itertools.pairwise(words), start=1):
        if word in flags and not following.startswith("-"):
            yield place, following


def _setup(config: pytest.Config, words: list[str]) -> tuple[Path, Path | None]:
    """Return the rootdir and the ini file that pytest finds from these words."""
    known: dict[str, Any] = {
        "inifile": config.getoption("inifilename", None),
        "args": words,
        "rootdir_cmd_arg": config.getoption("rootdir", None),
        "invocation_dir": config.invocation_params.dir,
        "override_ini": None,  # of pytest 8.4 and later
    }
    taken = inspect.signature(determine_setup).parameters
    return determine_setup(**{name: value for name, value in known.items() if name in taken})[:2]
