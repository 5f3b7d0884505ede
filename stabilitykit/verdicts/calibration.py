"""Budgets from data: the limits that R trainings suggest, and how often an unchanged model would fail them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import DISAGREEMENT, PROPOSED, is_own_sd, kind_of, most_beside_disagreement

#: Scores that differ by less than this share of themselves may differ by rounding alone: eight steps of float32.
_ROUNDING = 1e-6

#: An SD that no finer test set could show is two test examples (docs/statistics.md).
_EXAMPLES = 2

#: Runs of the simulated calibrations.
_RUNS = (3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)

#: P(FAIL) of an unchanged model in the sequential gate (20 runs at most; a ratio of 2 for SDs, 1.25 for pairs), by the
#: runs of the calibration: with the upper bound as its budget, and with the measured value itself. From
#: benchmarks/calibration.py. Pairs at a relative error of 0.4 a run, the most that was seen: with less it is rarer.
_ALARMS = {
    "chi-square": (
        (0.028, 0.023, 0.019, 0.016, 0.013, 0.011, 0.009, 0.008, 0.007, 0.007, 0.009),
        (0.418, 0.351, 0.305, 0.274, 0.226, 0.192, 0.145, 0.119, 0.090, 0.067, 0.050),
    ),
    "chi-square, kurtosis df": (
        (0.028, 0.012, 0.012, 0.011, 0.009, 0.008, 0.007, 0.006, 0.005, 0.005, 0.007),
        (0.415, 0.348, 0.301, 0.271, 0.222, 0.187, 0.140, 0.114, 0.086, 0.062, 0.046),
    ),
    "jackknife over runs": (
        (0.013, 0.012, 0.011, 0.009, 0.009, 0.008, 0.010, 0.010, 0.011, 0.013, 0.015),
        (0.256, 0.220, 0.201, 0.186, 0.151, 0.135, 0.107, 0.091, 0.077, 0.064, 0.051),
    ),
}


@dataclass(frozen=True)
class Proposal:
    """A proposed limit for one measure, and how often the same model would fail it."""

    metric: str
    limit: float  #: in the unit of the measure
    measured: str  #: value and bounds
    runs: int
    alarm: float | None  #: P(FAIL) of an unchanged model; None where the runs cannot tell
    alarm_at_value: float | None  #: the same, had the measured value itself been the limit
    meaning: str = ""  #: a remark on a limit that is not the measured bound

    def comment(self) -> str:
        """Say beside the limit, in the file, where it comes from.

        >>> Proposal("accuracy_sd", 0.61, "0.37 [0.27, 0.61]", 10, alarm=0.011, alarm_at_value=0.192).comment()
        'points; measured 0.37 [0.27, 0.61] in 10 runs; fails 1.1 % of unchanged models (19.2 % at the value itself)'
        """
        measured = f"measured {self.measured} in {self.runs} runs"
        return "; ".join(filter(None, (kind_of(self.metric).unit.strip(), measured, self.meaning, self.alarms())))

    def alarms(self) -> str:
        """Say how often an unchanged model would fail; empty where the runs cannot tell."""
        if self.alarm is None or self.alarm_at_value is None:
            return ""
        at_value = f"{100 * self.alarm_at_value:.1f} % at the value itself"
        return f"fails {100 * self.alarm:.1f} % of unchanged models ({at_value})"


@dataclass(frozen=True)
class Calibration:
    """The limits that one `check` proposes, as a worker sends them; or why it proposes none."""

    test: str  #: node id
    study: int  #: which check of its test
    position: int  #: of the test in the collection
    task: str = ""
    varies: str = ""
    runs: int = 0
    environment: str = ""  #: in one line, see `environment_line`
    proposals: tuple[Proposal, ...] = ()
    undefined: tuple[str, ...] = ()  #: measures that had no value, and so have no limit
    refused: str = ""  #: why nothing is written

    @property
    def name(self) -> str:
        """The test, and which check of it where that is not the first."""
        return self.test if self.study == 1 else f"{self.test} (check {self.study})"

    def to_json(self) -> dict[str, Any]:
        """Return JSON's types."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """Return what `to_json` was made of."""
        proposals = tuple(Proposal(**proposal) for proposal in values["proposals"])
        return cls(**{**values, "proposals": proposals, "undefined": tuple(values["undefined"])})


def calibrated(measures: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Name the measures that get a limit: the paper's, and the SDs of the user's own metrics."""
    own = (name for name in measures if is_own_sd(name, measures) and name not in PROPOSED)
    return (*(name for name in PROPOSED if name in measures), *own)


def propose(measures: Mapping[str, Estimate], examples: int) -> tuple[Proposal, ...]:
    """Propose a limit for each measure that has a value: its 5 % bound.

    That is the upper bound of an SD or of a mean over pairs, the lower one of a correlation, and the outer one of an
    ensemble delta, rounded outward to three digits. No limit is finer than the measure: two of the ``examples`` where
    it counts those, a millionth of the score otherwise. So runs that are all equal get that least limit, and not 0: it
    would fail the first run that differs, which R equal runs do not rule out.

    >>> sd = Estimate(0.37, 0.271, 0.6087, runs=10, method="chi-square")
    >>> [(proposal.metric, proposal.limit, proposal.alarm) for proposal in propose({"accuracy_sd": sd}, examples=2000)]
    [('accuracy_sd', 0.609, 0.011)]
    """
    names = [name for name in calibrated(measures) if not measures[name].is_undefined]
    proposals = {name: _proposal(name, measures[name], _finest(name, measures, examples)) for name in names}
    # A budget refuses a limit that disagreement keeps from ever being used up.
    most = most_beside_disagreement(proposals[DISAGREEMENT].limit) if DISAGREEMENT in proposals else {}
    for name in most.keys() & proposals.keys():
        limit = min(proposals[name].limit, _to_three_digits(most[name], ROUND_FLOOR))
        proposals[name] = replace(proposals[name], limit=limit)
    return tuple(proposals.values())


def false_alarm(method: str, runs: int) -> tuple[float, float] | None:
    """Return P(FAIL) of an unchanged model, for a limit that is the bound of ``runs`` and for one that is the value.

    Between the numbers of runs that were simulated it is interpolated. None for a method that was not.

    >>> false_alarm("chi-square", 10)
    (0.011, 0.192)
    """
    if method not in _ALARMS:
        return None

    import numpy as np

    bound, value = (float(np.interp(math.log(runs), np.log(_RUNS), rates)) for rates in _ALARMS[method])
    return round(bound, 4), round(value, 4)


def environment_line(environment: Mapping[str, object]) -> str:
    """Describe the environment of runs by the settings that most change their bits.

    >>> environment_line({"torch": "2.14.1", "device": "cpu", "cpu_capability": "AVX512", "threads": 1})
    'torch 2.14.1, cpu, AVX512, 1 thread'
    """
    torch, device, capability = (environment[name] for name in ("torch", "device", "cpu_capability"))
    threads = environment["threads"]
    return f"torch {torch}, {device}, {capability}, {threads} thread{'' if threads == 1 else 's'}"


def _proposal(name: str, estimate: Estimate, finest: float) -> Proposal:
    kind, bound = kind_of(name), _bound(name, estimate)
    limit = _to_three_digits(max(bound, finest), ROUND_CEILING)
    limit = max(float(1 - Decimal(repr(limit))), kind.least) if kind.is_likeness else min(limit, kind.most)
    alarm, at_value = (not estimate.is_exact and false_alarm(estimate.method, estimate.runs)) or (None, None)
    meaning = _meaning(name, estimate, is_finest=bound < finest)
    return Proposal(name, limit, str(estimate), estimate.runs, alarm, at_value, meaning)


def _bound(name: str, estimate: Estimate) -> float:
    """The upper bound of the spread: 1 - correlation, or the size of a delta."""
    kind = kind_of(name)
    if kind.is_likeness:
        return float(1 - Decimal(repr(estimate.low)))
    return max(estimate.high, -estimate.low) if kind.is_delta else estimate.high


def _finest(name: str, measures: Mapping[str, Estimate], examples: int) -> float:
    kind = kind_of(name)
    if kind.counts_examples:
        return 100 * _EXAMPLES / examples
    if kind.is_likeness:
        return _ROUNDING
    size = abs(measures[kind.score].value)
    return _ROUNDING * size if math.isfinite(size) else 0.0


def _meaning(name: str, estimate: Estimate, *, is_finest: bool) -> str:
    least = f"{_EXAMPLES} test examples" if kind_of(name).counts_examples else "rounding"
    if estimate.is_exact:
        share = 1 - 0.05 ** (1 / (estimate.runs - 1))  # R - 1 runs equal the first
        return f"no run differs, so the limit is {least}; P(a run differs) <= {100 * share:.0f} %, how far is unknown"
    return f"the limit is {least}, the least to be told" if is_finest else ""


def _to_three_digits(number: float, rounding: str) -> float:
    """Round up or down.

    >>> [_to_three_digits(number, ROUND_CEILING) for number in (0.37012, 0.371, 12.31, 0.0)]
    [0.371, 0.371, 12.4, 0.0]
    """
    exact = Decimal(repr(number))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), rounding)) if exact else 0.0
