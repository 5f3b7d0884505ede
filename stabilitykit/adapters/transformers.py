"""Hugging Face's Trainer as a task: the function that makes one, unchanged."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import tempfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TaskError
from ..estimates.metrics import IGNORED_LABEL
from ..isolation.interception import VERSION
from ..isolation.replacement import Replacement, Replacements
from ..protocol import NoiseProtocol
from ..training.outputs import as_labels
from ..training.run import Run
from ..training.task import Task
from .counted_epochs import CountedEpochs
from .libraries import library
from .silence import silenced

#: The names under which an example has its label, as the collator of transformers knows them.
_LABELS = ("labels", "label", "label_ids")

#: Packages whose versions are part of the key of a run.
_PACKAGES = ("transformers", "accelerate", "peft", "trl", "tokenizers")

#: More epochs than anybody means: what transformers says of data whose length is not known.
_UNKNOWN = 1_000_000


class TrainerTask(Task):
    """What makes a `transformers.Trainer`, and the examples that each run predicts.

    Each run calls ``make`` for a Trainer of its own, whose model draws from ``init``: its head, a LoRA adapter, or all
    of it, by ``model=`` or ``model_init=``. The order of its data is ``shuffle``, what datasets and collators draw is
    ``augment``, and everything else ``stochastic``, whatever ``seed`` and ``data_seed`` its arguments have.

    ::

        def make():
            model = AutoModelForSequenceClassification.from_pretrained("bert-base-uncased")
            return Trainer(model, TrainingArguments(num_train_epochs=3), train_dataset=train_set)


        stability.check(TrainerTask(make, test=test_set), vary="init", budget=Budget(disagreement=5.0))

    Data is best made outside of ``make``: a split that ``make`` draws itself is a draw of ``init``.
    """

    intercepts = True

    def __init__(
        self,
        make: Callable[..., Any],
        test: Any,
        *,
        labels: Any = None,
        outputs: str | None = None,
        keep_weights: bool = False,
    ) -> None:
        """Train what ``make()`` or ``make(run)`` returns; nothing is made yet.

        Args:
            make: Returns a new Trainer, or one of a class that inherits from it.
            test: A dataset that every run predicts by ``trainer.predict``. Of several predictions the first is scored;
                ``Trainer(preprocess_logits_for_metrics=...)`` chooses another.
            labels: What is right for them; left out, the labels of the examples in ``test``.
            outputs: What predictions are, as beside ``labels=`` of `measure`.
            keep_weights: Keep each run's final weights in the store: of a PEFT model those of its adapter alone.
        """
        self.make, self.test, self.outputs, self.keep_weights = make, test, outputs, keep_weights
        self._given_labels = labels
        self._takes_run = _takes_run(make)
        if not hasattr(test, "__len__") or not hasattr(test, "__getitem__"):
            raise TaskError(
                f"Expected test= to be a dataset whose examples have an order but got {type(test).__name__}."
            )

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here, a field in Recipe
        """The name of the function that makes the Trainer."""
        inner = getattr(self.make, "func", self.make)
        return str(getattr(inner, "__name__", type(inner).__name__))

    @functools.cached_property
    def labels(self) -> Tensor:
        """The labels that were given, or those of the test set."""
        return as_labels(_labels_of(self.test) if self._given_labels is None else self._given_labels)

    def content(self) -> object:
        """Return all that is given, and the versions of the packages that train."""
        versions = {name: str(sys.modules[name].__version__) for name in _PACKAGES if name in sys.modules}
        parts = ("make", "test", "labels", "outputs")
        return {"kind": type(self).__name__, "interception": VERSION, "versions": versions} | {
            name: getattr(self, name) for name in parts
        }

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` also where transformers is not installed."""
        _transformers()
        super().check(protocol, device)

    def weights_of(self, model: nn.Module) -> dict[str, Any]:
        if hasattr(model, "peft_config"):
            from peft import get_peft_model_state_dict

            return dict(get_peft_model_state_dict(model))
        return super().weights_of(model)

    def fit(self, run: Run) -> Any:
        hf = _transformers()
        with tempfile.TemporaryDirectory() as folder, silenced(*_PACKAGES):
            with run.stream("init"):
                trainer = self._made(hf, run, folder)
            _check_place(trainer.args, run.device)
            trainer.model_init = None  # what it made is trained, not another one from the stream of dropout
            run.perturb(trainer.model)
            trainer.add_callback(_epochs_of(hf, run))
            trainer.train()
            return self._predicted(trainer)

    def _made(self, hf: ModuleType, run: Run, folder: str) -> Any:
        made: list[Any] = []
        replaced = Replacements([Replacement(hf.Trainer, "__init__", _without_files(made, run.device, folder))])
        replaced.put()
        try:
            trainer = self.make(run) if self._takes_run else self.make()
        finally:
            replaced.put_back()
        if not isinstance(trainer, hf.Trainer):
            raise TaskError(f"Expected make= to return a transformers.Trainer but got {type(trainer).__name__}.")
        if not any(trainer is one for one in made):
            raise TaskError(
                "Expected make= to return a new Trainer but it was made before: its model has its weights already, and "
                "would go on from run to run. Make the model and the Trainer inside the function."
            )
        for callback in [*trainer.callback_handler.callbacks]:
            if _reports(callback):
                trainer.remove_callback(callback)
        return trainer

    def _predicted(self, trainer: Any) -> Any:
        found = trainer.predict(self.test)
        predicted = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
        labels = self.labels.numpy()
        if self._given_labels is None and isinstance(found.label_ids, np.ndarray):
            same_shape = found.label_ids.size == labels.size
            if not same_shape or not (found.label_ids.reshape(labels.shape) == labels).all():
                raise TaskError(
                    "Expected trainer.predict to go through test= in its order, but the labels that it met are others. "
                    "Leave out what reorders or maps examples, or give labels= in the order of the predictions."
                )
        is_column = predicted.shape == (*labels.shape, 1) and self.labels.is_floating_point()
        return predicted[..., 0] if is_column else predicted  # a regression with one target


# What is given


def _takes_run(make: object) -> bool:
    """Whether ``make`` takes a run; raises `TaskError` for what is no function of a run or of nothing."""
    if not callable(make) or isinstance(make, nn.Module):
        raise TaskError(
            f"Expected make= to be a function that returns a new Trainer but got {type(make).__name__}: each run "
            f"trains one of its own. Write TrainerTask(lambda: Trainer(model=..., args=...), test=...)."
        )
    of_any_name = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = (p for p in inspect.signature(make).parameters.values() if p.default is p.empty)
    parameters = [parameter.name for parameter in needed if parameter.kind not in of_any_name]
    if parameters not in ([], ["run"]):
        raise TaskError(
            f"Expected make= to take nothing, or one parameter 'run', but it takes ({', '.join(parameters)}). Bind the "
            f"others with functools.partial(..., name=value) or defaults."
        )
    return bool(parameters)


def _labels_of(test: Any) -> Any:
    examples = [test[index] for index in range(len(test))]
    name = next((name for name in _LABELS if examples and name in examples[0]), None)
    if name is None:
        raise TaskError(
            f"Expected the examples in test= to have their label under one of {', '.join(_LABELS)} but there is none. "
            f"Give the labels by labels=."
        )
    labels = [torch.as_tensor(example[name]) for example in examples]
    if labels[0].dim():  # one a token; what a batch is padded with has no label
        return nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL)
    return torch.stack(labels)


def _transformers() -> Any:
    return library("transformers")


# The Trainer


def _without_files(made: list[Any], device: torch.device, folder: str) -> Callable[[Any], Any]:
    """Return what makes of ``Trainer.__init__`` one that keeps and prints nothing, and notes the Trainer in ``made``.

    The arguments are copied: they may be the user's, made once for all runs.
    """

    def make(old: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(old)
        def __init__(trainer: Any, *given: Any, **options: Any) -> None:  # noqa: N807  # named as what it replaces
            bound = inspect.signature(old).bind(trainer, *given, **options)
            args = bound.arguments.get("args")
            args = _transformers().TrainingArguments(folder) if args is None else copy.copy(args)
            if args.push_to_hub:
                raise TaskError("Expected TrainingArguments(push_to_hub=False) but a run would publish what it trains.")
            if not args.load_best_model_at_end:  # else its checkpoints go to the folder, which does not stay
                args.save_strategy = _transformers().trainer_utils.SaveStrategy.NO
            args.output_dir, args.report_to, args.disable_tqdm = folder, [], True
            args.dataloader_pin_memory &= device.type == "cuda"  # elsewhere it only warns
            args._n_gpu = min(1, args.n_gpu)  # more would train one model on several
            bound.arguments["args"] = args
            old(*bound.args, **bound.kwargs)
            made.append(trainer)

        return __init__

    return make


def _reports(callback: Any) -> bool:
    """Whether a callback writes to the terminal or to another service."""
    printing = ("PrinterCallback", "ProgressCallback", "NotebookProgressCallback")
    kinds = type(callback).__mro__
    return any(kind.__name__ in printing or kind.__module__.startswith("transformers.integrations") for kind in kinds)


def _check_place(args: Any, device: torch.device) -> None:
    if args.world_size > 1 or args.deepspeed or args.fsdp:
        raise TaskError(
            "Expected a Trainer on one device in one process but got a distributed one (deepspeed, fsdp, or several "
            "processes). Leave that out: a run trains on one device, and other runs on the others (pytest -n 2)."
        )
    if args.device.type != device.type:
        way = "TrainingArguments(use_cpu=True)" if device.type == "cpu" else "leave out use_cpu=True"
        raise TaskError(
            f"Expected a Trainer on {device} but got one on {args.device}. Choose the device of the study, or {way}."
        )
    if device.type == "cuda" and (args.device.index or 0) != (device.index or 0):
        raise TaskError(
            f"Expected a Trainer on {device} but transformers trains on {args.device}, the first GPU that it sees. "
            f"Give each process one GPU by CUDA_VISIBLE_DEVICES."
        )


def _epochs_of(hf: ModuleType, run: Run) -> Any:
    """Return a callback that counts the epochs of one run."""

    class Epochs(hf.TrainerCallback):  # type: ignore[misc,name-defined]  # loaded when it is needed
        """Ends training where only the first epochs are wanted."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Begin the first epoch."""
            known = state.num_train_epochs < _UNKNOWN
            self.epochs = CountedEpochs(run, int(state.num_train_epochs) if known else 1)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """End an epoch, and begin the next."""
            if not self.epochs.end():
                control.should_training_stop = True

    return Epochs()
