"""What is public: which names, that the type checker sees the same ones, and that each is found again by its name."""

from __future__ import annotations

import ast
import doctest
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import stabilitykit

#: A name that goes from here breaks tests of users: it goes with a note in the changelog.
PUBLIC = [
    "Audit",
    "BaselineExceededError",
    "Budget",
    "BudgetExceededError",
    "Command",
    "Comparison",
    "ConditionNumber",
    "Corpus",
    "CosineCycles",
    "Estimate",
    "Growth",
    "IsolationError",
    "LanguageRecipe",
    "Likeness",
    "NoiseProtocol",
    "Outcome",
    "Perturbation",
    "RandomCropFlip",
    "Recipe",
    "Reduction",
    "Run",
    "RunRecord",
    "RunsFailedError",
    "Similarity",
    "Source",
    "StabilityError",
    "Study",
    "UsageError",
    "VarianceComponents",
    "Verdict",
    "__version__",
    "alike",
    "assert_accuracy_sd",
    "assert_alike",
    "assert_correlation",
    "assert_cross_entropy_sd",
    "assert_disagreement",
    "assert_ensemble_delta",
    "assert_reduction",
    "assert_seed_reaches",
    "assert_within",
    "at_least",
    "at_most",
    "audit",
    "check",
    "compare",
    "measure",
    "python_topics",
    "variance_components",
    "warmup_cosine",
]
VALUES = [name for name in PUBLIC if name != "__version__"]


def test_the_public_names_are_these() -> None:
    assert sorted(stabilitykit.__all__) == PUBLIC == dir(stabilitykit)


def test_the_type_checker_sees_the_names_that_are_loaded() -> None:
    """The front page names each of them twice: once for the type checker, once for `__getattr__`."""
    source = Path(stabilitykit.__file__).read_text(encoding="utf-8")
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {name.asname: node.module for node in imports for name in node.names if name.asname == name.name}
    assert seen == stabilitykit._MODULE_OF


@pytest.mark.parametrize("name", VALUES)
def test_a_public_name_says_so_in_the_module_that_defines_it(name: str) -> None:
    module = importlib.import_module(f"stabilitykit.{stabilitykit._MODULE_OF[name]}")
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert name in {getattr(node, "name", None) for node in ast.parse(source).body}
    assert getattr(module, name).__module__ == "stabilitykit"
    assert getattr(module, name) is getattr(stabilitykit, name)


def test_nothing_else_says_so() -> None:
    """What says that it is of `stabilitykit` and is not found there could not be unpickled."""
    for module in set(stabilitykit._MODULE_OF.values()):
        values = vars(importlib.import_module(f"stabilitykit.{module}")).values()
        said = {value.__qualname__ for value in values if getattr(value, "__module__", "") == "stabilitykit"}
        assert said <= set(VALUES)


@pytest.mark.slow
def test_a_public_name_is_pickled_by_reference_and_found_in_a_process_that_loaded_nothing() -> None:
    pickled = pickle.dumps([getattr(stabilitykit, name) for name in VALUES])
    assert len(pickled) < 100 * len(VALUES), "names, not contents"
    script = "import pickle, sys; print(*(value.__name__ for value in pickle.load(sys.stdin.buffer)))"
    found = subprocess.run([sys.executable, "-c", script], input=pickled, capture_output=True, check=True)
    assert found.stdout.decode().split() == VALUES


def test_the_examples_of_a_public_name_are_collected_where_it_is_defined() -> None:
    """And not on the front page, where they would be found only if something had loaded the name before."""
    wanted = {
        f"stabilitykit.{module}.{name}"
        for name, module in stabilitykit._MODULE_OF.items()
        if ">>>" in (getattr(stabilitykit, name).__doc__ or "")
    }
    assert len(wanted) >= 10
    modules = {name.rpartition(".")[0] for name in wanted}
    finder = doctest.DocTestFinder()
    assert wanted <= {test.name for name in modules for test in finder.find(importlib.import_module(name))}
    assert not [test.name for test in finder.find(stabilitykit) if test.examples]
