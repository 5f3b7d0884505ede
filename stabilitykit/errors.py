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
    ├── BaselineExceededError  a study got worse than its baseline; also an AssertionError
    ├── RunsFailedError        one or more of the R runs did not produce a model
    └── IncompleteStudyError   the session ended, or its time did, before all R runs were trained

Each message says what was expected, what came (by name and value), why it matters and what to do next.

The six that `stabilitykit` exports name it as their module. The others name this one, since the front page could not
find them for pickle.
"""

from __future__ import annotations

from pathlib import Path

from .public import public

PACKAGE = Path(__file__).parent  #: frames of code in here are ours, not the user's


@public
class StabilityError(Exception):
    """Root of the tree above."""


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
    """Python on this system has no module that is needed, or an optional package is not installed."""


class StoreError(StabilityError):
    """The run store cannot be written, or was written by a version with another format."""


@public
class IsolationError(StabilityError):
    """The same plan, trained twice, gave different bits: some source is not under control."""


@public
class RunsFailedError(StabilityError):
    """At least one run raised, gave a wrong output or a non-finite one; a study is never computed without it."""


class IncompleteStudyError(StabilityError):
    """Runs are missing, and nobody is to train them now; the finished ones are kept, and the next session goes on."""


@public
class BudgetExceededError(StabilityError, AssertionError):
    """The models differ by more than the budget accepts, or nobody can tell yet that they do not."""


class SelfTestError(StabilityError, AssertionError):
    """A fault that was planted into a copy of a study left its gate green: the gate cannot fire."""


@public
class BaselineExceededError(StabilityError, AssertionError):
    """The mean got worse, or the spread larger, than in the baseline that the study was held against."""
