"""Estimators of scikit-learn and its kin as tasks: pipelines, searches, LightGBM and XGBoost, unchanged."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import PerturbationError, ProtocolError, TaskError
from ..isolation.streams import GeneratorStates
from ..protocol import NoiseProtocol, RunPlan, Source, derive_seed
from ..training.run import Run
from ..training.task import Task, TrainingError, content_digest
from .estimator_parts import parts_of
from .libraries import library
from .tables import content_of, rows_of

#: Methods of a classifier whose results can be scored, the one that tells most first.
_METHODS = ("predict_proba", "decision_function", "predict")

_CPU = torch.device("cpu")

#: Seeds of estimators have 31 bits: LightGBM reads its own as signed integers.
_SEEDS = 2**31


class EstimatorTask(Task):
    """An estimator, the data that it is fitted on, and the data that it is scored on.

    Each run fits a clone of ``estimator`` in which every seed is set: each ``random_state``, however deep it is nested,
    in a pipeline, an ensemble, a search or its splits, and each of LightGBM's seeds. One generator made of a
    ``random_state`` serves initialisation, order and subsampling alike, so all seeds, and numpy's global generator,
    belong to the source ``stochastic``; ``vary="all"`` moves them together. ``sources`` gives steps, or single seeds,
    to a source of their own, which can then be varied alone.

    >>> from sklearn.datasets import make_classification
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> X, y = make_classification(60, random_state=0)
    >>> forest = RandomForestClassifier(5)
    >>> EstimatorTask(forest, X[:40], y[:40], X[40:], y[40:], sources={"random_state": "init"}).seeds
    {'random_state': <Source.INIT: 'init'>}
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        X_test: Any,
        y_test: Any,
        *,
        sources: Mapping[str, str | Source] | None = None,
        response_method: str | None = None,
    ) -> None:
        """Fit ``estimator`` on ``X`` and ``y``, score it on ``X_test`` and ``y_test``; nothing is fitted yet.

        Args:
            estimator: A classifier or regressor, fitted or not; a pipeline, ensemble or search of one.
            X: Examples as the estimator takes them: an array, a sparse matrix, a data frame, texts.
            y: Classes of any kind, or the targets of a regression.
            X_test: Examples that every run predicts.
            y_test: What is right for them.
            sources: The source of each step ("clf") or seed ("clf__random_state") that is not ``stochastic``.
            response_method: The classifier's method that is scored: "predict_proba", "decision_function" or "predict".
                Left out, the first of them that it has, which must name the classes that it predicts.
        """
        self.estimator, self.X, self.y, self.X_test, self.y_test = estimator, X, y, X_test, y_test
        self._config = _sklearn().get_config()
        self._is_classifier = _check_estimator(estimator)
        self._check_rows()
        self._classes: dict[Any, int] = {}  #: index of each class by its name, in the order of numpy.unique
        self._labels = self._class_labels() if self._is_classifier else _targets(y, y_test)
        self._stated_method = response_method
        self._method = self._method_of(response_method)
        self._given = _given_sources(sources)
        self.seeds = self._seeds()  #: the source of every seed, by its name in ``get_params()``
        self.sources = frozenset({Source.STOCHASTIC, *self.seeds.values()})

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here, a field in Recipe
        """The name of the estimator's class."""
        return type(self.estimator).__name__

    @property
    def labels(self) -> Tensor:
        """The index of each test example's class, or its target."""
        return self._labels

    @property
    def outputs(self) -> str:  # type: ignore[override]  # read-only here, a field in LoopTask
        """What is scored: "probabilities", "logits" (a decision function) or "values" (a regression)."""
        if not self._is_classifier:
            return "values"
        return "logits" if self._method == "decision_function" else "probabilities"

    @property
    def remarks(self) -> tuple[str, ...]:  # type: ignore[override]  # read-only here
        """Notes on what each source moves, what is scored and what every run sets."""
        moved = [f"{source.value} moves {self._names_of(source)}" for source in Source if source in self.sources]
        notes = ["; ".join(moved)]
        if self._method == "decision_function":
            notes.append("scored by decision_function(): taken for logits, so its cross-entropy is of no probabilities")
        if self._is_classifier and self._method == "predict":
            notes.append("scored by predict(): a class has probability 0 or 1, and an error infinite cross-entropy")
        if changed := self._changed():
            notes.append(f"set in each run: {changed}")
        return tuple(notes)

    def __repr__(self) -> str:
        """Name the estimator, without its data: test failures show it."""
        return f"EstimatorTask({self.estimator!r}, {len(self._labels)} test examples)"

    def content(self) -> object:
        """Return the estimator as every run has it but for the seeds, the data, and the settings of scikit-learn."""
        return {
            "kind": type(self).__name__,
            "estimator": self._made(dict.fromkeys(self.seeds, 0), 1),
            "seeds": {name: source.value for name, source in self.seeds.items()},
            "data": [content_of(part) for part in (self.X, self.y, self.X_test)],
            "labels": self._labels,
            "method": [self._stated_method, self._method],  # a failed run of the one is none of the other
            "config": self._config,
        }

    def identity(self) -> dict[str, object]:
        train = content_digest([content_of(part) for part in (self.X, self.y)])
        return {**super().identity(), "train": train, "test": content_digest(content_of(self.X_test))}

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` also for what an estimator does not have: another source, an onset, a weight to move."""
        super().check(protocol, device)
        if protocol.perturb is not None:
            raise PerturbationError(
                f"Expected no perturb= for {self.name} but got {protocol.perturb.kind!r}: the numbers that an "
                f"estimator fits are no weights of torch, and fit() leaves no moment to move one."
            )
        if protocol.onset:
            raise ProtocolError(
                f"Expected no onset= for {self.name} but got onset={protocol.onset}: fit() is one call, whose epochs "
                f"are its own."
            )
        absent = protocol.vary - self.sources
        if absent and protocol.vary != frozenset(Source):
            names = " and ".join(source.value for source in Source if source in absent)
            has = "; ".join(f"{s.value} moves {self._names_of(s)}" for s in Source if s in self.sources)
            example = next(iter(self.seeds), "")
            advice = f", or give a seed to the source, sources={{{example!r}: 'init'}}" if example else ""
            raise ProtocolError(
                f"Expected vary= to name sources that move a seed of {self.name} but got {names}: {has}. Write "
                f"vary='all'{advice}."
            )

    def fit(self, run: Run) -> Any:
        from threadpoolctl import threadpool_limits

        threads = torch.get_num_threads()
        model = self._made(_seeds_of(run.plan, self.seeds), threads)
        with _sklearn().config_context(**self._config), threadpool_limits(limits=threads):
            model.fit(self.X, self.y)
            return self._responses(model)

    # What a run fits

    def _made(self, seeds: Mapping[str, int], threads: int) -> Any:
        """Return a clone of the estimator with these seeds, and what else a run sets."""
        from sklearn.base import clone

        made = clone(self.estimator)
        kept = {id(part.value) for part in parts_of(self.estimator)}  # what is frozen is not cloned
        for part in parts_of(made):
            if id(part.value) not in kept:
                part.set(**part.settings(threads), **{name: seeds[part.named(name)] for name in part.seeds})
        return made

    def _seeds(self) -> dict[str, Source]:
        from sklearn.base import clone

        kept = {id(part.value) for part in parts_of(self.estimator)}
        parts = [part for part in parts_of(clone(self.estimator)) if id(part.value) not in kept]
        names = [part.named(seed) for part in parts for seed in part.seeds]
        for given in self._given:
            if not any(_is_in(name, given) for name in names):
                raise TaskError(_unknown(given, names, self.name))
        return {name: self._source_of_seed(name) for name in names}

    def _source_of_seed(self, name: str) -> Source:
        given = [one for one in self._given if _is_in(name, one)]
        return self._given[max(given, key=len)] if given else Source.STOCHASTIC

    def _names_of(self, source: Source) -> str:
        names = [name for name, one in self.seeds.items() if one is source]
        return ", ".join(names + ["numpy's global generator"] * (source is Source.STOCHASTIC))

    def _changed(self) -> str:
        """Say which settings of the user's a run sets otherwise, of those that change bits or how long a fit takes."""
        found = []
        for part in parts_of(self.estimator):
            given = part.parameters
            found += [
                f"{part.named(name)}={value!r}"
                for name, value in part.settings(1).items()
                if not name.startswith("verbos") and given.get(name, "absent") not in (None, value)
            ]
        return ", ".join(found)

    # What is scored

    def _responses(self, model: Any) -> Any:
        if not self._is_classifier:
            predicted = np.asarray(model.predict(self.X_test))
            return predicted.reshape(self._labels.shape) if predicted.size == self._labels.numel() else predicted
        if self._method == "predict":
            return np.eye(len(self._classes))[self._indices(model.predict(self.X_test))]
        generators = GeneratorStates.now(_CPU)
        outputs = self._in_columns(np.asarray(getattr(model, self._method)(self.X_test)), model)
        if self._stated_method is None:
            generators.put_back(_CPU)  # what draws at test time draws the same again
            self._check_agrees(outputs, self._indices(model.predict(self.X_test)))
        return outputs

    def _in_columns(self, scores: np.ndarray[Any, Any], model: Any) -> np.ndarray[Any, Any]:
        """Return scores with a column for each class of ``y``: a class that a fit has not seen is impossible."""
        if scores.ndim == 1:  # the decision function of two classes
            scores = np.stack([np.zeros_like(scores), scores], axis=-1)
        seen = self._indices(getattr(model, "classes_", list(self._classes)))
        if scores.shape[1:] != seen.shape:
            raise TrainingError(
                f"{self._method}() gave the shape {list(scores.shape)}, which is not a column for each of the "
                f"{len(seen)} classes; SVC needs decision_function_shape='ovr'"
            )
        filled = np.full((len(scores), len(self._classes)), -np.inf if self.outputs == "logits" else 0, scores.dtype)
        filled[:, seen] = scores
        return filled

    def _indices(self, classes: Any) -> np.ndarray[Any, Any]:
        names = np.asarray(classes).reshape(-1).tolist()
        if unknown := {name for name in names if name not in self._classes}:
            raise TrainingError(f"the fitted estimator has classes that y does not have: {_some(unknown)}")
        return np.array([self._classes[name] for name in names], dtype=np.int64)

    def _check_agrees(self, outputs: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> None:
        most, own = outputs.max(1), outputs[np.arange(len(outputs)), predicted]
        apart = int((~np.isclose(own, most, rtol=1e-6, atol=0)).sum())
        if apart:
            raise TrainingError(
                f"predict() names another class than the largest column of {self._method}() for {apart} of "
                f"{len(outputs)} test examples, as with a decision threshold: its accuracy would be another one. Say "
                f"EstimatorTask(..., response_method='predict') to score what it predicts, or "
                f"response_method={self._method!r} to score the largest column"
            )

    # What is given

    def _check_rows(self) -> None:
        for examples, labels in (("X", "y"), ("X_test", "y_test")):
            counts = [_rows(name, getattr(self, name)) for name in (examples, labels)]
            if counts[0] != counts[1]:
                raise TaskError(
                    f"Expected as many examples in {examples} as in {labels} but got {counts[0]} and {counts[1]}."
                )
        of_fit, of_test = (getattr(part, "shape", ())[1:] for part in (self.X, self.X_test))
        if of_fit != of_test:
            raise TaskError(
                f"Expected X_test to have the features of X, shape {list(of_fit)} an example, but got {list(of_test)}."
            )

    def _class_labels(self) -> Tensor:
        for name, labels in {"y": self.y, "y_test": self.y_test}.items():
            if np.ndim(labels) != 1:
                raise TaskError(
                    f"Expected one class an example in {name}, shape [N], but got {list(np.shape(labels))}. A column "
                    f"is made flat by {name}.ravel(); several labels an example are measured by train(run)."
                )
        try:
            classes = np.unique(np.asarray(self.y)).tolist()
        except TypeError as error:
            raise TaskError(f"Expected the classes in y to be of one kind, which can be sorted: {error}.") from None
        if len(classes) < 2:
            raise TaskError(f"Expected two classes or more in y but got {_some(classes)}.")
        self._classes = {name: index for index, name in enumerate(classes)}
        wanted = np.asarray(self.y_test).tolist()
        if unseen := {name for name in wanted if name not in self._classes}:
            raise TaskError(
                f"Expected the classes in y_test to be among those in y but got {_some(unseen)}, which no fit has "
                f"seen; y has {_some(classes)}. Split with train_test_split(..., stratify=y)."
            )
        return torch.tensor([self._classes[name] for name in wanted])

    def _method_of(self, stated: str | None) -> str:
        if not self._is_classifier:
            if stated not in (None, "predict"):
                raise TaskError(f"Expected response_method= only for a classifier but got {stated!r} for {self.name}.")
            return "predict"
        has = [method for method in _METHODS if hasattr(self.estimator, method)]
        if stated is not None and stated not in has:
            raise TaskError(
                f"Expected response_method= to be one that {self.name} has, {', '.join(has)}, but got {stated!r}."
            )
        return stated or has[0]


def _sklearn() -> Any:
    return library("sklearn", "scikit-learn", "EstimatorTask clones estimators with it")


def _check_estimator(estimator: Any) -> bool:
    """Whether an estimator is a classifier, and not a regressor; raise `TaskError` for anything else."""
    from sklearn.base import clone, is_classifier, is_regressor

    lacking = [name for name in ("fit", "predict", "get_params", "set_params") if not hasattr(estimator, name)]
    if isinstance(estimator, type) or lacking:
        got = f"the class {estimator.__name__}; call it" if isinstance(estimator, type) else type(estimator).__name__
        without = f", which has no {', '.join(lacking)}()" if not isinstance(estimator, type) else ""
        raise TaskError(
            f"Expected an estimator with fit(), predict(), get_params() and set_params(), as scikit-learn's have, but "
            f"got {got}{without}. An estimator of your own inherits them from sklearn.base.BaseEstimator."
        )
    try:
        clone(estimator)
    except (RuntimeError, TypeError) as error:
        raise TaskError(
            f"Expected an estimator that sklearn.base.clone() can make anew, since each run fits its own, but for "
            f"{type(estimator).__name__} it says: {error}"
        ) from None
    if not is_classifier(estimator) and not is_regressor(estimator):
        raise TaskError(
            f"Expected a classifier or a regressor but {type(estimator).__name__} says to be neither: what it predicts "
            f"cannot be scored. An estimator of your own inherits sklearn.base.ClassifierMixin or RegressorMixin, "
            f"before BaseEstimator."
        )
    return bool(is_classifier(estimator))


def _rows(name: str, table: Any) -> int:
    try:
        return rows_of(table)
    except TypeError:
        raise TaskError(f"Expected {name} to be an array, a table or a list but got {type(table).__name__}.") from None


def _targets(y: Any, y_test: Any) -> Tensor:
    try:
        _, targets = (np.asarray(part, dtype=np.float64) for part in (y, y_test))
    except (TypeError, ValueError) as error:
        raise TaskError(f"Expected numbers as the targets of a regression: {error}.") from None
    return torch.from_numpy(targets.copy())


def _given_sources(sources: Mapping[str, str | Source] | None) -> dict[str, Source]:
    if not isinstance(sources, Mapping | None):
        raise TaskError(f"Expected sources= to map steps to sources, as {{'clf': 'init'}}, but got {sources!r}.")
    return {name: _source_of(name, source) for name, source in (sources or {}).items()}


def _source_of(name: str, source: str | Source) -> Source:
    named = [one.value for one in Source if one is not Source.LOW_LEVEL]
    if source in named or (isinstance(source, Source) and source.value in named):
        return Source(source)
    raise TaskError(f"Expected sources[{name!r}] to be one of {', '.join(named)} but got {source!r}.")


def _is_in(name: str, given: str) -> bool:
    """Whether a seed is the one that a user names, or in the step that the user names."""
    return name == given or name.startswith((f"{given}__", f"{given}["))


def _unknown(given: str, names: list[str], estimator: str) -> str:
    steps = {name.rpartition("__")[0] for name in names} - {""}
    close = difflib.get_close_matches(given, [*names, *steps], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    seeds = f"its seeds are {', '.join(names)}" if names else "it has no seed"
    return f"Expected sources= to name steps or seeds of {estimator} but got {given!r}: {seeds}.{hint}"


def _seeds_of(plan: RunPlan, seeds: Mapping[str, Source]) -> dict[str, int]:
    """Return a seed for each name, from that of its source: two steps of one source draw different numbers."""
    return {name: derive_seed(plan.seed(source) or 0, name) % _SEEDS for name, source in seeds.items()}


def _some(names: Any, most: int = 5) -> str:
    shown = sorted(map(repr, names))
    return ", ".join(shown[:most]) + ", ..." * (len(shown) > most)
