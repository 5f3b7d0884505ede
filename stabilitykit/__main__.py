"""``stabilitykit``, or ``python -m stabilitykit``: commands for which no option of pytest need be written."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ._version import __version__
from .auditing import command as audit
from .errors import StabilityError

SAME, DIFFERS, USAGE = 0, 1, 2

_EXAMPLES = """\
examples:
  stabilitykit measure --score 'val_loss=([0-9.]+)' -- python train.py --seed {seed}
                                                  how far the scores of a script differ, any script
  stabilitykit plan                               every stability test below this folder
  stabilitykit plan test_model.py -k init         some of them: whatever pytest takes, it takes
  stabilitykit plan -n 2 --stability-runs 20      minutes with two workers, verdicts of at most 20 runs
  stabilitykit why test_model.py::test_init       why its runs were trained again: what differs from the last time
  stabilitykit audit train.py::main               which of its seeds reaches its parameters, order, items and masks
  stabilitykit env                                what the bits of a run depend on here
  stabilitykit env 3f2a                           what of it differs from a stored study, by its key

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

_ENV = """\
Prints what must match between the runs of a study, and for the record the commit and the host. The field `kernels` is
a hash of the bits that small operations compute in this process: another CPU, library, variable of MKL, oneDNN or
torch, or number of threads, computes other bits.

With STUDY, prints each field that differs: its value there, and its value here. Exit code 0 where none does, 1 where
one does, 2 where the study cannot be found.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; ``plan`` replaces this process by pytest, ``why`` is that of `stability-cache`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["plan"] and not {"-h", "--help"} & set(given):
        os.execv(sys.executable, [sys.executable, "-m", "pytest", "--stability-plan", *given[1:]])
    if given[:1] == ["why"]:
        from .cli import main as look_at_store

        return look_at_store(given, "stabilitykit")
    if given[:1] == ["measure"]:
        from .commands.measure import main as measure

        return measure(given[1:])
    if given[:1] == ["compare"]:
        from .commands.compare import main as compare

        return compare(given[1:])
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
    commands.add_parser(
        "measure",
        help="run a command R times, and say how far its scores differ",
        usage="stabilitykit measure [options] --score REGEX -- COMMAND ...",
    )
    commands.add_parser(
        "compare",
        help="run two commands R times each, and say whether their scores differ",
        usage="stabilitykit compare [options] --score REGEX --command 'A ...' --command 'B ...'",
    )
    commands.add_parser("why", help="say why the runs of a study were trained again", usage="stabilitykit why STUDY")
    audit.add_to(commands)
    environment = commands.add_parser(
        "env",
        help="say what the bits of a run depend on here, and what of it differs from a stored study",
        description=_ENV,
        formatter_class=layout,
    )
    environment.add_argument(
        "study", nargs="?", metavar="STUDY", help="the beginning of a key, see stability-cache list"
    )
    environment.add_argument("--device", default=None, help="cpu, cuda, cuda:N or auto (default: the study's, or auto)")
    environment.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of a run (default: the study's, or 1)"
    )
    environment.add_argument(
        "--store", type=Path, metavar="PATH", help="the store (default: .stabilitykit here or above)"
    )
    environment.set_defaults(carry_out=_env)
    own, script = audit.split(given) if given[:1] == ["audit"] else (given, [])
    asked = parser.parse_args(own or ["--help"], argparse.Namespace(script=script))
    try:
        return int(asked.carry_out(asked))
    except BrokenPipeError:  # the reader of the pipe has closed it
        sys.stderr.close()
        return SAME
    except (OSError, StabilityError) as error:
        print(f"stabilitykit: {error}", file=sys.stderr)
        return USAGE


def _env(asked: argparse.Namespace) -> int:
    """Print the environment of a run here, or how it differs from that of a stored study."""
    stored = None if asked.study is None else _stored_environment(asked.study, asked.store)
    from .errors import ConfigError, check_count
    from .store.plain_values import leaves_of
    from .training.environment import current_environment, resolve_device

    there = stored or {}
    threads = there.get("threads", 1) if asked.threads is None else asked.threads
    check_count(ConfigError, "threads", threads, 1)
    device = resolve_device(asked.device or ("cpu" if there.get("device") == "cpu" else "auto"))
    here = current_environment(device, int(str(threads)), Path.cwd())
    if stored is None:
        for name, value in leaves_of(here.to_json()):
            print(f"{name}: {_said(value)}")
        return SAME
    one, other = dict(leaves_of(stored)), dict(leaves_of(here.must_match))
    differing = [name for name in one | other if one.get(name) != other.get(name)]
    for name in differing:
        print(f"{name}: {_said(one.get(name))} there, {_said(other.get(name))} here")
    if not differing:
        print(f"A run here has the bits of study {asked.study}: nothing differs.")
    return DIFFERS if differing else SAME


def _stored_environment(key: str, store: Path | None) -> Mapping[str, object]:
    from .errors import StoreError
    from .store.catalog import Catalog

    entry = (Catalog.above(Path.cwd()) if store is None else Catalog.of(store)).find(key)
    found = entry.about.get("environment")
    if not isinstance(found, dict):
        raise StoreError(f"Expected {entry.key} to say where it was trained but its experiment.json is torn.")
    return found


def _said(value: object) -> str:
    return "none" if value is None else str(value)


if __name__ == "__main__":
    sys.exit(main())
