"""The choice of layers to compare, and their activations by forward hooks."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import TaskError

#: Name of the whole model's output, unless one of its modules has that name.
OUTPUT = "output"

#: The most layers that are chosen, and the number from which containers are not opened.
_MOST, _ENOUGH = 8, 4

#: Modules that only hold others.
_HOLDERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

#: Sizes of two trial batches: an output that is no batch may have one of them as its first dimension, but not both.
_TRIES = (3, 2)


def choose_layers(model: nn.Module, inputs: Tensor, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the names of the layers to compare: the given ``names``, if they fit, or some that fit.

    ``inputs`` are three test examples or more, on which the model is tried. Without ``names`` the layers are the first
    with parameters, the main blocks (the children of the model, or of a container where those are few), the last
    pooling, and the logits, in the order in which they run: at most eight, evenly spaced. ``"output"`` names the output
    of the whole model.

    Raises `TaskError` for a name that no module has, or whose module is not called just once or gives no activations.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> choose_layers(net, torch.zeros(3, 1, 6, 6))
    ('0', '2', '4')
    """
    modules = _modules(model)
    asked = None if names is None else _known(names, modules)
    seen = _try(model, modules, inputs)
    if asked is None:
        return _spaced(_automatic(modules, seen))
    for name in asked:
        if seen[name].fault:
            usable = [other for other in seen if not seen[other].fault]
            raise TaskError(
                f"Expected layer {name!r} ({type(modules[name]).__name__}) to give one tensor of activations, a row "
                f"an example, but {seen[name].fault}. Layers that do: {', '.join(usable)}."
            )
    return tuple(asked)


@contextlib.contextmanager
def watched(model: nn.Module, names: Iterable[str], on_output: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call ``on_output`` with each named layer's output at once, before a later layer could change it in place."""
    modules = _modules(model)
    with contextlib.ExitStack() as stack:
        for name in names:

            def hook(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                on_output(name, output)

            stack.callback(modules[name].register_forward_hook(hook).remove)
        yield


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by name, the model itself the first."""
    named = dict(model.named_modules())
    return {"" if OUTPUT in named else OUTPUT: named.pop(""), **named}


def _known(names: Iterable[str], modules: Mapping[str, nn.Module]) -> list[str]:
    if not isinstance(names, Iterable):
        raise TaskError(f"Expected layers= to be names of modules, as in ['conv1', 'block2'], but got {names!r}.")
    names = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if not names:
        raise TaskError("Expected layers= to name layers of the model, or None for some that fit, but got none.")
    for name in names:
        if name not in modules:
            close = difflib.get_close_matches(str(name), modules, n=3, cutoff=0.4) or list(modules)[:12]
            raise TaskError(
                f"Expected layers= to name modules of the model but got {name!r}, which none is called. "
                f"Did you mean {', '.join(map(repr, close))}? model.named_modules() has them all."
            )
    return names


@dataclass
class _Seen:
    """The calls and outputs of a module while its model was tried."""

    calls: int = 0  #: number of calls in the last forward
    rank: int = 0  #: place in the order in which modules finished
    fault: str = "it was never called"
    output: Tensor | None = None


def _try(model: nn.Module, modules: Mapping[str, nn.Module], inputs: Tensor) -> dict[str, _Seen]:
    seen = {name: _Seen() for name in modules}
    faults: dict[str, str] = {}
    ranks = iter(range(1, 10**9))

    def note(name: str, output: object) -> None:
        one = seen[name]
        one.calls, one.rank = one.calls + 1, next(ranks)
        fault = _fault(output, examples)
        if one.calls > 1:
            fault = f"it was called {one.calls} times in one forward, and nothing says which output is meant"
        if fault:
            faults[name] = fault
        elif isinstance(output, Tensor):
            one.output = output.clone()  # which a later layer may change in place

    for examples in _TRIES:
        for one in seen.values():
            one.calls = 0
        with watched(model, modules, note), torch.no_grad():
            model(inputs[:examples])
    for name, one in seen.items():
        one.fault = faults.get(name, "" if one.calls else one.fault)
    return seen


def _fault(output: object, examples: int) -> str:
    if not isinstance(output, Tensor):
        return f"its output is a {type(output).__name__}"
    if not output.is_floating_point():
        return f"its output is of {str(output.dtype).removeprefix('torch.')}"
    if output.dim() == 0 or len(output) != examples:
        return f"{examples} examples gave it an output of shape {list(output.shape)}"
    return ""


def _automatic(modules: Mapping[str, nn.Module], seen: Mapping[str, _Seen]) -> list[str]:
    """Every layer that is worth a look, in the order in which they run."""
    whole, *parts = modules
    usable = sorted((name for name in parts if not seen[name].fault), key=lambda name: seen[name].rank)
    blocks = _blocks(modules, usable)
    chosen = {_first(modules, usable, blocks), _last_pooling(modules, usable), *blocks}
    layers = [name for name in usable if name in chosen]
    outputs = [seen[name].output for name in (*layers[-1:], whole)]
    # If the last layer's output is the model's, in whichever shape, the layer's own name stands for both.
    if len(outputs) == 2 and torch.equal(*(torch.empty(0) if o is None else o.flatten() for o in outputs)):
        return layers
    return [*layers, whole]


def _blocks(modules: Mapping[str, nn.Module], usable: Sequence[str]) -> list[str]:
    """The children of the model that have weights, or the children of these where they are too few."""
    level = list(next(iter(modules.values())).children())
    while True:
        blocks = [name for name in usable if _transforms(modules[name]) and any(modules[name] is m for m in level)]
        opened = _opened(level)
        if len(blocks) >= _ENOUGH or len(opened) == 0:
            return blocks
        level = [inner for module in level for inner in (module.children() if module in opened else [module])]


def _first(modules: Mapping[str, nn.Module], usable: Sequence[str], blocks: Sequence[str]) -> str | None:
    """The first single layer with weights; None where a block is only that layer, scaled and rectified."""
    singles = [name for name in usable if _is_single(modules[name])]
    for name in blocks:
        if [inner for inner in modules[name].modules() if _is_single(inner)] == [modules[one] for one in singles[:1]]:
            return None
    return next(iter(singles), None)


def _last_pooling(modules: Mapping[str, nn.Module], usable: Sequence[str]) -> str | None:
    """The last pooling, or its container if that has no parameters: pooling and flattening are one layer then."""
    pools = [name for name in usable if "Pool" in type(modules[name]).__name__]
    if not pools:
        return None
    parent = pools[-1].rpartition(".")[0]
    return parent if parent in usable and next(modules[parent].parameters(), None) is None else pools[-1]


def _is_single(module: nn.Module) -> bool:
    return _transforms(module) and not any(module.children())


def _opened(level: Sequence[nn.Module]) -> list[nn.Module]:
    """The modules whose children to look at: pure containers, or the only module with children."""
    composed = [module for module in level if any(module.children())]
    return [module for module in composed if isinstance(module, _HOLDERS) or len(composed) == 1]


def _transforms(module: nn.Module) -> bool:
    """Whether the module has parameters, and uses them for more than scaling."""
    return "Norm" not in type(module).__name__ and next(module.parameters(), None) is not None


def _spaced(layers: Sequence[str]) -> tuple[str, ...]:
    """At most `_MOST` of the layers, evenly spaced, the first and the last among them."""
    if len(layers) <= _MOST:
        return tuple(layers)
    return tuple(layers[i * (len(layers) - 1) // (_MOST - 1)] for i in range(_MOST))
