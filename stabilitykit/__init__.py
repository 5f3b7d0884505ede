"""Measure how far R trainings of one model differ, and let a test fail when they differ more than a budget allows.

Summers & Dinneen, *Nondeterminism and Instability in Neural Network Optimization* (ICML 2021), as a pytest plugin and a
library. Names are loaded when they are first used: importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__
from .store import imported_values as _imported_values  # noqa: F401  # it keeps what modules hold after their import
from .store import loaded_files as _loaded_files  # noqa: F401  # it hears which modules are imported from now on
from .tracing import cached_reads as _cached_reads  # noqa: F401  # it hears what cached functions read
from .tracing import import_reads as _import_reads  # noqa: F401  # it hears what modules read while they are imported

if TYPE_CHECKING:
    from .adapters.command import Command as Command
    from .auditing.audit import Audit as Audit
    from .auditing.audit import assert_seed_reaches as assert_seed_reaches
    from .auditing.audit import audit as audit
    from .errors import BaselineExceededError as BaselineExceededError
    from .errors import BudgetExceededError as BudgetExceededError
    from .errors import IsolationError as IsolationError
    from .errors import RunsFailedError as RunsFailedError
    from .errors import StabilityError as StabilityError
    from .errors import UsageError as UsageError
    from .estimates.estimate import Estimate as Estimate
    from .execution.session import check as check
    from .execution.session import measure as measure
    from .protocol import NoiseProtocol as NoiseProtocol
    from .protocol import Perturbation as Perturbation
    from .protocol import Source as Source
    from .store.record import RunRecord as RunRecord
    from .study.asserts import assert_accuracy_sd as assert_accuracy_sd
    from .study.asserts import assert_alike as assert_alike
    from .study.asserts import assert_correlation as assert_correlation
    from .study.asserts import assert_cross_entropy_sd as assert_cross_entropy_sd
    from .study.asserts import assert_disagreement as assert_disagreement
    from .study.asserts import assert_ensemble_delta as assert_ensemble_delta
    from .study.asserts import assert_reduction as assert_reduction
    from .study.asserts import assert_within as assert_within
    from .study.comparison import Comparison as Comparison
    from .study.comparison import compare as compare
    from .study.condition_number import ConditionNumber as ConditionNumber
    from .study.growth import Growth as Growth
    from .study.layer_similarity import Similarity as Similarity
    from .study.likeness import Likeness as Likeness
    from .study.likeness import alike as alike
    from .study.reduction import Reduction as Reduction
    from .study.study import Study as Study
    from .study.variance_components import VarianceComponents as VarianceComponents
    from .study.variance_components import variance_components as variance_components
    from .training.corpus import Corpus as Corpus
    from .training.corpus import python_topics as python_topics
    from .training.images import RandomCropFlip as RandomCropFlip
    from .training.language import LanguageRecipe as LanguageRecipe
    from .training.recipe import Recipe as Recipe
    from .training.run import Run as Run
    from .training.schedule import CosineCycles as CosineCycles
    from .training.schedule import warmup_cosine as warmup_cosine
    from .verdicts.budgets import Budget as Budget
    from .verdicts.budgets import Verdict as Verdict
    from .verdicts.judgement import Outcome as Outcome
    from .verdicts.thresholds import at_least as at_least
    from .verdicts.thresholds import at_most as at_most

_HOME = {
    "adapters.command": "Command",
    "auditing.audit": "Audit assert_seed_reaches audit",
    "study.asserts": (
        "assert_accuracy_sd assert_alike assert_correlation assert_cross_entropy_sd "
        "assert_disagreement assert_ensemble_delta assert_reduction assert_within"
    ),
    "verdicts.budgets": "Budget Verdict",
    "verdicts.thresholds": "at_least at_most",
    "study.comparison": "Comparison compare",
    "study.variance_components": "VarianceComponents variance_components",
    "study.condition_number": "ConditionNumber",
    "training.corpus": "Corpus python_topics",
    "training.images": "RandomCropFlip",
    "errors": ("BaselineExceededError BudgetExceededError IsolationError RunsFailedError StabilityError UsageError"),
    "estimates.estimate": "Estimate",
    "study.growth": "Growth",
    "study.likeness": "Likeness alike",
    "training.language": "LanguageRecipe",
    "verdicts.judgement": "Outcome",
    "protocol": "NoiseProtocol Perturbation Source",
    "store.record": "RunRecord",
    "study.reduction": "Reduction",
    "training.run": "Run",
    "training.schedule": "CosineCycles warmup_cosine",
    "study.layer_similarity": "Similarity",
    "execution.session": "check measure",
    "study.study": "Study",
    "training.recipe": "Recipe",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = ["__version__", *_MODULE_OF]  # noqa: PLE0604  # all strings, from the table above


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
