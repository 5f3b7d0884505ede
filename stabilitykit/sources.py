"""What can vary between two trainings of one model: sources of nondeterminism, and a single moved weight."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from .errors import PerturbationError, ProtocolError


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


@dataclass(frozen=True)
class Perturbation:
    """One weight moved once, right after initialisation.

    ``ulp`` moves it to the next float up or down (the paper's "random bit change", section 4.1); ``bit`` flips one
    named bit. What is left ``None`` is another choice in each run, drawn without replacement.

    >>> Perturbation("ulp")
    Perturbation(kind='ulp', parameter=None, index=None, direction=None, bit=0)
    """

    kind: Literal["ulp", "bit"] = "ulp"
    parameter: str | None = None  #: name in ``model.named_parameters()``; None is the first layer's weight
    index: tuple[int, ...] | None = None  #: position in that parameter; None draws one
    direction: Literal["up", "down"] | None = None  #: of the ulp step; None tosses a coin
    bit: int = 0  #: of the flip, counted from the least significant

    def __post_init__(self) -> None:
        if self.kind not in ("ulp", "bit"):
            raise PerturbationError(
                f"Expected a perturbation of kind 'ulp' (next float up or down) or 'bit' (one bit flipped) "
                f"but got kind={self.kind!r}."
            )
        if self.direction not in (None, "up", "down"):
            raise PerturbationError(f"Expected direction='up', 'down' or None but got direction={self.direction!r}.")
        if isinstance(self.bit, bool) or not isinstance(self.bit, int) or self.bit < 0:
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
    if perturb == "ulp":
        return Perturbation("ulp")
    if perturb == "bit":
        return Perturbation("bit")
    raise PerturbationError(
        f"Expected perturb= to be 'ulp', 'bit', a Perturbation or None but got perturb={perturb!r}. "
        f"Perturbation('ulp', parameter='fc.weight') names a weight."
    )
