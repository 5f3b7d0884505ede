"""An estimator of scikit-learn's kind and the estimators nested in it: by which names, and with which settings."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Names of parameters that hold a seed, in scikit-learn, its kin and code that follows them.
_SEEDS = ("random_state", "random_seed", "seed")

#: The seeds that LightGBM derives from its `random_state`, each of which can be set alone.
_LIGHTGBM_SEEDS = (
    "bagging_seed",
    "data_random_seed",
    "drop_seed",
    "extra_seed",
    "feature_fraction_seed",
    "objective_seed",
)

#: Names of parameters that hold a number of threads or processes.
_THREADS = ("n_jobs", "nthread", "num_threads")

#: Libraries whose `n_jobs` are threads inside one fit, and not processes beside it.
_BOOSTERS = ("lightgbm", "xgboost")


@dataclass(frozen=True, eq=False)
class Part:
    """An estimator, or a splitter of data, and its name as `set_params` of the whole has it: "" for the whole."""

    name: str
    value: Any

    def named(self, parameter: str) -> str:
        """Return the name of one of its parameters in the whole: ``clf__random_state``."""
        return f"{self.name}__{parameter}" if self.name else parameter

    @property
    def parameters(self) -> dict[str, Any]:
        """Its own parameters; of a splitter, which has no `get_params`, its seed alone."""
        if hasattr(self.value, "get_params"):
            return dict(self.value.get_params(deep=False))
        draws = getattr(self.value, "shuffle", True)  # KFold(shuffle=False) draws nothing and must have no seed
        return {"random_state": self.value.random_state} if draws else {}

    @property
    def seeds(self) -> tuple[str, ...]:
        """The names of its parameters that are seeds."""
        if self.is_of("lightgbm"):
            return _LIGHTGBM_SEEDS
        return tuple(name for name, value in self.parameters.items() if name in _SEEDS and _may_be_seed(value))

    def is_of(self, *libraries: str) -> bool:
        """Whether its class, or one that it inherits from, is of one of these libraries."""
        return any(kind.__module__.partition(".")[0] in libraries for kind in type(self.value).__mro__)

    def set(self, **parameters: Any) -> None:
        """Set parameters of it."""
        if hasattr(self.value, "set_params"):
            self.value.set_params(**parameters)
            return
        for name, value in parameters.items():
            setattr(self.value, name, value)

    def settings(self, threads: int) -> dict[str, Any]:
        """Return the parameters that a run sets beside the seeds, each to what it must be there.

        ``n_jobs`` are threads in a booster and, elsewhere, mostly processes, whose generators no run can seed.
        """
        given = self.parameters
        if self.is_of(*_BOOSTERS):
            wanted: dict[str, Any] = {name: threads for name in _THREADS if name in given}
        else:  # None is one job, and 1 is deprecated where it does nothing
            wanted = {name: None for name in _THREADS if given.get(name) not in (None, 1)}
        if given.get("memory") is not None:
            wanted["memory"] = None  # a cache on disk, out of which the next run would take what this one fitted
        if isinstance(given.get("verbose"), numbers.Integral):
            wanted["verbose"] = type(given["verbose"])(0)
        if self.is_of("lightgbm"):
            wanted |= _of_lightgbm(given)
        if self.is_of("xgboost") and "verbosity" in given:
            wanted["verbosity"] = 0
        return wanted


def parts_of(estimator: Any, name: str = "") -> Iterator[Part]:
    """Yield an estimator, and every estimator and splitter of data that its parameters hold, however deep.

    >>> from sklearn.decomposition import PCA
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.pipeline import Pipeline
    >>> pipeline = Pipeline([("pca", PCA()), ("forest", RandomForestClassifier())])
    >>> [part.named(seed) for part in parts_of(pipeline) for seed in part.seeds]
    ['pca__random_state', 'forest__random_state']
    """
    part = Part(name, estimator)
    yield part
    if hasattr(estimator, "get_params"):
        for parameter, value in part.parameters.items():
            for inner, held in _held_in(value, parameter):
                yield from parts_of(held, part.named(inner))


def _held_in(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts that a parameter holds, itself or in lists, tuples and dicts."""
    if isinstance(value, type):
        return
    if hasattr(value, "get_params") or (hasattr(value, "split") and hasattr(value, "random_state")):
        yield name, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if isinstance(item, tuple) and item and isinstance(item[0], str):  # ("pca", PCA()), a step
                yield from _held_in(item[1] if len(item) > 1 else None, item[0])
            else:
                yield from _held_in(item, f"{name}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _held_in(item, f"{name}[{key!r}]")


def _may_be_seed(value: object) -> bool:
    return value is None or isinstance(value, numbers.Integral | np.random.RandomState | np.random.Generator)


def _of_lightgbm(given: dict[str, Any]) -> dict[str, Any]:
    """Return what makes LightGBM repeat its bits, and be silent; what the user says of it stays."""
    wanted: dict[str, Any] = {} if "deterministic" in given else {"deterministic": True}
    if not {"force_row_wise", "force_col_wise"} & given.keys():  # else the faster one is found by a clock
        wanted["force_row_wise"] = True
    return wanted | {name: -1 for name in ("verbose", "verbosity") if name == "verbose" or name in given}
