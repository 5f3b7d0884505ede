"""Language models: what varies, what a run leaves, and numbers that are those of whole logits."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stabilitykit.errors import BudgetError, BudgetExceededError, ProtocolError, TaskError, UsageError
from stabilitykit.estimates.measures import Measures
from stabilitykit.estimates.metrics import ensemble_delta
from stabilitykit.execution.session import Session, check, measure
from stabilitykit.protocol import NoiseProtocol, RunPlan
from stabilitykit.render.study_table import study_table
from stabilitykit.store.record import RunRecord
from stabilitykit.study.asserts import assert_ensemble_delta, assert_within
from stabilitykit.study.study import Study
from stabilitykit.study.summary import summarize
from stabilitykit.training import language
from stabilitykit.training.corpus import Corpus
from stabilitykit.training.language import LanguageRecipe, _side_by_side
from stabilitykit.training.trainer import Trainer
from stabilitykit.verdicts.budgets import Budget
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.zoo.qrnn import QRNN
from tests.seeds import BASE_SEED

pytestmark = pytest.mark.trains

Ask = Callable[..., Study]


def a_text(sentences: int, seed: int) -> str:
    """Sentences of a small grammar: what comes next can be learned, and is not certain."""
    generator = torch.Generator().manual_seed(seed)

    def pick(words: str) -> str:
        choices = words.split()
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    return "\n".join(
        f"the {pick('cat dog bird')} {pick('sees hears')} a {pick('tree stone')}" for _ in range(sentences)
    )


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.of_texts(train=a_text(80, 0), valid=a_text(10, 1), test=a_text(30, 2))


def small(corpus: Corpus) -> nn.Module:
    return QRNN(len(corpus), embedding=6, hidden=8, layers=2)


@pytest.fixture
def recipe(corpus: Corpus) -> LanguageRecipe:
    return LanguageRecipe(
        model=lambda: small(corpus),
        corpus=corpus,
        epochs=2,
        batch_size=4,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.05),
        segment=12,
    )


def test_a_step_is_rehearsed(recipe: LanguageRecipe) -> None:
    def check_of(**changes: Any) -> None:
        dataclasses.replace(recipe, **changes).check(NoiseProtocol("init", runs=2), torch.device("cpu"))

    check_of()
    with pytest.raises(TaskError, match=r"^Expected a segment of the text to be trained on but it raised NotImpl"):
        check_of(optimizer=lambda model: Broken(model.parameters(), {"lr": 0.1}))
    with pytest.raises(TaskError, match=r"^Expected optimizer\(model\) to make an optimizer but it raised KeyError"):
        check_of(optimizer=lambda model: {}["adam"])
    with pytest.raises(TaskError, match=r"got one of the optimizer: a step's rate is in proportion to the length"):
        check_of(schedule=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1))


class Broken(torch.optim.Optimizer):
    def step(self, closure: object = None) -> None:
        raise NotImplementedError("step")


def test_lbfgs_trains_a_language_model(recipe: LanguageRecipe, tmp_path: Path) -> None:
    second_order = dataclasses.replace(
        recipe, optimizer=lambda model: torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    )
    second_order.check(NoiseProtocol("init", runs=2), torch.device("cpu"))
    assert train(second_order, tmp_path).status == "ok"


def test_a_row_of_the_vocabulary_that_the_text_uses_is_moved(tmp_path: Path) -> None:
    text = a_text(40, 0)
    corpus = Corpus.of_texts(train=text, valid=text, test=text)

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5000, 4), nn.Linear(4, len(corpus))

        def forward(self, tokens: Tensor, hidden: None) -> tuple[Tensor, None]:
            return self.head(self.embed(tokens)), None

    task = LanguageRecipe(Wide, corpus, 1, 4, lambda model: torch.optim.SGD(model.parameters(), lr=1.0), segment=12)
    protocol = NoiseProtocol(perturb="ulp", runs=3)
    task.check(protocol, torch.device("cpu"))
    records = [train(task, tmp_path, plan) for plan in protocol.plans()]
    moved = [record.perturbation for record in records]
    assert all(move is not None and move["parameter"] == "embed.weight" for move in moved)
    assert all(move["index"][0] < len(corpus) for move in moved if move is not None)


def train(recipe: LanguageRecipe, folder: Path, plan: RunPlan | None = None) -> RunRecord:
    """One run, without a study."""
    return Trainer(recipe, "cpu", 1, folder).train_once(
        plan or NoiseProtocol("init", runs=2, seed=BASE_SEED).plans()[0]
    )


def whole_logits(study: Study) -> Tensor:
    """All logits of all runs from their weights, in one go: what a study never has in memory."""
    assert isinstance(study.recipe, LanguageRecipe)
    model = study.recipe.model().eval()
    outputs = []
    for record in study.records:
        assert record.weights is not None
        model.load_state_dict(dict(record.weights))
        with torch.no_grad():
            outputs.append(model(study.recipe.corpus.test[:-1, None])[0].squeeze(1))
    return torch.stack(outputs)


def test_training_lowers_the_perplexity(ask: Ask, recipe: LanguageRecipe) -> None:
    study = ask(dataclasses.replace(recipe, epochs=4, curve=True), "init")
    for record in study.records:
        *_, last = (point["perplexity"] for point in record.curve)
        # Where every word is as likely. In 50 runs under five base seeds the logarithm was 1.15, give or take 0.17, and
        # that of 10 words is 2.3: were it normal, it would be above once in 10^11 times.
        assert last < len(recipe.corpus)
    assert study.perplexity.value == pytest.approx(sum(r.curve[-1]["perplexity"] for r in study.records) / 3, rel=1e-12)


def test_every_measure_is_that_of_whole_logits(ask: Ask, recipe: LanguageRecipe) -> None:
    study = ask(recipe, "init", runs=4)
    logits = whole_logits(study)
    naive = Measures(logits, study.labels)
    same = set(naive) & set(study.measures)
    assert set(naive) - same == {"ensemble_delta", "brier", "brier_sd"}
    for name in same:
        for end in ("value", "low", "high"):
            expected = getattr(naive[name], end)
            assert getattr(study[name], end) == pytest.approx(expected, rel=1e-5, abs=1e-7), name

    def perplexity(outputs: Tensor, labels: Tensor) -> Tensor:
        each = nn.functional.cross_entropy(
            outputs.double().movedim(-1, 1), labels.expand(len(outputs), -1), reduction="none"
        )
        return each.mean(-1).exp()

    alone = perplexity(logits, study.labels).tolist()
    assert study.measures.of_runs("perplexity").tolist() == pytest.approx(alone, rel=1e-6)
    pairs = ensemble_delta(logits, study.labels, perplexity)
    expected = pairs.sum() / 12  # over the 12 pairs of 4 runs, i before j and j before i
    assert study.ensemble_delta.value == pytest.approx(float(expected), rel=1e-5)
    assert study.ensemble_delta.value < 0  # by Jensen's inequality: logits are averaged, and the loss is convex in them


def test_chunks_change_nothing_but_rounding(ask: Ask, recipe: LanguageRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    study = ask(recipe, "init")
    names = ("perplexity", "disagreement", "correlation", "perplexity_ensemble_delta")
    before = {name: study[name].value for name in names}
    for name in ("_FEWEST", "_MOST"):
        monkeypatch.setattr(language, name, 7)
    again = dataclasses.replace(recipe, _scores={}).measures(study.records)
    assert {name: again[name].value for name in names} == pytest.approx(before, rel=1e-6)


def test_a_run_leaves_weights_and_no_logits(ask: Ask, recipe: LanguageRecipe) -> None:
    study = ask(recipe, "init")
    for record in study.records:
        assert record.logits is None
        assert record.weights is not None
        assert set(record.weights) == set(recipe.model().state_dict())


def test_what_the_training_scored_is_what_its_stored_weights_score(ask: Ask, recipe: LanguageRecipe) -> None:
    study = ask(recipe, "init")
    trained = study.measures.of_runs("cross_entropy")
    assert {record.fingerprint for record in study.records} <= {model for model, _ in recipe._scores}
    fresh = dataclasses.replace(recipe, _scores={})
    assert torch.equal(fresh.measures(study.records).of_runs("cross_entropy"), trained)


def test_scores_of_earlier_runs_serve_for_more_of_them(
    ask: Ask, recipe: LanguageRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = ask(recipe, "init", runs=4)
    fresh = dataclasses.replace(recipe, _scores={})
    predicted: list[object] = []
    predict = LanguageRecipe._predict
    monkeypatch.setattr(LanguageRecipe, "_predict", lambda self, *a: predicted.append(a) or predict(self, *a))
    fresh.measures(study.records[:3]).of_runs("perplexity")
    fresh.measures(study.records).of_runs("perplexity")
    assert len(predicted) == 4


def test_scores_are_forgotten_where_there_is_no_room(recipe: LanguageRecipe, ask: Ask, monkeypatch: Any) -> None:
    monkeypatch.setattr(language, "_SCORES_BYTES", 1)
    study = ask(recipe, "init")
    assert len(recipe._scores) == 1
    assert len(study.measures.of_runs("perplexity")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("vary", ["init", "stochastic", "low_level", "init+stochastic", "all"])
def test_a_source_that_varies_changes_the_weights(ask: Ask, recipe: LanguageRecipe, vary: str) -> None:
    study = ask(recipe, vary)
    # For two runs to end in one set of weights, hundreds of draws must be equal, or each coin of `low_level`, one for
    # each weight and step, be lost when its gradient is added: no two were equal of 30 runs under five base seeds.
    assert len({record.fingerprint for record in study.records}) == 3
    assert study.control.proven
    assert study.perplexity_sd.value > 0 or vary == "low_level"


def test_one_ulp_in_one_weight_changes_the_weights(ask: Ask, recipe: LanguageRecipe) -> None:
    # At a rate of 0 the weights end as they began, and no rounding can swallow the ulp on the way.
    still = dataclasses.replace(recipe, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    study = ask(still, perturb="ulp", runs=4)
    moves = {(move["index"], move["new"]) for record in study.records if (move := record.perturbation)}
    assert len({record.fingerprint for record in study.records}) == len(moves)
    assert len(moves) > 1, "four runs draw the same of 60 weights and two directions once in 10^6 times"
    assert {record.perturbation["parameter"] for record in study.records if record.perturbation} == {"embedding"}


def test_nothing_varies_where_the_model_draws_nothing(ask: Ask, recipe: LanguageRecipe, corpus: Corpus) -> None:
    none = {f"dropout_{name}": 0.0 for name in ("words", "input", "hidden", "output", "weights")}
    still = dataclasses.replace(recipe, model=lambda: QRNN(len(corpus), 6, 8, 2, **none), vary_segments=False)  # type: ignore[arg-type]
    study = ask(still, "stochastic")
    assert study.perplexity_sd.value == study.disagreement.value == study.ensemble_delta.value == 0
    assert study.correlation.value == 1
    lengths = ask(dataclasses.replace(still, vary_segments=True), "stochastic")
    # Two runs draw the same 20 lengths, each one of ten or so, once in 10^20 times.
    assert lengths.perplexity_sd.value > 0


def test_two_trainings_under_one_plan_have_the_same_bits(recipe: LanguageRecipe, tmp_path: Path) -> None:
    plan = NoiseProtocol("all", runs=2, seed=BASE_SEED).plans()[1]
    assert train(recipe, tmp_path, plan).fingerprint == train(recipe, tmp_path, plan).fingerprint != ""


def test_what_varies_from_an_epoch_on_goes_on_from_what_all_runs_share(
    make_session: Callable[..., Session], recipe: LanguageRecipe, tmp_path: Path
) -> None:
    protocol = NoiseProtocol("stochastic", runs=3, seed=BASE_SEED, onset=1)
    study = measure(recipe, protocol, session=make_session())
    alone = [train(recipe, tmp_path, plan).fingerprint for plan in protocol.plans()]
    assert [record.fingerprint for record in study.records] == alone
    assert len(set(alone)) == 3
    with pytest.raises(ProtocolError, match="Expected onset= to be one of the 2 epochs"):
        measure(recipe, NoiseProtocol("stochastic", runs=3, seed=BASE_SEED, onset=2), session=make_session())


def test_the_curve_does_not_change_the_training(ask: Ask, recipe: LanguageRecipe) -> None:
    with_curve = ask(dataclasses.replace(recipe, curve=True), "all").records
    assert [r.fingerprint for r in with_curve] == [r.fingerprint for r in ask(recipe, "all").records]
    assert [len(record.curve) for record in with_curve] == [2, 2, 2]


@pytest.mark.parametrize("vary", ["shuffle", "augment", "init+shuffle"])
def test_a_source_that_text_does_not_have_is_an_error(ask: Ask, recipe: LanguageRecipe, vary: str) -> None:
    with pytest.raises(ProtocolError, match=r"Expected a source that a language model has .*What can vary is init"):
        ask(recipe, vary)


def test_a_model_of_another_vocabulary_is_an_error(ask: Ask, recipe: LanguageRecipe) -> None:
    with pytest.raises(TaskError, match=r"here \[2, 1, 10\], .* but the first is \[2, 1, 20\]"):
        ask(dataclasses.replace(recipe, model=lambda: QRNN(20, 6, 8)), "init")
    with pytest.raises(TaskError, match=r"takes each of the corpus's 10 words but .* Make its embedding for len"):
        ask(dataclasses.replace(recipe, model=lambda: QRNN(9, 6, 8)), "init")


def test_a_model_that_returns_logits_alone_is_an_error(ask: Ask, recipe: LanguageRecipe) -> None:
    class Bare(nn.Embedding):
        def forward(self, tokens: Tensor, hidden: Any = None) -> Tensor:
            return super().forward(tokens)

    with pytest.raises(TaskError, match="two things, but got Tensor"):
        ask(dataclasses.replace(recipe, model=lambda: Bare(10, 10)), "init")


def test_a_model_that_remembers_nothing_can_be_trained(ask: Ask, recipe: LanguageRecipe) -> None:
    class Bigrams(nn.Embedding):
        def forward(self, tokens: Tensor, hidden: Any = None) -> tuple[Tensor, None]:  # type: ignore[override]
            return super().forward(tokens), None

    study = ask(dataclasses.replace(recipe, model=lambda: Bigrams(10, 10)), "init")
    # Below that of words which are all as likely. In 50 runs under five base seeds the logarithm was 1.46, give or take
    # 0.22, and that of 10 words is 2.3: the mean of three would be above once in 10^10 times, were it normal.
    assert study.perplexity.value < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "Expected epochs >= 1"),
        ({"segment": 0}, "Expected segment >= 1"),
        ({"sample": 0}, "Expected sample >= 1"),
        ({"batch_size": 300}, "Expected a training text of two tokens a piece but got 480 tokens and batch_size=300"),
        ({"clip": 0.0}, "Expected clip > 0"),
        ({"corpus": "text"}, r"Expected corpus= to be a Corpus but got str\. Corpus\.of_texts"),
        ({"model": nn.Linear(2, 2)}, "Expected model= to be a function that makes a new model"),
    ],
)
def test_a_setting_that_means_nothing_is_an_error(recipe: LanguageRecipe, change: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        dataclasses.replace(recipe, **change)


def test_metrics_of_whole_logits_are_an_error_before_anything_trains(ask: Ask, recipe: LanguageRecipe) -> None:
    def untouched() -> nn.Module:
        raise AssertionError("a model was made")

    with pytest.raises(TaskError, match="Expected no metrics= beside a language model but got f1"):
        ask(dataclasses.replace(recipe, model=untouched), "init", metrics={"f1": lambda logits, labels: 0.0})


@pytest.mark.parametrize(("when", "message"), [(True, "the loss became nan in epoch 0"), (False, "some logits")])
def test_a_run_that_has_nan_logits_is_a_failed_run(
    recipe: LanguageRecipe, tmp_path: Path, when: bool, message: str
) -> None:
    class Broken(QRNN):
        def forward(self, text: Tensor, hidden: Any = None) -> Any:
            logits, hidden = super().forward(text, hidden)
            return (logits * torch.nan if self.training is when else logits), hidden

    record = train(dataclasses.replace(recipe, model=lambda: Broken(10, 6, 8)), tmp_path)
    assert record.status == "failed"
    assert message in record.error


def test_budgets_and_assertions(ask: Ask, recipe: LanguageRecipe) -> None:
    study = ask(recipe, "init", runs=4)
    assert_within(study, Budget(perplexity_sd=50.0, disagreement=99.0))
    assert_ensemble_delta(study, at_most=1.0)
    with pytest.raises(BudgetExceededError, match="perplexity_sd"):
        assert_within(study, Budget(perplexity_sd=1e-6))
    # Four runs may have the same accuracy by chance, so whether this one fails is not asked.
    assert study.judge(Budget(accuracy_sd=1.0)).judgements[0].metric == "accuracy_sd"
    with pytest.raises(BudgetError, match=r"Budget\(ensemble_delta=...\).*The task has .*perplexity_ensemble_delta"):
        assert_within(study, Budget(ensemble_delta=1.0))


def test_a_budget_for_a_measure_that_is_not_there_is_an_error_before_training(ask: Ask, recipe: LanguageRecipe) -> None:
    with pytest.raises(BudgetError, match="Did you mean perplexity_sd"):
        ask(recipe, "init", budget=Budget(perplexity_sdd=1.0))


def test_a_check_judges_prefixes_of_the_runs(make_session: Callable[..., Session], recipe: LanguageRecipe) -> None:
    budget = Budget(perplexity_sd=50.0, disagreement=99.0)
    study = check(recipe, NoiseProtocol("init", runs=6, seed=BASE_SEED), budget=budget, session=make_session())
    assert study.verdicts[-1].outcome is Outcome.PASS
    assert 3 <= len(study.records) < 6
    again = check(recipe, NoiseProtocol("init", runs=6, seed=BASE_SEED), budget=budget, session=make_session("two"))
    assert [r.fingerprint for r in again.records] == [r.fingerprint for r in study.records]


def test_the_report_and_the_table_show_perplexity(ask: Ask, recipe: LanguageRecipe) -> None:
    study = ask(dataclasses.replace(recipe, sample=500), "init")
    summary = summarize(study, "test_text")
    assert set(summary["records"][0]) >= {"perplexity", "cross_entropy", "accuracy", "fingerprint"}
    assert set(summary["metrics"]) == {
        *("perplexity", "perplexity_sd", "cross_entropy", "cross_entropy_sd", "accuracy", "accuracy_sd"),
        *("flip_floor", "training_sd", "disagreement", "correlation"),
        *("perplexity_ensemble_delta", "cross_entropy_ensemble_delta"),
    }
    assert "correlation of 500 of 1790 logits" in summary["notes"]
    title, row, *_ = study_table([summary])
    assert title.split("  ")[0] == "test"
    for part in ("PPL", "PPL SD", "CE SD", "disagree %", "corr.", "ens. delta"):
        assert part in title
    assert f"{study.perplexity.value:.2f}" in row
    assert "perplexity_sd" not in title


def test_the_sample_and_the_name_do_not_ask_for_new_runs(recipe: LanguageRecipe) -> None:
    content = recipe.content()
    other = dataclasses.replace(recipe, name="other", sample=10).content()
    assert isinstance(content, dict)
    assert content.keys() == other.keys()  # type: ignore[attr-defined]
    assert not {"name", "sample", "_scores"} & content.keys()
    assert {"corpus", "segment", "vary_segments", "clip"} <= content.keys()


def test_scores_stay_behind_where_a_recipe_is_sent_elsewhere(corpus: Corpus, recipe: LanguageRecipe) -> None:
    recipe._scores["key"] = None  # type: ignore[assignment]
    assert recipe.__getstate__()["_scores"] == {}
    assert torch.equal(pickle.loads(pickle.dumps(corpus)).test, corpus.test)


def test_pieces_lie_side_by_side_and_keep_the_order_of_the_text() -> None:
    text = _side_by_side(torch.arange(23), 4)
    assert text.shape == (5, 4)
    assert torch.equal(text.T.flatten(), torch.arange(20))


def test_segments_are_as_long_as_asked_and_half_of_it_in_one_of_twenty(recipe: LanguageRecipe) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([dataclasses.replace(recipe, segment=70)._length() for _ in range(4000)]).double()
    short = (lengths < 52).double().mean()
    assert 0.04 < short < 0.06
    assert abs(lengths[lengths >= 52].std() - 5) < 0.3
    assert abs(lengths[lengths >= 52].mean() - 69.5) < 0.3  # rounded down
    assert {dataclasses.replace(recipe, segment=2)._length() for _ in range(100)} >= {2}
    assert dataclasses.replace(recipe, vary_segments=False)._length() == 12


def test_the_rate_of_a_step_goes_with_the_length_of_its_segment(recipe: LanguageRecipe, tmp_path: Path) -> None:
    seen: list[tuple[float, int]] = []

    class Noting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append((self.param_groups[0]["lr"], tokens[-1]))
            return super().step(closure)

    tokens: list[int] = []

    class Counting(QRNN):
        def forward(self, text: Tensor, hidden: Any = None) -> Any:
            tokens.append(len(text))
            return super().forward(text, hidden)

    counting = dataclasses.replace(
        recipe, model=lambda: Counting(10, 6, 8), optimizer=lambda model: Noting(model.parameters(), lr=0.5)
    )
    train(counting, tmp_path)
    assert len({length for _, length in seen}) > 3
    assert all(rate == pytest.approx(0.5 * length / 12) for rate, length in seen)
    assert sum(length for _, length in seen) == 2 * (480 // 4 - 1)


def test_what_is_remembered_is_carried_from_segment_to_segment(recipe: LanguageRecipe, tmp_path: Path) -> None:
    got: list[bool] = []

    class Watching(QRNN):
        def forward(self, text: Tensor, hidden: Any = None) -> Any:
            if self.training:
                got.append(hidden is None)
                assert hidden is None or not any(part.requires_grad for layer in hidden for part in layer)
            return super().forward(text, hidden)

    watching = dataclasses.replace(recipe, model=lambda: Watching(10, 6, 8), vary_segments=False)
    train(watching, tmp_path)
    an_epoch = [True, *[False] * 9]  # 119 steps in segments of 12
    assert got == an_epoch * 2


def test_seeds_of_sources_that_text_does_not_have_do_not_matter(recipe: LanguageRecipe, tmp_path: Path) -> None:
    plan = NoiseProtocol("all", runs=2, seed=BASE_SEED).plans()[0]
    other = dataclasses.replace(plan, shuffle=1, augment=2)
    assert train(recipe, tmp_path, other).fingerprint == train(recipe, tmp_path, plan).fingerprint != ""


def test_weights_that_are_missing_are_an_error(ask: Ask, recipe: LanguageRecipe) -> None:
    study = ask(recipe, "init")
    bare = [dataclasses.replace(record, weights=None) for record in study.records]
    with pytest.raises(UsageError, match="Expected run 0 of language model to have its weights"):
        dataclasses.replace(recipe, _scores={}).measures(bare).of_runs("perplexity")
