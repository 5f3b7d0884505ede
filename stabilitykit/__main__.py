"""``stabilitykit``, or ``python -m stabilitykit``: commands for which no option of pytest need be written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ._version import __version__

_EXAMPLES = """\
examples:
  stabilitykit plan                               every stability test below this folder
  stabilitykit plan test_model.py -k init         some of them: whatever pytest takes, it takes
  stabilitykit plan -n 2 --stability-runs 20      minutes with two workers, verdicts of at most 20 runs
  stabilitykit why test_model.py::test_init       why its runs were trained again: what differs from the last time

`stability-cache` says what the run store holds. In tests, everything is an option of pytest: pytest --help.
"""

_PLAN = """\
Trains nothing. Each stability test is entered up to the first number that only trained runs have, and is reported as
skipped, "planned"; what it would ask after that is not in the plan. Other tests do not run. The table has a row for
each limit of each budget:

  excludes           how many times its limit a spread must be for a PASS to be wrong (ratio)
  runs needed        by a study of fixed R, and by --stability-runs of a check, which leave nothing UNDECIDED
  R                  the most runs that the test would train, and whether these suffice
  runs to a verdict  mean number of runs if the true spread is 0.5, 1 or 2 times the budget: a check stops early
  P(FAIL) beyond     the power if it is 1.25, 1.5 or 2 times the budget
  minutes            for these runs, at the seconds that stored runs took, with this -n; stored runs cost none

Notes below the table say what a row assumes, and name budgets that no number of runs can reach, since examples that
flip on their own already spread the accuracy more.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; ``plan`` replaces this process by pytest, ``why`` is that of `stability-cache`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["plan"] and not {"-h", "--help"} & set(given):
        os.execv(sys.executable, [sys.executable, "-m", "pytest", "--stability-plan", *given[1:]])
    if given[:1] == ["why"]:
        from .cli import main as look_at_store

        return look_at_store(given)
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="stabilitykit",
        description="Measure how far trainings of one PyTorch model differ, and fail CI when they differ too much.",
        epilog=_EXAMPLES,
        formatter_class=layout,
    )
    parser.add_argument("--version", action="version", version=f"stabilitykit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    commands.add_parser(
        "plan",
        help="say how many runs and minutes the budgets of the tests need, before anything trains",
        usage="stabilitykit plan [pytest arguments]",
        description=_PLAN,
        epilog=_EXAMPLES,
        formatter_class=layout,
    )
    commands.add_parser("why", help="say why the runs of a study were trained again", usage="stabilitykit why STUDY")
    parser.parse_args(given or ["--help"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
