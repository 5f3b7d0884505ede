"""The runs that a session would train, and the power of its verdicts, before anything trains."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import FLOOR, kind_of
from ..estimates.measures import Measures
from ..estimates.ratios import spread_of
from ..store.catalog import Catalog, Entry
from ..store.layout import EXPERIMENTS
from ..store.run_store import RunStore
from ..verdicts.budgets import Budget, Verdict
from ..verdicts.power import cv_of, most_runs_needed, prospects, runs_needed
from ..verdicts.sequential_levels import looks
from ..verdicts.thresholds import fewest_runs
from ..verdicts.unreachable import objections
from .question import Prepared
from .watch import Standing, Watch

#: True spreads, in budgets, of which a plan tells the outcome: below the budget, at it, and beyond it.
TRUTHS = (0.5, 1.0, 1.25, 1.5, 2.0)

#: Stored runs that a plan reads: at least (pairs need an interval), and at most.
_FEWEST, _PILOT = 3, 30


@dataclass(eq=False)
class Forecast:
    """The runs and budgets of one question, noted in the place of its study."""

    asked: Prepared
    store: RunStore
    asserted: list[Budget] = field(default_factory=list)  #: judged once, over all R runs

    def __post_init__(self) -> None:
        self.question = self.asked.question
        self.asked.check()
        if self.question.budget is not None and not self.question.stops_early:
            self.note(self.question.budget)

    def note(self, budget: Budget) -> None:
        """Note a budget that a test asserts on the study; raise `BudgetError` for one that could not be judged."""
        self.question.check_budget(budget)
        if budget not in self.asserted:
            self.asserted.append(budget)

    @property
    def budgets(self) -> tuple[tuple[Budget, bool], ...]:
        """Each budget, with whether it is judged while runs come in."""
        budget, stops_early = self.question.budget, self.question.stops_early
        checked = ((budget, True),) if budget is not None and stops_early else ()
        return (*checked, *((budget, False) for budget in self.asserted))

    @cached_property
    def stored(self) -> dict[int, Mapping[str, Any]]:
        """The headers of the good runs that the store has, by index."""
        return {} if self.asked.private else _good_runs(self._entry)

    @cached_property
    def pilot(self) -> Measures | None:
        """The measures of the stored runs, if there are enough runs for an interval."""
        files, headers = self._entry.files, list(self.stored.values())[:_PILOT]
        runs = [files.record(header) for header in headers if not files.array_problem(header)]
        return self.question.measures(runs) if len(runs) >= _FEWEST else None

    def estimate(self, metric: str) -> Estimate | None:
        """Return the stored runs' estimate of a measure; None without runs, or where it is undefined."""
        found = None if self.pilot is None or metric not in self.pilot else self.pilot[metric]
        return None if found is None or found.is_undefined else found

    @property
    def kept(self) -> int:
        """The number of wanted runs that the store has."""
        reused = self.store.cache == "auto"
        return sum(index < self.question.protocol.runs for index in self.stored) if reused else 0

    @cached_property
    def settled(self) -> Verdict | None:
        """The verdict of a check that the stored runs already decide."""
        question = self.question
        if question.budget is None or not question.stops_early or not self.kept:
            return None
        experiment = self.store.experiment(self.asked.key, {})
        standing = Standing(experiment, question.metrics, self.asked.rootdir, keeps=False)
        watch = Watch(standing, question.budget, question.protocol.runs, question.measures)
        return None if watch.settled() is None else watch.verdict

    def seconds(self) -> tuple[float | None, str]:
        """Return the mean seconds of a run, and which runs they are of; None if the store has no run of this task."""
        if self.stored:
            return _mean_seconds([self.stored]), "its own stored runs"
        if self.asked.private or not self.store.folder.is_dir():
            return None, ""
        about = json.loads(json.dumps(self.asked.about, default=str))
        others = [
            entry
            for entry in Catalog(self.store.folder).entries()
            if all(entry.about.get(name) == about[name] for name in ("environment", "fingerprint"))
        ]
        found = [(entry, runs) for entry in others if (runs := _good_runs(entry))]
        if not found:
            return None, ""
        whole = _mean_seconds(
            (runs for _, runs in found), [self._share(entry.about["protocol"].get("onset", 0)) for entry, _ in found]
        )
        onset = self.question.protocol.onset
        # The epochs before it are trained once, and divided among the runs.
        own = self._share(onset) + (1 - self._share(onset)) / self.question.protocol.runs
        return own * whole, "this task's runs under other protocols"

    def _share(self, onset: int) -> float:
        """Return the share of the epochs from ``onset`` on, which each run trains itself; 1 if none are known."""
        epochs = getattr(self.question.task, "epochs", 0)
        return 1 - onset / epochs if epochs else 1.0

    @property
    def _entry(self) -> Entry:
        return Entry(self.store.folder / EXPERIMENTS / self.asked.key)


def summarize_plan(forecast: Forecast, test: str, workers: int) -> dict[str, Any]:
    """Return a forecast as JSON's types: its limits, its runs, and what they cost.

    ``workers`` is how many runs train at once. Probabilities are those of `prospects`; seconds are of one run.
    """
    question = forecast.question
    seconds, source = forecast.seconds()
    limits = [
        _limit(forecast, budget, metric, sequential)
        for budget, sequential in forecast.budgets
        for metric in budget.limits
    ]
    return {
        "test": test,
        "task": question.task.name,
        "name": question.protocol.name,
        "seed": question.protocol.seed,
        "key": "" if forecast.asked.private else forecast.asked.key,
        "runs": question.protocol.runs,
        "stored": forecast.kept,
        "verdict": None if forecast.settled is None else forecast.settled.outcome.value,
        "examples": question.task.examples,
        "seconds_a_run": seconds,
        "seconds_from": source,
        "workers": workers,
        "limits": limits,
        "thresholds": [
            {"metric": metric, "limit": repr(threshold), "fewest_runs": fewest_runs(threshold)}
            for budget, _ in forecast.budgets
            for metric, threshold in budget.thresholds.items()
        ],
        "warnings": list(_warnings(forecast)),
    }


def _limit(forecast: Forecast, budget: Budget, metric: str, sequential: bool) -> dict[str, Any]:
    limit, ratio = budget.limits[metric], budget.ratios[metric]
    alpha, beta, runs = budget.alpha_each, budget.beta, forecast.question.protocol.runs
    found = forecast.estimate(metric)
    spread = None if found is None else spread_of(metric, found)
    allowed = kind_of(metric).spread(limit)
    described: dict[str, Any] = {
        "metric": metric,
        "budget": limit,
        "ratio": ratio,
        "alpha": alpha,
        "beta": beta,
        "sequential": sequential,
        "stored_value": None if found is None else found.value,
        "stored_share": None if spread is None or not allowed else spread.value / allowed,
    }
    if not allowed:  # a difference that was seen is not to be doubted
        return described | {"fixed_runs": None, "most_runs": None, "assumes": "any difference fails", "prospects": []}
    cv, assumes = _precision(metric, spread)
    looked_at = looks(runs) if sequential else (runs,)
    truths = [truth for truth in TRUTHS if truth * allowed <= kind_of(metric).most_spread]
    too_few = cv is not None and runs < _FEWEST  # two runs are one pair, without an interval
    return described | {
        "fixed_runs": runs_needed(ratio, alpha, beta, cv),
        "most_runs": most_runs_needed(ratio, alpha, beta, cv),
        "assumes": assumes,
        "prospects": [] if too_few else [vars(p) for p in prospects(truths, looked_at, ratio, alpha, beta, cv)],
    }


def _precision(metric: str, spread: Estimate | None) -> tuple[float | None, str]:
    """Return the CV of a mean over pairs, None for an SD, and what is assumed."""
    if kind_of(metric).is_sd:
        return None, "normal scores"
    cv = None if spread is None else cv_of(spread.value, spread.low, spread.high, spread.runs)
    if spread is not None and cv:
        return float(f"{cv:.2g}"), f"CV {cv:.2g}, of {spread.runs} stored runs"
    usual = kind_of(metric).assumed_cv
    return usual, f"CV {usual:g}, the largest that was seen on simulated networks: {_FEWEST} stored runs would tell"


def _warnings(forecast: Forecast) -> Iterable[str]:
    floor = forecast.estimate(FLOOR)
    for budget, _ in forecast.budgets:
        yield from objections(budget.limits, forecast.question.task.examples, floor)
    if forecast.asked.private:
        yield f"runs are not kept: {forecast.asked.private}"


def _good_runs(entry: Entry) -> dict[int, Mapping[str, Any]]:
    return {i: header for i, header in entry.runs.items() if header is not None and header["record"]["status"] == "ok"}


def _mean_seconds(experiments: Iterable[Mapping[int, Mapping[str, Any]]], shares: Iterable[float] = (1.0,)) -> float:
    """Return the mean seconds over all runs, each divided by its experiment's share of a whole run."""
    seconds = [
        float(header["record"]["seconds"]) / share
        for runs, share in zip(experiments, shares, strict=True)
        for header in runs.values()
    ]
    return sum(seconds) / len(seconds)
