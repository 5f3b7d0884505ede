"""The state around a measurement that changes bits: torch's flags, precisions, autocast; options of other libraries.

Code outside of the task has set it, so no task's content tells of it, and a child process would begin without it. What
a child can be given again is described, and is part of the environment; what it cannot is refused.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.backends import opt_einsum
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ..errors import PACKAGE, UsageError

_c: Any = torch._C
_einsums: Any = opt_einsum

#: Precisions of products of float32 by backend and operation, from torch 2.9 on; the wider ones first.
_PRECISIONS = (
    ("generic", "all"), ("cuda", "all"), ("mkldnn", "all"),
    *((backend, operation) for backend in ("cuda", "mkldnn") for operation in ("matmul", "conv", "rnn")),
)  # fmt: skip


@dataclass(frozen=True)
class Flag:
    """One setting: how it is read and put, and its values in a new process."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]
    usual: tuple[Any, ...]


def described() -> dict[str, Any]:
    """Return each flag that is not as in a new process, by its name, in JSON's types.

    Raises `UsageError` for a state that no other process can be given.
    """
    _refuse_what_no_child_can_have()
    found: dict[str, Any] = {}
    for flag in (*_flags(), *_of_libraries()):
        value = flag.get()
        if value not in flag.usual:
            found[flag.name] = value
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            dtype = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
            found[f"autocast {device}"] = {"dtype": dtype, "cache": torch.is_autocast_cache_enabled()}
    if devices := [mode.device for mode in _modes() if isinstance(mode, DeviceContext)]:
        found["default device"] = str(devices[-1])
    return found


def restore(ambient: Mapping[str, Any]) -> None:
    """Put the flags of a new process as they were described."""
    for library in _DEFAULTS.keys() & ambient.keys():
        importlib.import_module(library)
    for flag in (*_flags(), *_of_libraries()):
        now = flag.get()
        if flag.name in ambient and now != ambient[flag.name]:
            flag.put(ambient[flag.name])
        elif flag.name not in ambient and now not in flag.usual:  # it follows a wider flag that was just put
            flag.put(flag.usual[-1])
    for device in ("cpu", "cuda"):
        if autocast := ambient.get(f"autocast {device}"):
            # Entered for good: its depth decides when torch forgets the weights that it has cast.
            dtype = getattr(torch, autocast["dtype"])
            entered = torch.autocast(device, dtype, cache_enabled=autocast["cache"])
            entered.__enter__()  # type: ignore[no-untyped-call]  # torch's own
    if "default device" in ambient:
        torch.set_default_device(ambient["default device"])


@functools.cache
def _flags() -> tuple[Flag, ...]:
    """Return the flags that this version of torch has; those that `Trainer` sets for each run are not among them."""
    found = [
        Flag("flush_denormal", _flushes_denormals, torch.set_flush_denormal, (False,)),
        Flag("anomaly mode", _anomaly_mode, _set_anomaly_mode, ("off",)),
        Flag("mha fastpath", torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, (True,)),
        Flag("opt_einsum", _einsum, _set_einsum, ([True, "auto"] if _einsums.is_available() else [False, None],)),
        *_flags_of_c("sdp flash", "_get_flash_sdp_enabled", "_set_sdp_use_flash", True),
        *_flags_of_c("sdp mem_efficient", "_get_mem_efficient_sdp_enabled", "_set_sdp_use_mem_efficient", True),
        *_flags_of_c("sdp math", "_get_math_sdp_enabled", "_set_sdp_use_math", True),
        *_flags_of_c("sdp cudnn", "_get_cudnn_sdp_enabled", "_set_sdp_use_cudnn", True, False),  # off before 2.5
    ]
    for name, place, *usual in (
        ("sdp math in half precision", "math_sdp_allow_fp16_bf16_reduction", False),
        ("sdp order", "sdp_priority_order", [1, 2, 0], [1, 2, 0, 3], [1, 2, 0, 3, 4]),
        ("cudnn", "cudnn_enabled", True),
        ("mkldnn deterministic", "mkldnn_deterministic", False),
        ("nnpack", "nnpack_enabled", True),
        ("cpu sums in float16", "cpu_allow_fp16_reduced_precision_reduction", False),
        ("cuda sums in float16", "cublas_allow_fp16_reduced_precision_reduction", True, [True, True]),
        ("cuda sums in bfloat16", "cublas_allow_bf16_reduced_precision_reduction", True, [True, True]),
        ("cuda accumulation in float16", "cublas_allow_fp16_accumulation", False),
    ):
        found += _flags_of_c(name, f"_get_{place}", f"_set_{place}", *usual)
    engines = [name for name in ("x86", "fbgemm", "qnnpack") if name in torch.backends.quantized.supported_engines]
    found += [Flag("quantized engine", *_attribute(torch.backends.quantized, "engine"), ("none", *engines[:1]))]
    found += _preferred("cuda linalg", "preferred_linalg_library")
    found += _preferred("cuda blas", "preferred_blas_library")
    return (*found, *_precisions())


def _attribute(owner: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def _preferred(name: str, choose: str) -> list[Flag]:
    """Return which library torch prefers on a GPU; none where this version has no such choice."""
    prefer: Any = getattr(torch.backends.cuda, choose, None)

    def read() -> str:
        return str(prefer().name).lower()

    return [] if prefer is None else [Flag(name, read, prefer, ("default", "cublas"))]


def _flags_of_c(name: str, get: str, put: str, *usual: object) -> list[Flag]:
    """Return a flag of torch's C++ side; none where this version does not have it."""
    if not hasattr(_c, get) or not hasattr(_c, put):
        return []

    def read() -> Any:
        value = getattr(_c, get)()
        return list(value) if isinstance(value, tuple) else value

    def write(value: Any) -> None:
        several = isinstance(value, list) and put != "_set_sdp_priority_order"
        getattr(_c, put)(*value) if several else getattr(_c, put)(value)

    return [Flag(name, read, write, usual)]


def _defaults_of_sklearn(library: Any) -> dict[str, Any]:
    return dict(getattr(library._config, "_global_config", {}))  # of which each thread has a copy


def _defaults_of_pandas(library: Any) -> dict[str, Any]:
    registered, old = (getattr(library._config.config, f"_{kind}_options", {}) for kind in ("registered", "deprecated"))
    counts = {name: option for name, option in registered.items() if name.startswith(("compute.", "mode."))}
    return {name: option.defval for name, option in counts.items() if name not in old}  # those warn when they are read


#: How a library that has options for all of a process tells what they are at first; how it prints changes no bits.
_DEFAULTS = {"sklearn": _defaults_of_sklearn, "pandas": _defaults_of_pandas}
_ONLY_SHOWN = frozenset({"display", "print_changed_only"})


def _of_libraries() -> Iterator[Flag]:
    """Yield what is set for all of a process in the libraries that are loaded."""
    errors = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    yield Flag("numpy errors", np.geterr, lambda value: np.seterr(**value), (errors,))
    for name, defaults_of in _DEFAULTS.items():
        library: Any = sys.modules.get(name)
        if library is not None:
            yield Flag(name, *_options(library, defaults_of(library)), ({},))


def _options(library: Any, defaults: Mapping[str, Any]) -> tuple[Callable[[], Any], Callable[[Any], object]]:
    """Return how to read those options of a library that are not as at first, and how to put them."""

    def now() -> dict[str, Any]:
        if hasattr(library, "get_config"):
            return dict(library.get_config())
        return {name: library.get_option(name) for name in defaults}

    def read() -> dict[str, Any]:
        return {name: value for name, value in now().items() if name not in _ONLY_SHOWN and value != defaults.get(name)}

    def write(values: Mapping[str, Any]) -> None:
        values = {**defaults, **values}
        if hasattr(library, "set_config"):
            library.set_config(**values)
        else:
            for name, value in values.items():
                library.set_option(name, value)

    return read, write


def _einsum() -> list[Any]:
    return [_einsums.enabled, _einsums.strategy]


def _set_einsum(values: Sequence[Any]) -> None:
    _einsums.enabled, _einsums.strategy = values


def _precisions() -> Iterator[Flag]:
    """Yield how precisely float32 is multiplied: torch 2.9 has one for each backend and operation."""
    if not hasattr(_c, "_get_fp32_precision_getter"):
        yield from _flags_of_c("cuda.matmul.allow_tf32", "_get_cublas_allow_tf32", "_set_cublas_allow_tf32", False)
        yield from _flags_of_c("cudnn.allow_tf32", "_get_cudnn_allow_tf32", "_set_cudnn_allow_tf32", True)
        return
    for place in _PRECISIONS:
        get = functools.partial(_c._get_fp32_precision_getter, *place)
        put = functools.partial(_c._set_fp32_precision_setter, *place)
        usual = ("tf32",) if place in (("cuda", "conv"), ("cuda", "rnn")) else ("none", "ieee")
        yield Flag(f"{'.'.join(place)}.fp32_precision", get, put, usual)


def _flushes_denormals() -> bool:
    smallest = sys.float_info.min  # torch has no way to ask
    return smallest / 4 == 0.0


def _anomaly_mode() -> str:
    return "off" if not torch.is_anomaly_enabled() else "nan" if torch.is_anomaly_check_nan_enabled() else "on"


def _set_anomaly_mode(mode: str) -> None:
    torch.autograd.set_detect_anomaly(mode != "off", check_nan=mode == "nan")


def _modes() -> list[object]:
    return [*_get_current_function_mode_stack()]  # type: ignore[no-untyped-call]  # torch's own


# What no child can have


def _refuse_what_no_child_can_have() -> None:
    for what, advice in _unknown_to_children():
        raise UsageError(
            f"Expected torch around a measurement as a new process has it, but got {what}. Runs may be trained in "
            f"other processes, which would not have it, and would compute other bits. {advice}"
        )


def _unknown_to_children() -> Iterator[tuple[str, str]]:
    inside = "Enter it inside the train function, or in the model."
    if torch.is_inference_mode_enabled():
        yield "torch.inference_mode()", "Leave it before the measurement: nothing can be trained in it."
    modes = [mode for mode in _modes() if not isinstance(mode, DeviceContext)]
    for mode in [*modes, *_get_current_dispatch_mode_stack()]:
        yield f"the mode {type(mode).__module__}.{type(mode).__qualname__}", inside
    top = getattr(_c._autograd, "_top_saved_tensors_default_hooks", None)  # from torch 2.5 on
    if top is not None and top(False) is not None:
        yield "hooks on saved tensors (torch.autograd.graph.saved_tensors_hooks)", inside
    for module, begins in _HOOKED:
        for name, hooks in vars(sys.modules.get(module, object)).items():
            if name.startswith(begins) and isinstance(hooks, dict) and any(map(_is_not_ours, hooks.values())):
                kind = name.removeprefix("_global_").replace("_", " ")
                yield f"a hook of all modules or optimizers ({kind})", "Register it on the model or optimizer itself."


#: Modules that keep hooks of every module and optimizer, and how the names of these begin.
_HOOKED = (("torch.nn.modules.module", "_global_"), ("torch.optim.optimizer", "_global_"))


def _is_not_ours(hook: object) -> bool:
    code = getattr(hook, "__code__", None)
    return code is None or PACKAGE not in Path(code.co_filename).parents
