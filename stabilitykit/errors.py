"""Everything that stabilitykit raises on purpose.

::

    StabilityError
    ├── UsageError             the question is wrong; raised before anything trains
    │   ├── ConfigError        an option, ini key or marker
    │   ├── ProtocolError      what varies, how often, from which seed
    │   ├── TaskError          the recipe, train function, data or labels
    │   ├── PerturbationError  the weight that should move cannot
    │   ├── BaselineError      the baseline is of other data, epochs, environment or protocol
    │   ├── BudgetError        the budget, or a metric that the task does not have
    │   └── MissingModuleError a module that the system or the environment does not have; also an ImportError
    ├── StoreError             the store cannot be read or written
    ├── IsolationError         the control found that a held source is not held
    ├── BudgetExceededError    the verdict of an assertion helper; also an AssertionError
    ├── SelfTestError          a planted fault that a gate does not notice; also an AssertionError
    ├── UnreachedSourceError   a seed does not move a source that a test says it moves; also an AssertionError
    ├── BaselineExceededError  a study got worse than its baseline; also an AssertionError
    ├── RunsFailedError        one or more of the R runs did not produce a model
    └── IncompleteStudyError   the session ended, or its time did, before all R runs were trained

Each message says what was expected, what came (by name and value), why it matters and what to do next.

The six that `stabilitykit` exports name it as their module. The others name this one, since the front page could not
find them for pickle.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from .public import public

PACKAGE = Path(__file__).parent  #: frames of code in this folder are ours, not the user's


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is of this package; the method that `dataclass` writes for a class of ours has no file."""
    module = str(frame.f_globals.get("__name__", ""))
    return PACKAGE in Path(frame.f_code.co_filename).parents or module.partition(".")[0] == PACKAGE.name


#: Writes a setting, by its name and the value that it should have, as the reader of the text can set it.
Spelling: TypeAlias = Callable[[str, object], str]


_spellings: list[Spelling] = [lambda name, value: name if value is None else f"{name}={value}"]  #: the last one holds


def setting(name: str, value: object = None) -> str:
    """Write a setting, which has the name of a field of `StabilityConfig`: in a script ``runs=10``.

    >>> undo = spell_settings(lambda name, value: f"{name.upper()} to {value}")
    >>> setting("runs", 10)
    'RUNS to 10'
    >>> undo()
    """
    return _spellings[-1](name, value)


def spell_settings(spelling: Spelling) -> Callable[[], None]:
    """Let all texts write settings by ``spelling``, as the pytest plugin does; return what undoes that."""
    _spellings.append(spelling)
    return functools.partial(_spellings.remove, spelling)


@public
class StabilityError(Exception):
    """Root of the tree above; ``advice`` are the settings that help, by name, which the message ends with.

    >>> BudgetError("Expected 3 runs or more but got 2.", runs=10).advice
    {'runs': 10}
    """

    def __init__(self, message: str = "", **advice: object) -> None:
        super().__init__(message)
        self.advice = advice

    def __str__(self) -> str:
        """Return the message, with the advice as the reader can follow it."""
        if not self.advice:
            return super().__str__()
        return f"{super().__str__()} Set {' '.join(setting(name, value) for name, value in self.advice.items())}."


@public
class UsageError(StabilityError):
    """The question cannot be answered as it was asked."""


class ConfigError(UsageError):
    """A command-line option, an ini key or a marker has a value that means nothing."""


class ProtocolError(UsageError):
    """The protocol names an unknown source, too few runs, or a combination that cannot be isolated."""


class TaskError(UsageError):
    """The recipe, the train function, its data or its labels cannot be trained or scored."""


class PerturbationError(UsageError):
    """The weight to perturb does not exist, is not a float, or would keep its value."""


class BudgetError(UsageError):
    """The budget is empty, has an impossible value, or names a metric that the task does not have."""


class BaselineError(UsageError):
    """The baseline is of other data, epochs, environment or protocol: a difference would not be the change's."""


class MissingModuleError(UsageError, ImportError):
    """A module that is needed does not exist on this system, or an optional package is not installed."""


class StoreError(StabilityError):
    """The run store cannot be written, or was written by a version with another format."""


@public
class IsolationError(StabilityError):
    """The same plan, trained twice, gave different bits: some source is not under control."""


@public
class RunsFailedError(StabilityError):
    """At least one run raised, gave a wrong output or a non-finite one; a study is never computed without it."""


class IncompleteStudyError(StabilityError):
    """Runs are missing, and none will be trained now; the finished ones are kept, and the next session goes on."""


@public
class BudgetExceededError(StabilityError, AssertionError):
    """The models differ by more than the budget accepts, or the runs do not show yet that they differ by less."""


class SelfTestError(StabilityError, AssertionError):
    """A fault that was planted into a copy of a study left its gate green: the gate cannot fire."""


class UnreachedSourceError(StabilityError, AssertionError):
    """A seed that a training takes does not move a source that a test says it moves."""


@public
class BaselineExceededError(StabilityError, AssertionError):
    """The mean got worse, or the spread larger, than in the baseline that the study was held against."""


def is_count(value: object, least: int) -> bool:
    """Whether a value is an integer, and not a truth value, of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_count(kind: type[StabilityError], name: str, value: object, least: int, why: str = "") -> None:
    """Raise an error of this kind, which ends with ``why``, unless the value is an integer of at least ``least``.

    >>> check_count(TaskError, "epochs", 0, least=1, why="A run without epochs trains nothing.")
    Traceback (most recent call last):
    stabilitykit.errors.TaskError: Expected epochs >= 1 but got epochs=0. A run without epochs trains nothing.
    """
    if not is_count(value, least):
        raise kind(f"Expected {name} >= {least} but got {name}={value!r}. {why}".rstrip())


def number_of(value: object) -> float:
    """Return a real number as a float; NaN, which no comparison accepts, for anything else and for a truth value."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
