"""Baselines: studies of an earlier commit, kept by name, and compared with those of this one."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BaselineError, StoreError
from ..execution.question import Prepared
from ..protocol import NoiseProtocol
from ..store.baseline_files import BaselineFiles
from ..study.comparison import Comparison, NoWorse, Sample
from ..study.score_comparison import ScoreComparison, ScoreSample, Unchanged
from ..study.study import Study
from ..training.environment import Environment
from ..training.task import Task
from ..verdicts.judgement import Outcome
from .askers import Place

#: Error rate of a whole study that is held against a baseline, and the questions that share it.
ALPHA, _QUESTIONS = 0.05, 3

#: Names in messages of the things that two studies must share.
_NAMES = {
    "kind": "kind of task",
    "labels": "test labels",
    "test": "test data",
    "train": "training data",
    "epochs": "epochs",
    "vary": "what varies",
    "perturb": "perturbation",
    "constants": "constants",
    "onset": "onset",
}


@dataclass(frozen=True)
class Kept:
    """A study of a baseline."""

    name: str  #: name of the baseline
    header: dict[str, Any]
    answers: Tensor

    def sample(self, labels: Tensor) -> Sample:
        """Return its runs as a sample; their labels were found to equal ``labels``."""
        task, question, seeds = (self.header[name] for name in ("task", "question", "seeds"))
        return Sample(task, question, tuple(seeds), self.answers, labels, self.name)

    def score_sample(self) -> ScoreSample:
        """Return its runs as a sample of scores, one that a study of scores alone has kept."""
        task, question, seeds, names = (self.header[name] for name in ("task", "question", "seeds", "scores"))
        scores = dict(zip(names, self.answers.numpy().T, strict=True))
        return ScoreSample(task, question, tuple(seeds), scores, self.name)


@dataclass(frozen=True)
class AwaitedStudy:
    """A study that is about to be trained, and will be kept or held against its baseline."""

    place: Place
    about: dict[str, Any]  #: what its baseline must share with it
    commit: str | None
    kept: Kept | None  #: the study of the baseline
    files: BaselineFiles | None  #: where it is kept itself
    remarks: tuple[str, ...]  #: says that the baseline has no study of this test, where it has none


class Baselines:
    """The studies that a session keeps, and those of earlier sessions that it compares them with."""

    def __init__(
        self, session: str, *, save: str | None = None, compare: str | None = None, update: bool = False
    ) -> None:
        self._session, self._save, self._compare, self._update = session, save, compare, update
        self._complaints: dict[tuple[str, Place], str] = {}  #: by the test that ran, and the place of the question

    def complaint(self, test: str) -> str:
        """Return what got worse in the studies of a test, now or in an earlier try; empty where nothing did."""
        return "\n\n".join(message for (of, _), message in self._complaints.items() if of == test)

    def prepare(self, asked: Prepared, store: Path, place: Place, *, is_helping: bool = False) -> AwaitedStudy | None:
        """Find the baseline of a study before it is trained; None where nothing is kept or compared.

        A helper of the test, which keeps and compares nothing, only finds out what is wrong.

        Raises `BaselineError` where the baseline is a study of something else, and `StoreError` where it would be
        replaced without ``--stability-update``.
        """
        if self._save is None and self._compare is None:
            return None
        about = what_must_match(asked.question.task, asked.question.protocol, asked.environment)
        kept = None if self._compare is None else find(BaselineFiles(store, self._compare), place, about)
        files = None if self._save is None else BaselineFiles(store, self._save)
        if files is not None:
            self._check_free(files, place)
        if is_helping:
            return None
        remarks = (f"no baseline of this test in {self._compare}",) if self._compare and kept is None else ()
        return AwaitedStudy(place, about, asked.environment.commit, kept, files, remarks)

    def receive(self, awaited: AwaitedStudy, study: Study, test: str) -> Comparison | ScoreComparison | None:
        """Keep a study, hold it against its baseline, and return the comparison, if there is one.

        ``test`` is the test that runs now, which fails where the study got worse.
        """
        if not study.is_whole:  # such a study fails its test anyhow
            return None
        study.check_alive()
        sample = ScoreSample.of(study) if study.labels is None else Sample.of(study)
        judgement = None
        if awaited.kept is not None:
            judgement = _judge(awaited.kept, sample)
            if judgement.outcome is Outcome.FAIL:
                message = _message(awaited.place.asker, awaited.kept, judgement)
                self._complaints.setdefault((test, awaited.place), message)
        if awaited.files is not None:
            seeds = [dict(seeds) for seeds in sample.seeds]
            about = {"about": awaited.about, "commit": awaited.commit, "session": self._session, "saved": time.time()}
            names = {"scores": [*sample.scores]} if isinstance(sample, ScoreSample) else {}
            header = {"task": sample.task, "question": sample.question, "runs": len(sample), "seeds": seeds, **names}
            awaited.files.write(awaited.place.asker, awaited.place.call, {**header, **about}, _answers(sample))
        return None if judgement is None else judgement.comparison

    def _check_free(self, files: BaselineFiles, place: Place) -> None:
        """Refuse to overwrite a study that another session has kept since this one began."""
        keeper = files.session_of(place.asker, place.call)
        if keeper not in (None, self._session) and not self._update:
            raise StoreError(
                f"Expected the baseline {files.name!r} to be new but another session has kept {place.asker} in it "
                f"since this one began. Choose another name, or replace it with --stability-update."
            )


def what_must_match(task: Task, protocol: NoiseProtocol, environment: Environment) -> dict[str, Any]:
    """Return the things that a study must share with its baseline, as JSON's types: not model, recipe, source or R."""
    about = {
        "kind": "scores" if task.labels is None else "classification" if task.is_classification else "regression",
        **task.identity(),
        "vary": sorted(source.value for source in protocol.vary),
        "perturb": dataclasses.asdict(protocol.perturb) if protocol.perturb else None,
        "constants": {source.value: constant for source, constant in protocol.constants},
        **({"onset": protocol.onset} if protocol.onset else {}),  # baselines of earlier versions do not have it
        "environment": environment.must_match,
    }
    plain: dict[str, Any] = json.loads(json.dumps(about, default=str))
    return plain


def find(files: BaselineFiles, place: Place, about: dict[str, Any]) -> Kept | None:
    """Return the study of a question in a baseline; None where it has none.

    Raises `BaselineError` with every reason where that is a study of something else than ``about``.
    """
    found = files.read(place.asker, place.call)
    if found is None:
        return None
    header, answers = found
    reasons = differences(header["about"], about)
    if reasons:
        raise BaselineError(
            f"Expected {place.asker} to be comparable with the baseline {files.name!r} but {'; '.join(reasons)}. What "
            f"differs then may come from that, and not from the change. Keep a baseline under the same conditions, or "
            f"this one anew: --stability-save {files.name} --stability-update."
        )
    return Kept(files.name, header, torch.from_numpy(answers))


def differences(baseline: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in words what two studies do not share; hashes only as that they differ."""
    reasons = []
    for name, called in _NAMES.items():
        there, here = baseline.get(name), now.get(name)
        if there != here:
            hashed = name in ("labels", "test", "train") and None not in (there, here)
            reasons.append(f"the {called} differ" if hashed else f"{called}: {_said(there)} there, {_said(here)} here")
    there, here = baseline["environment"], now["environment"]
    fields = [field for field in there | here if there.get(field) != here.get(field)]
    return reasons + [f"{field}: {_said(there.get(field))} there, {_said(here.get(field))} here" for field in fields]


def _answers(sample: Sample | ScoreSample) -> np.ndarray[Any, Any]:
    """Return what is kept of each run: its answers to the test set, or its scores ``[R, S]``."""
    if isinstance(sample, ScoreSample):
        return np.stack([*sample.scores.values()], axis=1)
    answers: np.ndarray[Any, Any] = sample.answers.numpy()
    return answers


def _judge(kept: Kept, sample: Sample | ScoreSample) -> NoWorse | Unchanged:
    """Hold a study against its baseline, by questions that share the error rate."""
    if isinstance(sample, ScoreSample):
        alpha = ALPHA / (_QUESTIONS * len(sample.scores))
        return Unchanged(ScoreComparison.of_samples(kept.score_sample(), sample, alpha=alpha))
    return NoWorse(Comparison.of_samples(kept.sample(sample.labels), sample, alpha=ALPHA / _QUESTIONS))


def _message(test: str, kept: Kept, judgement: NoWorse | Unchanged) -> str:
    commit = f" on commit {kept.header['commit']}" if kept.header["commit"] else ""
    day, each = time.strftime("%Y-%m-%d", time.gmtime(kept.header["saved"])), 100 * judgement.comparison.alpha
    return (
        f"Expected {test} to be no worse than the baseline {kept.name!r} ({len(kept.answers)} runs, kept{commit} on "
        f"{day}) but {judgement.reason}. {_asked(judgement)} of each study, so alpha = {ALPHA} is shared: each "
        f"answer and each bound below errs in {each:.1f} %, and an unchanged model fails in "
        f"{100 * ALPHA:.0f} % at most. If the change is meant, keep it as the baseline: --stability-save {kept.name} "
        f"--stability-update.\n\n{judgement.comparison}"
    )


def _asked(judgement: NoWorse | Unchanged) -> str:
    if isinstance(judgement, NoWorse):
        return "Three questions are asked"
    return "Three questions are asked of each score (whether its mean is higher, or lower, or its spread larger)"


def _said(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return "nothing" if value is None else str(value)
