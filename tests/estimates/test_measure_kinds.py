"""What each measure is: the rules that follow from its name, and that nothing else in the package knows a name."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
import torch

from stabilitykit.estimates.measure_kinds import (
    PAPER,
    PROPOSED,
    Form,
    delta_name,
    is_own_sd,
    kind_of,
    most_beside_disagreement,
    sd_name,
    task_kind,
)
from stabilitykit.estimates.measures import Measures
from stabilitykit.estimates.scores import SCORES, TaskKind, score_kind
from stabilitykit.verdicts.limits import Limit

PACKAGE = Path(__file__).resolve().parents[2] / "stabilitykit"

#: Where a built-in measure may be named: where it is computed, and where it is a public property or an argument.
NAMED_IN = {
    "estimates/scores.py",
    "estimates/measure_kinds.py",
    "estimates/measures.py",
    "estimates/language_measures.py",
    "training/recipe.py",  # scores of a curve
    "training/language.py",  # likewise
    "study/study.py",  # properties
    "verdicts/budgets.py",  # fields of Budget
    "study/comparison.py",  # the question of that name
    "render/comparison_words.py",  # likewise
    "study/flips.py",  # a share of one example's runs
}


def named(path: Path) -> set[str]:
    """The built-in measures that a file names as a whole string, and the ends of names that it looks for."""
    measures = {name for score in SCORES for name in (score, sd_name(score), delta_name(score))}
    measures |= {"flip_floor", "training_sd", "disagreement", "correlation", "pearson", "_sd", "_ensemble_delta"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return measures & strings


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_code_that_computes_a_measure_knows_its_name(path: Path):
    if path.relative_to(PACKAGE).as_posix() not in NAMED_IN and path.parent.name != "metrics":
        assert named(path) == set()


def test_the_guard_sees_a_name_and_the_end_of_one(tmp_path: Path):
    (tmp_path / "a.py").write_text('is_sd = name.endswith("_sd") or name == "pearson" or "its accuracy"')
    assert named(tmp_path / "a.py") == {"_sd", "pearson"}


def test_means_over_runs_and_diagnoses_are_no_spreads():
    spreads = "accuracy_sd f1_sd disagreement correlation pearson ensemble_delta f1_ensemble_delta"
    assert all(kind_of(name).is_spread for name in spreads.split())
    assert not any(kind_of(name).is_spread for name in ("accuracy", "cross_entropy", "flip_floor", "training_sd", "f1"))
    assert kind_of("training_sd").is_diagnosis


@pytest.mark.parametrize(
    ("name", "value", "spread"),
    [("correlation", 0.9, 0.1), ("ensemble_delta", -2.0, 2.0), ("f1_ensemble_delta", 2.0, 2.0), ("f1_sd", 0.3, 0.3)],
)
def test_more_spread_is_more(name: str, value: float, spread: float):
    assert kind_of(name).spread(value) == pytest.approx(spread)
    assert kind_of(name).value_of(spread) == pytest.approx(abs(value))


def test_a_pass_excludes_twice_an_sd_and_a_quarter_more_of_a_mean_over_pairs():
    assert [Limit(name, 0.5).ratio for name in ("f1_sd", "disagreement", "correlation", "f1_ensemble_delta")] == [
        2.0,
        1.25,
        1.25,
        1.25,
    ]


def test_a_metric_of_the_users_own_is_known_by_the_end_of_its_name():
    mean, sd, delta = (kind_of(name) for name in ("f1", sd_name("f1"), delta_name("f1")))
    assert (mean.form, sd.form, delta.form) == (Form.MEAN, Form.SD, Form.DELTA)
    assert {mean.score, sd.score, delta.score} == {"f1"}
    assert (sd.least, sd.most, sd.unit) == (0, math.inf, "")
    assert score_kind("f1").has_heavy_tails


@pytest.mark.parametrize(
    ("labels", "task"), [(torch.arange(4) % 2, TaskKind.CLASSES), (torch.zeros(4), TaskKind.REGRESSION)]
)
def test_every_measure_of_a_task_has_a_kind_that_agrees_with_its_numbers(labels: torch.Tensor, task: TaskKind):
    size = (5, 4, 2) if task is TaskKind.CLASSES else (5, 4)
    measures = Measures(torch.randn(size, generator=torch.Generator().manual_seed(0)), labels, {"f1": lambda o, y: 1.0})
    assert task_kind(measures) is task
    assert [name for name in measures if is_own_sd(name, measures)] == ["f1_sd"]
    assert set(PAPER[task]) <= set(measures)
    for name in measures:
        kind, value = kind_of(name), measures[name].value
        assert kind.form is Form.MEAN or kind.least <= (abs(value) if kind.is_delta else value) <= kind.most
        assert kind.score in measures or kind.score == ""


def test_a_classification_may_have_a_perplexity_of_its_own():
    names = Measures.names(torch.arange(4) % 2, {"perplexity": lambda o, y: 1.0})
    assert task_kind(names) is TaskKind.CLASSES
    assert is_own_sd("perplexity_sd", names)
    assert not is_own_sd("perplexity_sd", PAPER[TaskKind.LANGUAGE])


def test_a_disagreement_bounds_what_follows_from_it():
    # Two runs, one right where the other is wrong: accuracies 100 and 0, and the SD of two is 100 / sqrt(2).
    assert most_beside_disagreement(100)["accuracy_sd"] == pytest.approx(math.sqrt(5000))
    assert set(most_beside_disagreement(1)) <= set(PROPOSED)
