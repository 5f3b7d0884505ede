"""Move one weight of a model by the smallest possible step, and record exactly which bits changed."""

from __future__ import annotations

import difflib
import itertools
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import PerturbationError, TaskError
from ..protocol import Perturbation

#: Names of parameters that are added, scaled with or read, and multiplied with no input.
_NO_LAYER = re.compile("pos|token|cls|bias|scale|mask", re.IGNORECASE)

#: Elements that count are listed where all are more than this many times as many.
_RARE = 100

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


def perturb_model(
    model: nn.Module,
    perturbation: Perturbation,
    seed: int,
    position: int = 0,
    gradients: Mapping[str, Tensor | None] | None = None,
) -> PerturbationRecord:
    """Move one weight of ``model`` in place.

    ``seed`` shuffles the choices of weight and direction that the perturbation leaves open, and that at ``position`` is
    taken: no two runs of a study move the same weight the same way while there are choices left. ``gradients`` by name
    are those of the first step; left out, those that the parameters have.
    Source: Summers & Dinneen, section 4.1.

    >>> model = nn.Linear(3, 2)
    >>> record = perturb_model(model, Perturbation("ulp", index=(0, 1), direction="up"), seed=0)
    >>> record.parameter, record.index
    ('weight', (0, 1))
    """
    name, parameter, counting = _choose_parameter(model, perturbation, gradients)
    index, direction = _choose(parameter, counting, name, perturbation, seed, position)
    weight = parameter.data[index]  # a view of one element, whatever the memory format
    if weight.is_complex():
        weight = torch.view_as_real(weight)[0]
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


def check_complete(model: nn.Module) -> None:
    """Raise `TaskError` if a lazy layer of the model has no weights yet."""
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise TaskError(
                f"Expected a model whose weights are there but {name!r} is uninitialized: a lazy layer makes its "
                f"weights in the first forward pass, which would draw them from the stream of dropout. Pass a batch "
                f'through the model before run.perturb(model): with run.stream("init"): model = Net(); model(batch).'
            )


class _Weights(NamedTuple):
    """A parameter with its name, and which of its elements count; None if all do."""

    name: str
    parameter: Tensor
    counting: Tensor | None


def _choose_parameter(
    model: nn.Module, perturbation: Perturbation, gradients: Mapping[str, Tensor | None] | None
) -> _Weights:
    """Return the parameter that was asked for, or that of the first layer, with the elements that count."""
    parameters = dict(model.named_parameters(remove_duplicate=False))  # a tied weight has two names
    if not parameters:
        raise PerturbationError(f"Expected a model with parameters to perturb, but {type(model).__name__} has none.")
    if gradients is None and any(parameter.grad is not None for parameter in parameters.values()):
        gradients = {name: parameter.grad for name, parameter in parameters.items()}
    if perturbation.parameter is not None:
        name, parameter = perturbation.parameter, _named(parameters, perturbation.parameter)
        counting = None if perturbation.index is not None else _counting(model, name, parameter, gradients)
        return _Weights(name, parameter, None if counting is None or not counting.any() else counting)
    floating = [name for name, parameter in parameters.items() if _is_float(parameter)]
    if not floating:
        raise PerturbationError(
            f"Expected a floating-point weight to perturb, but {type(model).__name__} has only "
            f"{next(iter(parameters.values())).dtype} parameters."
        )
    ranked = sorted(floating, key=lambda name: _rank(model, name, parameters[name], known=gradients is not None))
    if perturbation.index is not None:
        return _Weights(ranked[0], parameters[ranked[0]], None)
    for name in ranked:
        counting = _counting(model, name, parameters[name], gradients)
        if counting is None or counting.any():
            return _Weights(name, parameters[name], counting)
    raise PerturbationError(
        f"Expected a weight of {type(model).__name__} that is felt when it moves, but each is 0, masked, frozen or "
        f"without a gradient in the first step. Name one: Perturbation({perturbation.kind!r}, parameter={ranked[0]!r})."
    )


def _named(parameters: Mapping[str, Tensor], wanted: str) -> Tensor:
    if wanted not in parameters:
        close = difflib.get_close_matches(wanted, parameters, n=3) or list(parameters)[:5]
        raise PerturbationError(
            f"Expected parameter= to be a name in model.named_parameters() but got {wanted!r}. "
            f"Near it: {', '.join(close)}."
        )
    if not _is_float(parameters[wanted]):
        raise PerturbationError(
            f"Expected a floating-point weight to perturb, but {wanted!r} is {parameters[wanted].dtype}: "
            f"integers have no neighbouring float and no gradient."
        )
    return parameters[wanted]


def _is_float(parameter: Tensor) -> bool:
    return parameter.is_floating_point() or parameter.is_complex()


def _rank(model: nn.Module, name: str, parameter: Tensor, *, known: bool) -> int:
    """Return 0 for a layer's weight, which has a direction, and more for what is rather not the first layer's.

    A class token and a table of positions are told by their names, or by a first dimension of 1 that is there for the
    batch: torch's own layers name what has a direction ``weight``. The row of an embedding may be one that no example
    uses, unless its gradient is known.
    """
    path, _, local = name.rpartition(".")
    owner = model.get_submodule(path)
    magnitude = (local == "weight_g" and hasattr(owner, "weight_v")) or (
        local == "original0" and any(type(part).__name__ == "_WeightNorm" for part in owner.children())
    )
    if parameter.dim() < 2 or magnitude:
        return 3
    for_a_batch = parameter.dim() > 2 and parameter.shape[0] == 1 and "weight" not in local
    if for_a_batch or _NO_LAYER.search(local) or "Norm" in type(owner).__name__:
        return 2
    return 1 if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) and not known else 0


def _counting(
    model: nn.Module, name: str, parameter: Tensor, gradients: Mapping[str, Tensor | None] | None
) -> Tensor | None:
    """Return which elements of a parameter are felt when they move, as far as that is known; None if all are."""
    counting = (parameter.data != 0) & parameter.requires_grad
    path, _, local = name.rpartition(".")
    mask = getattr(model.get_submodule(path), f"{local.removesuffix('_orig')}_mask", None)
    if local.endswith("_orig") and isinstance(mask, Tensor):  # as torch.nn.utils.prune names them
        counting &= mask.to(counting.device) != 0
    if gradients is not None:
        gradient = gradients.get(name)
        if gradient is None:
            counting = torch.zeros_like(counting)
        else:
            counting &= gradient.detach().to_dense().to(counting.device) != 0
    return None if bool(counting.all()) else counting


def _choose(
    parameter: Tensor, counting: Tensor | None, name: str, perturbation: Perturbation, seed: int, position: int
) -> tuple[tuple[int, ...], str]:
    """Return the index of the weight and the direction of the ulp step, which a bit flip ignores."""
    shape, wanted = tuple(parameter.shape), perturbation.index
    if parameter.numel() == 0:
        raise PerturbationError(f"Expected a weight to perturb, but {name!r} is empty, of shape {shape}.")
    if wanted is not None and not (
        len(wanted) == len(shape) and all(0 <= i < size for i, size in zip(wanted, shape, strict=True))
    ):
        raise PerturbationError(f"Expected index= to lie inside {name!r}, of shape {shape}, but got {wanted!r}.")
    directions = ("up", "down") if perturbation.kind == "ulp" and perturbation.direction is None else ("up",)
    number = _choose_number(1 if wanted is not None else parameter.numel(), counting, len(directions), seed, position)
    element, side = divmod(number, len(directions))
    direction = perturbation.direction or directions[side]
    if wanted is not None:
        return wanted, direction
    index: tuple[int, ...] = ()
    for size in reversed(shape):
        element, place = divmod(element, size)
        index = (place, *index)
    return index, direction


def _choose_number(elements: int, counting: Tensor | None, sides: int, seed: int, position: int) -> int:
    """Return element x ``sides`` + side of the choice at ``position`` among the elements that count."""
    if counting is None:
        return _shuffled(elements * sides, seed, position)
    counts = counting.flatten().cpu()
    choices = int(counts.sum()) * sides
    if choices * _RARE < elements * sides:  # a shuffle of all would have to be followed far to meet one
        element, side = divmod(_shuffled(choices, seed, position), sides)
        return int(counts.nonzero()[element]) * sides + side
    met = (number for number in _shuffle(elements * sides, seed) if counts[number // sides])
    return next(itertools.islice(met, position % choices, None))


def _shuffled(count: int, seed: int, position: int) -> int:
    """Return the number at ``position``, modulo ``count``, of a shuffled ``range(count)``."""
    return next(itertools.islice(_shuffle(count, seed), position % count, None))


def _shuffle(count: int, seed: int) -> Iterator[int]:
    """Yield a shuffled ``range(count)``.

    Fisher and Yates' shuffle, done only as far as it is asked for: millions of weights are never listed.
    """
    draw = random.Random(seed)
    moved: dict[int, int] = {}  # the numbers that were swapped, by their new place
    for place in range(count):
        taken = draw.randrange(place, count)
        yield moved.get(taken, taken)
        moved[taken] = moved.get(place, place)


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
