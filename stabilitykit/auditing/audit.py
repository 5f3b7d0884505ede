"""The audit: trainings of one code in which one seed is moved at a time, and what that moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import StabilityError, TaskError, UnreachedSourceError, check_count
from ..protocol import Source, Vary, parse_sources
from ..public import public
from ..render.audit_table import audit_table
from ..training.trainer import RunTimeout, traceback_of
from .findings import findings_of, notes_of
from .knobs import Knob, Knobs
from .observation import UNKNOWN, Observation, Reseeding, Trainings
from .observer import Observer
from .rows import Row, differs, rows_of
from .subjects import RunSubject, Subject, subject_of

#: Format of the JSON of an audit.
FORMAT = 1

#: Seeds of the generators of the process before a training: of all trainings but one, and of that one.
_STATE, _OTHER_STATE = 1_000_003, 2_000_003


@public
@dataclass(frozen=True)
class Audit:
    """What draws in a training, and which knob moves it; ``print`` shows the table."""

    name: str
    knobs: tuple[Knob, ...]
    rows: tuple[Row, ...]
    reseedings: tuple[tuple[Reseeding, int], ...]  #: seeds that were set inside, and how often
    findings: tuple[str, ...]  #: what is not as a user of the knobs would expect; empty if all is well
    notes: tuple[str, ...]
    trainings: int
    seconds: float

    def reached(self, knob: str) -> frozenset[str]:
        """Return the sources, and ``data``, of which something draws and ``knob`` moves everything that does."""
        self._check_knob(knob)
        of_source: dict[str, list[Row]] = {}
        for row in self.rows:
            of_source.setdefault(row.source, []).append(row)
        return frozenset(s for s, rows in of_source.items() if all(knob in row.wholly_by for row in rows))

    def why_unreached(self, knob: str, source: str) -> str:
        """Say why ``source`` is not among those that ``knob`` has `reached`."""
        rows = [row for row in self.rows if row.source == source]
        missed = [
            f"{row.place.kind.value} ({row.place.what}, {row.place.line})" for row in rows if knob not in row.wholly_by
        ]
        return f"{', '.join(missed)} stays as it is" if rows else "nothing of it is drawn"

    def _check_knob(self, knob: str) -> None:
        if knob not in {known.name for known in self.knobs}:
            raise TaskError(f"Expected one of the knobs {', '.join(k.name for k in self.knobs)} but got {knob!r}.")

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON's types."""
        return {
            "format": FORMAT,
            "audit": self.name,
            "knobs": [{"name": k.name, "one": _plain(k.one), "other": _plain(k.other)} for k in self.knobs],
            "rows": [row.to_json() for row in self.rows],
            "reseedings": [{**seeding._asdict(), "count": count} for seeding, count in self.reseedings],
            "findings": list(self.findings),
            "notes": list(self.notes),
            "trainings": self.trainings,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        """Return the table, the seeds that are set inside, and the sentences below them."""
        return "\n".join(audit_table(self.to_json()))


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str) or value is None else repr(value)


@public
def audit(
    train: Callable[..., Any],
    *,
    knobs: Knobs | None = None,
    arguments: Mapping[str, Any] | None = None,
    steps: int | None = None,
) -> Audit:
    """Train a few times, one seed moved at a time, and return which draws each of them moves.

    Args:
        train: A function whose parameters have defaults, or are in ``arguments``; nothing in it need know of us. A
            function of a `Run`, ``train(run)``, is audited by source.
        knobs: The parameters that should seed something, by name, or each with two values: ``{"seed": (0, 7)}``. Left
            out, those with ``seed`` in their names, and ``random_state``.
        arguments: Values of other parameters.
        steps: End each training after this many optimizer steps.

    A training is repeated once with nothing moved but the state of the process, and once for each knob.
    """
    return audit_subject(subject_of(train, knobs, arguments or {}), steps)


def audit_subject(
    subject: Subject, steps: int | None = None, on_training: Callable[[str, float], None] = lambda said, seconds: None
) -> Audit:
    """Audit a subject; ``on_training`` hears of each training what moved in it, and the seconds that it took."""
    if not subject.knobs:
        raise TaskError(
            f"Expected {subject.name} to have a parameter named after a seed but it has none. Name one that seeds "
            f"something: knobs='name', or --knob name on the command line."
        )
    if steps is not None:
        check_count(TaskError, "steps", steps, 1)
    started, count = time.perf_counter(), 0

    def observe(said: str, state: int = _STATE, **moved: Any) -> Observation:
        nonlocal count
        begun = time.perf_counter()
        found = _observe(subject, {knob.name: knob.one for knob in subject.knobs} | moved, state, steps)
        count += 1
        on_training(said, time.perf_counter() - begun)
        return found

    base = observe("nothing moved")
    _check_seen(subject, base)
    ambient = observe("the state of the process moved", _OTHER_STATE)
    moved = {knob.name: observe(f"{knob.name} moved", **{knob.name: knob.other}) for knob in subject.knobs}
    repeated = observe("nothing moved, once more") if differs(base, ambient) else None
    trainings = Trainings(base, moved, ambient, repeated)
    rows = rows_of(trainings)
    by_source = isinstance(subject, RunSubject)
    return Audit(
        name=subject.name,
        knobs=subject.knobs,
        rows=tuple(rows),
        reseedings=tuple((seeding, max(calls.values())) for seeding, calls in base.reseedings.items()),
        findings=tuple(findings_of(rows, subject.knobs, trainings, by_source=by_source)),
        notes=tuple(notes_of(rows, base)),
        trainings=count,
        seconds=time.perf_counter() - started,
    )


def _observe(subject: Subject, values: Mapping[str, Any], state: int, steps: int | None) -> Observation:
    with subject.prepared(state):
        observer = Observer(steps, is_intercepted=subject.is_intercepted)
        try:
            with observer.on():
                subject.train(values)
        except (KeyboardInterrupt, StabilityError, RunTimeout):
            raise
        except BaseException as error:  # a train function may raise anything, SystemExit too
            given = ", ".join(f"{name}={value!r}" for name, value in values.items())
            raise TaskError(
                f"Expected {subject.name} to train with {given} but it raised:\n{traceback_of(error)}"
            ) from error
        if subject.intercepted is not None:
            for (function, line), calls in subject.intercepted.reseedings.items():
                observer.observation.reseedings[Reseeding(function, UNKNOWN, line)] = calls
        return observer.observation


def _check_seen(subject: Subject, base: Observation) -> None:
    if not base.places and not base.passes:
        raise TaskError(
            f"Expected {subject.name} to train by torch, but no loader began a pass and no optimizer made a step: "
            f"nothing was seen. Does it train in this process, and is it called at all?"
        )


@public
def assert_seed_reaches(
    train: Callable[..., Any] | Audit,
    knob: str,
    sources: Vary,
    *,
    arguments: Mapping[str, Any] | None = None,
    steps: int | None = None,
) -> None:
    """Fail unless ``knob`` moves whatever draws of each of the ``sources``: ``{"init", "shuffle"}``.

    Args:
        train: A train function, as `audit` takes it, or an `Audit` of one.
        knob: A parameter of it.
        sources: Names of sources: ``init``, ``shuffle``, ``augment``, ``stochastic``.
        arguments: Values of other parameters.
        steps: End each training after this many optimizer steps.

    Raises `UnreachedSourceError`, an AssertionError, with the table of the audit. A source of which nothing draws is
    not reached.
    """
    __tracebackhide__ = True
    wanted = [source.value for source in sorted(parse_sources(sources), key=list(Source).index)]
    if Source.LOW_LEVEL.value in wanted or not wanted:
        raise TaskError(
            f"Expected sources that a seed can reach but got {sources!r}: init, shuffle, augment, stochastic."
        )
    found = train if isinstance(train, Audit) else audit(train, knobs=knob, arguments=arguments, steps=steps)
    missed = [source for source in wanted if source not in found.reached(knob)]
    if missed:
        why = _sentences(f"{source}: {found.why_unreached(knob, source)}" for source in missed)
        raise UnreachedSourceError(
            f"Expected {knob} of {found.name} to reach {', '.join(wanted)} but it does not reach "
            f"{', '.join(missed)}: whoever varies it varies less than it seems. {why}\n\n{found}"
        )


def _sentences(texts: Iterable[str]) -> str:
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)
