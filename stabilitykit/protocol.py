"""The protocol: which sources vary and which are held, and the plan of seeds of each run. Pure data, no torch."""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, TypeAlias

from .errors import PerturbationError, ProtocolError, check_count, is_count
from .public import public

#: Seeds are 32 bits wide: the most that every generator takes (numpy's legacy one, and torch's on a CPU, use no more).
_SEEDS = 2**32


@public
class Source(Enum):
    """A cause of nondeterminism that has a seed of its own (Summers & Dinneen, section 3)."""

    INIT = "init"  #: initial parameters
    SHUFFLE = "shuffle"  #: order of the training examples
    AUGMENT = "augment"  #: random changes to each training example
    STOCHASTIC = "stochastic"  #: random operations inside the model, such as dropout
    LOW_LEVEL = "low_level"  #: summation order of the kernels: cuDNN, atomics, threads


#: What `vary=` accepts: ``"init"``, ``"init+shuffle"``, ``"all"``, ``"none"``, or an iterable of names or `Source`.
Vary: TypeAlias = "str | Source | Iterable[str | Source]"


def parse_sources(vary: Vary) -> frozenset[Source]:
    """Return the set of sources that ``vary`` names.

    >>> sorted(source.value for source in parse_sources("shuffle+init"))
    ['init', 'shuffle']
    >>> parse_sources("none")
    frozenset()
    >>> parse_sources("all") == frozenset(Source)
    True
    """
    if isinstance(vary, Source):
        return frozenset({vary})
    if isinstance(vary, str):
        if vary == "all":
            return frozenset(Source)
        if vary == "none":
            return frozenset()
        return frozenset(_parse_source(name.strip(), vary) for name in vary.split("+"))
    if not isinstance(vary, Iterable):
        raise ProtocolError(_unknown(vary, vary))
    return frozenset(name if isinstance(name, Source) else _parse_source(name, vary) for name in vary)


def _parse_source(name: object, vary: object) -> Source:
    try:
        return Source(name)
    except ValueError:
        raise ProtocolError(_unknown(name, vary)) from None


def _unknown(name: object, vary: object) -> str:
    names = [source.value for source in Source]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"Expected vary= to name sources out of {', '.join(names)}, joined by '+' or in a list, or 'all' or 'none', "
        f"but got {name!r} in vary={vary!r}.{hint}"
    )


@public
@dataclass(frozen=True)
class Perturbation:
    """One weight moved once, right after initialisation.

    ``ulp`` moves it to the next float up or down (the paper's "random bit change", section 4.1); ``bit`` flips one
    named bit. A field that is None is another choice in each run, drawn without replacement.

    >>> Perturbation("ulp")
    Perturbation(kind='ulp', parameter=None, index=None, direction=None, bit=0)
    """

    kind: Literal["ulp", "bit"] = "ulp"
    parameter: str | None = None  #: name in ``model.named_parameters()``; None is the first layer's weight
    index: tuple[int, ...] | None = None  #: position in that parameter; None draws one
    direction: Literal["up", "down"] | None = None  #: direction of the ulp step; None tosses a coin
    bit: int = 0  #: the bit that is flipped, counted from the least significant

    def __post_init__(self) -> None:
        if self.kind not in ("ulp", "bit"):
            raise PerturbationError(
                f"Expected a perturbation of kind 'ulp' (next float up or down) or 'bit' (one bit flipped) "
                f"but got kind={self.kind!r}."
            )
        if self.direction not in (None, "up", "down"):
            raise PerturbationError(f"Expected direction='up', 'down' or None but got direction={self.direction!r}.")
        if not is_count(self.bit, 0):
            raise PerturbationError(f"Expected bit= to be a number from 0 (least significant) but got {self.bit!r}.")
        if self.index is None:
            return
        if not isinstance(self.index, (tuple, list)) or not all(isinstance(i, int) for i in self.index):
            raise PerturbationError(
                f"Expected index= to be a tuple of integers, one a dimension of the parameter, but got {self.index!r}."
            )
        object.__setattr__(self, "index", tuple(self.index))

    @property
    def is_fixed(self) -> bool:
        """Whether every run would move the same weight the same way."""
        return self.index is not None and (self.kind == "bit" or self.direction is not None)


def parse_perturbation(perturb: str | Perturbation | None) -> Perturbation | None:
    """Return ``perturb`` as a `Perturbation`; the strings ``"ulp"`` and ``"bit"`` take the defaults."""
    if perturb is None or isinstance(perturb, Perturbation):
        return perturb
    if perturb in ("ulp", "bit"):
        return Perturbation(perturb)  # type: ignore[arg-type]  # mypy narrows no string by `in`
    raise PerturbationError(
        f"Expected perturb= to be 'ulp', 'bit', a Perturbation or None but got perturb={perturb!r}. "
        f"Perturbation('ulp', parameter='fc.weight') names a weight."
    )


@functools.lru_cache(maxsize=4096)
def derive_seed(*ingredients: int | str) -> int:
    """Return a 32-bit seed that depends on every ingredient, equal on every machine.

    >>> derive_seed(0, "init") == derive_seed(0, "init") != derive_seed(0, "shuffle")
    True
    """
    text = "\x1f".join(map(str, ingredients))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


@dataclass(frozen=True)
class RunPlan:
    """The seed of each source for one run. Two equal plans train two bit-identical models."""

    index: int  #: position in the study, from 0
    init: int
    shuffle: int
    augment: int
    stochastic: int
    low_level: int | None  #: None holds low-level operations at their deterministic value
    perturbation: Perturbation | None = None
    perturbation_seed: int | None = None  #: shuffles the open choices of `perturbation`; run i takes the i-th
    onset: Onset | None = None  #: the epoch from which the seeds above hold, if not from the first

    def seed(self, source: Source) -> int | None:
        """Return the seed of one source; None if the source is held deterministic."""
        seed: int | None = getattr(self, source.value)
        return seed

    @property
    def seeds(self) -> dict[str, int | None]:
        """Every seed by the name of its source, as reports show them."""
        seeds = {source.value: self.seed(source) for source in Source}
        return seeds | ({"perturbation": self.perturbation_seed} if self.perturbation else {})

    @property
    def first_varied_epoch(self) -> int:
        """The epoch from which on runs differ, from 0."""
        return self.onset.epoch if self.onset else 0

    @property
    def at_start(self) -> RunPlan:
        """The plan that a training begins under: this one, or that of the epochs before the onset."""
        return self.onset.before if self.onset else self


@dataclass(frozen=True)
class Onset:
    """The epoch at whose beginning some sources get seeds of their own (Summers & Dinneen, section 3.4)."""

    epoch: int
    vary: frozenset[Source]  #: sources that begin anew; the others go on
    before: RunPlan  #: plan of the epochs before, the same in every run


@public
@dataclass(frozen=True)
class NoiseProtocol:
    """Which sources vary over how many runs, and which weight is moved (Summers & Dinneen, section 3.1).

    A varied source has another seed in each run, a held source the same seed in all. Seeds depend only on ``seed``, the
    source and the index of the run: a study of 30 runs extends one of 10, and studies are paired.

    >>> protocol = NoiseProtocol(vary="init", runs=3)
    >>> [plan.init != protocol.plans()[0].init for plan in protocol.plans()]
    [False, True, True]
    >>> {plan.shuffle for plan in protocol.plans()} == {protocol.plans()[0].shuffle}
    True
    """

    vary: frozenset[Source]  #: given as `Vary`
    perturb: Perturbation | None = None  #: given as "ulp", "bit" or a `Perturbation`
    runs: int = 10  #: R, independent trainings
    seed: int = 0  #: base seed; another one is another, independent study
    constants: tuple[tuple[Source, int], ...] = ()  #: the constant of a held source; 0 if not named
    onset: int = 0  #: epoch from whose beginning on `vary` varies; before it every source is held

    def __init__(
        self,
        vary: Vary = "none",
        perturb: str | Perturbation | None = None,
        runs: int = 10,
        seed: int = 0,
        constants: Mapping[str | Source, int] | None = None,
        onset: int = 0,
    ) -> None:
        sources = parse_sources(vary)
        held = {_only_source(name): constant for name, constant in (constants or {}).items()}
        constants_in_order = tuple(sorted(held.items(), key=lambda item: item[0].value))
        given = {"runs": runs, "seed": seed, "constants": constants_in_order, "onset": onset}
        vars(self).update(vary=sources, perturb=parse_perturbation(perturb), **given)  # the class is frozen
        self._check()
        self._check_onset()

    def _check(self) -> None:
        why = "A spread is between runs, so it needs two; ten is a usual start."
        check_count(ProtocolError, "runs", self.runs, 2, why)
        check_count(ProtocolError, "seed", self.seed, 0, "Another base seed is another, independent study.")
        if self.perturb is not None and self.perturb.is_fixed and not self.vary:
            raise ProtocolError(
                f"Expected something to differ between runs, but vary names no source and {self.perturb} moves the "
                f"same weight the same way in every run. Leave its index or direction open, or vary a source."
            )
        for source, constant in self.constants:
            if source in self.vary or source is Source.LOW_LEVEL:
                why = "it varies" if source in self.vary else "held, it is deterministic and has no seed"
                raise ProtocolError(f"Expected constants= to name held sources, but got {source.value!r}: {why}.")
            if isinstance(constant, bool) or not isinstance(constant, int):
                raise ProtocolError(f"Expected constants[{source.value!r}] to be an integer but got {constant!r}.")

    def _check_onset(self) -> None:
        check_count(ProtocolError, "onset", self.onset, 0, "It is the epoch from which on sources vary.")
        if not self.onset:
            return
        if Source.INIT in self.vary:
            later = "+".join(source.value for source in Source if source in self.vary - {Source.INIT})
            raise ProtocolError(
                f"Expected vary= to name sources that act after epoch {self.onset - 1}, but it has 'init', which has "
                f"happened before training. With onset={self.onset} write vary={later or 'shuffle'!r}."
            )
        if self.perturb is not None:
            raise ProtocolError(
                f"Expected onset= without perturb= but got onset={self.onset} and perturb={self.perturb.kind!r}: "
                f"the weight moves right after initialisation, when all epochs that the runs should share are to come."
            )
        if not self.vary:
            raise ProtocolError(
                f"Expected something to vary from epoch {self.onset} on but vary names no source. Write vary='shuffle'."
            )

    @property
    def base(self) -> NoiseProtocol:
        """The protocol in which every source has its constant: of the base run, and of the epochs before an onset."""
        return NoiseProtocol("none", None, self.runs, self.seed, dict(self.constants))

    @property
    def begins_with_base(self) -> bool:
        """Whether run 0 is the base run: as long as only seeded sources vary, each has its constant there."""
        return self.plans()[0] == self.base.plans()[0]

    def moving_only(self, source: Source) -> RunPlan:
        """Return the plan of the base run in which ``source`` alone has another seed, that of run 1."""
        moved = NoiseProtocol(source, None, 2, self.seed, self._constants_without(source))._plan(1)
        return replace(moved, index=0)

    def _constants_without(self, source: Source) -> Mapping[str | Source, int]:
        return {held: constant for held, constant in self.constants if held is not source}

    @property
    def name(self) -> str:
        """What differs between the runs, as tables name it: ``init+shuffle``, ``all``, ``none+ulp``, ``shuffle@5``."""
        sources = [source.value for source in Source if source in self.vary]
        names = ["all"] if self.vary == frozenset(Source) else sources
        names += [self.perturb.kind] if self.perturb else []
        return ("+".join(names) or "none") + (f"@{self.onset}" if self.onset else "")

    def extended_to(self, runs: int) -> NoiseProtocol:
        """Return the same protocol with ``runs`` runs; runs that it already has keep their seeds."""
        return NoiseProtocol(self.vary, self.perturb, runs, self.seed, dict(self.constants), self.onset)

    def plans(self) -> tuple[RunPlan, ...]:
        """Return the plans of runs 0 to R - 1."""
        return tuple(self._plan(index) for index in range(self.runs))

    def _plan(self, index: int) -> RunPlan:
        seeds = {source.value: self._seed(source, index) for source in Source if source is not Source.LOW_LEVEL}
        low_level = self._seed(Source.LOW_LEVEL, index) if Source.LOW_LEVEL in self.vary else None
        # One seed for all runs: two seeds could draw the same weight, one shuffled order gives each run its own.
        perturbation_seed = None if self.perturb is None else derive_seed(self.seed, "perturbation")
        return RunPlan(
            index,
            **seeds,
            low_level=low_level,
            perturbation=self.perturb,
            perturbation_seed=perturbation_seed,
            onset=Onset(self.onset, self.vary, self.base._plan(0)) if self.onset else None,
        )

    def _seed(self, source: Source, index: int) -> int:
        """Return the seed of run ``index``, or of the run that a held source's constant names.

        The seeds count on from a hashed offset, so that no two runs of a study ever draw the same one.
        """
        count = index if source in self.vary else dict(self.constants).get(source, 0)
        return (derive_seed(self.seed, source.value) + count) % _SEEDS


def _only_source(name: str | Source) -> Source:
    sources = parse_sources(name)
    if len(sources) != 1:
        raise ProtocolError(f"Expected each key of constants= to name one source but got {name!r}.")
    return next(iter(sources))
