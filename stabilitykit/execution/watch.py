"""The gate of a check, which judges the runs of an experiment as they come in, and the FAILs that stand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ..estimates.measures import Measures, Metric
from ..store.fingerprint import CannotFingerprint, code_fingerprint
from ..store.record import RunRecord
from ..store.run_store import Experiment
from ..store.verdict_files import LookTaken
from ..verdicts.budgets import Budget, Verdict
from ..verdicts.gate import Gate, Look
from ..verdicts.judgement import Outcome
from ..verdicts.limits import FailedRuns, LimitJudgement
from ..verdicts.standing import StandingFail
from ..verdicts.thresholds import ThresholdJudgement


class Standing:
    """The FAILs of one experiment: those that earlier sessions came to stand, and new ones are kept."""

    def __init__(
        self, experiment: Experiment, metrics: Mapping[str, Metric], rootdir: Path, *, keeps: bool = True
    ) -> None:
        """``keeps`` says whether a new FAIL, and the looks of a `Watch`, are written to the store."""
        self.experiment, self.keeps = experiment, keeps
        self._metrics, self._rootdir = metrics, rootdir

    def name_of(self, budget: Budget) -> str:
        """Return the name of a budget in the store: another one where the code of its own metrics is another."""
        own = {name: metric for name, metric in self._metrics.items() if any(name in limit for limit in budget.limits)}
        said = repr(budget)
        if own:
            try:
                said += repr([(name, code_fingerprint(metric, self._rootdir)) for name, metric in sorted(own.items())])
            except CannotFingerprint:  # an earlier FAIL may be of other code
                said += self.experiment.session
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def beside(self, budget: Budget, verdict: Verdict) -> Verdict:
        """Return a verdict with the FAIL of an earlier session, where it is none itself; keep one that is new."""
        judged = [one for one in verdict.judgements if isinstance(one, LimitJudgement | ThresholdJudgement)]
        failed = [one for one in judged if one.outcome is Outcome.FAIL]
        name, files = self.name_of(budget), self.experiment.verdicts
        if failed:
            if self.keeps:
                files.keep_fail(name, failed[0].runs, failed[0].reason, self.experiment.session)
            return verdict
        earlier = files.fail(name)
        if earlier is None:
            return verdict
        date = time.strftime("%Y-%m-%d", time.gmtime(earlier.time))
        return replace(verdict, judgements=(*verdict.judgements, StandingFail(earlier.runs, earlier.reason, date)))


class Watch:
    """Has a gate look at the first runs of an experiment, as soon as they are there.

    Every process that watches the same runs comes to the same verdict, whichever run finished first: only runs 0 to
    k - 1 without a gap count. The looks are kept in the store, and another session goes on with them.
    """

    def __init__(
        self,
        standing: Standing,
        budget: Budget,
        runs: int,
        measures_of: Callable[[Sequence[RunRecord]], Measures],
    ) -> None:
        """Watch at most ``runs`` runs, or those that were looked at before and are still there, if they are more."""
        self._standing, self._experiment = standing, standing.experiment
        self._budget, self._measures_of = budget, measures_of
        self._name = standing.name_of(budget)
        earlier = [
            Look(look.runs, look.alpha, look.beta, look.spent) for look in self._experiment.verdicts.looks(self._name)
        ]
        there = (look.runs for look in earlier if look.runs <= runs or self._are_there(look.runs))
        self.most_runs = max([runs, *there])
        self._gate = Gate(budget, self.most_runs, earlier)
        self._seen = self._failed = 0
        self._runs: int | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict of the looks so far, and of earlier sessions."""
        verdict = self._gate.verdict.beside(FailedRuns(self._failed, self._seen, self._budget.max_failed_runs))
        return self._standing.beside(self._budget, verdict)

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
            self._budget.check_names(measures)  # which scores there are, runs show
            self._gate.look({name: measures[name] for name in self._gate.open}, runs - len(records))
        if self._standing.keeps:
            taken = self._gate.taken[-1]
            self._experiment.verdicts.keep_look(self._name, LookTaken(**asdict(taken)))

    def _are_there(self, runs: int) -> bool:
        return all(map(self._experiment.is_finished, range(runs)))
