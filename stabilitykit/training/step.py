"""One step of an optimizer in a loop of ours, and its rehearsal, which says in words what would fail in every run."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from ..errors import IsolationError, StabilityError, TaskError
from .data import SeededItems
from .description import described, first_line
from .task import content_digest

#: Puts the gradients of one batch into the model's parameters and returns the loss.
Evaluate: TypeAlias = Callable[[], Tensor]

#: How torch warns of a loss that compares each output with each label of a batch, such as ``[40, 1]`` with ``[40]``.
_BROADCAST = "Using a target size"

_OWN_LOOP = "or write train(run), whose loop is your own"


def step_of(optimizer: Optimizer) -> Callable[[Evaluate], Tensor]:
    """Return what makes a step with the gradients that ``evaluate`` makes, and returns the loss before the step.

    An optimizer that cannot do without a closure, such as LBFGS, gets ``evaluate`` as its closure.
    """
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    needs_closure = closure is not None and closure.default is closure.empty

    def step(evaluate: Evaluate) -> Tensor:
        losses: list[Tensor] = []

        def closure() -> Tensor:
            loss = evaluate()
            losses.append(loss.detach().reshape(()))
            return loss

        if needs_closure:
            optimizer.step(closure)  # type: ignore[arg-type]  # torch says float, and its own take a tensor
        else:
            closure()
            optimizer.step()
        return losses[0]

    return step


@contextlib.contextmanager
def told(expected: str, advice: str) -> Iterator[None]:
    """Turn an exception in code of the user's into a `TaskError`, which quotes it and says what was expected."""
    try:
        yield
    except StabilityError:
        raise
    except Exception as error:
        raise TaskError(f"Expected {expected} but it raised {first_line(error)}. {advice}") from error


def rehearse_step(
    model: nn.Module,
    optimizer: Optimizer,
    batch: tuple[Any, Tensor],
    loss_of: Callable[[Any, Tensor], Tensor],
    *,
    default_loss: bool,
) -> None:
    """Make one step as a training does; raise `TaskError` for each way in which it cannot be made."""
    x, y = batch
    name, rule = type(model).__name__, type(optimizer).__name__
    of = f"a batch of {len(y)} in training mode"

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        with told(f"{name} to take {of}", f"Its inputs are {described(x)}. Mend model= or the data, {_OWN_LOOP}."):
            outputs = model(x)
        if default_loss and not isinstance(outputs, Tensor):
            raise TaskError(
                f"Expected the model to return one tensor in training mode, which the default loss takes, but {name} "
                f"returned {described(outputs)}. Give loss=lambda outputs, labels: ..., which takes what the model "
                f"returns, {_OWN_LOOP}."
            )
        given = f"The model returned {described(outputs)}, the labels are {described(y)}"
        mend = f"{given}. Mend loss=, the model or the labels."
        with told(f"the loss to take the outputs and labels of {of}", mend), warnings.catch_warnings():
            warnings.filterwarnings("error", message=_BROADCAST)
            loss = loss_of(outputs, y)
        _check_loss(loss)
        with told("a loss whose gradients can be computed", f"Mend model= or loss=, {_OWN_LOOP}."):
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature has no types
        _check_gradients(optimizer, name)
        return loss

    with told(f"{rule} to make a step with the gradients of a batch", f"Choose another optimizer=, {_OWN_LOOP}."):
        step_of(optimizer)(evaluate)


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.is_complex():
        raise TaskError(
            f"Expected the loss of a batch to be a tensor of one real number but it is {described(loss)}: only a "
            f"number has a gradient. Return its mean from loss=, as reduction='mean' does."
        )
    if not loss.requires_grad:
        raise TaskError(
            "Expected a loss that depends on the model's weights but it has no gradient: all parameters are frozen "
            "(requires_grad=False), or the loss is computed from detached numbers (.detach(), .item(), argmax). "
            "Mend model= or loss=."
        )


def _check_gradients(optimizer: Optimizer, name: str) -> None:
    if all(parameter.grad is None for group in optimizer.param_groups for parameter in group["params"]):
        raise TaskError(
            f"Expected a gradient in some parameter of the optimizer but none of them has one: it would train nothing. "
            f"Give it parameters of the {name} that it is called with, and that its loss depends on: "
            f"optimizer=lambda model: SGD(model.parameters(), ...)."
        )


def predicted(model: nn.Module, x: Any) -> Tensor:
    """Return what a model predicts for a batch: the tensor that it returns, or the ``logits`` of an output object."""
    outputs = model(x)
    if isinstance(outputs, Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise TaskError(
        f"Expected the model to return one tensor when it predicts (in eval mode), or an object with logits, but "
        f"{type(model).__name__} returned {described(outputs)}: which of its parts should be scored is not known. "
        f"Return the logits alone where self.training is False, or wrap the model in one that does, {_OWN_LOOP}."
    )


def check_items(name: str, data: Dataset[Any]) -> None:
    """Raise `IsolationError` if an item of a Dataset is another one when it is read again under the same seed."""
    items, last = SeededItems(data, 0), len(data) - 1  # type: ignore[arg-type]  # sized, as `check_data` has seen
    places = sorted({0, last // 3, 2 * last // 3, last})
    first = {place: content_digest(items[place]) for place in places}
    for place in reversed(places):  # in another order, as another run reads them
        if content_digest(items[place]) != first[place]:
            raise IsolationError(
                f"Expected item {place} of {name}= to be the same whenever it is read under one seed, but "
                f"{type(data).__name__} returned another one the second time. It has a state that is kept between "
                f"runs: a generator of its own (np.random.RandomState(0), torch.Generator()), of which each loader "
                f"process has a copy, or data that it changes in place. Draw from the global generators, which "
                f"'augment' seeds for each item, and change a copy of the data."
            )
