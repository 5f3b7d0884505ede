"""The fingerprint of a platform: a hash of the bits that small operations compute in this process.

Bits depend on the CPU's model and vendor, on variables that libraries read, on their versions, and on the number of
threads. No list of these is complete, so the machine itself is asked: operations that training is made of are carried
out on equal numbers, and the bytes of all results are hashed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Called as operators and not through `torch.nn.functional`, which a test may have patched, and whose optimizers import
#: torch's compiler: a second and more.
_aten: Any = torch.ops.aten

#: Precisions in which a new process computes products of float32, by backend and operation (torch >= 2.9).
_USUAL_PRECISION = {
    ("mkldnn", "matmul"): ("none", "ieee"),
    ("mkldnn", "conv"): ("none", "ieee"),
    ("mkldnn", "rnn"): ("none", "ieee"),
    ("cuda", "matmul"): ("none", "ieee"),
    ("cuda", "conv"): ("tf32",),
    ("cuda", "rnn"): ("tf32",),
}

_one_at_a_time = threading.Lock()


def kernels_fingerprint(device: str, threads: int) -> str:
    """Return the hash of what this process computes on a device with a number of threads: 16 hex digits.

    It is computed once a process. The state of the process that user code can change (precision, modes, gradients,
    generators) neither changes the hash nor is changed, but for oneDNN: where it is switched off, the hash is that of
    the kernels without it.
    """
    if torch.device(device).type == "meta":  # it has shapes, and no numbers
        return ""
    with _one_at_a_time:
        return _fingerprint(device, threads, bool(torch._C._get_mkldnn_enabled()))


@functools.cache
def _fingerprint(device: str, threads: int, mkldnn: bool) -> str:  # one entry of the cache for each state of oneDNN
    results: list[str | BaseException] = []

    def compute() -> None:
        before = torch.get_num_threads()
        try:
            with _usual_flags():
                torch.set_num_threads(threads)
                results.append(_hash_of_battery(torch.device(device)))
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that asked
            results.append(error)
        finally:
            torch.set_num_threads(before)

    # Modes, autocast, inference mode, hooks on saved tensors are of one thread: a new one has none of them. And OpenMP
    # begins no workers for the thread that asks, which may fork.
    thread = threading.Thread(target=compute, name="stabilitykit-kernels", daemon=True)
    thread.start()
    thread.join()
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


def _hash_of_battery(device: torch.device) -> str:
    digest = hashlib.sha256()
    for tensor in _battery(_Numbers(device)):
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()[:16]


def _bytes_of(tensor: Tensor) -> bytes:
    flat = _aten.detach(tensor).cpu().contiguous().reshape(-1).view(torch.uint8)
    return bytes(flat.numpy().data)


@contextlib.contextmanager
def _usual_flags() -> Iterator[None]:
    """Compute with the flags of a new process for a block, where they differ now; put back what was there."""
    undo: list[Callable[[], object]] = []
    c: Any = torch._C

    def change(get: Callable[[], Any], put: Callable[[Any], object], usual: tuple[Any, ...]) -> None:
        before = get()
        if before not in usual:
            undo.append(lambda: put(before))
            put(usual[0])

    change(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, (0,))
    change(c._get_cudnn_benchmark, c._set_cudnn_benchmark, (False,))
    change(c._get_cudnn_deterministic, c._set_cudnn_deterministic, (False,))
    change(c._get_cudnn_enabled, c._set_cudnn_enabled, (True,))
    if hasattr(c, "_get_fp32_precision_getter"):
        for place, usual in _USUAL_PRECISION.items():
            get = functools.partial(c._get_fp32_precision_getter, *place)
            change(get, functools.partial(c._set_fp32_precision_setter, *place), usual)
    else:
        change(c._get_float32_matmul_precision, c._set_float32_matmul_precision, ("highest",))
        change(c._get_cudnn_allow_tf32, c._set_cudnn_allow_tf32, (True,))
    try:
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


class _Numbers:
    """Numbers between -2 and 2 by integer arithmetic, equal on every machine; a generator's may not be."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._taken = 0
        self._all = _mixed(np.arange(1 << 18, dtype=np.int64))

    def take(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the next numbers, in a shape; a multiple of 2^-19 each, so that float32 holds them as they are."""
        count = int(np.prod(shape))
        values = self._all[self._taken : self._taken + count]
        self._taken += count
        whole = torch.from_numpy(values).to(device=self.device, dtype=torch.float64)
        return (whole / 2.0**19).to(dtype).reshape(shape)

    def weight(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the next numbers as a leaf that has a gradient."""
        return (self.take(*shape, dtype=dtype) / 4).requires_grad_()


def _mixed(index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return integers from -2^20 to 2^20 that look random."""
    mixed = (index + 1) * 0x9E3779B1 & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x45D9F3B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x45D9F3B & 0xFFFFFFFF
    return (mixed ^ mixed >> 16) % (2**21 + 1) - 2**20


def _battery(numbers: _Numbers) -> Iterator[Tensor]:
    """Compute all operations, one after the other, and yield their results."""
    yield from _products(numbers)
    yield from _convolutions(numbers)
    yield from _reductions(numbers)
    yield from _functions(numbers)
    yield from _normalisations(numbers)
    yield from _attention(numbers)
    yield from _optimizer_steps(numbers)
    if numbers.device.type == "cpu":
        yield from _numpys()


def _products(numbers: _Numbers) -> Iterator[Tensor]:
    take = numbers.take
    for rows, inner, columns in ((64, 128, 32), (16, 4, 8), (7, 65, 3), (1, 256, 10), (100, 150, 120)):
        yield _aten.mm(take(rows, inner), take(inner, columns))
        yield _aten.mm(take(inner, rows).t(), take(columns, inner).t())
    yield _aten.bmm(take(4, 16, 8), take(4, 8, 16))
    yield _aten.mv(take(33, 100), take(100))
    yield _aten.dot(take(1000), take(1000))
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        yield _aten.mm(take(32, 64, dtype=dtype), take(64, 16, dtype=dtype))
    x, weight, bias = numbers.weight(32, 20), numbers.weight(12, 20), numbers.weight(12)
    y = _aten.linear(x, weight, bias)
    yield from (y, *_gradients(y, x, weight, bias))
    if numbers.device.type == "cpu":  # by LAPACK
        yield from _aten.linalg_qr(take(24, 16))


def _gradients(y: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(_aten.sum(_aten.mul(y, y)), leaves)


def _convolutions(numbers: _Numbers) -> Iterator[Tensor]:
    for layout in (torch.contiguous_format, torch.channels_last):
        for inside, outside, width, stride, groups in ((8, 16, 3, 1, 1), (3, 8, 5, 2, 1), (8, 8, 3, 1, 8)):
            x = numbers.take(4, inside, 10, 10).contiguous(memory_format=layout).requires_grad_()
            weight = numbers.take(outside, inside // groups, width, width).contiguous(memory_format=layout)
            bias, around = numbers.weight(outside), [width // 2] * 2
            step = [stride, stride]
            y = _aten.conv2d(x, weight.requires_grad_(), bias, step, around, [1, 1], groups)
            yield from (y, *_gradients(y, x, weight, bias))
    x, weight = numbers.weight(2, 4, 30), numbers.weight(6, 4, 3)
    y = _aten.conv1d(x, weight)
    yield from (y, *_gradients(y, x, weight))
    x, weight = numbers.weight(2, 6, 5, 5), numbers.weight(6, 4, 3, 3)
    y = _aten.conv_transpose2d(x, weight)
    yield from (y, *_gradients(y, x, weight))


def _reductions(numbers: _Numbers) -> Iterator[Tensor]:
    many, table = numbers.take(70_000), numbers.take(77, 111)
    for dtype in (torch.float32, torch.float64):
        yield _aten.sum(many.to(dtype))
    yield from (_aten.mean(table, [0]), _aten.mean(table, [1]), _aten.var(table, [1]), _aten.std(table))
    yield from (_aten.norm(table), _aten.logsumexp(table, [1]), _aten.cumsum(table, 1))
    yield _aten.avg_pool2d(table.reshape(1, 7, 11, 111), [3, 3])


def _functions(numbers: _Numbers) -> Iterator[Tensor]:
    x = numbers.take(1000)
    above = _aten.add(_aten.abs(x), 0.01)
    for name in ("exp", "tanh", "sigmoid", "sin", "cos", "erf", "expm1", "gelu", "silu", "softplus", "elu"):
        yield getattr(_aten, name)(x)
    for name in ("log", "log1p", "sqrt", "rsqrt", "reciprocal", "lgamma"):
        yield getattr(_aten, name)(above)
    yield _aten.pow(above, x)
    yield from (_aten.exp(x.double()), _aten.exp(x.bfloat16()), _aten.tanh(x.half()))
    drawing = torch.Generator(numbers.device).manual_seed(0)
    yield torch.empty(1000, device=numbers.device, dtype=torch.float32).normal_(generator=drawing)


def _normalisations(numbers: _Numbers) -> Iterator[Tensor]:
    x = numbers.weight(32, 10)
    target = torch.from_numpy(np.arange(32) % 10).to(numbers.device)
    for y in (_aten.softmax(x, 1), _aten.log_softmax(x, 1), _aten.nll_loss(_aten.log_softmax(x, 1), target)):
        yield from (y, *_gradients(y, x))
    x, weight, bias = numbers.weight(16, 48), numbers.weight(48), numbers.weight(48)
    y = _aten.layer_norm(x, [48], weight, bias)
    yield from (y, *_gradients(y, x, weight, bias))
    for layout in (torch.contiguous_format, torch.channels_last):
        images = numbers.take(8, 6, 7, 7).contiguous(memory_format=layout).requires_grad_()
        weight, bias = numbers.weight(6), numbers.weight(6)
        y = _aten.batch_norm(images, weight, bias, None, None, True, 0.1, 1e-5, True)
        yield from (y, *_gradients(y, images, weight, bias))


def _attention(numbers: _Numbers) -> Iterator[Tensor]:
    q, k, v = (numbers.weight(2, 2, 12, 16) for _ in range(3))
    y = _aten.matmul(_aten.softmax(_aten.matmul(q, k.transpose(-1, -2)), -1), v)
    yield from (y, *_gradients(y, q, k, v))
    if numbers.device.type == "cpu":
        y = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
        yield from (y, *_gradients(y, q, k, v))


def _optimizer_steps(numbers: _Numbers) -> Iterator[Tensor]:
    """Compute steps of SGD and Adam as torch does: a tensor at a time, for lists of tensors, and fused."""
    shapes = ((40, 25), (37,))

    def some() -> list[Tensor]:
        return [numbers.take(*shape) for shape in shapes]

    weights, gradients, means = some(), some(), some()
    squares = [_aten.mul(tensor, tensor) for tensor in some()]
    for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
        weight.add_(gradient, alpha=-0.1)
        mean.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        weight.addcdiv_(mean, square.sqrt().add_(1e-8), value=-0.01)
        yield weight
    torch._foreach_add_(weights, gradients, alpha=-0.1)
    torch._foreach_lerp_(means, gradients, 0.1)
    torch._foreach_mul_(squares, 0.999)
    torch._foreach_addcmul_(squares, gradients, gradients, 0.001)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, 1e-8)
    torch._foreach_addcdiv_(weights, means, roots, -0.01)
    yield from weights
    steps = [torch.full((), 3.0, dtype=torch.float32, device=numbers.device) for _ in shapes]
    adam: dict[str, Any] = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01, "eps": 1e-8}
    adam |= {"amsgrad": False, "maximize": False}
    torch._fused_adam_(weights, gradients, means, squares, [], steps, **adam)
    yield from weights
    sgd: dict[str, Any] = {"weight_decay": 0.01, "momentum": 0.9, "lr": 0.1, "dampening": 0.0}
    sgd |= {"nesterov": False, "maximize": False, "is_first_step": False}
    torch._fused_sgd_(weights, gradients, means, **sgd)
    yield from weights


def _numpys() -> Iterator[Tensor]:
    """Compute with numpy, which has libraries of its own."""
    x = _mixed(np.arange(4096, dtype=np.int64)) / 2.0**19
    tables: list[np.ndarray[Any, Any]] = [x.astype(dtype).reshape(64, 64) for dtype in (np.float32, np.float64)]
    for table in tables:
        yield from map(_as_tensor, (table @ table, table[0] @ table[1], np.exp(table), np.log(np.abs(table) + 1)))
        yield from map(_as_tensor, (np.tanh(table), table.sum(), table.mean(axis=0), table.std(axis=1)))
        yield _as_tensor(np.linalg.qr(table[:16, :8])[0])


def _as_tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(-1))
