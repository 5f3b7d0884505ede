"""The environment variables of this process, sent to a child as the difference to those that it begins with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class VariableChanges:
    """What a child changes in its environment before it trains."""

    changed: Mapping[str, str]
    removed: tuple[str, ...] = ()
    is_all: bool = False  #: whether a variable that is not in ``changed`` goes, too

    @classmethod
    def since(cls, before: Mapping[str, str]) -> VariableChanges:
        """Return what is different in this process from an earlier environment."""
        now = dict(os.environ)
        changed = {name: value for name, value in now.items() if before.get(name) != value}
        return cls(changed, tuple(name for name in before if name not in now))

    @classmethod
    def all(cls) -> VariableChanges:
        """Return this process's whole environment, for a child of which it is not known what it begins with."""
        return cls(dict(os.environ), is_all=True)

    def apply(self) -> None:
        """Make the changes in this process."""
        others = [name for name in os.environ if self.is_all and name not in self.changed]
        for name in (*self.removed, *others):
            os.environ.pop(name, None)
        os.environ.update(self.changed)
