"""The gate proves that it can fire: faults are planted into a copy of a judged study, and each must turn it red."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from ..errors import IsolationError, SelfTestError, setting
from ..estimates.estimate import Estimate
from ..estimates.meaning import Meaning
from ..estimates.measure_kinds import kind_of
from ..estimates.metrics import IGNORED_LABEL
from ..estimates.reading import Reading
from ..store.record import RunRecord
from ..verdicts.budgets import Budget
from ..verdicts.judgement import Outcome
from ..verdicts.limits import LimitJudgement
from .journal import Journal
from .study import RelativeGate, Study, check_bits

#: Seed of the generator that draws every planted fault.
_SEED = 20_210_713

#: Amplified deviations start from `_LEAST` of the SD of all outputs at least, and double up to `_DOUBLINGS` times.
_LEAST = 0.01
_DOUBLINGS = 14

_BROKEN = "This is a fault of the gate and not of your budget: please report it."

#: Ratio of two budgets from which on a user can set one between them.
_WIDE = 1.1

#: How much further than any other logit one is, in nats, that stands for an infinite one.
_SURE = 50.0

#: Shapes in which the deviations of run r of R from the mean of all runs grow: equal in all runs; or larger, the later
#: the run, so that later models are worse. An SD of scores needs the second: equal noise in all runs makes all scores
#: worse, and N examples that flip on their own vary by no more than the flip floor.
_SHAPES: tuple[Callable[[int, int], float], ...] = (lambda r, R: 1.0, lambda r, R: r / (R - 1))


def selftest(study: Study, gate: Budget | Sequence[RelativeGate], *, undecided_is_red: bool = True) -> None:
    """Plant faults into copies of ``study``, and judge each as the study itself is judged.

    Nothing is trained or stored, and ``study`` gets a note and keeps its verdicts. ``undecided_is_red`` says whether
    an UNDECIDED verdict fails its test here. See `try_budget` and `try_relatives` for the faults.

    Raises `SelfTestError`, an AssertionError, that names each fault which went unnoticed.
    """
    if all(record.logits is None and not record.scores for record in study.trained):
        note = "self-test: not possible, since the runs keep no outputs that faults could be planted into"
    elif isinstance(gate, Budget):
        note = try_budget(study, gate, undecided_is_red)
    elif study.labels is None:
        note = "self-test: not possible beside other studies, since the runs leave scores and no outputs"
    else:
        note = try_relatives(study, gate, undecided_is_red)
    if note not in study.journal.selftests:
        study.journal.selftests.append(note)


def try_budget(study: Study, budget: Budget, undecided_is_red: bool) -> str:
    """Plant three kinds of faults, and return a note of what was noticed.

    One run broken: its outputs are shuffled over the test examples, as of a training that learned nothing. The spread
    doubled: deviations from the mean of all runs are amplified until a limited measure is at twice its budget, for each
    limit. A seed leaked: the weights of run 0 differ from the control's. Where scores are limited themselves, all runs
    miss the limit.
    """
    gate = _Gate(study, budget, undecided_is_red)
    blind = [gate.cannot_notice_a_broken_run(), gate.cannot_notice_a_leaked_seed()]
    unnoticed = [
        "" if blind[0] else gate.misses_a_broken_run(),
        *gate.misses_a_doubled_spread(),
        *gate.misses_a_missed_threshold(),
        "" if blind[1] else gate.misses_a_leaked_seed(),
    ]
    unnoticed = [fault for fault in unnoticed if fault]
    _demand_none(unnoticed, repr(budget))
    planted = bool(budget.limits) + bool(budget.thresholds) + blind.count("")
    return "; ".join([_turned_red(planted), *filter(None, blind)])


def try_relatives(study: Study, gates: Sequence[RelativeGate], undecided_is_red: bool) -> str:
    """Amplify the deviations of a study's runs until it is at twice what each gate accepts beside the others."""
    copies = _Copies(study, undecided_is_red)
    unnoticed = []
    for gate in gates:
        driven = copies.driven(gate.reach, 2.0)
        if copies.is_red(gate.decide(driven)):
            continue
        reached = gate.reach(driven)
        if reached >= 2:
            unnoticed.append(
                f"the spread doubled: with {gate.name} at {reached:.3g} times what is accepted, the verdict is still "
                f"not red. {_more_runs()}"
            )
        else:
            unnoticed.append(
                f"this gate cannot fire: however much the deviations of the {len(copies.records)} runs from one "
                f"another are amplified, {gate.name} comes to {reached:.3g} times what is accepted, which is not red. "
                f"Accept less."
            )
    _demand_none(unnoticed, " and ".join(gate.name for gate in gates))
    return _turned_red(len(gates))


def _demand_none(unnoticed: Sequence[str], gate: str) -> None:
    if unnoticed:
        faults = "fault" if len(unnoticed) == 1 else "faults"
        raise SelfTestError(
            f"Expected {gate} to turn red for every planted fault, but the self-test planted {len(unnoticed)} "
            f"{faults} that it does not notice. A gate that cannot fire proves nothing.\n\n" + "\n\n".join(unnoticed)
        )


def _turned_red(planted: int) -> str:
    return f"self-test: {planted} planted fault{'s' * (planted > 1)} turned it red"


class _Copies:
    """Copies of a study with other outputs, each with a journal of its own."""

    def __init__(self, study: Study, undecided_is_red: bool) -> None:
        self.study, self.undecided_is_red = study, undecided_is_red
        self.records = list(study.trained)
        self.has_outputs = all(record.logits is not None for record in self.records)

    def of_outputs(self, outputs: Sequence[Tensor]) -> Study:
        """Copy the study with these outputs of its runs."""
        return self._of(
            dataclasses.replace(record, logits=self._reading.back(run))
            for record, run in zip(self.records, outputs, strict=True)
        )

    def of_scores(self, scores: Iterable[Mapping[str, float]]) -> Study:
        """Copy the study with these scores that its runs return."""
        return self._of(dataclasses.replace(run, scores=own) for run, own in zip(self.records, scores, strict=True))

    def _of(self, records: Iterable[RunRecord]) -> Study:
        return dataclasses.replace(self.study, records=tuple(records), journal=Journal())

    def driven(self, spread_of: Callable[[Study], float], least: float) -> Study:
        """Amplify the deviations of the runs until the spread is ``least`` or more, or the largest that they reach."""
        most, reached = -math.inf, 0
        for step in range(self._amplified.steps):
            spread = spread_of(self.of_outputs(self._amplified.at(step)))
            if spread > most:
                most, reached = spread, step
            if spread >= least and spread > 0:
                break
        return self.of_outputs(self._amplified.at(reached))

    def is_red(self, outcome: Outcome) -> bool:
        """Whether a test with this outcome would fail."""
        return outcome is Outcome.FAIL or (outcome is Outcome.UNDECIDED and self.undecided_is_red)

    @cached_property
    def _amplified(self) -> _Amplified:
        return _Amplified(self._outputs)

    @cached_property
    def _reading(self) -> Reading:
        outputs = [record.logits for record in self.records if record.logits is not None]
        return Reading(outputs, self.study.meaning)

    @property
    def _outputs(self) -> list[Tensor]:
        """The runs' outputs on the scale of logits, in a type that amplified ones fit into; no number is infinite."""
        outputs = self._reading.additive()
        outputs = [run if run.dtype == torch.float64 else run.float() for run in outputs]
        if all(bool(run.isfinite().all()) for run in outputs):
            return outputs
        most = max(float(run[run.isfinite()].abs().max()) for run in outputs) + _SURE
        return [run.clamp(-most, most) for run in outputs]


class _Gate(_Copies):
    """Copies of a study, and the budget that judges them."""

    def __init__(self, study: Study, budget: Budget, undecided_is_red: bool) -> None:
        super().__init__(study, undecided_is_red)
        self.budget = budget

    @cached_property
    def _broken(self) -> Study:
        """The outputs of the first run are shuffled over the test examples."""
        first, *others = self._outputs
        return self.of_outputs([_shuffled(first, self.study.meaning), *others])

    def cannot_notice_a_broken_run(self) -> str:
        """Say so where no budget could: one run of many moves a mean over pairs by little, some measures not at all."""
        if not self.has_outputs:
            return "one broken run it cannot plant, since the runs leave scores and no outputs"
        if not self._accepts_a_broken_run():
            return ""
        before, after = (study[self._score_sd].value for study in (self.study, self._broken))
        if after <= 2 * before:
            return "one broken run it cannot notice, which is hardly worse than the others"
        if self._noticing() or self._refuses_nothing():
            return ""
        return (
            f"one broken run of {len(self.records)} it cannot notice, whatever the budget for "
            f"{' and '.join(self.budget.limits)}: limit {self._score_sd} too, which that moves from {before:.3g} to "
            f"{after:.3g}"
        )

    def misses_a_broken_run(self) -> str:
        """Say what stays green of a study with a broken run, if everything does."""
        if not self._accepts_a_broken_run():
            return ""
        moved = " and ".join(
            f"{metric} from {self.study[metric]} to {judgement.estimate}, which its budget of {judgement.limit:g} "
            f"{'accepts' if judgement.outcome is Outcome.PASS else 'leaves undecided'}"
            for metric, judgement in self._judge(self._broken).items()
        )
        ranges = " or ".join(self._noticing())
        return (
            f"one run broken: the outputs of one run of {len(self.records)}, shuffled over the test examples as if it "
            f"had learned nothing, move {moved}. "
            + (f"Tighten the budget: {ranges} would notice it, and this study is within that." if ranges else _BROKEN)
        )

    def _accepts_a_broken_run(self) -> bool:
        judged = self._judge(self._broken)
        return bool(judged) and not any(self.is_red(judgement.outcome) for judgement in judged.values())

    def _noticing(self) -> list[str]:
        """The budgets, a range for each measure, that accept the study and not the one with a broken run."""
        found = []
        for metric, judgement in self._judge(self.study).items():
            estimates = self.study[metric], self._broken[metric]
            moved = _spread(metric, estimates[1].value) > _spread(metric, estimates[0].value)
            own, broken = (self._tightest(judgement, estimate) for estimate in estimates)
            if moved and _spread(metric, broken) > _WIDE * _spread(metric, own):
                found.append(f"{metric} from {own:.4g} to {broken:.4g}")
        return found

    def _refuses_nothing(self) -> bool:
        """Whether the study passes with budgets of 0 although its runs differ: its gate is broken."""
        return any(
            _spread(metric, self._tightest(judgement, self.study[metric])) < 1e-9 * _spread(metric, judgement.limit)
            and _spread(metric, self.study[metric].value) > 0
            for metric, judgement in self._judge(self.study).items()
        )

    def _tightest(self, judgement: LimitJudgement, estimate: Estimate) -> float:
        """Return the tightest limit, up to the one that is set, at which an estimate is not red."""
        accepted, refused = _spread(judgement.metric, judgement.limit), 0.0
        for _ in range(50):
            limit = kind_of(judgement.metric).value_of((accepted + refused) / 2)
            outcome = dataclasses.replace(judgement.of, value=limit).decide(estimate, judgement.alpha, judgement.beta)
            if self.is_red(outcome):
                refused = (accepted + refused) / 2
            else:
                accepted = (accepted + refused) / 2
        return kind_of(judgement.metric).value_of(accepted)

    @property
    def _score_sd(self) -> str:
        """The SD of the scores, to which one run of many still matters."""
        return self.study.measures.main_sd

    def misses_a_doubled_spread(self) -> list[str]:
        """Amplify the deviations of all runs until each limited measure is at twice its budget."""
        missed = []
        for metric, limit in self.budget.limits.items():
            if kind_of(metric).score in self.records[0].scores:
                driven = self._with_sd(kind_of(metric).score, 2 * limit)
            else:
                driven = self.driven(partial(self._spread_of, metric=metric), 2 * _spread(metric, limit))
            judged = self._judge(driven)
            if judged and not self.is_red(judged[metric].outcome):
                missed.append(self._still_green(metric, limit, driven))
        return missed

    def _with_sd(self, name: str, sd: float) -> Study:
        """Copy the study with deviations of a returned score that have this SD, or a little more."""
        values = torch.tensor([run.scores[name] for run in self.records], dtype=torch.float64)
        away = values - values.mean()
        if (values == values[0]).all():  # there is nothing to amplify yet
            away = torch.arange(len(values), dtype=torch.float64) - (len(values) - 1) / 2
        grown = values.mean() + away * (max(sd, _LEAST) * (1 + 1e-6) / float(away.std()))
        return self.of_scores({**run.scores, name: float(one)} for run, one in zip(self.records, grown, strict=True))

    def misses_a_missed_threshold(self) -> list[str]:
        """Let all runs return scores beyond each limit on a score."""
        missed = []
        for name, threshold in self.budget.thresholds.items():
            if name not in self.records[0].scores:  # it is computed from outputs, which the other faults are planted in
                continue
            beyond = threshold.value + (1 if threshold.is_most else -1) * max(1.0, abs(threshold.value))
            planted = self.of_scores({**run.scores, name: beyond} for run in self.records)
            judged = {one.name: one for one in planted.judge(self.budget).judgements}
            if not self.is_red(judged[name].outcome):
                missed.append(
                    f"all runs missed: with {name} at {beyond:g} in each of {len(self.records)} runs, {threshold!r} is "
                    f"not red. {_more_runs()}"
                )
        return missed

    def cannot_notice_a_leaked_seed(self) -> str:
        """Say so where run 0 has no weights that are known, as where the base run is no run of the study."""
        study = self.study
        if study.protocol.begins_with_base and study.certificate.trace and study.records[0].trace:
            return ""
        return "a leaked seed it cannot notice, since no run of it is the base run"

    def misses_a_leaked_seed(self) -> str:
        """Give the first run weights after its first epoch that are not the control's."""
        first, *others = self.study.records
        leaked = dataclasses.replace(first, trace=("of another seed", *first.trace[1:]))
        try:
            check_bits(dataclasses.replace(self.study, records=(leaked, *others)))
        except IsolationError:
            return ""
        return (
            "a seed leaked: run 0 with other weights after epoch 0 than the control's was taken for the same. "
            + _BROKEN
        )

    def _judge(self, planted: Study) -> dict[str, LimitJudgement]:
        """Judge a copy as the study itself is judged; empty where a metric of the user's own raises, which is red."""
        try:
            judgements = planted.judge(self.budget).judgements
            return {judgement.metric: judgement for judgement in judgements if isinstance(judgement, LimitJudgement)}
        except Exception:  # whatever the user's metric raises: the test of a study like this one would show it
            if not self.study.metrics:
                raise
            return {}

    def _spread_of(self, planted: Study, metric: str) -> float:
        try:
            return _spread(metric, planted[metric].value)
        except Exception:  # the user's metric may raise anything
            if not self.study.metrics:
                raise
            return math.inf

    def _still_green(self, metric: str, limit: float, driven: Study) -> str:
        reached = driven[metric]
        if _is_doubled(metric, reached.value, limit):
            return (
                f"the spread doubled: at {metric} {reached}, twice its budget of {limit:g} or more, the verdict is "
                f"still not red. {_more_runs()}"
            )
        return (
            f"this gate cannot fire: however much the deviations of the {reached.runs} runs from one another are "
            f"amplified, {metric} comes to {reached} and no further, which the budget of {limit:g} accepts. As trained "
            f"it is {self.study[metric]}: set the budget near the end of that interval."
        )


class _Amplified:
    """R runs whose deviations from their mean grow from step to step, in each of `_SHAPES` in turn."""

    steps = len(_SHAPES) * _DOUBLINGS

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self._runs = list(outputs)
        self._centre = torch.zeros_like(outputs[0], dtype=torch.float64)
        for run in outputs:
            self._centre += run.double() / len(outputs)
        size = float(self._centre.std(correction=0)) or 1.0
        if all(torch.equal(run, outputs[0]) for run in outputs):  # there is nothing to amplify yet
            draws = torch.Generator().manual_seed(_SEED)
            self._runs = [run + _LEAST * size * torch.randn(run.shape, generator=draws).to(run) for run in outputs]
        deviation = math.sqrt(sum(float((run - self._centre).square().mean()) for run in self._runs) / len(outputs))
        self._start = max(1.0, _LEAST * size / deviation)

    def at(self, step: int) -> list[Tensor]:
        """Return the runs after ``step`` steps; each step doubles the factor."""
        shape, doubling = divmod(step, _DOUBLINGS)
        factor = self._start * 2 ** (doubling + 1)
        graded = (1 + (factor - 1) * _SHAPES[shape](r, len(self._runs)) for r in range(len(self._runs)))
        return [
            (self._centre + times * (run - self._centre)).to(run.dtype)
            for run, times in zip(self._runs, graded, strict=True)
        ]


def _shuffled(outputs: Tensor, meaning: Meaning) -> Tensor:
    """Give each example that counts the outputs of another one."""
    generator = torch.Generator().manual_seed(_SEED)
    if not meaning.is_classes:
        return outputs[torch.randperm(len(outputs), generator=generator)]
    flat = outputs.flatten(0, -2).clone()
    kept = (meaning.labels != IGNORED_LABEL).flatten().nonzero().flatten()
    flat[kept] = flat[kept[torch.randperm(len(kept), generator=generator)]]
    return flat.reshape(outputs.shape)


def _spread(metric: str, value: float) -> float:
    """Return the spread that a measure's value or limit stands for; infinite if undefined, which no budget accepts."""
    if math.isnan(value):
        return math.inf
    return kind_of(metric).spread(value)


def _is_doubled(metric: str, value: float, limit: float) -> bool:
    spread, accepted = _spread(metric, value), _spread(metric, limit)
    return spread >= 2 * accepted and spread > 0


def _more_runs() -> str:
    return f"Train more runs, or let UNDECIDED fail its test: {setting('undecided', 'fail')}."
