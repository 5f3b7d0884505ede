"""What asks for studies: a test, or a fixture of a wider scope, which asks the same whichever test comes first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The place of a question: what asks it, and its number there."""

    asker: str  #: node id of a test, or a fixture of a wider scope
    call: int  #: the first question is 0


@dataclass
class Asker:
    """A test, or a fixture of a wider scope that is being set up, and how many questions it has asked."""

    name: str
    asked: int = 0

    def next_place(self) -> Place:
        """Return the place of its next question."""
        self.asked += 1
        return Place(self.name, self.asked - 1)
