"""What each knob moves: several trainings of one code, compared place by place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .observation import Drawn, Kind, Observation, Place, Trainings

#: The source that each kind of draw is of; what is none of a training's sources is the data.
SOURCE_OF = {
    Kind.PARAMETERS: "init",
    Kind.ORDER: "shuffle",
    Kind.ITEMS: "augment",
    Kind.BATCHES: "augment",
    Kind.LOOP: "stochastic",
    Kind.SPLIT: "data",
    Kind.EXAMPLES: "data",
}


class Besides(Enum):
    """What moves a place although every knob is held; its value is what a table shows."""

    NOTHING = "-"
    STATE = "earlier draws"  #: the state in which the process was before the training
    EACH_CALL = "every call"  #: something new in each call, with all else equal


@dataclass(frozen=True)
class Row:
    """One place that draws, and what moves it."""

    place: Place
    count: int
    unit: str
    generators: tuple[str, ...]  #: those of the process that it draws from
    own_seed: str
    moved_by: tuple[str, ...]  #: names of knobs
    wholly_by: tuple[str, ...]  #: those of them that move each pass, and all that anything else moves
    passes_unmoved: int  #: passes, or draws of the loop, that no knob moves
    besides: Besides
    parts: int  #: how many hashes were compared
    unreached: int  #: of these, those that something moves and no knob does
    repeats: bool  #: whether it draws, and each pass draws the same again

    @property
    def source(self) -> str:
        """The source that it is of, or ``data``."""
        return SOURCE_OF[self.place.kind]

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON's types."""
        return {
            "source": self.source,
            "what": self.place.kind.value,
            "drawn_by": self.place.what,
            "line": self.place.line,
            "count": self.count,
            "unit": self.unit,
            "generators": list(self.generators),
            "own_seed": self.own_seed or None,
            "moved_by": list(self.moved_by),
            "wholly_moved_by": list(self.wholly_by),
            "moved_besides_by": None if self.besides is Besides.NOTHING else self.besides.value,
            "each_pass_the_same": self.repeats,
        }


def rows_of(trainings: Trainings) -> list[Row]:
    """Return a row for each place that draws."""
    rows = []
    for place, drawn in trainings.base.places.items():

        def changed(other: Observation | None, place: Place = place, drawn: Drawn = drawn) -> set[Hashable]:
            return set() if other is None else _changed(drawn, other.places.get(place))

        each_call = changed(trainings.repeated)
        by_knob = {name: changed(other) - each_call for name, other in trainings.moved.items()}
        besides = changed(trainings.ambient) | each_call
        anything = besides.union(*by_knob.values())
        is_random = drawn.is_random or place.kind is Kind.PARAMETERS or bool(anything) or differs_by_pass(place, drawn)
        if not is_random:
            continue
        unreached = besides.difference(*by_knob.values()) if not each_call else besides
        groups = _groups(place, drawn)
        missed = {name: groups - set(map(_group, found)) for name, found in by_knob.items() if found}
        kind = Besides.EACH_CALL if each_call else Besides.STATE if besides else Besides.NOTHING
        rows.append(
            Row(
                place=_as_examples(place) if _are_examples(place, drawn) else place,
                count=drawn.count,
                unit=drawn.unit,
                generators=tuple(sorted(drawn.generators)),
                own_seed=drawn.own_seed,
                moved_by=tuple(missed),
                wholly_by=tuple(name for name in missed if not missed[name] and besides <= by_knob[name]),
                passes_unmoved=len(groups.intersection(*missed.values())),
                besides=kind,
                parts=len(drawn.hashes),
                unreached=len(unreached),
                repeats=_repeats(place, drawn),
            )
        )
    return sorted(rows, key=lambda row: list(Kind).index(row.place.kind))


def differs(one: Observation, other: Observation) -> bool:
    """Whether anything that both trainings drew is not the same, or what they trained is not."""
    by_place = (_changed(drawn, other.places.get(place)) for place, drawn in one.places.items())
    return any(by_place) or one.final != other.final


def _changed(one: Drawn, other: Drawn | None) -> set[Hashable]:
    """Return the positions of what differs: of a longer training, only what the other one has too."""
    if other is None:
        return set()
    return {key for key in one.hashes.keys() & other.hashes.keys() if one.hashes[key] != other.hashes[key]}


#: An order of fewer examples may be the same by chance.
_FEW = 6


def _group(key: Hashable) -> Hashable:
    """Return the pass, or the step of the loop, that a part is of."""
    return key[0] if isinstance(key, tuple) else key


def _groups(place: Place, drawn: Drawn) -> set[Hashable]:
    """Return the passes, or steps, of which each should move with a knob: those that are known to draw."""
    if place.kind is Kind.ORDER:
        return {number for number, size in drawn.sizes.items() if size >= _FEW}
    if place.kind in (Kind.ITEMS, Kind.BATCHES):
        return {number for number, _ in drawn.starts}
    return set(map(_group, drawn.hashes)) if place.kind is Kind.LOOP else set()


def _by_pass(drawn: Drawn) -> list[dict[Hashable, Any]]:
    passes: defaultdict[Any, dict[Hashable, Any]] = defaultdict(dict)
    for key, found in drawn.hashes.items():
        number, *rest = key if isinstance(key, tuple) else (0, key)
        passes[number][tuple(rest)] = found
    return [passes[number] for number in sorted(passes)]


def differs_by_pass(place: Place, drawn: Drawn) -> bool:
    """Whether an item, or an order, is not the same in two passes: it then draws, if only by a generator of its own."""
    if place.kind not in (Kind.ITEMS, Kind.ORDER):
        return False
    first: dict[Hashable, Any] = {}
    return any(first.setdefault(key, found) != found for one in _by_pass(drawn) for key, found in one.items())


def _repeats(place: Place, drawn: Drawn) -> bool:
    """Whether each of two or more passes draws the same as the first one."""
    if drawn.passes < 2:
        return False
    if place.kind is Kind.ORDER:
        return drawn.is_random and _all_equal(_by_pass(drawn))
    starts: defaultdict[int, dict[Hashable, Any]] = defaultdict(dict)
    for (number, batch), found in drawn.starts.items():
        starts[number][batch] = found
    return len(starts) > 1 and _all_equal(starts[number] for number in sorted(starts))


def _all_equal(passes: Iterable[dict[Hashable, Any]]) -> bool:
    """Whether passes have the same parts, as far as each goes."""
    first: dict[Hashable, Any] | None = None
    for one in passes:
        if first is None:
            first = one
        elif any(first.get(key, found) != found for key, found in one.items()):
            return False
    return bool(first)


def _are_examples(place: Place, drawn: Drawn) -> bool:
    """Whether items move that draw nothing as they are fetched: they are other examples."""
    return place.kind is Kind.ITEMS and not drawn.is_random and not differs_by_pass(place, drawn)


def _as_examples(place: Place) -> Place:
    return place._replace(kind=Kind.EXAMPLES)
