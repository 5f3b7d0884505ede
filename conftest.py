import doctest
from types import ModuleType
from typing import Any

import stabilitykit

pytest_plugins = ["pytester"]

_from_module = doctest.DocTestFinder._from_module


def from_module(finder: doctest.DocTestFinder, module: ModuleType, value: Any) -> bool:
    """Find the examples of a public name where it is defined, though it says that it is of `stabilitykit`."""
    if getattr(value, "__module__", "") == "stabilitykit" and value.__name__ in stabilitykit._MODULE_OF:
        return module.__name__ == f"stabilitykit.{stabilitykit._MODULE_OF[value.__name__]}"
    return _from_module(finder, module, value)


doctest.DocTestFinder._from_module = from_module
