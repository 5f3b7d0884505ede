"""The paper's loop: a model, its data and its settings, trained by us, the fastest path."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from ..errors import TaskError, check_count
from ..estimates.meaning import Meaning
from ..estimates.measures import Measures
from ..estimates.reading import mean_outputs
from ..estimates.scores import TaskKind
from ..isolation.streams import Stream
from ..protocol import NoiseProtocol, Source
from ..public import public
from ..store.fingerprint import CannotFingerprint
from .data import (
    Batch,
    Data,
    DatasetExamples,
    Examples,
    FirstAndLast,
    Layout,
    check_data,
    examples_of,
    fetched,
    split_indices,
)
from .description import described
from .images import ImageViews
from .items import Items
from .outputs import as_labels, check_outputs
from .run import Run, check_onset
from .schedule import CosineCycles, Every, Rates, Schedule, SchedulerFactory, check_schedule
from .step import check_items, predicted, rehearse_step, step_of, told
from .task import Task, TrainingError, content_digest

#: The scores that a curve has after each epoch, or those of them that the task has.
_CURVES = ("accuracy", "subset_accuracy", "f1_micro", "f1_macro", "cross_entropy", "rmse")


@public
@dataclass(frozen=True, eq=False, repr=False)
class Recipe(Task):
    """A model, its data and its settings: the loop is ours, so every source can be isolated.

    >>> x, y = torch.randn(8, 3), torch.tensor([0, 1] * 4)
    >>> recipe = Recipe(
    ...     model=lambda: nn.Linear(3, 2),
    ...     train=(x, y),
    ...     test=(x, y),
    ...     epochs=2,
    ...     batch_size=4,
    ...     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    ... )
    >>> recipe.with_snapshots(cycles=2).schedule
    CosineCycles(cycles=2, warmup_epochs=0)
    """

    model: Callable[[], nn.Module]  #: makes a new model; its parameters come from the stream ``init``
    train: Data  #: inputs and labels, or a map-style Dataset
    test: Data  #: scored after training; its labels decide between classification (integer) and regression (float)
    epochs: int
    batch_size: int
    optimizer: Callable[[nn.Module], Optimizer]  #: makes the optimizer, with any parameter groups
    #: Factor on each group's learning rate, set before every step; or makes a scheduler of torch's for an optimizer.
    schedule: Schedule | SchedulerFactory | None = None
    #: When a scheduler of torch's makes its step: after each "batch" or "epoch". None is known of OneCycleLR, CyclicLR.
    schedule_every: Every | None = None
    loss: Callable[[Any, Tensor], Tensor] | None = None  #: of (output, labels); None chooses by the labels
    augment: Callable[..., Tensor] | None = None  #: random change to each batch of inputs, such as `RandomCropFlip`
    drop_last: bool = False  #: leave out the last batch if it is not full
    dtype: torch.dtype | None = None  #: of the model and its floating-point inputs
    memory_format: torch.memory_format | None = None  #: ``torch.channels_last`` speeds up most convolutional nets
    num_workers: int = 0  #: loader processes for a Dataset; the bits depend on it only if its items do
    curve: bool = False  #: score the test set after every epoch
    keep_weights: bool = False  #: keep each run's final weights in the store, for `Study.cka`
    snapshots: int = 0  #: number of cycles, whose last models are averaged; set by `with_snapshots`
    views: ImageViews | None = None  #: views of each test image, whose outputs are averaged; set by `with_tta`
    eval_batch_size: int = 1000
    name: str = "recipe"  #: in reports
    outputs: str | None = None  #: what the model returns; None tells logits and probabilities apart by their numbers
    _prepared: dict[object, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_makers(self.model, self.optimizer)
        check_counts(epochs=self.epochs, batch_size=self.batch_size, eval_batch_size=self.eval_batch_size)
        check_data("train", self.train)
        check_data("test", self.test)
        check_schedule(self.schedule, self.schedule_every)
        if isinstance(self.schedule, CosineCycles):
            self.schedule.check(self.epochs)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the labels and items that were read: their keys are ids of objects in this process."""
        return vars(self) | {"_prepared": {}}

    def __repr__(self) -> str:
        """Name the model and the settings, without the data: test failures show it."""
        snapshots = f", snapshots={self.snapshots}" if self.snapshots else ""
        views = f", views={len(self.views)}" if self.views else ""
        model = getattr(self.model, "__name__", repr(self.model))
        settings = f"epochs={self.epochs}, batch_size={self.batch_size}{snapshots}{views}"
        return f"Recipe({self.name!r}, model={model}, {settings})"

    def with_snapshots(self, cycles: int = 5, *, warmup_epochs: float | None = None) -> Recipe:
        """Return this recipe as a snapshot ensemble: same epochs, several cycles, the mean logits of their last models.

        The schedule becomes cyclic cosine with the warm-up of this recipe's own (or ``warmup_epochs``) in every cycle.
        Source: Huang et al., 2017; Summers & Dinneen, section 5.
        """
        check_count(TaskError, "cycles", cycles, 2, "One model is no ensemble.")
        own = self.schedule.warmup_epochs if isinstance(self.schedule, CosineCycles) else 0
        schedule = CosineCycles(cycles, own if warmup_epochs is None else warmup_epochs)
        return dataclasses.replace(self, schedule=schedule, schedule_every=None, snapshots=cycles)

    def with_tta(self, *, flip: bool = True, shift: int = 0) -> Recipe:
        """Return this recipe with test-time augmentation: same training, the mean outputs over views of each image.

        The views are all shifts by up to ``shift`` pixels over a border of zeros, (2 shift + 1)² of them, each also
        mirrored if ``flip``. They are the same in every run; scoring takes as many times longer as there are views.
        Source: Summers & Dinneen, ICML 2021, section 5, whose flip-crop81 is ``flip=True, shift=4``.
        """
        return dataclasses.replace(self, views=ImageViews(flip, shift))

    @property
    def labels(self) -> Tensor:
        """The labels of ``test``; a Dataset is read once for them."""
        if isinstance(self.test, tuple):
            return as_labels(self.test[1])
        key = "labels", id(self.test)
        if key not in self._prepared:
            examples = self._examples(self.test, torch.device("cpu"))
            with told("test= to give batches of examples of one shape", "Mend the Dataset, or write train(run)."):
                labels = as_labels(torch.cat([y for _, y in self._in_order(examples)]))
            self._prepared[key] = self.test, labels  # the data too, so that its id stays taken
        kept: Tensor = self._prepared[key][1]
        return kept

    def content(self) -> object:
        """Return every field by name; of a Dataset also its items, and how many processes load them if that counts."""
        items = self._read_items()
        left_out = ["_prepared", "name"]  # neither changes the bits of a run
        left_out += ["outputs"] if self.outputs is None else []  # so that keys are those of before there was one
        if all(read.is_repeatable for read in items.values()):
            left_out.append("num_workers")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        return fields | {"items": {name: read.hashes for name, read in items.items()}}

    def _read_items(self) -> dict[str, Items]:
        """Read the items of the Datasets, and forget labels that were read from other items."""
        datasets = {name: data for name in ("train", "test") if not isinstance(data := getattr(self, name), tuple)}
        items = {name: Items.of(data) for name, data in datasets.items()}
        kept = self._prepared.get(("labels", id(self.test)))
        if kept is not None and not items["test"].fits(kept[1]):
            del self._prepared["labels", id(self.test)]
        for name, read in items.items():
            self._prepared["items", id(datasets[name])] = datasets[name], read
        return items

    @property
    def remarks(self) -> tuple[str, ...]:  # type: ignore[override]  # read-only here
        """What was seen when the items of its Datasets were last read."""
        kept = [self._prepared.get(("items", id(data))) for data in (self.train, self.test)]
        return tuple(dict.fromkeys(remark for one in kept if one is not None for remark in one[1].remarks))

    def identity(self) -> dict[str, object]:
        """Return the data (hashes of the items of a Dataset) and the epochs."""
        train, test = map(_digest_of, (self.train, self.test))
        return {**super().identity(), "train": train, "test": test, "epochs": self.epochs}

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Score one small batch and make one step with a throwaway model, and move the weight of another one."""
        super().check(protocol, device)
        check_onset(protocol.onset, self.epochs)
        run = Run(protocol.plans()[0], device)
        with Stream(run.acting.stochastic, device):
            self._rehearse(run)
            if protocol.perturb is not None:
                run.perturb(self._build(run), gradients=lambda: self._first_gradients(run))

    def _rehearse(self, run: Run) -> None:
        for name, data in (("train", self.train), ("test", self.test)):
            if not isinstance(data, tuple):
                check_items(name, data)
        with told("model() to make a model", "Mend model=."):
            model = self._build(run)
        self._rehearse_scoring(model, run.device)
        with told("optimizer(model) to make an optimizer", "Mend optimizer=."):
            optimizer = new_optimizer(self.optimizer, model)
        with told("schedule= to set the learning rate of a step", "Mend schedule=."):
            rates = self._rates(optimizer)
            rates.check()
        model.train()
        with told("train= to give a batch of one shape", "Mend the Dataset, augment=, or write train(run)."):
            batches = list(self._first_and_last(run))
        if not batches:
            raise TaskError(
                f"Expected a batch to train on but got {len(self._examples(self.train, run.device))} examples, "
                f"batch_size={self.batch_size} and drop_last=True: nothing would be trained. Take a smaller batch."
            )
        loss_of = self._loss
        for batch in batches:
            rehearse_step(model, optimizer, batch, loss_of, default_loss=self.loss is None)
            rates.after_step()

    def _rehearse_scoring(self, model: nn.Module, device: torch.device) -> None:
        examples = self._examples(self.test, device)
        few = [torch.arange(min(2, len(examples)))]
        (x, y) = next(iter(examples.batches(few, item_seed=0)))
        if self.views is not None:
            self.views.check(x, self.labels)
        with torch.no_grad(), told("the model to predict a batch in eval mode", "Mend model= or test=."):
            outputs = predicted(model.eval(), x)
        self._check_loss(check_outputs(outputs, y.cpu(), self.meaning))

    def _check_loss(self, outputs: Tensor) -> None:
        """Raise `TaskError` where the loss takes the outputs or the labels for something else than the scores do."""
        if self.loss is None and self.outputs is None and self.is_classification and self.labels.is_floating_point():
            raise TaskError(
                "Expected to know what labels that are all 0.0 or 1.0 are, since the loss is chosen by them. For a "
                "classification give labels.long(), or outputs='multi_label' for several labels an example, or name a "
                "loss=; for a regression say outputs='values'."
            )
        theirs = self.loss is functional.cross_entropy or isinstance(self.loss, nn.CrossEntropyLoss)
        if theirs and outputs.dim() > 2 and len(set(outputs.shape[1:])) == 1:
            raise TaskError(
                f"Expected one axis of classes, but torch's cross_entropy takes axis 1 of the outputs "
                f"{list(outputs.shape)} for it, and scores take the last one: their sizes are equal, so no shape tells "
                f"which is meant. Return outputs.movedim(1, -1) from the model and move the axis back in the loss, or "
                f"leave loss= out, which does that."
            )

    def fit(self, run: Run) -> Tensor:
        """Train one model and return its test outputs, averaged over the snapshots if there are any."""
        train, test = self._examples(self.train, run.device), self._examples(self.test, run.device)
        model = run.perturb(self._build(run), gradients=lambda: self._first_gradients(run))
        optimizer = new_optimizer(self.optimizer, model)
        rates = self._rates(optimizer)
        outputs: Tensor | None = None
        # What a scheduler of torch's keeps from epoch to epoch is in neither of the two.
        for epoch in run.epochs(self.epochs, state=None if rates.keeps_state else (model, optimizer)):
            self._train_epoch(run, model, optimizer, rates, train, epoch)
            done = epoch + 1
            at_snapshot = bool(self.snapshots) and done % (self.epochs // self.snapshots) == 0
            if at_snapshot:
                _check_rate_is_zero(optimizer, done)
            outputs = self._predict(run, model, test) if self.curve or at_snapshot else None
            if outputs is not None:
                run.curve += [_scores(outputs, self.meaning)] if self.curve else []
                run.snapshots += [outputs] if at_snapshot else []
        if run.snapshots:
            return mean_outputs(run.snapshots, self.meaning)
        return self._predict(run, model, test) if outputs is None else outputs

    def _train_epoch(
        self, run: Run, model: nn.Module, optimizer: Optimizer, rates: Rates, train: Examples, epoch: int
    ) -> None:
        model.train()
        total = torch.zeros((), device=run.device)
        make_step, loss_of = step_of(optimizer), self._loss
        batches = run.batches(train, self.batch_size, augment=self.augment, drop_last=self.drop_last)
        for step, batch in enumerate(batches, start=1):
            rates.before_step(epoch + step / self._steps)
            total += make_step(functools.partial(_evaluate, model, optimizer, loss_of, batch))
            rates.after_step()
        rates.after_epoch()
        if not torch.isfinite(total):
            raise TrainingError(f"the loss became {total.item()} in epoch {epoch} (from 0)")

    @property
    def _loss(self) -> Callable[[Any, Tensor], Tensor]:
        """The loss of an output and its labels; reads all labels, so ask for it once an epoch."""
        return self.loss or default_loss(self.meaning)

    @property
    def _steps(self) -> int:
        """Steps of an epoch."""
        examples = len(self.train[1]) if isinstance(self.train, tuple) else len(self.train)  # type: ignore[arg-type]  # sized, as `check_data` has seen
        return examples // self.batch_size if self.drop_last else -(-examples // self.batch_size)

    def _rates(self, optimizer: Optimizer) -> Rates:
        return Rates(self.schedule, self.schedule_every, optimizer, epochs=self.epochs, steps=self._steps)

    def _first_and_last(self, run: Run) -> Any:
        """Yield the first batch of a new pass, and the last one if it is smaller; no loader process is started."""
        if isinstance(self.train, tuple):
            train = self._examples(self.train, run.device)
        else:
            train = DatasetExamples(self.train, Layout(run.device, self.dtype, self.memory_format))
        return run.batches(FirstAndLast(train), self.batch_size, augment=self.augment, drop_last=self.drop_last)

    def _first_gradients(self, run: Run) -> Mapping[str, Tensor | None]:
        """Return the gradient of each parameter in the first step of this run, by name; nothing of the run changes."""
        own = Run(run.plan, run.device)
        with Stream(own.acting.stochastic, run.device):
            model = self._build(own).train()
            x, y = next(iter(self._first_and_last(own)))
            self._loss(model(x), y).backward()  # type: ignore[no-untyped-call]  # torch's own signature has no types
        return {name: parameter.grad for name, parameter in model.named_parameters(remove_duplicate=False)}

    def _build(self, run: Run) -> nn.Module:
        model = new_model(self.model, run).to(run.device, self.dtype)
        if has_lazy_weights(model):
            x, _ = next(iter(self._first_and_last(Run(run.plan, run.device))))
            make_lazy_weights(model, run, lambda: model(x))
        return model.to(memory_format=self.memory_format) if self.memory_format else model

    def _examples(self, data: Data, device: torch.device) -> Examples:
        return examples_of(data, Layout(device, self.dtype, self.memory_format), self.num_workers)

    def _in_order(self, examples: Examples) -> Any:
        return examples.batches(split_indices(torch.arange(len(examples)), self.eval_batch_size), item_seed=0)

    def _predict(self, run: Run, model: nn.Module, test: Examples) -> Tensor:
        # In a stream of its own, so that scoring more or fewer epochs never changes the training.
        with Stream(0, run.device), torch.no_grad():
            model.eval()
            forward = functools.partial(predicted, model)
            forward = functools.partial(self.views.mean, forward) if self.views else forward
            return fetched((forward(x) for x, _ in self._in_order(test)), run.device)


def _digest_of(data: Data) -> str | None:
    try:
        return content_digest(data if isinstance(data, tuple) else Items.of(data).hashes)
    except CannotFingerprint:
        return None


def check_makers(model: object, optimizer: object) -> None:
    """Raise `TaskError` unless both are functions, which make a new model and optimizer for every run."""
    for name, make in (("model", model), ("optimizer", optimizer)):
        if not callable(make):
            raise TaskError(
                f"Expected {name}= to be a function that makes a new one for every run but got "
                f"{type(make).__name__}. Write {name}=lambda{' model' * (name == 'optimizer')}: ..."
            )
    if isinstance(model, nn.Module):
        raise TaskError(
            f"Expected model= to be a function that makes a new model for every run but got a "
            f"{type(model).__name__}: a second run would go on training the first one's weights. "
            f"Write model=lambda: {type(model).__name__}(...)."
        )


def check_counts(**counts: object) -> None:
    """Raise `TaskError` unless all are integers of 1 or more."""
    for name, value in counts.items():
        check_count(TaskError, name, value, 1)


def new_model(make: Callable[[], nn.Module], run: Run) -> nn.Module:
    """Return a model whose parameters come from the run's stream ``init``."""
    with run.stream(Source.INIT):
        model = make()
    if not isinstance(model, nn.Module):
        raise TaskError(f"Expected model() to return a torch.nn.Module but it returned {type(model).__name__}.")
    if next(model.parameters(), None) is None:
        raise TaskError(f"Expected a model with parameters to train but {type(model).__name__} has none.")
    return model


def new_optimizer(make: Callable[[nn.Module], Optimizer], model: nn.Module) -> Optimizer:
    """Return the model's optimizer."""
    optimizer = make(model)
    if not isinstance(optimizer, Optimizer):
        raise TaskError(
            f"Expected optimizer(model) to return a torch Optimizer but got {described(optimizer)}. A scheduler goes "
            f"to schedule=lambda optimizer: ..."
        )
    return optimizer


def has_lazy_weights(model: nn.Module) -> bool:
    """Whether the model has a parameter that is made in its first forward pass."""
    return any(map(is_lazy, model.parameters()))


def make_lazy_weights(model: nn.Module, run: Run, forward: Callable[[], object]) -> None:
    """Let the first forward pass of a model make its lazy parameters, from the stream ``init`` as all others.

    In eval mode the pass changes no running mean; in training mode it follows what an eval mode leaves out.
    """
    with run.stream(Source.INIT), torch.no_grad():
        for training in (False, True):
            if has_lazy_weights(model):
                model.train(training)
                forward()


def _evaluate(model: nn.Module, optimizer: Optimizer, loss_of: Callable[[Any, Tensor], Tensor], batch: Batch) -> Tensor:
    """Put the gradients of a batch into the model's parameters and return its loss."""
    x, y = batch
    optimizer.zero_grad()
    loss = loss_of(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature has no types
    return loss


def default_loss(meaning: Meaning) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of a recipe that names none, by what its labels ask for and its outputs are stated to be."""
    if meaning.kind is TaskKind.REGRESSION:
        return _squared_error
    if meaning.kind is TaskKind.MULTI_LABEL:
        return functools.partial(_binary_loss, scale=meaning.stated)
    return functools.partial(_class_loss, scale=meaning.stated)


def _binary_loss(outputs: Tensor, labels: Tensor, scale: str | None) -> Tensor:
    outputs, labels = outputs.reshape(labels.shape), labels.to(outputs.dtype)
    if scale == "probabilities":
        return functional.binary_cross_entropy(outputs, labels)
    return functional.binary_cross_entropy_with_logits(outputs, labels)


def _class_loss(logits: Tensor, labels: Tensor, scale: str | None) -> Tensor:
    are_shares = labels.is_floating_point() and labels.dim() > 1 and labels.shape[-1] > 1
    if logits.numel() == labels.numel() and not are_shares:  # one output for each of two classes
        return _binary_loss(logits, labels, scale)
    if scale == "probabilities":
        logits = logits.clamp_min(torch.finfo(logits.dtype).tiny).log()
    # Classes come last here, second in torch, which takes no int32. Floating-point labels are class probabilities.
    labels = labels.movedim(-1, 1) if labels.is_floating_point() else labels.long()
    return functional.cross_entropy(logits.movedim(-1, 1), labels)


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    # [N, 1] against [N] would be broadcast to all pairs.
    return functional.mse_loss(outputs.reshape(targets.shape), targets.to(outputs.dtype))


def _check_rate_is_zero(optimizer: Optimizer, epochs: int) -> None:
    rates = [group["lr"] for group in optimizer.param_groups]
    if max(rates) > 1e-6 * max(group["initial_lr"] for group in optimizer.param_groups):
        raise TrainingError(f"a snapshot is due after {epochs} epochs, but the learning rate is {max(rates):g}, not 0")


def _scores(outputs: Tensor, meaning: Meaning) -> dict[str, float]:
    outputs = check_outputs(outputs, meaning.given, meaning)
    measures = Measures([outputs], meaning.given, stated=meaning.stated)
    return {name: float(measures.of_runs(name)) for name in _CURVES if name in measures}
