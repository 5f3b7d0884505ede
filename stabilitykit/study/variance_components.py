"""Does a conclusion depend on the constants of the held sources? Components of variance of a crossed design."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import ProtocolError, TaskError
from ..estimates.anova import (
    MeanSquares,
    difference_estimate,
    largest_ratio,
    mean_estimate_of_squares,
    variance_estimate,
)
from ..estimates.estimate import Estimate
from ..estimates.intervals import sd_estimate
from ..estimates.scores import score_kind
from ..public import public
from ..render.columns import aligned
from ..training.task import content_digest
from .study import Study, listed


@public
@dataclass(frozen=True)
class VarianceComponents:
    """The parts of a score's variance that come from the varying source, from the constant, and from both together.

    The same R seeds of what varies were trained under each of K constants of what is held. Variances are in the score's
    unit squared (points² for accuracy, nats² for cross-entropy); `sd` gives their roots. The model has normal effects.
    Source: Summers & Dinneen, appendix D; docs/analyses.md.
    """

    task: str
    varies: str  #: the rows: what differs between the runs of a study, as tables name it
    constants: tuple[Mapping[str, int], ...]  #: the columns: those of the held sources that differ, a study each
    score: str
    runs: int  #: R, of each study
    rows: Estimate  #: variance that a seed of what varies brings whatever the constant
    columns: Estimate  #: variance that the constant brings whatever the seed; K constants give K - 1 degrees of freedom
    rest: Estimate  #: variance of interaction and residual: what a seed brings under this constant and not another
    within: Estimate  #: variance over seeds under one constant, on average over constants: rows + rest
    sds: tuple[Estimate, ...]  #: SD of each study, in the score's unit: the paper's number under each constant
    ratio: Estimate  #: largest ratio of two of their true values, bounded over all pairs

    @property
    def depends_on_constant(self) -> bool:
        """Whether it is shown that the SD depends on the constant.

        With normal scores it is wrong in 5 % of designs without such a dependence; heavy tails make that more.
        """
        return self.ratio.low > 1

    def sd(self, component: str) -> Estimate:
        """Return the root of a component, in the score's unit: of ``rows``, ``columns``, ``rest`` or ``within``."""
        if component not in ("rows", "columns", "rest", "within"):
            raise ProtocolError(f"Expected rows, columns, rest or within but got {component!r}.")
        variance: Estimate = getattr(self, component)
        value, low, high = (math.sqrt(number) for number in (variance.value, variance.low, variance.high))
        return replace(variance, value=value, low=low, high=high)

    def to_json(self) -> dict[str, Any]:
        """Return every field by name, and the roots of the components; null stands for what is undefined or inf."""
        names = ("rows", "columns", "rest", "within")
        asked = {"task": self.task, "varies": self.varies, "constants": [*map(dict, self.constants)]}
        return {
            **asked,
            "score": self.score,
            "runs": self.runs,
            "variances": {name: getattr(self, name).to_json() for name in names},
            "component_sds": {name: self.sd(name).to_json() for name in names},
            "sds": [sd.to_json() for sd in self.sds],
            "largest_ratio": self.ratio.to_json(),
            "depends_on_constant": self.depends_on_constant,
        }

    def __str__(self) -> str:
        """Write the components as SDs, the SD under each constant, and the answer."""
        held = "+".join(self.constants[0])
        rows = [
            (f"{self.varies}, whatever {held}", str(self.sd("rows"))),
            (f"{held}, whatever {self.varies}", str(self.sd("columns"))),
            ("interaction and residual", str(self.sd("rest"))),
            (f"{self.varies} under one constant", str(self.sd("within"))),
            *((f"under {_named(constant)}", str(sd)) for constant, sd in zip(self.constants, self.sds, strict=True)),
        ]
        title = f"SD of {self.score} of {self.task} by source, {self.runs} seeds under {len(self.constants)} constants"
        return "\n".join([title, *aligned(rows, "<<"), self._answer(held)])

    def _answer(self, held: str) -> str:
        if self.ratio.is_undefined:
            return f"the SD depends on the constant of {held}: {self.ratio.method}"
        if self.ratio.is_exact:
            return f"nothing varies under any constant of {held}"
        shown = "depends" if self.depends_on_constant else "is not shown to depend"
        return f"the SD {shown} on the constant of {held}: largest ratio of two {self.ratio}"


@public
def variance_components(studies: Iterable[Study], score: str) -> VarianceComponents:
    """Split the variance of a score over studies that differ only in the constants of held sources.

    Raises `ProtocolError` unless run i of all studies has the same seed of what varies, and `TaskError` unless all are
    of one task that has the score.
    """
    studies = listed(studies)
    if len(studies) < 2:
        raise ProtocolError(
            f"Expected studies under two constants or more but got {len(studies)}. Measure the same task with "
            f"constants={{'shuffle': k}} for k = 0, 1, 2, say."
        )
    _check_one_task(studies)
    _check_crossed(studies)
    table = np.stack([study.measures.of_runs(score).numpy() for study in studies], axis=1)
    if not np.isfinite(table).all():
        raise TaskError(f"Expected a finite {score} of every run, but one of {studies[0].task} is not: it has no SD.")
    squares, robust = MeanSquares.of(table), score_kind(score).has_heavy_tails
    runs, columns = table.shape
    return VarianceComponents(
        task=studies[0].task,
        varies=studies[0].protocol.name,
        constants=_constants(studies),
        score=score,
        runs=runs,
        rows=difference_estimate(squares.rows, squares.rest, columns, runs),
        columns=difference_estimate(squares.columns, squares.rest, runs, runs),
        rest=variance_estimate(squares.rest, runs),
        within=mean_estimate_of_squares(squares.rows, squares.rest, columns, runs),
        sds=tuple(sd_estimate(column, robust=robust) for column in table.T),
        ratio=largest_ratio(table, robust=robust),
    )


def _check_one_task(studies: Sequence[Study]) -> None:
    first = studies[0]
    for study in studies[1:]:
        if study.task != first.task or not torch.equal(study.meaning.given, first.meaning.given):
            unlike = ", with other labels" if study.task == first.task else ""
            raise TaskError(
                f"Expected studies of one task but got {first.task} and {study.task}{unlike}: the task would be taken "
                f"for the constant."
            )
        if _content(study) != _content(first):
            raise TaskError(
                f"Expected studies of one task but got two that are called {first.task} and differ in model, data or "
                f"settings: what they do would be taken for what the constant does. Measure one task under each."
            )


def _content(study: Study) -> str | None:
    """A hash of the trained task; None for a study without one, such as one of ensembles."""
    return None if study.recipe is None else content_digest(study.recipe.content())


def _check_crossed(studies: Sequence[Study]) -> None:
    first = studies[0]
    for study in studies[1:]:
        for what in ("vary", "perturb", "onset", "seed"):
            one, other = getattr(first.protocol, what), getattr(study.protocol, what)
            if one != other:
                named = f"vary={first.protocol.name!r} and vary={study.protocol.name!r}"
                named = named if what != "seed" else f"seed={one} and seed={other}"
                raise ProtocolError(
                    f"Expected studies that differ only in the constants of held sources but got {named}: run i of "
                    f"both then has not the same seed, and the design is not crossed."
                )
        indices = [[record.index for record in each.trained] for each in (first, study)]
        if indices[0] != indices[1]:
            raise ProtocolError(
                f"Expected the same runs in every study but got {len(indices[0])} and {len(indices[1])} of "
                f"{study.task}, not all with one index. Measure all with as many runs; a failed one has no partner."
            )
    constants = _constants(studies)
    for place, constant in enumerate(constants):
        if constant in constants[:place]:
            again = _named(constant) or "no source differs; one that is not named has constant 0"
            raise ProtocolError(
                f"Expected another constant in each study but got one twice ({again}): its runs are the same runs. "
                f"Measure each with constants= of its own."
            )


def _constants(studies: Sequence[Study]) -> tuple[Mapping[str, int], ...]:
    """Each study's constants of the sources in which studies differ; 0 where a study names none."""
    named = [{source.value: constant for source, constant in study.protocol.constants} for study in studies]
    sources = sorted(set().union(*named))
    every = [{source: constants.get(source, 0) for source in sources} for constants in named]
    differing = [source for source in sources if len({constants[source] for constants in every}) > 1]
    return tuple({source: constants[source] for source in differing} for constants in every)


def _named(constant: Mapping[str, int]) -> str:
    return ", ".join(f"{source}={value}" for source, value in constant.items())
