"""Move one weight of a model by the smallest possible step, and record exactly which bits changed."""

from __future__ import annotations

import difflib
import math
import random
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ..errors import PerturbationError
from ..protocol import Perturbation

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class PerturbationRecord:
    """The weight that moved, with its value and bits before and after."""

    kind: str
    parameter: str
    index: tuple[int, ...]
    old: str  #: `float.hex` of the value before
    new: str  #: `float.hex` of the value after
    bits: tuple[int, ...]  #: positions of the bits that differ, from the least significant

    def to_json(self) -> dict[str, object]:
        """Return every field, by name."""
        return asdict(self)


def perturb_model(model: nn.Module, perturbation: Perturbation, seed: int, position: int = 0) -> PerturbationRecord:
    """Move one weight of ``model`` in place.

    ``seed`` shuffles the choices of weight and direction that the perturbation leaves open, and that at ``position`` is
    taken: no two runs of a study move the same weight the same way while there are choices left.
    Source: Summers & Dinneen, section 4.1.

    >>> model = nn.Linear(3, 2)
    >>> record = perturb_model(model, Perturbation("ulp", index=(0, 1), direction="up"), seed=0)
    >>> record.parameter, record.index
    ('weight', (0, 1))
    """
    name, parameter = _choose_parameter(model, perturbation.parameter)
    index, direction = _choose(parameter, name, perturbation, seed, position)
    weight = parameter.data[index]  # a view of one element, whatever the memory format
    old_bits, old = _bits(weight), float(weight)
    if perturbation.kind == "ulp":
        new_bits = _next_float(weight, name, up=direction == "up")
    else:
        new_bits = _flip(weight, name, perturbation.bit)
    _set_bits(weight, new_bits)
    new = float(weight)
    if not math.isfinite(new):
        _set_bits(weight, old_bits)
        raise PerturbationError(
            f"Expected {perturbation} to leave {name}{list(index)} finite, but {old!r} would become {new!r}: "
            f"the run could only diverge. Choose another weight, or a lower bit to flip."
        )
    changed = old_bits ^ new_bits
    bits = tuple(position for position in range(changed.bit_length()) if changed >> position & 1)
    return PerturbationRecord(perturbation.kind, name, index, old.hex(), new.hex(), bits)


def _choose_parameter(model: nn.Module, wanted: str | None) -> tuple[str, Tensor]:
    parameters = dict(model.named_parameters())
    if not parameters:
        raise PerturbationError(f"Expected a model with parameters to perturb, but {type(model).__name__} has none.")
    if wanted is not None:
        if wanted not in parameters:
            close = difflib.get_close_matches(wanted, parameters, n=3) or list(parameters)[:5]
            raise PerturbationError(
                f"Expected parameter= to be a name in model.named_parameters() but got {wanted!r}. "
                f"Near it: {', '.join(close)}."
            )
        if not parameters[wanted].is_floating_point():
            raise PerturbationError(
                f"Expected a floating-point weight to perturb, but {wanted!r} is {parameters[wanted].dtype}: "
                f"integers have no neighbouring float and no gradient."
            )
        return wanted, parameters[wanted]
    floating = [(name, parameter) for name, parameter in parameters.items() if parameter.is_floating_point()]
    if not floating:
        raise PerturbationError(
            f"Expected a floating-point weight to perturb, but {type(model).__name__} has only "
            f"{next(iter(parameters.values())).dtype} parameters."
        )
    # The paper moves a weight of the first layer; a bias or a normalisation's scale has one dimension.
    return next((item for item in floating if item[1].dim() >= 2), floating[0])


def _choose(
    parameter: Tensor, name: str, perturbation: Perturbation, seed: int, position: int
) -> tuple[tuple[int, ...], str]:
    """Return the index of the weight and the direction of the ulp step, which a bit flip ignores."""
    shape, wanted = tuple(parameter.shape), perturbation.index
    if parameter.numel() == 0:
        raise PerturbationError(f"Expected a weight to perturb, but {name!r} is empty, of shape {shape}.")
    if wanted is not None and not (
        len(wanted) == len(shape) and all(0 <= i < size for i, size in zip(wanted, shape, strict=True))
    ):
        raise PerturbationError(f"Expected index= to lie inside {name!r}, of shape {shape}, but got {wanted!r}.")
    weights = parameter.numel() if wanted is None else 1
    directions = ("up", "down") if perturbation.kind == "ulp" and perturbation.direction is None else ("up",)
    element, side = divmod(_shuffled(weights * len(directions), seed, position), len(directions))
    index: tuple[int, ...] = ()
    for size in reversed(shape):
        element, place = divmod(element, size)
        index = (place, *index)
    return wanted if wanted is not None else index, perturbation.direction or directions[side]


def _shuffled(count: int, seed: int, position: int) -> int:
    """Return the number at ``position``, modulo ``count``, of a shuffled ``range(count)``.

    Fisher and Yates' shuffle, done only up to the position: millions of weights are never listed.
    """
    draw = random.Random(seed)
    moved: dict[int, int] = {}  # the numbers that were swapped, by their new place
    for place in range(position % count + 1):
        taken = draw.randrange(place, count)
        chosen = moved.get(taken, taken)
        moved[taken] = moved.get(place, place)
    return chosen


def _next_float(weight: Tensor, name: str, *, up: bool) -> int:
    value = float(weight)
    if not math.isfinite(value):
        raise PerturbationError(
            f"Expected a finite weight to step from, but {name} holds {value!r} there: it has no next float, "
            f"and the step would change nothing. Check the model's initialisation."
        )
    if value == 0.0:
        sign = 0 if up else 1 << (weight.element_size() * 8 - 1)
        return sign | 1  # the smallest subnormal on that side
    return _bits(weight) + (1 if (value > 0) == up else -1)  # IEEE 754: neighbours in value are neighbours in bits


def _flip(weight: Tensor, name: str, bit: int) -> int:
    width = weight.element_size() * 8
    if bit >= width:
        raise PerturbationError(f"Expected bit < {width}, the width of {name} ({weight.dtype}), but got bit={bit}.")
    return _bits(weight) ^ 1 << bit


def _bits(weight: Tensor) -> int:
    width = weight.element_size()
    return int(weight.view(_INTEGERS[width])) & (1 << width * 8) - 1


def _set_bits(weight: Tensor, bits: int) -> None:
    width = weight.element_size() * 8
    signed = bits - (1 << width) if bits >> (width - 1) else bits
    weight.view(_INTEGERS[width // 8]).fill_(signed)
