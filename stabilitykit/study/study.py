"""R runs of one protocol on one task, and every number that follows from them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import BudgetExceededError, IsolationError, RunsFailedError, TaskError
from ..estimates.doubts import shared_outputs_doubt
from ..estimates.estimate import Estimate
from ..estimates.meaning import Meaning
from ..estimates.measure_kinds import task_kind, why_missing
from ..estimates.measures import Measures, Metric
from ..estimates.metrics import ensemble_of, vanilla_groups
from ..estimates.reading import Reading
from ..estimates.scores import SCORES, TaskKind
from ..isolation.intercepted import line_of
from ..protocol import NoiseProtocol, Source
from ..public import public
from ..store.record import RunRecord
from ..training.certificate import Certificate, check_alive, why_dead
from ..training.control import CACHE, LEAK, begins_later, difference, epochs_apart
from ..training.environment import FOR_THE_RECORD
from ..training.scores import scores_of_runs
from ..training.task import Task
from ..verdicts.budgets import Budget, Verdict, check_is_budget
from ..verdicts.judgement import Outcome
from ..verdicts.limits import FailedRuns
from .condition_number import ConditionNumber, condition_number_of
from .flips import Flips, check_has_flips
from .growth import Growth, growth_of
from .journal import Journal
from .layer_similarity import Similarity, similarity_of
from .reduction import Reduction


@dataclass(frozen=True)
class RelativeGate:
    """A gate that holds a study against other studies, as a self-test needs it."""

    name: str  #: what it judges
    reach: Callable[[Study], float]  #: spread of a study in the judged one's place, in multiples of the accepted one
    decide: Callable[[Study], Outcome]  #: the outcome for a study in the judged one's place


#: Called with a study that did not fail, and with the gates that judged it.
Judged: TypeAlias = "Callable[[Study, Budget | Sequence[RelativeGate]], None]"


def fail_undecided(message: str) -> None:
    """Raise `BudgetExceededError`: what cannot be shown to be within its budget is not."""
    raise BudgetExceededError(message)


def judge_only(study: Study, gate: Budget | Sequence[RelativeGate]) -> None:
    """Do nothing after a verdict."""


def ignore(error: BudgetExceededError) -> None:
    """Do nothing before a FAIL is raised."""


def as_judged(budget: Budget, verdict: Verdict) -> Verdict:
    """Return a verdict as it is: no earlier one is known."""
    return verdict


@dataclass(frozen=True)
class Policy:
    """What a session does with verdicts."""

    undecided: Callable[[str], None] = fail_undecided  #: called with the message of an UNDECIDED verdict; may raise
    judged: Judged = judge_only  #: called with a study that did not fail, to try its gates; may raise
    failed: Callable[[BudgetExceededError], None] = ignore  #: called with the error of a FAIL before it is raised
    standing: Callable[[Budget, Verdict], Verdict] = as_judged  #: adds a FAIL of an earlier session to a verdict


@public
@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """R records of one protocol on one task, and every number that follows from them.

    Units: accuracy, its SD, disagreement and ensemble delta in percent (points); cross-entropy in nats; correlation
    without a unit. Each number is an `Estimate`: value, and a bound on either side.
    """

    task: str  #: name of what was trained
    protocol: NoiseProtocol
    records: tuple[RunRecord, ...]  #: in the order of their index
    labels: Tensor | None  #: as the task has them; None where its runs leave scores alone
    certificate: Certificate  #: what is proven of its task
    metrics: Mapping[str, Metric] = field(default_factory=dict)  #: the user's own, by name
    recipe: Task | None = None  #: what was trained; None where the records are no runs of it, as those of ensembles
    most_runs: int | None = None  #: R of a check, which trains no more than its verdict takes
    max_failed_runs: int = 0  #: how many of the runs may leave nothing to measure
    private: str = ""  #: why its runs are not kept for another test or session; empty if they are
    policy: Policy = field(default_factory=Policy)  #: what follows from a verdict on it
    journal: Journal = field(default_factory=Journal)  #: what is noted about it since it was made
    stated: str | None = None  #: what its outputs are, where that is stated; see `Recipe`

    def __repr__(self) -> str:
        """Name the question, as tables do: test failures show it."""
        return f"Study({self.task!r}, vary={self.protocol.name!r}, runs={len(self.records)})"

    def __getitem__(self, name: str) -> Estimate:
        """Return an estimate by name: ``study["f1_sd"]``, ``study["pearson"]``."""
        if name not in self.measures:
            raise TaskError(
                f"Expected a measure of this study but got {name!r}. It has {', '.join(self.measures)}."
                f"{why_missing(name, self.measures)}"
            )
        return self.measures[name]

    @cached_property
    def measures(self) -> Measures:
        """Every estimate by name, computed when first asked for."""
        if self.recipe is None:
            return Measures(self._outputs, self.labels, self.metrics, self.stated, scores_of_runs(self.trained))
        return self.recipe.measures(self.trained, self.metrics)

    @cached_property
    def flips(self) -> Flips:
        """The test examples and classes whose prediction changes most between runs; print it."""
        check_has_outputs(self)
        labels = self.meaning.labels
        check_has_flips(labels)
        return Flips(self.measures.predicted, labels)

    @cached_property
    def meaning(self) -> Meaning:
        """What the labels ask for, and what the outputs are taken for."""
        return Meaning.of(self.labels, self.stated)

    def note_meaning(self) -> None:
        """Note how the outputs were taken, and what in the numbers speaks against that."""
        for remark in self.measures.remarks:
            self.journal.remark(remark)
        if self.protocol.vary - {Source.LOW_LEVEL}:  # a step of rounding may well be absorbed
            trained = [(run.fingerprint, run.trace, run.further_weights) for run in self.trained]
            scores = [torch.tensor(list(run.scores.values())) for run in self.trained if run.scores]
            doubt = shared_outputs_doubt(self._outputs or scores, trained)
            if doubt:
                self.journal.remark(doubt)

    @property
    def outputs(self) -> Tensor:
        """Outputs of all runs as they were returned, ``[R, N, ..., C]`` or like the labels; a copy each time."""
        check_has_outputs(self)
        return torch.stack(self._outputs)

    @property
    def _outputs(self) -> list[Tensor]:
        """The outputs of each run as its record has them, often mapped from a file: not copied."""
        return [record.logits for record in self.trained if record.logits is not None]

    @property
    def accuracy(self) -> Estimate:
        """Mean accuracy over runs, percent."""
        return self["accuracy"]

    @property
    def accuracy_sd(self) -> Estimate:
        """SD of the accuracy over runs, percentage points (ddof=1)."""
        return self["accuracy_sd"]

    @property
    def flip_floor(self) -> Estimate:
        """SD of accuracy that the test examples would give if they flipped independently, percentage points."""
        return self["flip_floor"]

    @property
    def training_sd(self) -> Estimate:
        """SD of accuracy that would be left on test data without end, percentage points: a diagnosis, never judged."""
        return self["training_sd"]

    @property
    def cross_entropy(self) -> Estimate:
        """Mean cross-entropy over runs, nats."""
        return self["cross_entropy"]

    @property
    def cross_entropy_sd(self) -> Estimate:
        """SD of the cross-entropy over runs, nats (ddof=1)."""
        return self["cross_entropy_sd"]

    @property
    def perplexity(self) -> Estimate:
        """Mean perplexity over runs, of a language model."""
        return self["perplexity"]

    @property
    def perplexity_sd(self) -> Estimate:
        """SD of the perplexity over runs (ddof=1), of a language model."""
        return self["perplexity_sd"]

    @property
    def rmse(self) -> Estimate:
        """Mean root mean squared error over runs, in the unit of the targets."""
        return self["rmse"]

    @property
    def rmse_sd(self) -> Estimate:
        """SD of the root mean squared error over runs, in the unit of the targets (ddof=1)."""
        return self["rmse_sd"]

    @property
    def disagreement(self) -> Estimate:
        """Test examples on which two runs predict different classes, percent, mean over pairs."""
        return self["disagreement"]

    @property
    def correlation(self) -> Estimate:
        """Spearman's rank correlation of the outputs of two runs, mean over pairs."""
        return self["correlation"]

    @property
    def ensemble_delta(self) -> Estimate:
        """Accuracy (RMSE, perplexity) that averaging the outputs of two runs gains, mean over pairs: equation (1)."""
        return self[self.main_delta]

    @property
    def trained(self) -> tuple[RunRecord, ...]:
        """The runs that every number is about: all but the failed ones that the budget allows."""
        check_runs(self)
        return tuple(record for record in self.records if record.status == "ok")

    @property
    def kind(self) -> TaskKind:
        """The kind of its task, which is known of a study without a trained run too."""
        if self.recipe is None:
            return task_kind(Measures.names(self.labels, stated=self.stated))
        return task_kind(self.recipe.measure_names())

    @property
    def scores(self) -> dict[int, dict[str, float]]:
        """Accuracy, cross-entropy, RMSE or perplexity of each trained run, and what it returned, by its index."""
        of_runs = {name: self.measures.of_runs(name).tolist() for name in SCORES if name in self.measures}
        of_runs |= scores_of_runs(self.trained)
        return {
            record.index: {name: values[place] for name, values in of_runs.items()}
            for place, record in enumerate(self.trained)
        }

    @property
    def main_delta(self) -> str:
        """Name of the ensemble delta of accuracy, of RMSE in a regression, of perplexity in a language model."""
        check_has_outputs(self)
        return self.measures.main_delta

    @property
    def failed(self) -> tuple[RunRecord, ...]:
        """The runs that left nothing to measure."""
        return tuple(record for record in self.records if record.status != "ok")

    @property
    def is_whole(self) -> bool:
        """Whether the failed runs are no more than ``max_failed_runs``, and leave two runs to compare."""
        return len(self.failed) <= min(self.max_failed_runs, len(self.records) - 2)

    @property
    def verdicts(self) -> list[Verdict]:
        """Every verdict that was asserted on the study, the last one at the end."""
        return self.journal.verdicts

    @property
    def control(self) -> Certificate:
        """The certificate, by its earlier name."""
        return self.certificate

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a reader should see beside the numbers."""
        only = self.certificate.scope.startswith("only ")  # the first of many epochs, as control="first" asks for
        notes = (
            [f"isolation {'proven by ' * only}{self.certificate.scope}"] if only or not self.certificate.proven else []
        )
        if self.private:
            notes.append(f"runs not kept, nor verdicts: {self.private}")
        notes += [line_of(record.intercepted) for record in self.records if record.intercepted][:1]
        kinds = {record.low_level for record in self.records} - {"deterministic", "not isolated"}
        if kinds:
            notes.append(f"low-level source: {', '.join(sorted(kinds))}")
        prints = {record.fingerprint for record in self.records}
        is_same = not self.failed and self.protocol.name != "none" and len(prints) == 1 < len(self.records)
        if is_same and self.recipe is not None and not self.recipe.isolates:  # nothing of it can be moved alone
            notes.append("all runs are bit-identical: the seed does nothing")
        identical = "all runs are bit-identical: " * is_same
        notes += [identical + why_dead(name, self.protocol.onset) for name in self.certificate.dead]
        if is_same and self.certificate.alive and not self.certificate.dead:
            notes.append(
                f"all runs are bit-identical, though {', '.join(self.certificate.alive)} moved a training: what ends "
                f"it, a state that is loaded?"
            )
        if self.failed and self.is_whole:  # else it has no numbers, and its test has failed
            notes.append(
                f"{len(self.failed)} of {len(self.records)} runs failed, as max_failed_runs={self.max_failed_runs} "
                f"allows; the numbers are about the other runs"
            )
        return (*notes, *self.journal.remarks, *self.journal.selftests)

    def judge(self, budget: Budget) -> Verdict:
        """Hold every limit of the budget against its estimate, once, over all runs.

        Raises `IsolationError` for a PASS of a study in which what varies moves nothing.
        """
        check_is_budget(budget)
        failures = FailedRuns(len(self.failed), len(self.records), budget.max_failed_runs)
        verdict = budget.judge(self.measures, len(self.failed)).beside(failures)
        if verdict.outcome is Outcome.PASS:
            self.check_alive()
        return verdict

    def check_alive(self) -> None:
        """Raise `IsolationError` if what was asked to vary moves nothing: the study then supports no judgement."""
        check_alive(self.protocol, self.certificate)

    def cka(
        self, layers: Iterable[str] | None = None, examples: int = 2000, batch_size: int | None = None
    ) -> Similarity:
        """Return how alike each layer represents the test examples in two runs, for a Recipe(keep_weights=True).

        Names of ``layers`` are the model's modules'; None takes up to eight. See `compare_layers` for the arguments.
        """
        found = similarity_of(self.recipe, self.trained, layers, examples, batch_size)
        self.journal.similarities.append(found)
        return found

    def ensembles(self, size: int) -> Study:
        """Return vanilla ensembles of ``size`` runs each as a study: disjoint groups of this one's, their mean logits.

        Disjoint groups share no run, so the R // size ensembles are independent as runs are, and the intervals hold.
        Source: Summers & Dinneen, section 5, table 5.
        """
        check_has_outputs(self)
        groups = vanilla_groups(len(self.trained), size)
        if len(groups) < 2:
            raise TaskError(
                f"Expected at least two ensembles but {len(self.trained)} runs make {len(groups)} of size={size}. "
                f"Train {2 * size} runs or more, or ask for smaller ensembles."
            )
        if not self._outputs:
            raise TaskError(f"Expected runs that keep their outputs, to average, but those of {self.task} do not.")
        reading = Reading(self._outputs, self.meaning)
        outputs = ensemble_of(reading.additive(), groups)
        records = tuple(self._ensemble(i, group, reading.back(outputs[i])) for i, group in enumerate(groups))
        name = f"{self.task}, ensembles of {size}"
        # Verdicts on the ensembles are reported with this study; similarities are of this study's models alone.
        journal = dataclasses.replace(self.journal, similarities=[])
        return dataclasses.replace(
            self,
            task=name,
            records=records,
            recipe=None,
            most_runs=None,
            journal=journal,
            stated=self.stated or reading.word,
        )

    def _ensemble(self, index: int, members: Iterable[int], logits: Tensor) -> RunRecord:
        runs = [self.trained[i] for i in members]
        fingerprint = hashlib.sha256("".join(run.fingerprint for run in runs).encode()).hexdigest()
        record = dataclasses.replace(runs[0], index=index, logits=logits, fingerprint=fingerprint)
        # An ensemble has no weights, curve or perturbation of its own.
        seconds = sum(run.seconds for run in runs)
        return dataclasses.replace(record, seconds=seconds, weights=None, curve=(), perturbation=None)

    def growth(self, score: str) -> Growth:
        """Return how a score spreads over runs after each epoch, of a Recipe with ``curve=True``; print it."""
        return growth_of(self.trained, score, self.task, self.protocol.name)

    def condition_number(self, score: str) -> ConditionNumber:
        """Return how much training magnifies one weight's step, at least; ``perturb="ulp"`` and nothing else varies."""
        note = "" if self.certificate.proven else f"isolation {self.certificate.scope}"
        values = self.measures.of_runs(score).tolist()
        return condition_number_of(self.trained, self.protocol, score, values, note)

    def reduction_against(self, baseline: Study) -> Reduction:
        """Return how much less this study varies than ``baseline``: the paper's variability reduction (section 5)."""
        for study in (self, baseline):
            study.check_alive()
        return Reduction.between(self.measures, baseline.measures)


def check_is_study(given: object) -> None:
    """Raise `TaskError` for a task in the place of its study."""
    if not isinstance(given, Study):
        raise TaskError(
            f"Expected a study but got {given!r}. Train it first, as in study = stability.measure(recipe, vary='init')."
        )


def check_has_outputs(study: Study) -> None:
    """Raise `TaskError` for a study of scores alone."""
    if study.labels is None:
        raise TaskError(
            f"Expected runs that predict a test set but those of {study.task} return scores alone, which have no "
            f"predictions to compare or average. Return its outputs too, {{'outputs': ..., 'scores': ...}}, and give "
            f"labels=."
        )


def listed(studies: Iterable[Study]) -> list[Study]:
    """Return several studies as a list; raise `TaskError` for one alone, or for what is none."""
    if isinstance(studies, Study) or not isinstance(studies, Iterable):
        alone = " alone" if isinstance(studies, Study) else ""
        raise TaskError(f"Expected several studies but got {studies!r}{alone}. Write [study, another].")
    studies = list(studies)
    for study in studies:
        check_is_study(study)
    return studies


def check_trained(study: Study) -> None:
    """Raise `RunsFailedError` for too many failed runs, `IsolationError` if runs that must be equal are not."""
    check_runs(study)
    check_bits(study)


def check_runs(study: Study) -> None:
    """Raise `RunsFailedError` if a run of the study left nothing to measure."""
    if study.is_whole:
        return
    first = study.failed[0]
    indices = ", ".join(str(record.index) for record in study.failed)
    raise RunsFailedError(
        f"Expected {len(study.records)} trained models but {len(study.failed)} of {study.task} [{study.protocol.name}] "
        f"failed: run {indices}. A study is never computed without them, since runs that fail are part of the spread. "
        f"Run {first.index} ({first.status}; seeds {dict(first.seeds)}) said:\n\n{first.error}"
    )


def check_bits(study: Study) -> None:
    """Raise `IsolationError` unless equal plans gave equal runs, run 0 the base run's, and one platform trained all."""
    trained = [record for record in study.records if record.status == "ok"]
    for record in trained[1:]:
        _check_platform(trained[0], record)
        found = difference(trained[0], record) if study.protocol.name == "none" else ""
        if found:
            raise IsolationError(
                f"Expected equal runs where nothing varies, but of runs {trained[0].index} and {record.index} {found}. "
                f"{LEAK}"
            )
    _check_all_trained(trained)
    first, certificate = study.records[0], study.certificate
    if not study.protocol.begins_with_base or first.status != "ok":
        return
    apart = epochs_apart(certificate.trace, first.trace) if certificate.trace or certificate.base else ""
    if not apart and certificate.base and certificate.base != first.fingerprint:
        apart = f"their final weights differ{begins_later(first.trace)}"
    if apart:
        raise IsolationError(
            f"Expected run 0, trained by process {first.trained_by.get('pid')}, to be the base run bit for bit, but "
            f"{apart}. The two ran in different processes or at different times: look first for the order of a set "
            f"(PYTHONHASHSEED), and files. {LEAK}"
        )


def _check_all_trained(trained: Sequence[RunRecord]) -> None:
    idle = [str(record.index) for record in trained if record.trained_nothing]
    if 0 < len(idle) < len(trained):
        raise IsolationError(
            f"Expected all runs of a study to be trained, but run {', '.join(idle)} completed no epoch and no step of "
            f"an optimizer, and the others did {CACHE}. Train in each call: stabilitykit keeps the runs itself."
        )


def _check_platform(one: RunRecord, other: RunRecord) -> None:
    for name, value in one.environment.items():
        if name not in FOR_THE_RECORD and other.environment.get(name, value) != value:
            raise IsolationError(
                f"Expected all runs of a study to be trained on one platform, but run {one.index} has {name}={value!r} "
                f"and run {other.index} {name}={other.environment[name]!r}: the store was joined from two machines. "
                f"Remove the experiment with stability-cache prune, and train again."
            )
