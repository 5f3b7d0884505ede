"""Estimators as tasks: which seed each source moves, what is scored, and what is refused before anything is fitted."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from stabilitykit.adapters.estimators import EstimatorTask
from stabilitykit.errors import (
    IsolationError,
    PerturbationError,
    ProtocolError,
    RunsFailedError,
    TaskError,
    UsageError,
)
from stabilitykit.execution.session import check, measure
from stabilitykit.protocol import NoiseProtocol, RunPlan, Source, derive_seed
from stabilitykit.store.fingerprint import fingerprint
from stabilitykit.training.run import Run
from stabilitykit.verdicts.budgets import Budget
from tests.seeds import BASE_SEED

pd = pytest.importorskip("pandas", reason="needs the extra `frameworks`")
lightgbm = pytest.importorskip("lightgbm", reason="needs the extra `frameworks`")
xgboost = pytest.importorskip("xgboost", reason="needs the extra `frameworks`")
LGBMClassifier, LGBMRegressor = lightgbm.LGBMClassifier, lightgbm.LGBMRegressor
XGBClassifier, XGBRegressor = xgboost.XGBClassifier, xgboost.XGBRegressor

CPU = torch.device("cpu")
DRAWS = np.random.RandomState(0)
Y = np.arange(90) % 3
X = DRAWS.normal(size=(90, 6)) + np.eye(6)[Y] * 1.5
X_TRAIN, X_TEST, Y_TRAIN, Y_TEST = X[:60], X[60:], Y[:60], Y[60:]


def task_of(estimator: Any, sources: Mapping[str, str | Source] | None = None, **options: Any) -> EstimatorTask:
    return EstimatorTask(estimator, X_TRAIN, Y_TRAIN, X_TEST, Y_TEST, sources=sources, **options)


def plan(**seeds: int) -> RunPlan:
    constants = {"init": 1, "shuffle": 1, "augment": 1, "stochastic": 1}
    return RunPlan(0, **(constants | seeds), low_level=None)


def outputs(task: EstimatorTask, which: RunPlan) -> np.ndarray[Any, Any]:
    return np.asarray(task.fit(Run(which, CPU)))


def pipeline() -> Pipeline:
    reduce = PCA(3, svd_solver="randomized", iterated_power=0, n_oversamples=1)
    return Pipeline([("fill", SimpleImputer()), ("reduce", reduce), ("clf", SGDClassifier(loss="log_loss"))])


def resampled() -> LGBMClassifier:
    return LGBMClassifier(n_estimators=3, min_child_samples=5, subsample=0.5, subsample_freq=1, colsample_bytree=0.5)


#: Estimators, and the source of each step or seed: what it moves.
CASES: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "forest": (lambda: RandomForestClassifier(5), {"random_state": "init"}),
    "network": (lambda: MLPClassifier(4, max_iter=3, early_stopping=True), {"random_state": "shuffle"}),
    "pipeline": (pipeline, {"reduce": "augment", "clf": "shuffle"}),
    "histograms": (lambda: HistGradientBoostingClassifier(max_iter=3, max_features=0.5), {"random_state": "init"}),
    "lightgbm": (resampled, {"bagging_seed": "shuffle", "feature_fraction_seed": "init"}),
    "xgboost": (lambda: XGBClassifier(n_estimators=3, subsample=0.5), {"random_state": "shuffle"}),
    "splits": (
        lambda: GridSearchCV(
            SGDClassifier(loss="log_loss", max_iter=3), {"alpha": [1e-4, 1e-2]}, cv=KFold(2, shuffle=True)
        ),
        {"estimator": "init"},
    ),
}
quiet = pytest.mark.filterwarnings("ignore:Stochastic Optimizer.*|Maximum number of iteration.*")
each_case = pytest.mark.parametrize(("make", "sources"), CASES.values(), ids=CASES)


class TestSources:
    @quiet
    @each_case
    def test_a_run_has_the_bits_of_the_same_fit_by_hand(self, make: Callable[[], Any], sources: dict[str, str]) -> None:
        """The second author: scikit-learn alone, with the seeds written out."""
        estimator, which = make(), plan(init=5, shuffle=6, augment=7, stochastic=8)
        task = task_of(estimator, sources)
        by_hand = clone(estimator)
        for name in task.seeds:
            named = [source for part, source in sources.items() if name == part or name.startswith(f"{part}__")]
            seed = derive_seed(getattr(which, named[0] if named else "stochastic"), name) % 2**31
            if name == "cv__random_state":
                by_hand.cv.random_state = seed
            else:
                by_hand.set_params(**{name: seed})
        if isinstance(by_hand, LGBMClassifier):
            by_hand.set_params(deterministic=True, force_row_wise=True, n_jobs=1, verbose=-1)
        np.random.seed(3)  # another state of the generator that a run seeds itself
        by_hand.fit(X_TRAIN, Y_TRAIN)
        assert np.array_equal(outputs(task, which), by_hand.predict_proba(X_TEST))

    @quiet
    @each_case
    def test_a_source_moves_its_own_seeds_and_nothing_else(
        self, make: Callable[[], Any], sources: dict[str, str]
    ) -> None:
        task = task_of(make(), sources)
        base = outputs(task, plan())
        assert task.sources == {Source.STOCHASTIC, *map(Source, sources.values())}
        for source in ("init", "shuffle", "augment"):
            moved = [not np.array_equal(outputs(task, plan(**{source: seed})), base) for seed in range(2, 8)]
            assert any(moved) == (source in sources.values()), source

    def test_one_step_moves_and_the_step_before_it_keeps_its_bits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fitted: list[Any] = []
        monkeypatch.setattr(EstimatorTask, "_responses", lambda _, model: fitted.append(model))
        task = task_of(pipeline(), {"clf": "init", "reduce": "shuffle"})
        for which in (plan(), plan(init=2), plan(shuffle=2)):
            task.fit(Run(which, CPU))
        base, init, shuffle = ((model["reduce"].components_, model["clf"].coef_) for model in fitted)
        assert np.array_equal(base[0], init[0])
        assert not np.array_equal(base[1], init[1])
        assert not np.array_equal(base[0], shuffle[0])

    def test_without_sources_every_seed_is_stochastic(self) -> None:
        assert task_of(pipeline()).seeds == dict.fromkeys(
            ["reduce__random_state", "clf__random_state"], Source.STOCHASTIC
        )

    def test_the_longest_name_decides(self) -> None:
        task = task_of(resampled(), {"bagging_seed": Source.SHUFFLE})
        assert {name for name, source in task.seeds.items() if source is Source.SHUFFLE} == {"bagging_seed"}
        voting = VotingClassifier([("a", pipeline()), ("b", SGDClassifier())])
        seeds = task_of(voting, {"a": "init", "a__clf": "shuffle"}).seeds
        assert [source.value for source in seeds.values()] == ["init", "shuffle", "stochastic"]

    def test_equal_steps_draw_different_numbers(self) -> None:
        forests = VotingClassifier([("a", RandomForestClassifier(2)), ("b", RandomForestClassifier(2))], voting="soft")
        task = task_of(forests)
        made = task._made(dict(zip(task.seeds, range(9), strict=False)), 1)
        assert made.estimators[0][1].random_state != made.estimators[1][1].random_state

    def test_what_is_given_stays_as_it_is(self) -> None:
        shared = np.random.RandomState(5)
        estimator = GridSearchCV(
            RandomForestClassifier(2, random_state=shared, n_jobs=-1), {}, cv=KFold(2, shuffle=True)
        )
        before = pickle.dumps(estimator)
        outputs(task_of(estimator), plan())
        assert pickle.dumps(estimator) == before

    def test_a_shared_generator_of_the_users_is_replaced(self) -> None:
        shared = np.random.RandomState(5)
        forests = [(name, RandomForestClassifier(2, random_state=shared)) for name in "ab"]
        task = task_of(VotingClassifier(forests, voting="soft"))
        first = outputs(task, plan())
        shared.uniform(size=3)
        assert np.array_equal(outputs(task, plan()), first)

    @pytest.mark.skipif(not hasattr(sklearn, "frozen") and sklearn.__version__ < "1.6", reason="frozen since 1.6")
    def test_what_is_frozen_is_neither_a_seed_nor_changed(self) -> None:
        from sklearn.frozen import FrozenEstimator

        forest = RandomForestClassifier(2, random_state=3).fit(X_TRAIN, Y_TRAIN)
        task = task_of(VotingClassifier([("a", FrozenEstimator(forest)), ("b", SGDClassifier())]))
        assert list(task.seeds) == ["b__random_state"]
        outputs(task, plan())
        assert forest.random_state == 3


class Leaky(ClassifierMixin, BaseEstimator):
    """Draws from a generator of its own that nobody seeds."""

    def fit(self, X: Any, y: Any) -> Leaky:
        self.classes_ = np.unique(y)
        self.shift_ = np.random.default_rng().normal(size=3)
        return self

    def predict_proba(self, X: Any) -> Any:
        weights = np.exp(np.asarray(X)[:, :3] + self.shift_)
        return weights / weights.sum(1, keepdims=True)

    def predict(self, X: Any) -> Any:
        return self.classes_[self.predict_proba(X).argmax(1)]


def jitter(values: Any) -> Any:
    return values + np.random.normal(size=values.shape)  # what users write


class TestStudies:
    @quiet
    @each_case
    def test_the_control_is_exact_and_each_source_acts(
        self, ask: Callable[..., Any], make: Callable[[], Any], sources: dict[str, str]
    ) -> None:
        source = next(iter(sources.values()))
        study = ask(task_of(make(), sources), source, runs=4)
        assert study.certificate.line().startswith("held: the whole run twice, bit-identical; alive: ")
        assert study.certificate.alive.keys() == {source}
        assert len({record.fingerprint for record in study.records}) > 1

    def test_vary_all_moves_all_seeds_and_is_proven_too(self, ask: Callable[..., Any]) -> None:
        study = ask(task_of(pipeline()), "all", runs=3)
        assert study.certificate.line() == "held: run 0 of all sources twice, bit-identical; alive: stochastic"
        assert {record.low_level for record in study.records} == {"deterministic"}, "no kernel of torch trains it"
        assert study.notes == ("stochastic moves reduce__random_state, clf__random_state, numpy's global generator",)

    def test_a_draw_from_the_global_generator_is_stochastic(self, ask: Callable[..., Any]) -> None:
        noisy = Pipeline([("noise", FunctionTransformer(jitter)), ("clf", LogisticRegression())])
        study = ask(task_of(noisy), "stochastic", runs=3)
        assert study.certificate.alive["stochastic"]
        assert study.certificate.proven

    def test_a_generator_that_nobody_seeds_is_a_leak(self, ask: Callable[..., Any]) -> None:
        with pytest.raises(IsolationError, match="they differ in the test outputs"):
            ask(task_of(Leaky()), "all")

    @pytest.mark.parametrize("estimator", [LogisticRegression(), DummyClassifier(), LGBMClassifier(n_estimators=2)])
    @pytest.mark.parametrize("vary", ["all", "stochastic"])
    def test_nothing_is_judged_where_nothing_varies(
        self, make_session: Callable[..., Any], ask: Callable[..., Any], estimator: Any, vary: str
    ) -> None:
        task, protocol = task_of(estimator), NoiseProtocol(vary, runs=3, seed=BASE_SEED)
        assert "all runs are bit-identical: stochastic never reaches the weights" in ask(task, vary).notes[0]
        with pytest.raises(IsolationError, match="stochastic never reaches the weights"):
            check(task, protocol, budget=Budget(accuracy_sd=1.0), session=make_session())

    def test_a_second_session_fits_nothing(
        self, make_session: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fits: list[int] = []
        fit = EstimatorTask.fit
        monkeypatch.setattr(EstimatorTask, "fit", lambda task, run: fits.append(run.index) or fit(task, run))
        protocol, budget = NoiseProtocol("init", runs=4, seed=BASE_SEED), Budget(disagreement=100)
        studies = [
            check(task_of(pipeline(), {"clf": "init"}), protocol, budget=budget, session=make_session(name))
            for name in ("one", "two")
        ]
        assert len(fits) >= 5
        assert len({str(study.accuracy) for study in studies}) == 1
        before = len(fits)
        check(task_of(pipeline(), {"clf": "init"}), protocol, budget=budget, session=make_session("three"))
        assert len(fits) == before
        changed = pipeline().set_params(clf__alpha=0.01)
        check(task_of(changed, {"clf": "init"}), protocol, budget=budget, session=make_session("four"))
        assert len(fits) > before

    @pytest.mark.slow
    def test_a_child_process_trains_the_same_bits(self, make_session: Callable[..., Any]) -> None:
        protocol, task = NoiseProtocol("init", runs=2, seed=BASE_SEED), task_of(pipeline(), {"clf": "init"})
        here = measure(task, protocol, session=make_session(folder="here"))
        there = measure(task, protocol, session=make_session(folder="there", isolation="process"))
        assert [r.fingerprint for r in here.records] == [r.fingerprint for r in there.records]


class TestKey:
    def digest(self, *args: Any, **options: Any) -> str:
        task = args[0] if isinstance(args[0], EstimatorTask) else task_of(*args, **options)
        return fingerprint(task.content(), Path.cwd())

    @quiet
    @each_case
    def test_equal_tasks_have_equal_keys(self, make: Callable[[], Any], sources: dict[str, str]) -> None:
        first = self.digest(make(), sources)
        assert self.digest(make(), sources) == first
        fitted = make().fit(X_TRAIN, Y_TRAIN)
        if not isinstance(fitted, XGBClassifier):  # which notes its objective among its parameters
            assert self.digest(fitted, sources) == first, "a run fits a clone"
        assert self.digest(make(), {}) != first

    def test_what_changes_bits_changes_the_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = self.digest(RandomForestClassifier(3))
        assert self.digest(RandomForestClassifier(4)) != first
        assert self.digest(RandomForestClassifier(3), response_method="predict") != first
        assert self.digest(EstimatorTask(RandomForestClassifier(3), X_TRAIN + 1, Y_TRAIN, X_TEST, Y_TEST)) != first
        assert self.digest(EstimatorTask(RandomForestClassifier(3), X_TRAIN, Y_TRAIN[::-1], X_TEST, Y_TEST)) != first
        assert self.digest(EstimatorTask(RandomForestClassifier(3), X_TRAIN, Y_TRAIN, X_TEST + 1, Y_TEST)) != first
        with sklearn.config_context(assume_finite=True):
            assert self.digest(RandomForestClassifier(3)) != first
        assert self.digest(RandomForestClassifier(3, n_jobs=4, random_state=3)) == first, "which each run sets"

    @pytest.mark.parametrize(
        ("estimator", "library"),
        [(SGDClassifier(), "scikit-learn"), (LGBMClassifier(), "lightgbm"), (XGBClassifier(), "xgboost-cpu")],
    )
    def test_the_version_of_a_library_is_part_of_it(self, estimator: Any, library: str) -> None:
        from stabilitykit.store.fingerprint import read

        assert f"package {library}" in read(task_of(estimator).content(), Path.cwd()).sources.parts()


class Partial(LogisticRegression):
    """Sees two of the classes alone."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Partial:
        seen = np.asarray(y) != np.unique(y)[1]
        return super().fit(X[seen], np.asarray(y)[seen])  # type: ignore[return-value]


class Threshold(LogisticRegression):
    """Predicts the first class whatever its probabilities say."""

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.classes_[0])


class TestOutputs:
    def test_classes_may_have_any_names(self) -> None:
        names = np.array(["low", "middle", "high"])
        task = EstimatorTask(LogisticRegression(), X_TRAIN, names[Y_TRAIN], X_TEST, names[Y_TEST].tolist())
        assert task.labels.tolist() == [{0: 1, 1: 2, 2: 0}[label] for label in Y_TEST.tolist()]
        by_number = outputs(task_of(LogisticRegression()), plan())
        assert np.allclose(outputs(task, plan()), by_number[:, [2, 0, 1]], atol=1e-3)
        assert task.outputs == "probabilities"

    @pytest.mark.parametrize("table", ["frame", "sparse", "list"])
    def test_examples_may_come_as_any_table(self, table: str) -> None:
        convert = {"frame": pd.DataFrame, "sparse": scipy.sparse.csr_matrix, "list": lambda part: part.tolist()}[table]
        task = EstimatorTask(RandomForestClassifier(3), convert(X_TRAIN), Y_TRAIN, convert(X_TEST), Y_TEST)
        assert np.array_equal(outputs(task, plan()), outputs(task_of(RandomForestClassifier(3)), plan()))

    def test_a_frame_of_kinds_and_a_list_of_texts(self, ask: Callable[..., Any]) -> None:
        frame = pd.DataFrame({"a": X[:, 0], "b": np.array(list("uvw"))[Y]})
        columns = ColumnTransformer([("b", OneHotEncoder(), ["b"])], remainder="passthrough")
        model = Pipeline([("columns", columns), ("clf", RandomForestClassifier(2))])
        y = pd.Series(Y, dtype="category")
        study = ask(EstimatorTask(model, frame[:60], y[:60], frame[60:], y[60:]), "all")
        assert study.accuracy.value == 100
        assert not study.private
        texts = [f"word{label} and" for label in Y]
        reader = Pipeline([("words", TfidfVectorizer()), ("clf", RandomForestClassifier(2))])
        assert ask(EstimatorTask(reader, texts[:60], Y_TRAIN, texts[60:], Y_TEST), "all").accuracy.value == 100

    def test_a_class_that_a_fit_has_not_seen_is_impossible(self) -> None:
        found = outputs(task_of(Partial()), plan())
        assert found.shape == (30, 3)
        assert (found[:, 1] == 0).all()
        found = outputs(task_of(Partial(), response_method="decision_function"), plan())
        assert (found[:, 1] == -np.inf).all()
        assert (found[:, 0] == 0).all(), "two classes have one number, the logit of the second"

    def test_a_decision_function_is_taken_for_logits_and_said(self, ask: Callable[..., Any]) -> None:
        task = task_of(RidgeClassifier())
        assert task.outputs == "logits"
        assert np.array_equal(outputs(task, plan()), RidgeClassifier().fit(X_TRAIN, Y_TRAIN).decision_function(X_TEST))
        assert "scored by decision_function(): taken for logits" in task.remarks[1]

    def test_what_only_predicts_is_scored_by_its_classes_and_said(self, ask: Callable[..., Any]) -> None:
        task = task_of(VotingClassifier([("a", RandomForestClassifier(2)), ("b", SGDClassifier())]))
        assert outputs(task, plan()).sum() == 30
        assert "scored by predict()" in task.remarks[1]
        assert ask(task, "all").accuracy.value > 50

    def test_a_threshold_is_no_silent_change_of_the_accuracy(self, ask: Callable[..., Any]) -> None:
        with pytest.raises(RunsFailedError, match=r"predict\(\) names another class than the largest column") as error:
            ask(task_of(Threshold()), "all")
        assert "response_method='predict'" in str(error.value)
        assert ask(task_of(Threshold(), response_method="predict"), "all").accuracy.value == pytest.approx(100 / 3)
        assert ask(task_of(Threshold(), response_method="predict_proba"), "all").accuracy.value > 60

    @pytest.mark.parametrize(
        "estimator",
        [RandomForestRegressor(3), LGBMRegressor(n_estimators=2, colsample_bytree=0.5), XGBRegressor(n_estimators=2)],
    )
    def test_a_regression_is_scored_by_its_values(self, ask: Callable[..., Any], estimator: Any) -> None:
        study = ask(EstimatorTask(estimator, X_TRAIN, X_TRAIN[:, 0], X_TEST, X_TEST[:, 0]), "all")
        assert study["rmse"].value < 2

    def test_a_regression_may_have_several_targets_and_targets_of_0_and_1(self, ask: Callable[..., Any]) -> None:
        forest = RandomForestRegressor(3)
        study = ask(EstimatorTask(forest, X_TRAIN, X_TRAIN[:, :2], X_TEST, X_TEST[:, :2]), "all")
        assert study["rmse"].value < 2
        task = EstimatorTask(forest, X_TRAIN, (Y_TRAIN == 1) * 1, X_TEST, (Y_TEST == 1) * 1)
        assert ask(task, "all")["rmse"].value < 1
        column = EstimatorTask(LGBMRegressor(n_estimators=1), X_TRAIN, X_TRAIN[:, 0], X_TEST, X_TEST[:, :1])
        assert column.fit(Run(plan(), CPU)).shape == (30, 1)

    def test_a_metric_of_the_users_own(self, ask: Callable[..., Any]) -> None:
        def top_class(scores: Any, labels: Any) -> float:
            return float((scores.argmax(1) == 0).float().mean())

        assert ask(task_of(RandomForestClassifier(3)), "all", metrics={"top": top_class})["top_sd"].value >= 0


class TestSettings:
    def test_a_fit_is_silent_and_leaves_no_file(
        self, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        steps = [("pca", PCA(3)), ("clf", RandomForestClassifier(2, verbose=3))]
        outputs(task_of(Pipeline(steps, memory="cache", verbose=True)), plan())
        outputs(task_of(LGBMClassifier(n_estimators=2, verbosity=2)), plan())
        outputs(task_of(XGBClassifier(n_estimators=2, verbosity=3)), plan())
        assert capfd.readouterr() == ("", "")
        assert not list(tmp_path.iterdir())

    def test_what_a_run_sets_is_said(self) -> None:
        steps = [("clf", RandomForestClassifier(2, n_jobs=-1))]
        task = task_of(Pipeline(steps, memory="cache", verbose=True), {"clf": "init"})
        assert task.remarks == (
            "init moves clf__random_state; stochastic moves numpy's global generator",
            "set in each run: memory=None, clf__n_jobs=None",
        )
        boosted = task_of(LGBMClassifier()).remarks
        assert boosted[-1] == "set in each run: deterministic=True, force_row_wise=True"

    def test_settings_of_scikit_learn_are_those_that_the_task_was_made_under(self) -> None:
        seen: list[bool] = []

        class Looks(LogisticRegression):
            def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Looks:
                seen.append(sklearn.get_config()["assume_finite"])
                return super().fit(X, y)  # type: ignore[return-value]

        with sklearn.config_context(assume_finite=True):
            task = task_of(Looks())
        outputs(task, plan())
        assert seen[-1]
        assert not sklearn.get_config()["assume_finite"]

    def test_threads_are_those_of_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []

        class Looks(LogisticRegression):
            def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Looks:
                from threadpoolctl import threadpool_info

                seen.extend(pool["num_threads"] for pool in threadpool_info())
                return super().fit(X, y)  # type: ignore[return-value]

        outputs(task_of(Looks()), plan())
        assert {*seen} == {torch.get_num_threads()}


class Bare:
    """No estimator: it has no parameters."""

    def fit(self, X: Any, y: Any) -> None: ...
    def predict(self, X: Any) -> None: ...


class Changed(RegressorMixin, BaseEstimator):
    """Cannot be cloned: it changes its parameter."""

    def __init__(self, sizes: Any = (1,)) -> None:
        self.sizes = list(sizes)

    def fit(self, X: Any, y: Any) -> None: ...
    def predict(self, X: Any) -> None: ...


class TestRefusals:
    @pytest.mark.parametrize(
        ("estimator", "options", "message"),
        [
            (Bare(), {}, r"Expected an estimator with fit.* but got Bare, which has no get_params, set_params\(\)"),
            (RandomForestClassifier, {}, "but got the class RandomForestClassifier; call it"),
            (PCA(), {}, "PCA, which has no predict"),
            (KMeans(), {}, "Expected a classifier or a regressor but KMeans says to be neither"),
            (Changed(), {}, "that sklearn.base.clone.. can make anew, .* for Changed it says: "),
            (pipeline(), {"sources": {"clff": "init"}}, "but got 'clff': its seeds are reduce.* Did you mean 'clf'?"),
            (
                pipeline(),
                {"sources": {"fill": "init"}},
                "Expected sources= to name steps or seeds of Pipeline but got 'fill'",
            ),
            (DummyClassifier(), {"sources": {"strategy": "init"}}, "its seeds are random_state"),
            (
                pipeline(),
                {"sources": {"clf": "low_level"}},
                r"Expected sources\['clf'\] to be one of init, .* 'low_level'",
            ),
            (pipeline(), {"sources": "init"}, "Expected sources= to map steps to sources, .* but got 'init'"),
            (pipeline(), {"response_method": "decide"}, "one that Pipeline has, predict_proba, .* but got 'decide'"),
            (
                RandomForestRegressor(),
                {"response_method": "predict_proba"},
                "only for a classifier but got 'predict_proba' for RandomForestRegressor",
            ),
        ],
    )
    def test_what_is_no_estimator_or_not_in_it(self, estimator: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises(TaskError, match=message):
            task_of(estimator, **options)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ((X_TRAIN, Y_TRAIN[:9], X_TEST, Y_TEST), "as many examples in X as in y but got 60 and 9"),
            ((X_TRAIN, Y_TRAIN, X_TEST, Y_TEST[:9]), "as many examples in X_test as in y_test but got 30 and 9"),
            ((X_TRAIN, Y_TRAIN, X_TEST[:, :4], Y_TEST), r"features of X, shape \[6\] an example, but got \[4\]"),
            ((X_TRAIN, Y_TRAIN, X_TEST, None), "Expected y_test to be an array, a table or a list but got NoneType"),
            (
                (X_TRAIN, Y_TRAIN, X_TEST, Y_TEST + 2),
                "classes in y_test to be among those in y but got 3, 4, .* 0, 1, 2",
            ),
            ((X_TRAIN, Y_TRAIN, X_TEST, Y_TEST.astype(str)), "but got '0', '1', '2', which no fit has seen"),
            ((X_TRAIN, Y_TRAIN[:, None], X_TEST, Y_TEST), r"one class an example in y, shape \[N\], but got \[60, 1\]"),
            ((X_TRAIN, Y_TRAIN * 0, X_TEST, Y_TEST * 0), "Expected two classes or more in y but got 0"),
            ((X_TRAIN, [*Y_TRAIN[1:].tolist(), None], X_TEST, Y_TEST), "classes in y to be of one kind"),
        ],
        ids=range(9),
    )
    def test_data_that_do_not_fit(self, data: tuple[Any, ...], message: str) -> None:
        with pytest.raises(TaskError, match=message):
            EstimatorTask(RandomForestClassifier(), *data)

    def test_targets_that_are_no_numbers(self) -> None:
        with pytest.raises(TaskError, match="Expected numbers as the targets of a regression: could not convert"):
            EstimatorTask(RandomForestRegressor(), X_TRAIN, Y_TRAIN, X_TEST, ["a"] * 30)

    @pytest.mark.parametrize(
        ("protocol", "kind", "message"),
        [
            (
                NoiseProtocol("init"),
                ProtocolError,
                "move a seed of Pipeline but got init: stochastic moves reduce__ran",
            ),
            (NoiseProtocol("low_level"), ProtocolError, "but got low_level: .* Write vary='all', or give a seed"),
            (NoiseProtocol("init+stochastic"), ProtocolError, "but got init: "),
            (NoiseProtocol("stochastic", onset=2), ProtocolError, "Expected no onset= for Pipeline but got onset=2"),
            (NoiseProtocol("none", "ulp"), PerturbationError, "Expected no perturb= for Pipeline but got 'ulp'"),
            (NoiseProtocol("all", "bit"), PerturbationError, "Expected no perturb= for Pipeline but got 'bit'"),
        ],
    )
    def test_protocols_that_an_estimator_cannot_answer(
        self, protocol: NoiseProtocol, kind: type[UsageError], message: str
    ) -> None:
        with pytest.raises(kind, match=message):
            task_of(pipeline()).check(protocol, CPU)

    def test_scikit_learn_that_is_not_installed(self) -> None:
        script = """
            import sys
            sys.modules["sklearn"] = None
            from stabilitykit.adapters.estimators import EstimatorTask
            EstimatorTask(None, [], [], [], [])
        """
        lines = "\n".join(line.strip() for line in script.splitlines())
        done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
        assert "MissingModuleError: Expected scikit-learn to be installed" in done.stderr
        assert done.stderr.strip().endswith("pip install 'stabilitykit[sklearn]'")

    def test_importing_the_adapter_loads_no_scikit_learn(self) -> None:
        script = "import sys, stabilitykit.adapters.estimators; print({'sklearn', 'lightgbm'} & sys.modules.keys())"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"
