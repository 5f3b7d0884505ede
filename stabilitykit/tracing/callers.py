"""Whose code asked: the frame that an event of Python's audit hook, or a read of a variable, comes from."""

from __future__ import annotations

import enum
import functools
import os
import site
import sys
import sysconfig
from pathlib import Path
from types import FrameType

from ..errors import PACKAGE

#: Packages that read files for their callers, and whose variables, programs and servers are no inputs of a training.
_LIBRARIES = frozenset({
    "torch", "torchgen", "torchvision", "triton", "numpy", "scipy", "sklearn", "pandas", "joblib", "threadpoolctl",
    "matplotlib", "PIL", "tqdm",
})  # fmt: skip

#: Packages that run tests and read nothing for a training.
_TOOLS = frozenset({
    "pytest", "_pytest", "pluggy", "xdist", "execnet", "coverage", "pytest_cov", "hypothesis", "pip", "cloudpickle",
    "pydevd", "debugpy",
})  # fmt: skip


class Caller(enum.Enum):
    """Whose code a frame is of."""

    PYTHON = "the standard library, which reads for its caller"
    IMPORTER = "Python's importer"
    TOOL = "stabilitykit, a test runner or a debugger"
    LIBRARY = "a library that reads files for its caller, and the variables that lead to them"
    INSTALLED = "another package, which reads for its caller, or for itself while it is imported"
    USER = "the user's code"


#: Names by which code looks variables up, and the functions that do so by what their caller gives them.
_LOOK_UP = frozenset({"environ", "environb", "getenv", "getenvb"})
_FOR_CALLERS = frozenset(found.__code__ for name in ("getenv", "getenvb") if (found := getattr(os, name, None))) | {
    os.path.expandvars.__code__,
    os.path.expanduser.__code__,
}


def _folders(*names: str) -> tuple[str, ...]:
    found = {path for name in names if (path := sysconfig.get_path(name))}
    return tuple(f"{path}{os.sep}" for path in sorted({*found, *map(os.path.realpath, found)}))


_PYTHONS = _folders("stdlib", "platstdlib")
_LIBRARY = tuple(f"{prefix}{os.sep}lib{os.sep}" for prefix in {sys.prefix, sys.base_prefix})
_SITES = frozenset({"site-packages", "dist-packages"})
_INSTALLED = _folders("purelib", "platlib") + tuple(f"{path}{os.sep}" for path in [site.getusersitepackages()])


@functools.lru_cache(maxsize=16_384)
def kind_of(file: str) -> Caller:
    """Return whose code a file is, by its name in a code object."""
    if file.startswith("<frozen "):
        return Caller.IMPORTER if "importlib" in file else Caller.PYTHON
    if file.startswith(f"{PACKAGE}{os.sep}"):
        return Caller.TOOL
    parts = Path(file).parts
    for folder in _SITES.intersection(parts):
        package = parts[len(parts) - parts[::-1].index(folder) :][0].removesuffix(".py")
        return Caller.TOOL if package in _TOOLS else Caller.LIBRARY if package in _LIBRARIES else Caller.INSTALLED
    if file.startswith(_PYTHONS):
        if parts[-3:-1] == ("importlib", "metadata"):  # it lists all of sys.path for whoever looks for plugins
            return Caller.IMPORTER
        # Only a traceback or a warning reads the lines of a source.
        return Caller.TOOL if parts[-1] == "linecache.py" else Caller.PYTHON
    return Caller.USER


def is_foreign(file: str) -> bool:
    """Whether a file or folder is of Python or of an installed package."""
    return f"{file}{os.sep}".startswith((*_LIBRARY, *_PYTHONS, *_INSTALLED)) or not _SITES.isdisjoint(Path(file).parts)


def _is_for_others(frame: FrameType, kind: Caller) -> bool:
    """Whether the importer reads a file for code that has asked its loader for data: ``pkgutil.get_data``."""
    asking = frame.f_back
    return (
        kind is Caller.IMPORTER
        and frame.f_code.co_name == "get_data"
        and asking is not None
        and kind_of(asking.f_code.co_filename) is not kind
    )


def beyond_python(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is not of the standard library."""
    while frame is not None and kind_of(frame.f_code.co_filename) is Caller.PYTHON:
        frame = frame.f_back
    return frame


def looks_up_itself(frame: FrameType | None) -> bool:
    """Whether a function of the standard library reads a variable that it names itself: PATH, LANG, COLUMNS."""
    while frame is not None and kind_of(frame.f_code.co_filename) is Caller.PYTHON:
        if not _LOOK_UP.isdisjoint(frame.f_code.co_names) and frame.f_code not in _FOR_CALLERS:
            return True
        frame = frame.f_back
    return False


def is_imported(frame: FrameType | None) -> bool:
    """Whether a module that is not the user's is being imported."""
    while frame is not None and (kind := kind_of(frame.f_code.co_filename)) is not Caller.USER:
        if kind is Caller.IMPORTER:
            return True
        frame = frame.f_back
    return False


def modules_imported(frame: FrameType | None) -> frozenset[str]:
    """Return the names of the modules that are being imported."""
    found: set[str] = set()
    inside: set[str] = set()
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            inside.add(str(frame.f_globals.get("__name__")))
        elif kind_of(frame.f_code.co_filename) is Caller.IMPORTER:
            found |= inside
        frame = frame.f_back
    return frozenset(found)


def responsible(frame: FrameType | None) -> Caller:
    """Return whose code has asked: the innermost that does not read for its caller; the user's if all frames do."""
    while frame is not None:
        kind = kind_of(frame.f_code.co_filename)
        if kind not in (Caller.PYTHON, Caller.INSTALLED) and not _is_for_others(frame, kind):
            return kind
        frame = frame.f_back
    return Caller.USER  # a thread that runs Path.read_text
