"""Studies and tasks without a training, to try your own budgets and metrics on; our tests are made of them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .estimates.meaning import Meaning
from .estimates.measures import Metric
from .protocol import NoiseProtocol, Vary
from .store.fingerprint import tensor_digest
from .store.record import RunRecord
from .study.study import Study
from .training.certificate import Certificate
from .training.outputs import as_labels, check_labels, check_outputs
from .training.run import Run
from .training.scores import results_digest, scores_alone
from .training.task import Task


def fake_study(
    logits: Any,
    labels: Any,
    *,
    vary: Vary = "all",
    metrics: Mapping[str, Metric] | None = None,
    task: str = "fake",
    outputs: str | None = None,
) -> Study:
    """Return the study of R models that gave ``logits`` ``[R, N, ..., C]`` for the ``labels`` ``[N, ...]``.

    With floating-point labels the task is a regression, and ``logits`` are its outputs ``[R, N, ...]``. ``outputs``
    says what they are, as in `Recipe`.

    >>> study = fake_study([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]], labels=[0, 1])
    >>> study.accuracy.value, study.disagreement.value
    (75.0, 50.0)
    """
    labels = as_labels(labels)
    check_labels(labels, outputs)
    meaning = Meaning.of(labels, outputs)
    runs = [check_outputs(run, labels, meaning) for run in logits]
    protocol = NoiseProtocol(vary, runs=len(runs))
    records = tuple(
        RunRecord(plan.index, plan.seeds, "ok", seconds=0.0, logits=run, fingerprint=tensor_digest(run).hex())
        for plan, run in zip(protocol.plans(), runs, strict=True)
    )
    certificate = Certificate(True, "nothing was trained")
    return Study(task, protocol, records, labels, certificate, dict(metrics or {}), stated=outputs)


def fake_scores(*, vary: Vary = "all", task: str = "fake", **scores: Sequence[float]) -> Study:
    """Return the study of R models that left scores alone, R of each name.

    >>> study = fake_scores(reward=[450, 455, 452])
    >>> print(study["reward_sd"])
    2.5 [1.5, 11.1]
    """
    runs = [scores_alone(dict(zip(scores, of_run, strict=True))) for of_run in zip(*scores.values(), strict=True)]
    protocol = NoiseProtocol(vary, runs=len(runs))
    records = tuple(
        RunRecord(plan.index, plan.seeds, "ok", seconds=0.0, scores=run, fingerprint=results_digest(None, run))
        for plan, run in zip(protocol.plans(), runs, strict=True)
    )
    return Study(task, protocol, records, None, Certificate(True, "nothing was trained"))


@dataclass(frozen=True, eq=False)
class FakeTask(Task):
    """A linear model that makes a random step for each source, so that every source moves its weights.

    >>> from stabilitykit import NoiseProtocol
    >>> plan = NoiseProtocol("init", runs=2).plans()[0]
    >>> FakeTask().fit(Run(plan, torch.device("cpu"))).shape
    torch.Size([20, 3])
    """

    examples: int = 20  #: N
    classes: int = 3  #: C
    noise: float = 1.0  #: SD of each logit if every source varies; the right class leads by 2
    name: str = "fake"

    @property
    def labels(self) -> Tensor:
        """Class i mod C for example i."""
        return torch.arange(self.examples) % self.classes

    def content(self) -> object:
        """Everything that the training depends on: the class and its numbers, without the name."""
        return type(self), self.examples, self.classes, self.noise

    def fit(self, run: Run) -> Tensor:
        """Return ``[N, C]`` logits."""
        shape = self.examples, self.classes
        with run.stream("init"):
            model = run.perturb(nn.Embedding(*shape, device=run.device))  # its weights are standard normal
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        for _ in run.epochs(1):
            for source in ("shuffle", "augment", "stochastic"):
                with run.stream(source):
                    step = torch.randn(shape, device=run.device)
                for weight in model.parameters():
                    weight.grad = step
                optimizer.step()
        (weight,) = model.parameters()
        sure = 2.0 * functional.one_hot(self.labels, self.classes)
        return sure + self.noise / 2 * weight.detach().cpu()  # the SD of four standard normal numbers is 2
