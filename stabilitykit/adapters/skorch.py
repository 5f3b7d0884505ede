"""skorch's networks as tasks: the net as scikit-learn sees it, unchanged."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ..errors import TaskError
from ..isolation.interception import VERSION
from ..isolation.replacement import Replacement, Replacements
from ..training.outputs import as_labels
from ..training.run import Run
from ..training.task import Task
from .counted_epochs import CountedEpochs
from .libraries import library

#: Callbacks that write files, to the terminal or to another service.
_TAKEN_OFF = frozenset({
    "Checkpoint", "TrainEndCheckpoint", "PrintLog", "ProgressBar", "TensorBoard",
    "MlflowLogger", "NeptuneLogger", "SacredLogger", "WandbLogger",
})  # fmt: skip


class NetTask(Task):
    """A skorch net, the data that it is fitted on, and the data that it is scored on.

    Each run fits a net of its own. What ``initialize_module`` makes draws from ``init``, the order of the data is
    ``shuffle``, what datasets draw is ``augment``, and everything else ``stochastic``.

    ::

        net = NeuralNetClassifier(Module, max_epochs=10, criterion=nn.CrossEntropyLoss, iterator_train__shuffle=True)
        task = NetTask(net, X, y, X_test, y_test)
        stability.check(task, vary="shuffle", budget=Budget(disagreement=5.0))
    """

    intercepts = True

    def __init__(self, net: Any, X: Any, y: Any, X_test: Any, y_test: Any, *, outputs: str | None = None) -> None:
        """Fit ``net`` on ``X`` and ``y``, score it on ``X_test`` and ``y_test``; nothing is fitted yet.

        Args:
            net: A net, of which each run fits a clone, or a function without parameters that returns a new one.
            X: Examples as the net takes them: an array, a tensor, a dataset.
            y: Their classes or targets; None if ``X`` is a dataset that has them.
            X_test: Examples that every run predicts.
            y_test: What is right for them.
            outputs: What predictions are, as beside ``labels=`` of `measure`.
        """
        _skorch()
        self.net, self.X, self.y, self.X_test, self.outputs = net, X, y, X_test, outputs
        self._labels = as_labels(y_test)
        self._kind, self._parameters = type(self._new()), self._new().get_params(deep=False)

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here, a field in Recipe
        """The name of the module's class."""
        module = self._parameters.get("module")
        return str(getattr(module, "__name__", type(module).__name__))

    @property
    def labels(self) -> Tensor:
        """The classes or targets of the test set."""
        return self._labels

    @property
    def remarks(self) -> tuple[str, ...]:  # type: ignore[override]  # read-only here
        """A note where the data has one order, as it has in skorch unless one says otherwise."""
        if self._parameters.get("iterator_train__shuffle"):
            return ()
        return ("iterator_train__shuffle is not set: skorch reads the data in one order, and shuffle moves nothing",)

    def content(self) -> object:
        """Return the net's class and parameters, the data, and the version of skorch."""
        net = self.net if callable(self.net) else [self._kind, self._parameters]
        data = {"X": self.X, "y": self.y, "X_test": self.X_test, "labels": self._labels, "outputs": self.outputs}
        version = str(sys.modules["skorch"].__version__)
        return {"kind": type(self).__name__, "interception": VERSION, "version": version, "net": net, **data}

    def fit(self, run: Run) -> Any:
        skorch = _skorch()
        with _initialized_from_init(run, self._kind):
            net = self._new()
            if isinstance(net.callbacks, list | tuple):
                net.set_params(callbacks=[one for one in net.callbacks if not _is_taken_off(one)])
            net.set_params(verbose=0, device=str(run.device))
            net.initialize()
            net.callbacks_.append(("stabilitykit", _epochs_of(skorch, run)))
            _fit(net, self.X, self.y)
        if isinstance(net, skorch.NeuralNetRegressor):
            return net.predict(self.X_test).reshape(self._labels.shape)
        if isinstance(net, skorch.NeuralNetClassifier | skorch.NeuralNetBinaryClassifier):
            return net.predict_proba(self.X_test)
        return net.forward(self.X_test)

    def _new(self) -> Any:
        from sklearn.base import clone

        net = self.net() if callable(self.net) and not isinstance(self.net, nn.Module) else self.net
        if not isinstance(net, _skorch().NeuralNet):
            raise TaskError(
                f"Expected a net of skorch's, or a function that returns one, but got {type(net).__name__}. An "
                f"estimator of another kind, a pipeline too, is a stabilitykit.adapters.estimators.EstimatorTask."
            )
        return clone(net)


def _skorch() -> Any:
    return library("skorch")


@contextlib.contextmanager
def _initialized_from_init(run: Run, kind: type) -> Iterator[None]:
    """Let all modules that a net makes draw from ``init``, those that a callback asks for in training as well."""

    def from_init(old: Callable[..., Any]) -> Callable[..., Any]:
        def initialize(net: Any, *args: Any, **options: Any) -> Any:
            with run.stream("init"):
                return old(net, *args, **options)

        return initialize

    names = ("initialize_module", "initialize_criterion")
    owners = [(next(one for one in kind.__mro__ if name in vars(one)), name) for name in names]
    replaced = Replacements(Replacement(owner, name, from_init) for owner, name in owners)
    replaced.put()
    try:
        yield
    finally:
        replaced.put_back()


def _fit(net: Any, X: Any, y: Any) -> None:
    """Fit as ``net.partial_fit`` does, but for a user who interrupts: skorch takes that for the end of training."""
    net.notify("on_train_begin", X=X, y=y)
    try:
        net.fit_loop(X, y)
    except KeyboardInterrupt as error:  # by which a callback, such as EarlyStopping, ends training
        if not any(frame.name == "notify" for frame in traceback.extract_tb(error.__traceback__)):
            raise
    net.notify("on_train_end", X=X, y=y)


def _is_taken_off(callback: Any) -> bool:
    """Whether a callback, or one with its name, is taken off; raises `TaskError` for one that reads weights back."""
    callback = callback[1] if isinstance(callback, tuple) else callback
    kinds = callback.__mro__ if isinstance(callback, type) else type(callback).__mro__
    found = {one.__name__ for one in kinds if one.__module__.startswith("skorch.")} & _TAKEN_OFF
    if "Checkpoint" in found and getattr(callback, "load_best", False):
        raise TaskError(
            "Expected a net whose last weights are scored but it has Checkpoint(load_best=True), which reads the best "
            "from a file. Write EarlyStopping(load_best=True), which keeps them in memory."
        )
    return bool(found)


def _epochs_of(skorch: ModuleType, run: Run) -> Any:
    """Return a callback that counts the epochs of one run."""

    class Epochs(skorch.callbacks.Callback):  # type: ignore[misc,name-defined]  # loaded when it is needed
        """The last callback, so that the others have made of the net what is trained."""

        def on_train_begin(self, net: Any, **_: Any) -> None:
            """Begin the first epoch."""
            run.perturb(net.module_)
            self.epochs = CountedEpochs(run, net.max_epochs)

        def on_epoch_end(self, net: Any, **_: Any) -> None:
            """End an epoch, and training where only the first are wanted."""
            if not self.epochs.end():
                raise KeyboardInterrupt

    return Epochs()
