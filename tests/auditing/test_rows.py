"""Trainings compared place by place: what each knob moves, and what moves besides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import pytest

from stabilitykit.auditing.observation import Drawn, Kind, Observation, Place, Trainings
from stabilitykit.auditing.rows import Besides, Row, differs, rows_of


def seen(kind: Kind, hashes: Mapping[Hashable, str], **about: object) -> Observation:
    drawn = Drawn("part", **about)  # type: ignore[arg-type]  # its own fields
    drawn.hashes.update(hashes)
    return Observation({Place(kind, "a.py:1", "what"): drawn})


def row(base: Observation, moved: Observation, ambient: Observation, repeated: Observation | None = None) -> Row:
    (found,) = rows_of(Trainings(base, {"seed": moved}, ambient, repeated))
    return found


ONE, TWO, THREE = ({i: f"{letter}{i}" for i in range(3)} for letter in "abc")
HALF = {0: "a0", 1: "b1", 2: "a2"}


@pytest.mark.parametrize(
    ("moved", "ambient", "repeated", "by", "besides", "unreached"),
    [
        (TWO, ONE, None, ("seed",), Besides.NOTHING, 0),
        (ONE, ONE, None, (), Besides.NOTHING, 0),
        (ONE, TWO, ONE, (), Besides.STATE, 3),
        (TWO, THREE, ONE, ("seed",), Besides.STATE, 0),
        (HALF, TWO, ONE, ("seed",), Besides.STATE, 2),
        (TWO, TWO, THREE, (), Besides.EACH_CALL, 3),
        (TWO, HALF, HALF, ("seed",), Besides.EACH_CALL, 1),
    ],
)
def test_what_moves_a_place(
    moved: dict[Hashable, str],
    ambient: dict[Hashable, str],
    repeated: dict[Hashable, str] | None,
    by: tuple[str, ...],
    besides: Besides,
    unreached: int,
) -> None:
    kind = Kind.PARAMETERS
    again = None if repeated is None else seen(kind, repeated)
    found = row(seen(kind, ONE), seen(kind, moved), seen(kind, ambient), again)
    assert (found.moved_by, found.besides, found.unreached) == (by, besides, unreached)
    assert found.source == "init"
    assert found.to_json()["moved_by"] == list(by)


def test_of_a_longer_training_only_what_both_have_is_compared() -> None:
    base = seen(Kind.ORDER, {(0, 0): "a", (0, 1): "b"}, is_random=True)
    assert row(base, seen(Kind.ORDER, {(0, 0): "a"}, is_random=True), base).moved_by == ()
    assert row(base, Observation(), base).moved_by == ()


def test_a_place_that_draws_nothing_and_stays_has_no_row() -> None:
    base = seen(Kind.ITEMS, {(0, "1", 0): "a"})
    assert rows_of(Trainings(base, {"seed": base}, base, None)) == []


def test_items_that_differ_from_pass_to_pass_draw() -> None:
    base = seen(Kind.ITEMS, {(0, "1", 0): "a", (1, "1", 0): "b"}, passes=2)
    assert row(base, base, base).place.kind is Kind.ITEMS


def test_items_that_move_and_draw_nothing_are_other_examples() -> None:
    base, other = (seen(Kind.ITEMS, {(i, "1", 0): letter for i in range(2)}, passes=2) for letter in "ab")
    found = row(base, other, base)
    assert (found.place.kind, found.source) == (Kind.EXAMPLES, "data")


@pytest.mark.parametrize(("second", "repeats"), [("a", True), ("b", False)])
def test_passes_that_repeat(second: str, repeats: bool) -> None:
    base = seen(Kind.ORDER, {(0, 0): "a", (1, 0): second}, is_random=True, passes=2)
    assert row(base, base, base).repeats is repeats
    starts = {(0, 0): {"numpy": "a"}, (1, 0): {"numpy": second}}
    base = seen(Kind.ITEMS, {}, is_random=True, passes=2, starts=starts)
    assert row(base, base, base).repeats is repeats


def test_one_pass_repeats_nothing() -> None:
    base = seen(Kind.ORDER, {(0, 0): "a"}, is_random=True, passes=1)
    assert not row(base, base, base).repeats


def test_trainings_differ_in_what_they_drew_or_trained() -> None:
    base = seen(Kind.ORDER, ONE)
    assert not differs(base, seen(Kind.ORDER, ONE))
    assert differs(base, seen(Kind.ORDER, TWO))
    trained = seen(Kind.ORDER, ONE)
    trained.final = "other"
    assert differs(base, trained)
