"""Libraries that adapters are for: imported when a task is made, and named with their extra where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingModuleError


def library(module: str, name: str = "", why: str = "") -> Any:
    """Return the module of a library, of which an extra of ours has the name; raise `MissingModuleError` without it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingModuleError(
            f"Expected {name or module} to be installed but there is no module {module!r}{why and ': '}{why}. Install "
            f"it with the extra `{module}`: pip install 'stabilitykit[{module}]'"
        ) from None
