"""What is nested in an estimator: the names of seeds, and the settings of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, RepeatedKFold, ShuffleSplit
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import StandardScaler

from stabilitykit.adapters.estimator_parts import parts_of

LGBMClassifier = pytest.importorskip("lightgbm", reason="needs the extra `frameworks`").LGBMClassifier
XGBClassifier = pytest.importorskip("xgboost", reason="needs the extra `frameworks`").XGBClassifier

PIPELINE = Pipeline([("scale", StandardScaler()), ("pca", PCA()), ("clf", SGDClassifier())])
SEEDS = ["pca__random_state", "clf__random_state"]


class Holder(BaseEstimator):
    def __init__(self, inner: Any = None, seed: Any = "none", random_seed: Any = "none") -> None:
        self.inner, self.seed, self.random_seed = inner, seed, random_seed


def seeds_of(estimator: Any) -> list[str]:
    return [part.named(seed) for part in parts_of(estimator) for seed in part.seeds]


@pytest.mark.parametrize(
    ("estimator", "names"),
    [
        (StandardScaler(), []),
        (SGDClassifier(), ["random_state"]),
        (PIPELINE, SEEDS),
        (Pipeline([("none", "passthrough"), ("clf", SGDClassifier())]), ["clf__random_state"]),
        (FeatureUnion([("a", PCA()), ("b", PCA())]), ["a__random_state", "b__random_state"]),
        (ColumnTransformer([("a", PCA(), [0, 1]), ("b", "drop", [2])]), ["a__random_state"]),
        (
            VotingClassifier([("a", SGDClassifier()), ("b", PIPELINE)]),
            ["a__random_state", *(f"b__{name}" for name in SEEDS)],
        ),
        (
            StackingClassifier([("a", SGDClassifier())], final_estimator=SGDClassifier()),
            ["a__random_state", "final_estimator__random_state"],
        ),
        (BaggingClassifier(SGDClassifier()), ["estimator__random_state", "random_state"]),
        (CalibratedClassifierCV(SGDClassifier(), cv=ShuffleSplit(3)), ["cv__random_state", "estimator__random_state"]),
        (
            GridSearchCV(PIPELINE, {}, cv=KFold(3, shuffle=True)),
            ["cv__random_state", *(f"estimator__{name}" for name in SEEDS)],
        ),
        (GridSearchCV(SGDClassifier(), {}, cv=KFold(3)), ["estimator__random_state"]),
        (
            RandomizedSearchCV(SGDClassifier(), {}, cv=RepeatedKFold()),
            ["cv__random_state", "estimator__random_state", "random_state"],
        ),
        (XGBClassifier(), ["random_state"]),
        (XGBClassifier(seed=3), ["random_state", "seed"]),
        (Holder(seed="what a plant grows from"), []),
        (Holder(seed=np.random.RandomState(0)), ["seed"]),
        (Holder(random_seed=1), ["random_seed"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else "",
)
def test_every_nested_seed_has_the_name_that_set_params_takes(estimator: Any, names: list[str]) -> None:
    found = seeds_of(estimator)
    assert sorted(found) == sorted(names)
    of_splits = {name for name in names if name.startswith("cv__")}  # a splitter has no get_params
    assert {*found} - of_splits <= estimator.get_params().keys()


def test_what_set_params_cannot_name_is_found_in_lists_and_dicts() -> None:
    grid = [{"clf": [SGDClassifier(), RandomForestClassifier()]}]
    found = [name for name in seeds_of(GridSearchCV(PIPELINE, grid)) if name.startswith("param_grid")]
    assert found == [f"param_grid[0]['clf'][{index}]__random_state" for index in (0, 1)]
    assert seeds_of(Holder([PCA(), SGDClassifier])) == ["inner[0]__random_state"], "a class is no estimator"


def test_lightgbm_has_a_seed_for_each_kind_of_draw() -> None:
    class Own(LGBMClassifier):
        pass

    names = ["bagging_seed", "data_random_seed", "drop_seed", "extra_seed", "feature_fraction_seed", "objective_seed"]
    assert seeds_of(LGBMClassifier(random_state=1)) == seeds_of(Own()) == names


def settings(estimator: Any, threads: int = 2) -> dict[str, Any]:
    return {part.named(name): value for part in parts_of(estimator) for name, value in part.settings(threads).items()}


def test_a_run_sets_threads_caches_and_talk() -> None:
    pipeline = Pipeline([("clf", RandomForestClassifier(n_jobs=-1, verbose=2))], memory="folder", verbose=True)
    assert settings(pipeline) == {"memory": None, "verbose": False, "clf__n_jobs": None, "clf__verbose": 0}
    assert settings(Pipeline([("clf", PCA())])) == {"verbose": False}
    assert settings(XGBClassifier(nthread=8, verbosity=2)) == {"n_jobs": 2, "nthread": 2, "verbosity": 0}


def test_lightgbm_repeats_its_bits_and_is_silent() -> None:
    usual = {"n_jobs": 2, "deterministic": True, "force_row_wise": True, "verbose": -1}
    assert settings(LGBMClassifier()) == usual
    assert settings(LGBMClassifier(verbosity=1, verbose=2)) == usual | {"verbosity": -1}
    stated = settings(LGBMClassifier(deterministic=False, force_col_wise=True))
    assert stated == {"n_jobs": 2, "verbose": -1}, "what the user says of it stays"
