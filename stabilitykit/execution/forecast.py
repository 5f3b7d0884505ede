"""What a session would train, and what its verdicts would be worth: each question is noted, and nothing trains."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..estimates.estimate import Estimate
from ..estimates.measures import Measures, Metric, check_metrics
from ..protocol import NoiseProtocol
from ..store.catalog import Catalog, Entry
from ..store.layout import experiment_folder
from ..training.task import Task, as_task
from ..training.trainer import Trainer
from ..verdicts.budgets import Budget, Verdict, check_is_budget
from ..verdicts.gate import Gate
from ..verdicts.power import ASSUMED_CV, ASSUMED_CV_OF_DELTAS, cv_of, most_runs_needed, prospects, runs_needed
from ..verdicts.sequential_levels import looks
from ..verdicts.unreachable import objections
from .identity import identity, key_of
from .session import Session
from .watch import Watch

#: True spreads, in budgets, that a plan tells of: what is usual, at the budget, and what must not pass.
TRUTHS = (0.5, 1.0, 1.25, 1.5, 2.0)

#: Stored runs that a plan looks into: at least, or pairs have no interval, and at most.
_FEWEST, _PILOT = 3, 30

#: Measures whose budget is the least that is accepted: 1 less the measure is what spreads.
_LIKENESS = ("correlation", "pearson")

#: What no model's spread can exceed.
_MOST_SPREAD = {"accuracy_sd": 50.0, "disagreement": 100.0, "ensemble_delta": 100.0, "correlation": 2.0, "pearson": 2.0}


@dataclass(eq=False)
class Question:
    """One study that a test asks for."""

    task: str
    trained: Task  #: what has that name
    protocol: NoiseProtocol
    labels: Tensor
    metrics: Mapping[str, Metric]
    about: Mapping[str, Any]  #: what tells its runs from all others
    private: str  #: why its runs are not kept, if they are not
    session: Session
    names: tuple[str, ...]  #: measures of its task
    examples: int  #: N, the test examples that count
    checked: Budget | None  #: judged while runs come in
    asserted: list[Budget] = field(default_factory=list)  #: judged once, over all R runs

    @classmethod
    def of(
        cls,
        task: Task | Callable[..., Any],
        protocol: NoiseProtocol,
        *,
        labels: Any = None,
        metrics: Mapping[str, Metric] | None = None,
        budget: Budget | None = None,
        stops_early: bool = False,
        session: Session,
    ) -> Question:
        """Make it as `measure` would begin, and refuse what `measure` would refuse."""
        task, metrics = as_task(task, labels), metrics or {}
        device = session.device_for()
        check_metrics(metrics, task.labels)
        names = task.measure_names(metrics)
        if budget is not None:
            check_is_budget(budget)
            budget.check_names(names)
        if budget is not None and stops_early:
            Gate(budget, protocol.runs)  # refuses fewer runs than its first look needs
        task.check(protocol, torch.device(device))
        trainer = Trainer(task, device, session.threads, session.rootdir)
        about, private = identity(task, protocol, trainer.environment, session.rootdir, session.also)
        return cls(
            task=task.name,
            trained=task,
            protocol=protocol,
            labels=task.labels,
            metrics=dict(metrics),
            about=about,
            private=private,
            session=session,
            names=names,
            examples=task.examples,
            checked=budget if stops_early else None,
            asserted=[budget] if budget and not stops_early else [],
        )

    @property
    def budgets(self) -> tuple[tuple[Budget, bool], ...]:
        """Every budget, and whether it is judged while runs come in."""
        checked = () if self.checked is None else ((self.checked, True),)
        return (*checked, *((budget, False) for budget in self.asserted))

    @cached_property
    def stored(self) -> dict[int, Mapping[str, Any]]:
        """The good runs that the store has of it, in whichever session they were trained."""
        return {} if self.private else _good_runs(self._entry)

    @cached_property
    def pilot(self) -> Measures | None:
        """What the stored runs measure, where there are enough of them for an interval."""
        files, headers = self._entry.files, list(self.stored.values())[:_PILOT]
        runs = [files.record(header) for header in headers if not files.array_problem(header)]
        return self.trained.measures(runs, self.metrics) if len(runs) >= _FEWEST else None

    def estimate(self, metric: str) -> Estimate | None:
        """Return what the stored runs say of a measure, where they say something."""
        found = None if self.pilot is None or metric not in self.pilot else self.pilot[metric]
        return None if found is None or found.is_undefined else found

    @property
    def kept(self) -> int:
        """How many of its runs need no training."""
        reused = self.session.store.cache == "auto"
        return sum(index < self.protocol.runs for index in self.stored) if reused else 0

    @cached_property
    def settled(self) -> Verdict | None:
        """The verdict that the stored runs already are enough for, which asking again gives without training."""
        if self.checked is None or not self.kept:
            return None
        experiment = self.session.store.experiment(key_of(self.about), {})
        measures_of = functools.partial(self.trained.measures, metrics=self.metrics)
        watch = Watch(experiment, self.checked, self.protocol.runs, measures_of, keeps=False)
        return None if watch.settled() is None else watch.verdict

    def seconds(self) -> tuple[float | None, str]:
        """Return the mean seconds of a run, and whose they are; None where the store has no run of this task."""
        if self.stored:
            return _mean_seconds([self.stored]), "its own stored runs"
        if self.private or not self.session.store.folder.is_dir():
            return None, ""
        about = json.loads(json.dumps(self.about, default=str))
        others = [
            entry
            for entry in Catalog(self.session.store.folder).entries()
            if all(entry.about.get(name) == about[name] for name in ("environment", "fingerprint"))
        ]
        found = [(entry, runs) for entry in others if (runs := _good_runs(entry))]
        if not found:
            return None, ""
        whole = _mean_seconds(
            (runs for _, runs in found), [self._share(entry.about["protocol"].get("onset", 0)) for entry, _ in found]
        )
        onset = self.protocol.onset
        # The epochs before it are trained once, and divided among the runs.
        own = self._share(onset) + (1 - self._share(onset)) / self.protocol.runs
        return own * whole, "this task's runs under other protocols"

    def _share(self, onset: int) -> float:
        """Return the share of its epochs that a run trains by itself: those before an onset are trained once for all.

        1 where only training tells how many epochs there are.
        """
        epochs = getattr(self.trained, "epochs", 0)
        return 1 - onset / epochs if epochs else 1.0

    @property
    def _entry(self) -> Entry:
        return Entry(experiment_folder(self.session.store.folder, key_of(self.about)))


def summarize_plan(question: Question, test: str, workers: int) -> dict[str, Any]:
    """Return a question's forecast as JSON's types: its limits, its runs, and what they cost.

    ``workers`` is how many runs train at once. Probabilities are those of `prospects`; seconds are of one run.
    """
    seconds, source = question.seconds()
    limits = [
        _limit(question, budget, metric, sequential)
        for budget, sequential in question.budgets
        for metric in budget.limits
    ]
    return {
        "test": test,
        "task": question.task,
        "name": question.protocol.name,
        "seed": question.protocol.seed,
        "key": "" if question.private else key_of(question.about),
        "runs": question.protocol.runs,
        "stored": question.kept,
        "verdict": None if question.settled is None else question.settled.outcome.value,
        "examples": question.examples,
        "seconds_a_run": seconds,
        "seconds_from": source,
        "workers": workers,
        "limits": limits,
        "warnings": list(_warnings(question)),
    }


def _limit(question: Question, budget: Budget, metric: str, sequential: bool) -> dict[str, Any]:
    limit, ratio = budget.limits[metric], budget.ratios[metric]
    alpha, beta, runs = budget.alpha_each, budget.beta, question.protocol.runs
    found = question.estimate(metric)
    spread = None if found is None else _spread(metric, found)
    allowed = 1 - limit if metric in _LIKENESS else limit
    described: dict[str, Any] = {
        "metric": metric,
        "budget": limit,
        "ratio": ratio,
        "alpha": alpha,
        "beta": beta,
        "sequential": sequential,
        "stored_value": None if found is None else found.value,
        "stored_share": None if spread is None or not allowed else spread[0] / allowed,
    }
    if not allowed:  # a difference that was seen is not to be doubted
        return described | {"fixed_runs": None, "most_runs": None, "assumes": "any difference fails", "prospects": []}
    cv, assumes = _precision(metric, spread)
    looked_at = looks(runs) if sequential else (runs,)
    truths = [truth for truth in TRUTHS if truth * allowed <= _MOST_SPREAD.get(metric, math.inf)]
    too_few = cv is not None and runs < _FEWEST  # two runs are one pair, without an interval
    return described | {
        "fixed_runs": runs_needed(ratio, alpha, beta, cv),
        "most_runs": most_runs_needed(ratio, alpha, beta, cv),
        "assumes": assumes,
        "prospects": [] if too_few else [vars(p) for p in prospects(truths, looked_at, ratio, alpha, beta, cv)],
    }


def _precision(metric: str, spread: tuple[float, float, float, int] | None) -> tuple[float | None, str]:
    """Return the CV of a mean over pairs, None for an SD, and what is assumed."""
    if metric.endswith("_sd"):
        return None, "normal scores"
    cv = None if spread is None else cv_of(*spread)
    if spread is not None and cv:
        return float(f"{cv:.2g}"), f"CV {cv:.2g}, of {spread[3]} stored runs"
    usual = ASSUMED_CV.get(metric, ASSUMED_CV_OF_DELTAS)
    return usual, f"CV {usual:g}, the largest that was seen on simulated networks: {_FEWEST} stored runs would tell"


def _spread(metric: str, found: Estimate) -> tuple[float, float, float, int]:
    """Turn an estimate so that more is worse: value, bounds, runs."""
    value, low, high = found.value, found.low, found.high
    if metric in _LIKENESS:
        value, low, high = 1 - value, 1 - high, 1 - low
    elif metric.endswith("ensemble_delta") and value < 0:
        value, low, high = -value, -high, -low
    return value, low, high, found.runs


def _warnings(question: Question) -> Iterable[str]:
    floor = question.estimate("flip_floor")
    for budget, _ in question.budgets:
        yield from objections(budget.limits, question.examples, floor)
    if question.private:
        yield f"runs are not kept: {question.private}"


def _good_runs(entry: Entry) -> dict[int, Mapping[str, Any]]:
    return {i: header for i, header in entry.runs.items() if header is not None and header["record"]["status"] == "ok"}


def _mean_seconds(experiments: Iterable[Mapping[int, Mapping[str, Any]]], shares: Iterable[float] = (1.0,)) -> float:
    """Return the mean over all runs, each by the share that it is of what is meant."""
    seconds = [
        float(header["record"]["seconds"]) / share
        for runs, share in zip(experiments, shares, strict=True)
        for header in runs.values()
    ]
    return sum(seconds) / len(seconds)
