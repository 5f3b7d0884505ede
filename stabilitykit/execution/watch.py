"""The gate of a check: it judges the runs of an experiment as they come in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict

from ..estimates.measures import Measures
from ..store.record import RunRecord
from ..store.run_store import Experiment
from ..verdicts.budgets import Budget, Verdict
from ..verdicts.gate import Gate, Look
from ..verdicts.limits import FailedRuns


class Watch:
    """Has a gate look at the first runs of an experiment, as soon as they are there.

    Every process that watches the same runs comes to the same verdict, whichever run finished first: only runs 0 to
    k - 1 without a gap count. The looks are kept in the store, and another session goes on with them.
    """

    def __init__(
        self,
        experiment: Experiment,
        budget: Budget,
        runs: int,
        measures_of: Callable[[Sequence[RunRecord]], Measures],
        *,
        keeps: bool = True,
    ) -> None:
        """Watch at most ``runs`` runs, or those that were looked at before and are still there, if they are more.

        ``keeps`` says whether the looks are written to the store.
        """
        self._experiment, self._budget, self._measures_of, self._keeps = experiment, budget, measures_of, keeps
        self._name = hashlib.sha256(repr(budget).encode()).hexdigest()[:16]
        self._earlier = [Look(**look) for look in experiment.read_looks(self._name)]
        there = (look.runs for look in self._earlier if look.runs <= runs or self._are_there(look.runs))
        self.most_runs = max([runs, *there])
        self._gate = Gate(budget, self.most_runs, self._earlier)
        self._seen = self._failed = 0
        self._runs: int | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict of the looks so far."""
        return self._gate.verdict.beside(FailedRuns(self._failed, self._seen, self._budget.max_failed_runs))

    def settled(self) -> int | None:
        """Return how many runs the verdict rests on; None while it does not stand."""
        while self._runs is None:
            look = self._gate.next_look
            if look is None:
                self._runs = self._gate.runs
            elif self._seen == look:
                self._look(look)
            elif self._experiment.is_finished(self._seen):
                self._failed += self._experiment.status(self._seen) != "ok"
                self._seen += 1
                if self._failed > self._budget.max_failed_runs:
                    self._runs = self._seen
            else:
                return None
        return self._runs

    def _look(self, runs: int) -> None:
        records = [record for record in map(self._experiment.load, range(runs)) if record.status == "ok"]
        if len(records) < 2:  # the other runs failed, as the budget allows
            self._gate.pass_over()
        else:
            measures = self._measures_of(records)
            self._gate.look({name: measures[name] for name in self._gate.open})
        if self._keeps:
            beyond = [look for look in self._earlier if look.runs > runs]
            self._experiment.write_looks(self._name, [asdict(look) for look in (*self._gate.taken, *beyond)])

    def _are_there(self, runs: int) -> bool:
        return all(map(self._experiment.is_finished, range(runs)))
