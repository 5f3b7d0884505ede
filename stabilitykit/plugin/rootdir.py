"""Whether pytest took the value of one of our options for the path of a test.

pytest looks for its rootdir and ini file before it knows the options of plugins. In ``--stability-store /shared/runs``
it sees an unknown flag and a path, and where that path exists, it looks for the project there.
"""

from __future__ import annotations

import inspect
import itertools
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.config import get_config  # what pytest uses itself; there is no public way to ask
from _pytest.config.findpaths import determine_setup

from ..errors import ConfigError
from .options import OPTIONS


def check_rootdir(config: pytest.Config) -> None:
    """Raise `ConfigError` where pytest's rootdir or ini file would be others without the values of our options."""
    given = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *map(str, config.invocation_params.args)]
    words = list(_read_from_files(given))
    flags = {option.flag for option in OPTIONS if not option.is_flag}
    apart = [(word, value) for word, value in itertools.pairwise(words) if word in flags and not value.startswith("-")]
    if not any((config.invocation_params.dir / value).exists() for _, value in apart):
        return
    early, unknown = get_config(words)._parser.parse_known_and_unknown_args(words)
    paths = [*early.file_or_dir, *unknown]  # what pytest, before it knows plugins' options, takes for paths or flags
    # The user means the setup without these values; the message names the first value that alone leads elsewhere.
    meant = _setup(config, _without(paths, [value for _, value in apart]))
    if _setup(config, paths) == meant:
        return
    others = [[value for _, value in apart[:place] + apart[place + 1 :]] for place in range(len(apart))]
    wrong = next((place for place, left in enumerate(others) if _setup(config, _without(paths, left)) != meant), 0)
    flag, value = apart[wrong]
    raise ConfigError(
        f"Expected {flag}={value} but got {flag} {value}: pytest looks for its rootdir before it knows the "
        f"options of plugins, takes {value!r} for the path of a test, and so took {config.rootpath} for your "
        f"project, with {config.inipath or 'no ini file'}. Write {flag}={value}, with an equals sign."
    )


def _read_from_files(words: Iterable[str]) -> Iterator[str]:
    """Put the lines of a file in the place of its ``@name``, as pytest does."""
    for word in words:
        if word.startswith("@"):
            yield from _read_from_files(Path(word[1:]).read_text().splitlines())
        else:
            yield word


def _without(paths: Iterable[str], values: Iterable[str]) -> list[str]:
    """Return the paths less one occurrence of each value."""
    left = list(paths)
    for value in values:
        if value in left:
            left.remove(value)
    return left


def _setup(config: pytest.Config, paths: list[str]) -> tuple[Path, Path | None]:
    """Return the rootdir and the ini file that pytest finds from these paths."""
    known: dict[str, Any] = {
        "inifile": config.getoption("inifilename", None),
        "args": paths,
        "rootdir_cmd_arg": config.getoption("rootdir", None),
        "invocation_dir": config.invocation_params.dir,
        "override_ini": None,  # a parameter in pytest 8.4 and later
    }
    taken = inspect.signature(determine_setup).parameters
    return determine_setup(**{name: value for name, value in known.items() if name in taken})[:2]
