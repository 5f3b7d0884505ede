"""Environment variables: sent to a child as the difference between this process's and those that it begins with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class VariableChanges:
    """The changes that a child makes to its environment before it trains."""

    changed: Mapping[str, str]
    removed: tuple[str, ...] = ()
    is_all: bool = False  #: whether to remove every variable that is not in ``changed``

    @classmethod
    def since(cls, before: Mapping[str, str]) -> VariableChanges:
        """Return the changes that turn an earlier environment into that of this process."""
        now = dict(os.environ)
        changed = {name: value for name, value in now.items() if before.get(name) != value}
        return cls(changed, tuple(name for name in before if name not in now))

    @classmethod
    def all(cls) -> VariableChanges:
        """Return this process's whole environment, for a child whose first environment is unknown."""
        return cls(dict(os.environ), is_all=True)

    def apply(self) -> None:
        """Make the changes in this process."""
        others = [name for name in os.environ if self.is_all and name not in self.changed]
        for name in (*self.removed, *others):
            os.environ.pop(name, None)
        os.environ.update(self.changed)
