"""What is proven of a task, by name, as it is kept beside the task's base run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..store.run_store import Experiment
from ..training.control import Control


class Proofs:
    """The proofs of a task: looks that were taken, runs that were trained twice, sources that act.

    A process adds to those that are stored, and overwrites none: two studies may prove at the same time.
    """

    def __init__(self, base: Experiment) -> None:
        """Read what is proven of the task whose base run lies in the experiment ``base``."""
        self._base = base
        self._known: Mapping[str, Any] = base.read_certificate()

    def look(self, name: str) -> Control | None:
        """Return the look that was taken; what proved nothing counts only in the session that took it."""
        found = dict(self._part("looks").get(name, {}))
        if not found or (found.pop("session") != self._base.session and not found["proven"]):
            return None
        return Control(**{**found, "trace": tuple(found["trace"])})

    def held(self, name: str) -> str:
        """Return in words what was trained twice, whole, and had the same bits; empty if nothing was."""
        return str(self._part("held").get(name, ""))

    def trained_by(self, name: str) -> Sequence[str]:
        """Return the workers that trained one of the two."""
        return tuple(self._part("by").get(name, ()))

    @property
    def alive(self) -> Mapping[str, str]:
        """Where each source that was moved alone moved the training; empty for one that moved nothing."""
        return self._part("alive")

    def keep_look(self, name: str, look: Control) -> None:
        """Keep what a look showed, for this session at least."""
        self._keep(looks={name: {**vars(look), "trace": list(look.trace), "session": self._base.session}})

    def keep_held(self, name: str, scope: str, trained_by: Sequence[str]) -> None:
        """Keep that something, ``scope``, was trained twice by these workers and had the same bits."""
        self._keep(held={name: scope}, by={name: list(trained_by)})

    def keep_alive(self, source: str, where: str) -> None:
        """Keep where a source that was moved alone moved the training."""
        self._keep(alive={source: where})

    def copy_to(self, base: Experiment) -> None:
        """Keep the proofs beside another base run too, which turned out to be that of the task."""
        copy = Proofs(base)
        copy._known = self._known
        copy._keep()

    def _part(self, part: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._known.get(part, {})
        return found

    def _keep(self, **found: Mapping[str, Any]) -> None:
        stored = self._base.read_certificate()  # which another process may have added to
        self._known = {
            part: {**self._part(part), **stored.get(part, {}), **found.get(part, {})}
            for part in ("looks", "held", "by", "alive")
        }
        self._base.write_certificate(self._known)
