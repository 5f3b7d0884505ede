"""Comparisons of two models on one test set: whether one is better, varies more, and how far the two differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import TaskError
from ..estimates.differences import (
    Difference,
    distribution_difference,
    mean_difference,
    no_ratio,
    pairwise_difference,
    spread_ratio,
)
from ..estimates.distributions import Floats
from ..estimates.estimate import finite
from ..estimates.intervals import exact_sd, means_with_others
from ..estimates.measure_kinds import main_score
from ..estimates.metrics import IGNORED_LABEL, class_type, disagreement, percent_right, rmse, spearman
from ..estimates.scores import TaskKind, score_kind
from ..public import public
from ..render.comparison_words import comparison_table, conclusion
from ..verdicts.judgement import Judgement, Outcome
from .score_comparison import ScoreComparison, ScoreSample
from .study import Study, check_has_outputs, check_is_study


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """The part of R runs that a comparison needs: each run's answers to the test set, and its seeds."""

    task: str
    question: str  #: what varies between the runs, as tables name it
    seeds: tuple[Mapping[str, int | None], ...]  #: of each run
    answers: Tensor  #: classes ``[R, N, ...]``, or the outputs of a regression
    labels: Tensor  #: ``[N, ...]``
    saved: str | None = None  #: name of the baseline that it was kept in

    @classmethod
    def of(cls, study: Study) -> Sample:
        """Condense a study; raises `RunsFailedError` where a run left nothing to compare."""
        check_is_study(study)
        check_has_outputs(study)
        reading = study.measures.reading
        if reading is None:  # only weights are kept: the study has predicted from them
            answers = list(study.measures.predicted)
        elif reading.meaning.is_classes:
            answers = [run.argmax(dim=-1).to(class_type(run.shape[-1])) for run in reading.whole()]
        elif reading.meaning.kind is TaskKind.MULTI_LABEL:  # each label a question with two answers
            answers = [(run > 0).to(torch.uint8) for run in reading.whole()]
        else:
            answers = reading.whole()
        seeds = tuple(record.seeds for record in study.trained)
        return cls(study.task, study.protocol.name, seeds, torch.stack(answers), study.meaning.labels)

    def __len__(self) -> int:
        """R."""
        return len(self.answers)

    @property
    def is_classification(self) -> bool:
        """Whether the answers are classes."""
        return not self.labels.is_floating_point()

    @cached_property
    def scores(self) -> Floats:
        """Accuracy of each run in percent, or its RMSE, ``[R]``."""
        labels = self.labels[self._mask] if self.is_classification else self.labels
        found = percent_right(self.kept, labels) if self.is_classification else rmse(self.kept, labels)
        scores: Floats = found.double().numpy()
        return scores

    @cached_property
    def pairs(self) -> Floats:
        """How far each two runs differ, ``[R, R]``: disagreement in percent, or 1 - Spearman's correlation."""
        pairs: Floats = (disagreement(self.kept) if self.is_classification else 1 - spearman(self.answers)).numpy()
        return pairs

    @cached_property
    def kept(self) -> Tensor:
        """The answers to examples that have a label, ``[R, M]``; all answers in a regression."""
        return self.answers[:, self._mask] if self.is_classification else self.answers

    @property
    def rounding(self) -> float:
        """SD of the rounding of a score that comes in steps; 0 for a score without steps, and for equal runs."""
        if not self.is_classification or self.is_constant:
            return 0.0
        return 100 / int(self._mask.sum()) / math.sqrt(12)

    def of_examples(self) -> Floats:
        """Contribution of each example to each run's score, ``[R, N]``: the score is its mean, or changes by it.

        100 or 0 for an example of one label. Where an example has several, such as pixels, their sum is taken, since
        they come together, and the score is a ratio of two means. RMSE changes by (e² - RMSE²) / (2 RMSE).
        """
        runs, count = self.answers.shape[:2]
        if self.is_classification:
            right = ((self.answers == self.labels) & self._mask).reshape(runs, count, -1).sum(-1).double().numpy()
            labels = self._mask.reshape(count, -1).sum(-1).double().numpy()
            adds: Floats = (100 * right - self.scores[:, None] * (labels - labels.mean())) / labels.mean()
            return adds
        squares = (self.answers.double() - self.labels.double()).square().reshape(runs, count, -1).mean(-1).numpy()
        scores = self.scores[:, None]
        changes: Floats = (squares - scores**2) / np.where(scores > 0, 2 * scores, 1)
        return changes

    def shares_seeds_with(self, other: Sample) -> bool:
        """Whether run i of both was trained under the same seeds, for each i."""
        return self.question == other.question != "none" and [*map(dict, self.seeds)] == [*map(dict, other.seeds)]

    def equals(self, other: Sample) -> bool:
        """Whether both answer the same, run for run, or each of them in all of its runs."""
        if self.shares_seeds_with(other):
            return torch.equal(self.answers, other.answers)
        return self.is_constant and other.is_constant and torch.equal(self.answers[0], other.answers[0])

    @property
    def is_constant(self) -> bool:
        """Whether all runs answer the same."""
        return bool((self.answers == self.answers[0]).all())

    @property
    def _mask(self) -> Tensor:
        return self.labels != IGNORED_LABEL


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise TaskError(f"Expected 0 < alpha < 0.5 but got alpha={alpha!r}; 0.05 is usual.")


def check_alike(baseline: Tensor, candidate: Tensor) -> None:
    """Raise `TaskError` unless models that were scored by these labels can be compared."""
    kinds = ["regression targets" if labels.is_floating_point() else "classes" for labels in (baseline, candidate)]
    if kinds[0] != kinds[1]:
        why = f"the baseline's labels are {kinds[0]}, the candidate's {kinds[1]}"
    elif baseline.shape != candidate.shape:
        why = f"the baseline has labels of shape {list(baseline.shape)}, the candidate {list(candidate.shape)}"
    elif not torch.equal(baseline, candidate):
        why = f"{int((baseline != candidate).sum())} of {baseline.numel()} test labels differ"
    else:
        return
    raise TaskError(
        f"Expected two models of one test set but {why}. A difference would then be one of the test sets. Score both "
        f"on the same examples in the same order."
    )


@dataclass(frozen=True)
class Side:
    """One of the two models of a comparison, in numbers."""

    task: str
    question: str  #: what varies between its runs
    runs: int
    mean: float  #: accuracy in percent, or RMSE
    sd: float  #: of that over runs
    differing: float  #: mean over pairs of runs: disagreement in percent, or 1 - correlation
    saved: str | None = None  #: name of the baseline that it was kept in

    @classmethod
    def of(cls, sample: Sample) -> Side:
        """Describe a sample."""
        scores, pairs = sample.scores, float(means_with_others(sample.pairs).mean())
        mean = float(scores[0] + (scores - scores[0]).mean())
        return cls(sample.task, sample.question, len(sample), mean, exact_sd(scores), pairs, sample.saved)

    def to_json(self) -> dict[str, Any]:
        """Return every field by name."""
        return {name: finite(value) if isinstance(value, float) else value for name, value in vars(self).items()}


@public
@dataclass(frozen=True, repr=False)
class Comparison:
    """A candidate against a baseline: whether it is better, whether it varies more, and how far the two differ.

    >>> from stabilitykit.testing import fake_study
    >>> labels = [0, 1] * 20
    >>> def runs(*wrong):  # logits of runs that get the first few examples wrong
    ...     return [[[0.0, 1.0 if (label == 1) != (n < w) else -1.0] for n, label in enumerate(labels)] for w in wrong]
    >>> baseline, candidate = (fake_study(runs(*wrong), labels) for wrong in [(9, 10, 8, 11), (4, 5, 3, 4)])
    >>> comparison = Comparison.between(baseline, candidate)
    >>> comparison.is_better, comparison.is_spread_larger
    (True, False)
    >>> print(format(comparison.mean.value, ".2f"))
    13.75
    """

    baseline: Side
    candidate: Side
    metric: str  #: "accuracy" in percent, or "rmse" in the unit of the targets
    paired: bool  #: whether run i of both had the same seeds
    identical: bool  #: whether both answer the same in every run
    alpha: float  #: error rate of each answer, and of each bound
    mean: Difference  #: of the metric, candidate minus baseline, on this test set
    mean_on_distribution: Difference  #: of the metric, on any test set from the distribution of this one
    spread: Difference  #: of the metric over runs: candidate by baseline
    disagreement: Difference  #: of two runs of one model, percent of test examples; of 1 - correlation in a regression
    churn: float | None  #: percent of test examples that a run of each predict as different classes; None in regression

    @classmethod
    def between(cls, baseline: Study, candidate: Study, *, alpha: float = 0.05) -> Comparison:
        """Compare two studies of one test set.

        Each question has an error rate of ``alpha`` of its own. Runs are paired where both studies had the same seeds.
        Raises `TaskError` where the test sets are not one, `RunsFailedError` where a run of either failed, and
        `IsolationError` where what varies moves nothing in one of them.
        """
        for study in (baseline, candidate):
            check_is_study(study)
            study.check_alive()
        return cls.of_samples(Sample.of(baseline), Sample.of(candidate), alpha=alpha)

    @classmethod
    def of_samples(cls, baseline: Sample, candidate: Sample, *, alpha: float = 0.05) -> Comparison:
        """Compare two samples, of studies or of kept baselines."""
        _check_alpha(alpha)
        check_alike(baseline.labels, candidate.labels)
        paired = baseline.shares_seeds_with(candidate)
        how: dict[str, Any] = {"paired": paired, "alpha": alpha}
        scores = baseline.scores, candidate.scores
        identical = baseline.equals(candidate)
        rounding = baseline.rounding, candidate.rounding
        examples = baseline.of_examples(), candidate.of_examples()
        count = baseline.kept.shape[1] if baseline.is_classification else None
        return cls(
            Side.of(baseline),
            Side.of(candidate),
            main_score(TaskKind.CLASSES if baseline.is_classification else TaskKind.REGRESSION).name,
            paired,
            identical,
            alpha,
            mean=mean_difference(*scores, **how),
            mean_on_distribution=distribution_difference(*scores, examples, **how),
            spread=no_ratio(alpha) if identical else spread_ratio(*scores, alpha=alpha, rounding=rounding),
            disagreement=pairwise_difference(baseline.pairs, candidate.pairs, percent_of=count, **how),
            churn=_churn(baseline, candidate, paired) if baseline.is_classification else None,
        )

    @property
    def is_better(self) -> bool:
        """Whether the candidate's mean is shown to be better on this test set: more accuracy, or less RMSE."""
        return self._shows(self.mean, better=True)

    @property
    def is_worse(self) -> bool:
        """Whether the candidate's mean is shown to be worse on this test set."""
        return self._shows(self.mean, better=False)

    @property
    def is_better_on_distribution(self) -> bool:
        """Whether it is shown to be better on other test sets from the distribution of this one, too."""
        return self._shows(self.mean_on_distribution, better=True)

    @property
    def is_worse_on_distribution(self) -> bool:
        """Whether it is shown to be worse on other test sets from the distribution of this one, too."""
        return self._shows(self.mean_on_distribution, better=False)

    @property
    def is_spread_larger(self) -> bool:
        """Whether the candidate's accuracy (or RMSE) is shown to vary more from run to run."""
        return self.spread.is_more

    @property
    def is_spread_smaller(self) -> bool:
        """Whether the candidate's accuracy (or RMSE) is shown to vary less from run to run."""
        return self.spread.is_less

    @property
    def is_disagreement_larger(self) -> bool:
        """Whether two runs of the candidate are shown to disagree more (in a regression: to correlate less)."""
        return self.disagreement.is_more

    @property
    def is_disagreement_smaller(self) -> bool:
        """Whether two runs of the candidate are shown to disagree less (in a regression: to correlate more)."""
        return self.disagreement.is_less

    @property
    def conclusion(self) -> str:
        """The answers in plain words."""
        return str(self.to_json()["conclusion"])

    def __repr__(self) -> str:
        """Give the conclusion, which a failing assertion on the comparison shows."""
        return f"Comparison({self.conclusion})"

    def __str__(self) -> str:
        """Write a table of the numbers, and the answers in words below it."""
        return "\n".join([*comparison_table(self.to_json()), "", self.conclusion])

    def to_json(self) -> dict[str, Any]:
        """Return every number and answer by name, in JSON's types."""
        questions = ("mean", "mean_on_distribution", "spread", "disagreement")
        answers = [name for name in vars(type(self)) if name.startswith("is_")]
        numbers = {
            "baseline": self.baseline.to_json(),
            "candidate": self.candidate.to_json(),
            **{name: getattr(self, name) for name in ("metric", "paired", "identical", "alpha")},
            **{name: getattr(self, name).to_json() for name in questions},
            "churn": self.churn,
            **{name: getattr(self, name) for name in answers},
            "got_worse": list(NoWorse(self).found),
        }
        return numbers | {"conclusion": conclusion(numbers)}

    def _shows(self, difference: Difference, *, better: bool) -> bool:
        return difference.is_more if better is score_kind(self.metric).more_is_better else difference.is_less


@dataclass(frozen=True)
class NoWorse(Judgement):
    """Whether a candidate is no worse than its baseline: in its mean, in its spread, and in how far two runs differ."""

    comparison: Comparison
    name: ClassVar[str] = "baseline"
    runs_to_settle: ClassVar[None] = None  #: a candidate that is not shown to be worse passes: nothing is left open
    is_relative: ClassVar[bool] = True

    @property
    def found(self) -> tuple[str, ...]:
        """The numbers that are shown to have got worse, in words."""
        compared, classes = self.comparison, score_kind(self.comparison.metric).more_is_better
        words = {
            "the mean got worse": compared.is_worse,
            "the spread got larger": compared.is_spread_larger,
            f"the {'disagreement got larger' if classes else 'correlation got lower'}": compared.is_disagreement_larger,
        }
        return tuple(said for said, is_so in words.items() if is_so)

    @property
    def outcome(self) -> Outcome:
        """FAIL where one of the three is shown to be worse, else PASS."""
        return Outcome.FAIL if self.found else Outcome.PASS

    @property
    def reason(self) -> str:
        """What got worse, or the answers in plain words."""
        return f"{', and '.join(self.found)}, beyond error" if self.found else self.comparison.conclusion

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON's types."""
        return {"kind": self.name, "outcome": self.outcome.value, "reason": self.reason, **self.comparison.to_json()}


def comparison_of(baseline: Study, candidate: Study, *, alpha: float = 0.05) -> Comparison | ScoreComparison:
    """Compare two studies of one test set, or two of the same scores; raises `TaskError` for one of each."""
    for study in (baseline, candidate):
        check_is_study(study)
        study.check_alive()
    if baseline.labels is None and candidate.labels is None:
        _check_alpha(alpha)
        return ScoreComparison.of_samples(ScoreSample.of(baseline), ScoreSample.of(candidate), alpha=alpha)
    return Comparison.between(baseline, candidate, alpha=alpha)


@public
def compare(baseline: Study, candidate: Study, *, alpha: float = 0.05) -> Comparison | ScoreComparison:
    """Return the `Comparison` of two studies of one test set; see `Comparison.between`.

    Two studies of scores alone are compared score by score.

    Args:
        baseline: The study of the model that is there.
        candidate: The study of the model that may replace it.
        alpha: Error rate of each question that the comparison answers.
    """
    return comparison_of(baseline, candidate, alpha=alpha)


def _churn(baseline: Sample, candidate: Sample, paired: bool) -> float:
    """Mean over pairs of a run of each; where seeds are shared only of runs that had other ones, as within a model."""
    x, y = (sample.kept.numpy() for sample in (baseline, candidate))
    shares = [np.count_nonzero(y != run, axis=1) for run in x]
    chosen = [np.delete(of_run, i) if paired else of_run for i, of_run in enumerate(shares)]
    return float(100 * np.concatenate(chosen).mean() / x.shape[1])
