"""Comparisons of two studies of scores alone: whether a mean or a spread differs, score by score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from ..errors import TaskError
from ..estimates.differences import Difference, mean_difference, no_ratio, spread_ratio
from ..estimates.distributions import Floats
from ..estimates.estimate import finite
from ..estimates.intervals import exact_sd
from ..render.comparison_words import score_conclusion, score_table
from ..training.scores import scores_of_runs
from ..verdicts.judgement import Judgement, Outcome
from .study import Study


@dataclass(frozen=True, eq=False)
class ScoreSample:
    """The part of R runs that a comparison of scores needs."""

    task: str
    question: str  #: what varies between the runs, as tables name it
    seeds: tuple[Mapping[str, int | None], ...]  #: of each run
    scores: Mapping[str, Floats]  #: of each run, ``[R]``, by name
    saved: str | None = None  #: name of the baseline that it was kept in

    @classmethod
    def of(cls, study: Study) -> ScoreSample:
        """Condense a study; raises `RunsFailedError` where a run left nothing to compare."""
        scores = {name: np.asarray(of_runs) for name, of_runs in scores_of_runs(study.trained).items()}
        return cls(study.task, study.protocol.name, tuple(run.seeds for run in study.trained), scores)

    def __len__(self) -> int:
        """R."""
        return len(self.seeds)

    def shares_seeds_with(self, other: ScoreSample) -> bool:
        """Whether run i of both was trained under the same seeds, for each i."""
        return self.question == other.question != "none" and [*map(dict, self.seeds)] == [*map(dict, other.seeds)]

    def to_json(self) -> dict[str, Any]:
        """Return what it is of, by name."""
        return {"task": self.task, "question": self.question, "runs": len(self), "saved": self.saved}


@dataclass(frozen=True)
class ScoreDifference:
    """How far the candidate's score is from the baseline's; which of the two is better, only its user knows."""

    name: str
    baseline: tuple[float, float]  #: mean and SD over runs
    candidate: tuple[float, float]
    mean: Difference  #: candidate minus baseline
    spread: Difference  #: candidate by baseline

    @classmethod
    def between(cls, name: str, x: Floats, y: Floats, *, paired: bool, alpha: float) -> ScoreDifference:
        """Compare one score of two samples."""
        identical = paired and np.array_equal(x, y)
        spread = no_ratio(alpha) if identical else spread_ratio(x, y, alpha=alpha)
        sides = [(float(of[0] + (of - of[0]).mean()), exact_sd(of)) for of in (x, y)]
        return cls(name, sides[0], sides[1], mean_difference(x, y, paired=paired, alpha=alpha), spread)

    def to_json(self) -> dict[str, Any]:
        """Return every number by name, in JSON's types."""
        sides = {side: dict(zip(("mean", "sd"), map(finite, getattr(self, side)), strict=True)) for side in _SIDES}
        return {**sides, "difference": self.mean.to_json(), "spread": self.spread.to_json()}


_SIDES = ("baseline", "candidate")


@dataclass(frozen=True, repr=False)
class ScoreComparison:
    """A candidate against a baseline, score by score: whether its mean differs, and whether it varies more.

    >>> from stabilitykit import compare
    >>> from stabilitykit.testing import fake_scores
    >>> baseline, candidate = fake_scores(reward=[450, 455, 452]), fake_scores(reward=[470, 476, 471])
    >>> comparison = compare(baseline, candidate)
    >>> comparison["reward"].mean.is_more, comparison["reward"].spread.is_more
    (True, False)
    """

    baseline: ScoreSample
    candidate: ScoreSample
    differences: tuple[ScoreDifference, ...]
    paired: bool  #: whether run i of both had the same seeds
    alpha: float  #: error rate of each answer, and of each bound

    @classmethod
    def of_samples(cls, baseline: ScoreSample, candidate: ScoreSample, *, alpha: float = 0.05) -> ScoreComparison:
        """Compare two samples; raises `TaskError` unless they have the same scores."""
        check_same_scores(baseline.scores, candidate.scores)
        paired = baseline.shares_seeds_with(candidate)
        differences = (
            ScoreDifference.between(name, of_runs, candidate.scores[name], paired=paired, alpha=alpha)
            for name, of_runs in baseline.scores.items()
        )
        return cls(baseline, candidate, tuple(differences), paired, alpha)

    def __getitem__(self, name: str) -> ScoreDifference:
        """Return the difference of one score: ``comparison["reward"].mean.is_more``."""
        for difference in self.differences:
            if difference.name == name:
                return difference
        names = ", ".join(difference.name for difference in self.differences)
        raise TaskError(f"Expected a score of both studies but got {name!r}. They have {names}.")

    @property
    def identical(self) -> bool:
        """Whether run for run both have the same scores."""
        pairs = ((self.baseline.scores[one.name], self.candidate.scores[one.name]) for one in self.differences)
        return self.paired and all(np.array_equal(x, y) for x, y in pairs)

    @property
    def changed(self) -> tuple[str, ...]:
        """What is shown to be another, in words: a mean, or a spread that got larger."""
        found = []
        for one in self.differences:
            found += [f"the mean of {one.name} changed"] * (one.mean.is_more or one.mean.is_less)
            found += [f"the spread of {one.name} got larger"] * one.spread.is_more
        return tuple(found)

    @property
    def conclusion(self) -> str:
        """The answers in plain words."""
        return str(self.to_json()["conclusion"])

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse the answers of a `Comparison` that need predictions, or the direction of a score."""
        if not name.startswith("is_"):
            raise AttributeError(name)
        names = [difference.name for difference in self.differences]
        raise TaskError(
            f"Expected a question about a score but got comparison.{name}: scores alone have no predictions, and which "
            f"way a score is better is not known. Ask comparison[{names[0]!r}].mean.is_less (or .is_more), and "
            f".spread.is_more."
        )

    def __repr__(self) -> str:
        """Give the conclusion, which a failing assertion on the comparison shows."""
        return f"ScoreComparison({self.conclusion})"

    def __str__(self) -> str:
        """Write a table of the numbers, and the answers in words below it."""
        return "\n".join([*score_table(self.to_json()), "", self.conclusion])

    def to_json(self) -> dict[str, Any]:
        """Return every number and answer by name, in JSON's types."""
        numbers = {
            "baseline": self.baseline.to_json(),
            "candidate": self.candidate.to_json(),
            **{name: getattr(self, name) for name in ("paired", "identical", "alpha")},
            "scores": {difference.name: difference.to_json() for difference in self.differences},
            "got_worse": list(self.changed),
        }
        return numbers | {"conclusion": score_conclusion(numbers)}


@dataclass(frozen=True)
class Unchanged(Judgement):
    """Whether a candidate's scores are those of its baseline: no mean is another, and none varies more.

    Which way a score is better is not known, so a mean that is shown to differ either way is a change.
    """

    comparison: ScoreComparison
    name: ClassVar[str] = "baseline"
    runs_to_settle: ClassVar[None] = None  #: a candidate that is not shown to differ passes: nothing is left open
    is_relative: ClassVar[bool] = True

    @property
    def outcome(self) -> Outcome:
        """FAIL where anything is shown to have changed, else PASS."""
        return Outcome.FAIL if self.comparison.changed else Outcome.PASS

    @property
    def reason(self) -> str:
        """What changed, or the answers in plain words."""
        changed = self.comparison.changed
        return f"{', and '.join(changed)}, beyond error" if changed else self.comparison.conclusion

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON's types."""
        return {"kind": self.name, "outcome": self.outcome.value, "reason": self.reason, **self.comparison.to_json()}


def check_same_scores(baseline: Mapping[str, object], candidate: Mapping[str, object]) -> None:
    """Raise `TaskError` unless both have scores of the same names."""
    if baseline.keys() != candidate.keys():
        there, here = (", ".join(names) or "none" for names in (baseline, candidate))
        raise TaskError(
            f"Expected two studies of the same scores but the baseline has {there} and the candidate {here}. Return "
            f"the same names from both."
        )
