"""Measure how far R trainings of one model differ, and let a test fail when they differ more than a budget allows.

Summers & Dinneen, *Nondeterminism and Instability in Neural Network Optimization* (ICML 2021), as a pytest plugin and a
library. Names are loaded when they are first used: importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .asserts import assert_accuracy_sd as assert_accuracy_sd
    from .asserts import assert_alike as assert_alike
    from .asserts import assert_correlation as assert_correlation
    from .asserts import assert_cross_entropy_sd as assert_cross_entropy_sd
    from .asserts import assert_disagreement as assert_disagreement
    from .asserts import assert_ensemble_delta as assert_ensemble_delta
    from .asserts import assert_reduction as assert_reduction
    from .asserts import assert_within as assert_within
    from .budgets import Budget as Budget
    from .budgets import Verdict as Verdict
    from .comparison import Comparison as Comparison
    from .comparison import compare as compare
    from .components import VarianceComponents as VarianceComponents
    from .components import variance_components as variance_components
    from .conditioning import ConditionNumber as ConditionNumber
    from .corpus import Corpus as Corpus
    from .corpus import python_topics as python_topics
    from .data import RandomCropFlip as RandomCropFlip
    from .errors import BaselineExceededError as BaselineExceededError
    from .errors import BudgetExceededError as BudgetExceededError
    from .errors import IsolationError as IsolationError
    from .errors import RunsFailedError as RunsFailedError
    from .errors import StabilityError as StabilityError
    from .errors import UsageError as UsageError
    from .estimate import Estimate as Estimate
    from .growth import Growth as Growth
    from .language import LanguageRecipe as LanguageRecipe
    from .likeness import Likeness as Likeness
    from .likeness import alike as alike
    from .limits import Outcome as Outcome
    from .protocol import NoiseProtocol as NoiseProtocol
    from .record import RunRecord as RunRecord
    from .reduction import Reduction as Reduction
    from .run import Run as Run
    from .schedule import CosineCycles as CosineCycles
    from .schedule import warmup_cosine as warmup_cosine
    from .session import check as check
    from .session import measure as measure
    from .similarity import Similarity as Similarity
    from .sources import Perturbation as Perturbation
    from .sources import Source as Source
    from .study import Study as Study
    from .task import Recipe as Recipe

_HOME = {
    "asserts": (
        "assert_accuracy_sd assert_alike assert_correlation assert_cross_entropy_sd "
        "assert_disagreement assert_ensemble_delta assert_reduction assert_within"
    ),
    "budgets": "Budget Verdict",
    "comparison": "Comparison compare",
    "components": "VarianceComponents variance_components",
    "conditioning": "ConditionNumber",
    "corpus": "Corpus python_topics",
    "data": "RandomCropFlip",
    "errors": ("BaselineExceededError BudgetExceededError IsolationError RunsFailedError StabilityError UsageError"),
    "estimate": "Estimate",
    "growth": "Growth",
    "likeness": "Likeness alike",
    "language": "LanguageRecipe",
    "limits": "Outcome",
    "protocol": "NoiseProtocol",
    "record": "RunRecord",
    "reduction": "Reduction",
    "run": "Run",
    "schedule": "CosineCycles warmup_cosine",
    "similarity": "Similarity",
    "sources": "Perturbation Source",
    "session": "check measure",
    "study": "Study",
    "task": "Recipe",
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
