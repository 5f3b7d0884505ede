"""Where a run was trained: everything outside the recipe that can change its bits."""

from __future__ import annotations

import functools
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from .._version import __version__
from ..errors import ConfigError

#: Fields recorded for the reader; a difference in them does not change the bits of a run.
FOR_THE_RECORD = ("commit", "host")

#: Said for float32_matmul_precision where each backend has another, which `ambient` then names.
_BY_BACKEND = "by backend"


@dataclass(frozen=True)
class Environment:
    """The platform under one training. Runs whose `must_match` differ are never put into one study."""

    stabilitykit: str
    python: str
    platform: str  #: operating system and machine type
    torch: str
    numpy: str
    device: str  #: "cpu", or the name of the GPU
    cuda: str | None
    cudnn: int | None
    cpu_capability: str  #: the vector instructions that torch's kernels use, such as AVX512
    threads: int  #: CPU threads of one run; another count sums in another order
    default_dtype: str
    matmul_precision: str
    mkldnn: bool
    ambient: Mapping[str, object]  #: flags of torch that are not as in a new process, see `ambient.described`
    replaced: Mapping[str, str]  #: content hash of each function that stands in the place of one of torch's
    kernels: str  #: hash of the bits that small operations compute here, see `kernels_fingerprint`
    commit: str | None  #: commit of the repository under test
    host: str
    #: What stands there, by the same names: sent to child processes, and in no report.
    replacements: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def must_match(self) -> dict[str, object]:
        """What two runs must share to be comparable."""
        return {name: value for name, value in self.to_json().items() if name not in FOR_THE_RECORD}

    def to_json(self) -> dict[str, object]:
        """Return every field that is a plain value, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "replacements"}

    def restore(self) -> None:
        """Give this process the settings of torch that were found, so that a child trains the bits of its parent."""
        import torch

        from . import ambient, replaced_functions

        torch.set_default_dtype(getattr(torch, self.default_dtype.removeprefix("torch.")))
        if self.matmul_precision not in (_BY_BACKEND, _matmul_precision()):
            torch.set_float32_matmul_precision(self.matmul_precision)
        torch.backends.mkldnn.enabled = self.mkldnn  # type: ignore[assignment]  # torch's own descriptor
        ambient.restore(self.ambient)
        replaced_functions.put(self.replacements)


def resolve_device(device: str, slot: int = 0, workers_per_device: int = 1) -> str:
    """Return the device of a worker's slot: the one that ``device`` names, or a GPU for ``auto`` and ``cuda``.

    Raises `ConfigError` if the device does not exist, or has no room for another worker.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise ConfigError(f"Expected the device to be auto, cpu, cuda or cuda:N but got device={device!r}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"Expected a GPU for device={device!r} but torch {torch.__version__} sees none here. "
            f"Use device 'cpu', or 'auto' to take what is there."
        )
    if kind == "cpu":
        return device
    devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if device == "cuda" else [device]
    return device_of(slot, devices, workers_per_device)


def current_environment(device: str, threads: int, rootdir: Path) -> Environment:
    """Return the environment of a training in this process.

    Raises `UsageError` for a state of torch that no other process can be given.
    """
    import numpy
    import torch

    from .ambient import described
    from .kernels import kernels_fingerprint
    from .replaced_functions import find

    ambient = described()
    replaced, replacements = find(rootdir)
    on_gpu = torch.device(device).type == "cuda"
    return Environment(
        stabilitykit=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        torch=torch.__version__,
        numpy=numpy.__version__,
        device=torch.cuda.get_device_name(device) if on_gpu else "cpu",
        cuda=torch.version.cuda if on_gpu else None,
        cudnn=torch.backends.cudnn.version() if on_gpu else None,  # type: ignore[no-untyped-call]  # torch's own
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=threads,
        default_dtype=str(torch.get_default_dtype()),
        matmul_precision=_matmul_precision(),
        mkldnn=bool(torch.backends.mkldnn.enabled),
        ambient=ambient,
        replaced=replaced,
        kernels=kernels_fingerprint(device, threads),
        commit=_commit(rootdir),
        host=socket.gethostname(),
        replacements=replacements,
    )


def _matmul_precision() -> str:
    import torch

    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set for each backend by the API of torch 2.9
        return _BY_BACKEND


@functools.cache
def _commit(rootdir: Path) -> str | None:
    command = ["git", "-C", str(rootdir), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def device_of(slot: int, devices: Sequence[str], workers_per_device: int = 1) -> str:
    """Return the device of a slot: one worker on each device, then a second on each, up to ``workers_per_device``.

    ``devices`` are counted among those visible to the process: ``cuda:0`` is the first in CUDA_VISIBLE_DEVICES.

    >>> [device_of(slot, ["cuda:0", "cuda:1"], workers_per_device=2) for slot in range(4)]
    ['cuda:0', 'cuda:1', 'cuda:0', 'cuda:1']
    """
    most = len(devices) * workers_per_device
    if slot >= most:
        raise ConfigError(
            f"Expected at most {most} workers, {workers_per_device} for each of {', '.join(devices)}, but this is "
            f"number {slot + 1}. Start no more than {most}, or let more workers share a device, if its memory holds as "
            f"many trainings.",
            workers_per_device=-(-(slot + 1) // len(devices)),
        )
    return devices[slot % len(devices)]
