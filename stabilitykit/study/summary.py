"""A study as plain data: the content of the JSON report, and of the tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..estimates.measure_kinds import DISAGREEMENT, ON_REQUEST
from ..verdicts.judgement import Outcome, worst

if TYPE_CHECKING:  # the process that writes a report may not have needed torch
    from ..estimates.measures import Measures
    from ..store.record import RunRecord
    from .study import Study

#: Format version of the JSON report.
FORMAT = 1


def summarize(study: Study, test: str) -> dict[str, Any]:
    """Return a study as JSON's types: its question, its numbers, its verdict and its runs.

    ``test`` is the node id of the test that asked. But for the seconds, no field depends on how many workers trained.
    """
    whole = study.is_whole
    scores = study.scores if whole else {}
    judgements = [judgement for verdict in study.verdicts for judgement in verdict.judgements]
    relations = [one.to_json() for one in judgements if one.is_relative]
    return {
        "test": test,
        "task": study.task,
        "kind": study.kind.value,
        "vary": sorted(source.value for source in study.protocol.vary),
        "perturb": study.protocol.perturb.kind if study.protocol.perturb else None,
        "onset": study.protocol.onset,
        "name": study.protocol.name,
        "seed": study.protocol.seed,
        "runs": len(study.records),
        "runs_at_most": study.most_runs or len(study.records),
        "metrics": {name: study[name].to_json() for name in _shown(study.measures)} if whole else {},
        "verdict": _verdict(study),
        "judgements": [one.to_json() for one in judgements if not one.is_relative],
        **({"relations": relations} if relations else {}),
        "certificate": study.certificate.to_json(),
        **({"flips": study.flips.to_json()} if whole and DISAGREEMENT in study.measures else {}),
        **({"similarity": [one.to_json() for one in study.journal.similarities]} if study.journal.similarities else {}),
        "notes": [*study.notes, *study.journal.anew],
        "environment": dict(study.records[0].environment),
        "records": [_record(record, scores.get(record.index, {})) for record in study.records],
    }


def document(summaries: Iterable[Mapping[str, Any]], comparisons: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the one object of the JSON report."""
    studies = [dict(summary) for summary in summaries]
    environment = studies[0]["environment"] if studies else {}
    for study in studies:
        if study["environment"] == environment:
            del study["environment"]  # said once, above
    more = [dict(comparison) for comparison in comparisons]
    return {"format": FORMAT, "environment": environment, "studies": studies, "comparisons": more}


def _verdict(study: Study) -> str | None:
    """Return the worst outcome of a study's assertions; None where nothing was asserted."""
    outcomes = [verdict.outcome for verdict in study.verdicts]
    outcomes += [] if study.is_whole else [Outcome.FAIL]
    return worst(outcomes).value if outcomes else None


def _shown(measures: Measures) -> list[str]:
    """Names of all measures but those that are computed only on request."""
    return [name for name in measures if name not in ON_REQUEST]


def _record(record: RunRecord, scores: dict[str, float]) -> dict[str, Any]:
    return {
        "index": record.index,
        "seeds": dict(record.seeds),
        **{name: value for name, value in scores.items() if name not in record.scores},
        **({"scores": dict(record.scores)} if record.scores else {}),
        "fingerprint": record.fingerprint,
        "seconds": record.seconds,
        "status": record.status,
        **({"perturbation": dict(record.perturbation)} if record.perturbation else {}),
        **({"curve": [dict(point) for point in record.curve]} if record.curve else {}),
        **({"error": record.error} if record.error else {}),
    }
