"""What one training drew, as an observer saw it: hashes of each part, which two trainings are compared by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from .digests import States


class Kind(Enum):
    """What is drawn; its value is how a sentence names it."""

    PARAMETERS = "the parameters"
    ORDER = "the order of examples"
    SPLIT = "the random split"
    ITEMS = "the items"
    BATCHES = "how batches are put together"
    LOOP = "what is drawn in the loop"
    EXAMPLES = "the examples themselves"


class Place(NamedTuple):
    """One thing that draws: its kind, and what tells it from others of its kind."""

    kind: Kind
    line: str  #: file and line of the user's, "train.py:31"
    what: str  #: the class that draws, or the function


@dataclass
class Drawn:
    """All that one place drew in a training."""

    unit: str  #: of `count`, in the singular
    count: int = 0
    is_random: bool = False  #: whether it is known to draw; what moves does draw, even where this does not tell
    may_draw: bool = False  #: whether nothing tells that it draws, and nothing that it does not
    generators: set[str] = field(default_factory=set)  #: those of the process that were drawn from
    own_seed: str = ""  #: how a generator of the user's that draws here was seeded
    passes: int = 0
    hashes: dict[Hashable, str] = field(default_factory=dict)  #: by its position: a hash of each part
    sizes: Counter[Hashable] = field(default_factory=Counter)  #: how many examples a pass has put in an order
    #: By pass and position: the states that items were drawn from, which repeat where a seed is set again.
    starts: dict[tuple[int, int], States] = field(default_factory=dict)


#: In place of a seed that an interception has noted no value of.
UNKNOWN = "..."


class Reseeding(NamedTuple):
    """One seeding function, as it was called from one line with one seed."""

    function: str
    seed: str
    line: str


@dataclass
class Observation:
    """One training, as it was seen."""

    places: dict[Place, Drawn] = field(default_factory=dict)
    reseedings: dict[Reseeding, Counter[str]] = field(default_factory=dict)  #: by the function that was called
    unseen: Counter[str] = field(default_factory=Counter)  #: what may draw and cannot be followed
    steps: int = 0  #: of all optimizers
    passes: int = 0  #: of all loaders, those too that draw nothing
    final: str = ""  #: a hash of all parameters that were stepped, as the training left them
    is_cut: bool = False  #: whether it was ended after the steps that were asked for

    def at(self, place: Place, unit: str) -> Drawn:
        """Return what a place drew, which is nothing yet where it is new."""
        return self.places.setdefault(place, Drawn(unit))


class Trainings(NamedTuple):
    """All trainings of an audit, as they were seen."""

    base: Observation
    moved: Mapping[str, Observation]  #: one for each knob, which alone has its other value there
    ambient: Observation  #: one like ``base`` in another state of the process
    repeated: Observation | None  #: one like ``base`` in everything, if ``ambient`` differs

    @property
    def is_noisy(self) -> bool:
        """Whether two trainings where all is equal end with other weights."""
        return self.repeated is not None and self.repeated.final != self.base.final
