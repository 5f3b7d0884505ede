"""How much training magnifies a step in the initial weights: the paper's lower bound of the condition number."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ProtocolError, StabilityError
from ..estimates.estimate import finite
from ..estimates.scores import score_kind
from ..protocol import NoiseProtocol
from ..public import public
from ..store.record import RunRecord


@public
@dataclass(frozen=True)
class ConditionNumber:
    """A lower bound of the condition number of training, ‖δf‖ / ‖δx‖: x the initial weights, f a score of the model.

    Two runs that start a step apart and end with different scores show that it is at least their ratio. Accuracy counts
    in percentage points, as in the paper: its 2.6e8 is 0.12 points over 4.7e-10, its 1.8e7 is 0.0086 nats over that.
    Source: Summers & Dinneen, section 4.1.
    """

    score: str
    at_least: float  #: the largest ratio over pairs of runs, in the score's unit; inf beyond what a float holds
    median: float  #: median ratio over pairs
    pairs: int  #: number of pairs of runs that start from different weights
    between: tuple[int, int]  #: the runs with the largest ratio, by index
    step: float  #: ‖δx‖ between these two, Euclidean norm of the difference of all initial weights
    change: float  #: ‖δf‖ between these two, in the score's unit
    note: str = ""  #: why the bound may not hold; empty if it does

    def to_json(self) -> dict[str, Any]:
        """Return every field by name; null stands for inf."""
        bounds = {"at_least": finite(self.at_least), "median": finite(self.median), "between": list(self.between)}
        return {**vars(self), **bounds}

    def __str__(self) -> str:
        change = f"{self.change:.2g}{score_kind(self.score).unit}"
        note = f"; {self.note}" if self.note else ""
        return (
            f"condition number of training for {self.score}: at least {self.at_least:.2g} (runs {self.between[0]} and "
            f"{self.between[1]} start {self.step:.2g} apart and end {change} apart), median over {self.pairs} pairs "
            f"{self.median:.2g}{note}"
        )


def condition_number_of(
    records: Sequence[RunRecord], protocol: NoiseProtocol, score: str, values: Sequence[float], note: str = ""
) -> ConditionNumber:
    """Return the bound that the score's ``values`` show, one value a record.

    Raises `ProtocolError` where more than a weight's step tells runs apart, `StabilityError` where none start apart.
    """
    _check_only_a_step(records, protocol)
    found: list[tuple[float, float, float, tuple[int, int]]] = []
    for (one, value), (other, second) in itertools.combinations(zip(records, values, strict=True), 2):
        step = distance(one.perturbation or {}, other.perturbation or {})
        if step:  # a protocol with few steps to choose from repeats some, and two equal steps set nothing apart
            change = abs(value - second)
            found.append((change / step, step, change, (one.index, other.index)))
    if not found:
        raise StabilityError(
            f"Expected two runs that start from different weights, but the {len(records)} that are left made the same "
            f"step. Leave the perturbation's index or direction open, or train more runs."
        )
    ratios = [ratio for ratio, *_ in found]
    largest, step, change, between = max(found, key=lambda pair: pair[0])
    return ConditionNumber(score, largest, statistics.median(ratios), len(found), between, step, change, note)


def distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the norm of the difference of two models' initial weights, which differ by two recorded steps alone.

    >>> up = {"parameter": "weight", "index": (0, 0), "old": "0x1.0p+0", "new": "0x1.000002p+0"}
    >>> down = up | {"new": "0x1.fffffep-1"}
    >>> distance(up, down) == 1.5 * 2**-23  # the floats below 1 lie half as far apart
    True
    >>> distance(up, up | {"index": (0, 1)}) == 2**0.5 * 2**-23
    True
    """
    old, new, other_old, other_new = (
        float.fromhex(str(record[side])) for record in (one, other) for side in ("old", "new")
    )
    if _place(one) == _place(other):
        return abs(new - other_new)
    return math.hypot(new - old, other_new - other_old)


def _place(record: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    return record["parameter"], tuple(record["index"])  # a list, where it was read from a file


def _check_only_a_step(records: Sequence[RunRecord], protocol: NoiseProtocol) -> None:
    if protocol.perturb is None:
        raise ProtocolError(
            f"Expected a study in which one weight was moved, but vary={protocol.name!r} moves none: how far apart its "
            f"runs started is not known. Measure with perturb='ulp'."
        )
    kinds = {record.low_level for record in records} - {"deterministic"}
    if protocol.vary or kinds:
        also = sorted(source.value for source in protocol.vary) or sorted(kinds)
        raise ProtocolError(
            f"Expected a study in which nothing but one weight's step differs between runs, but {', '.join(also)} "
            f"varies as well: the step is not what set the runs apart. Measure with vary='none', perturb='ulp'."
        )
    missing = [record.index for record in records if record.perturbation is None]
    if missing:
        raise ProtocolError(
            f"Expected every run to say which weight it moved, but run {missing[0]} does not. An ensemble is made of "
            f"several runs, and has no one step; ask the study of its members."
        )
