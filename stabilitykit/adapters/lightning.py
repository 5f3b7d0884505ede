"""Lightning modules as tasks, with their data and their Trainer, unchanged."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import math
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from ..errors import MissingModuleError, TaskError
from ..isolation.interception import VERSION
from ..isolation.streams import Stream
from ..protocol import NoiseProtocol
from ..training.outputs import as_labels
from ..training.run import Run
from ..training.task import Task
from .counted_epochs import CountedEpochs
from .held_data import held, held_methods
from .silence import silenced

#: The two packages that Lightning is published as; classes of the one are none of the other's.
_PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}

#: What a run's Trainer has, unless the user says otherwise: nothing printed.
_QUIET = {"enable_progress_bar": False, "enable_model_summary": False}

#: Strategies that train in the process that calls them.
_ONE_PROCESS = ("auto", "single_device")

#: Callbacks that write files, or to the terminal.
_TAKEN_OFF = ("Checkpoint", "ProgressBar", "ModelSummary", "BasePredictionWriter")


class LightningTask(Task):
    """A `LightningModule`, the data that it is trained on, and its `Trainer`.

    Each run makes a module and a Trainer of its own. The module's constructor draws from ``init``, the order of its
    data is ``shuffle``, what datasets draw is ``augment``, and everything else ``stochastic``. Data that is made inside
    the run, by ``data`` or by the hooks ``prepare_data`` and ``setup`` of a data module, is the same in every run.

    ::

        task = LightningTask(
            module=lambda: Classifier(width=64),
            data=Digits,  # a LightningDataModule
            trainer={"max_epochs": 5},
            test=DataLoader(test_set, batch_size=256),
        )
        stability.check(task, vary="init", budget=Budget(disagreement=5.0))
    """

    intercepts = True

    def __init__(
        self,
        module: Callable[[], Any],
        data: Any,
        trainer: Mapping[str, Any] | Callable[[], Any],
        *,
        test: Any,
        labels: Any = None,
        outputs: str | None = None,
    ) -> None:
        """Train what ``module()`` returns; nothing is made yet.

        Args:
            module: Returns a new LightningModule: its class, or a function without parameters.
            data: A loader, a pair of loaders (train, validation), a LightningDataModule, or what returns one of them.
            trainer: The arguments of a Trainer, or a function that returns a new one.
            test: A loader whose examples every run predicts, in one order. ``trainer.predict`` passes each batch to the
                module's ``predict_step``; to its ``forward`` if it has none, which then gets the first of the batch.
            labels: What is right for them; left out, the second of each batch of ``test``.
            outputs: What predictions are, as beside ``labels=`` of `measure`.
        """
        self.module, self.data, self.trainer, self.test = module, data, trainer, test
        self.outputs = outputs
        self._given_labels = labels
        _check_given(self)

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here, a field in Recipe
        """The name of the module's class, or of the function that makes it."""
        inner = getattr(self.module, "func", self.module)
        return str(getattr(inner, "__name__", type(inner).__name__))

    @functools.cached_property
    def labels(self) -> Tensor:
        """The labels that were given, or those of the test loader."""
        return as_labels(_labels_of(self.test) if self._given_labels is None else self._given_labels)

    def content(self) -> object:
        """Return all that is given, and the version of Lightning."""
        parts = ("module", "data", "trainer", "test", "labels", "outputs")
        versions = {name: str(sys.modules[name].__version__) for name in _PACKAGES if name in sys.modules}
        return {"kind": type(self).__name__, "interception": VERSION, "versions": versions} | {
            name: getattr(self, name) for name in parts
        }

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` also where Lightning is not installed."""
        _package_of(None)
        super().check(protocol, device)

    def fit(self, run: Run) -> Any:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            stack.enter_context(_quiet())
            with run.stream("init"):
                module = self.module()
                pl = _package_of(module)
                module.configure_model()  # which Lightning calls again, and which then has nothing left to do
            run.perturb(module)
            data = self._data(run, pl, stack)
            trainer = self._trainer(pl, run, folder)
            trainer.callbacks.append(_epochs_of(pl, run))
            with _interruptible():
                trainer.fit(module, **data)
            return self._predicted(module, trainer, pl)

    def _data(self, run: Run, pl: ModuleType, stack: contextlib.ExitStack) -> dict[str, Any]:
        """Return the data as arguments of ``trainer.fit``."""
        data = self.data
        if callable(data):
            with held(run):
                data = data()
        if isinstance(data, pl.LightningDataModule):
            stack.enter_context(held_methods(data, ("prepare_data", "setup"), run))
            return {"datamodule": data}
        loaders = data if isinstance(data, tuple) else (data,)
        if len(loaders) > 2:
            raise TaskError(f"Expected data= to be one loader or a pair (train, validation) but got {len(loaders)}.")
        if other := [loader for loader in loaders if not isinstance(loader, list) and not hasattr(loader, "__iter__")]:
            raise TaskError(
                f"Expected data= to be loaders or a LightningDataModule of {pl.__name__} but got "
                f"{type(other[0]).__module__}.{type(other[0]).__qualname__}."
            )
        return dict(zip(("train_dataloaders", "val_dataloaders"), loaders, strict=False))

    def _trainer(self, pl: ModuleType, run: Run, folder: str) -> Any:
        """Return a Trainer for one run: on its device, in this process, and without files."""
        if isinstance(self.trainer, Mapping):
            trainer = _trainer_of(self.trainer, pl, run.device, folder)
        else:
            trainer = self.trainer()
            if not isinstance(trainer, pl.Trainer):
                raise TaskError(
                    f"Expected trainer= to return a {pl.__name__}.Trainer but got {type(trainer).__module__}."
                    f"{type(trainer).__qualname__}: it must be of the package that the module is of."
                )
        _check_trainer(trainer, pl, run.device)
        trainer.callbacks = [callback for callback in trainer.callbacks if not _is_one(callback, pl, _TAKEN_OFF)]
        trainer.loggers = [importlib.import_module(f"{pl.__name__}.loggers.logger").DummyLogger()]  # keeps nothing
        return trainer

    def _predicted(self, module: Any, trainer: Any, pl: ModuleType) -> Tensor:
        if type(module).predict_step is pl.LightningModule.predict_step:
            module.predict_step = lambda batch, *_: module(batch[0] if isinstance(batch, list | tuple) else batch)
        batches = trainer.predict(module, self.test)
        if not batches or not all(isinstance(batch, Tensor) for batch in batches):
            got = type(batches[0]).__name__ if batches else "nothing"
            raise TaskError(
                f"Expected {type(module).__name__} to predict a tensor for each batch of test= but got {got}: give it "
                f"a predict_step(batch, batch_idx) that returns the outputs alone."
            )
        return torch.cat(batches)


# What is given


def _check_given(task: LightningTask) -> None:
    if not callable(task.module) or isinstance(task.module, nn.Module):
        raise TaskError(
            f"Expected module= to be a LightningModule's class or a function that returns a new one but got "
            f"{type(task.module).__name__}: each run makes its own. Write module=lambda: Net(...)."
        )
    if not callable(task.trainer) and not isinstance(task.trainer, Mapping):
        raise TaskError(
            f"Expected trainer= to be a dict of the Trainer's arguments, or a function that returns a new Trainer, but "
            f"got {type(task.trainer).__name__}: each run needs a Trainer that has trained nothing. Write "
            f"trainer={{'max_epochs': 5}}."
        )
    if isinstance(task.trainer, Mapping):
        _check_strategy(task.trainer.get("strategy", "auto"))
    if not hasattr(task.test, "__iter__"):
        raise TaskError(
            f"Expected test= to be a loader but got {type(task.test).__name__}. Write test=DataLoader(test_set, "
            f"batch_size=256)."
        )
    sampler = getattr(task.test, "sampler", None)
    if isinstance(sampler, RandomSampler | SubsetRandomSampler | WeightedRandomSampler):
        raise TaskError(
            f"Expected test= in one order, to compare the runs example by example, but it draws it "
            f"({type(sampler).__name__}). Leave out shuffle=True."
        )
    if getattr(task.test, "drop_last", False):
        raise TaskError("Expected test= with all its examples but it has drop_last=True. Leave that out.")


def _labels_of(loader: DataLoader[Any]) -> Tensor:
    with Stream(0):  # a loader draws a seed where it begins
        batches = list(loader)
    if not batches or not all(isinstance(batch, list | tuple) and len(batch) == 2 for batch in batches):
        got = type(batches[0]).__name__ if batches else "no batch"
        raise TaskError(f"Expected batches (inputs, labels) in test= but got {got}: give the labels by labels=.")
    return torch.cat([torch.as_tensor(labels) for _, labels in batches])


def _package_of(module: Any) -> ModuleType:
    """Return the package whose LightningModule ``module`` is; without one, a package that is installed."""
    if module is not None:
        for name in _PACKAGES.values():
            kind = getattr(sys.modules.get(name), "LightningModule", None)
            if kind is not None and isinstance(module, kind):
                return sys.modules[name]
        raise TaskError(
            f"Expected module= to return a LightningModule but got {type(module).__name__}. A plain torch module is "
            f"trained by a Recipe, or by train(run)."
        )
    for name in sorted(_PACKAGES.values(), key=lambda name: sys.modules.get(name) is None):  # rather one that is loaded
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise MissingModuleError(
        "Expected Lightning to be installed but there is neither 'lightning' nor 'pytorch_lightning'. Install it with "
        "the extra `lightning`: pip install 'stabilitykit[lightning]'"
    )


# The Trainer


def _trainer_of(given: Mapping[str, Any], pl: ModuleType, device: torch.device, folder: str) -> Any:
    own = copy.deepcopy(dict(given))  # a callback keeps what it has seen: each run has its own
    callbacks = own.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    own["callbacks"] = [callback for callback in callbacks if not _is_one(callback, pl, _TAKEN_OFF)]
    on = {"accelerator": "cpu", "devices": 1}
    if device.type == "cuda":
        on = {"accelerator": "gpu", "devices": [device.index or 0]}
    own |= {"logger": False, "enable_checkpointing": False, "default_root_dir": folder}
    try:
        return pl.Trainer(**{**_QUIET, **on, **own})
    except (TypeError, ValueError, _misconfiguration(pl)) as error:
        raise TaskError(f"Expected trainer= to hold arguments of {pl.__name__}.Trainer, which says: {error}") from None


def _misconfiguration(pl: ModuleType) -> type[Exception]:
    found: type[Exception] = importlib.import_module(f"{pl.__name__}.utilities.exceptions").MisconfigurationException
    return found


def _check_strategy(strategy: Any) -> None:
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    if name not in (*_ONE_PROCESS, "SingleDeviceStrategy"):
        raise TaskError(
            f"Expected a Trainer on one device but got strategy={name!r}: it would start this program, pytest, once "
            f"more for each device. Leave out strategy= and devices=: a run trains on one device, and other runs on "
            f"the others (pytest -n 2)."
        )


def _check_trainer(trainer: Any, pl: ModuleType, device: torch.device) -> None:
    _check_strategy(trainer.strategy)
    if trainer.world_size > 1:
        _check_strategy(f"{trainer.world_size} devices")
    if trainer.strategy.root_device.type != device.type:
        raise TaskError(
            f"Expected a Trainer on {device} but got one on {trainer.strategy.root_device}. Leave out accelerator= in "
            f"trainer={{...}}, which is then that of the run, or choose the device of the study."
        )
    if timers := [callback for callback in trainer.callbacks if _is_one(callback, pl, ("Timer",))]:
        raise TaskError(
            f"Expected a Trainer that ends after epochs or steps but got max_time or a {type(timers[0]).__name__}: how "
            f"much a run learns would depend on how busy the machine is. Say max_epochs= or max_steps=."
        )
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise TaskError("Expected a Trainer that ends but got max_epochs=-1. Say max_epochs= or max_steps=.")


def _is_one(callback: Any, pl: ModuleType, names: tuple[str, ...]) -> bool:
    return isinstance(callback, tuple(getattr(pl.callbacks, name) for name in names))


def _epochs_of(pl: ModuleType, run: Run) -> Any:
    """Return a callback that counts the epochs of one run."""

    class Epochs(pl.Callback):  # type: ignore[misc,name-defined]  # a class of one package or the other
        """Begins with training, since only then it is known how many batches an epoch has."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """Begin the first epoch."""
            self.epochs = CountedEpochs(run, _count(trainer))

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """End an epoch, and training where only the first are wanted."""
            if not self.epochs.end():
                trainer.should_stop = True
                trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = 0, 0

    return Epochs()


def _count(trainer: Any) -> int:
    if trainer.max_steps == -1:
        return int(trainer.max_epochs)
    batches = trainer.num_training_batches
    steps = 1 if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)
    epochs: int = max(1, math.ceil(trainer.max_steps / steps))
    return epochs if trainer.max_epochs == -1 else min(epochs, trainer.max_epochs)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let a user interrupt: Lightning makes an exit of that, a failed run, and then ignores any other."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    packages = ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
    hints = [getattr(sys.modules.get(f"{name}.utilities.warnings"), "PossibleUserWarning", None) for name in packages]
    with silenced(*packages, categories=tuple(hint for hint in hints if hint is not None)):
        yield
