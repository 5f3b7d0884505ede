"""The command ``stabilitykit audit``."""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError

CLEAN, FOUND = 0, 1

_DESCRIPTION = """\
Trains a few times, in this process: with nothing moved, with each seed moved by itself, and with nothing moved but the
state that the process has before the training. Says what draws (parameters, orders of examples, items, masks), which
seed moves it, what else does, and which seeds are set inside. The code need know nothing of stabilitykit, and what it
trains is what it trains without the audit, bit for bit.

FILE::FUNCTION is called with its defaults; seeds are its parameters with "seed" in their names, and random_state.
FILE alone is run as a script with the arguments after --, in which {seed} is a seed, 0 and then 1.
"""

_EXAMPLES = """\
examples:
  stabilitykit audit train.py::main                          each of its seeds
  stabilitykit audit train.py::main --set epochs=2 --steps 50
  stabilitykit audit train.py::main --knob init_seed=3,4     one parameter, and the two values that it is tried at
  stabilitykit audit train.py -- --seed {seed} --epochs 2    a script with a command line

exit codes: 0 a seed moves everything that draws, and each seed moves something; 1 not so, and sentences say what; 2 the
audit cannot be made.
"""


def add_to(commands: Any) -> None:
    """Add the command to those of a parser."""
    parser = commands.add_parser(
        "audit",
        help="say which seed of a training reaches its parameters, its order of examples, its items and its masks",
        usage="stabilitykit audit FILE[::FUNCTION] [options] [-- arguments of a script]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="FILE[::FUNCTION]", help="what trains")
    parser.add_argument(
        "--knob", action="append", metavar="NAME[=A,B]", help="a parameter that should seed something; may be repeated"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an argument of the function; may be repeated"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="end each training after N optimizer steps")
    parser.add_argument("--json", action="store_true", help="print the audit as JSON")
    parser.set_defaults(carry_out=carry_out)


def carry_out(asked: argparse.Namespace) -> int:
    """Audit, print the table to stdout and what the trainings print to stderr; return the exit code."""
    from .audit import audit_subject
    from .subjects import FileSubject, ScriptSubject, Subject

    path, _, function = asked.target.partition("::")
    file = _file(path)
    knobs, arguments = _knobs(asked.knob), dict(_assigned("--set", text) for text in asked.set)
    with contextlib.redirect_stdout(sys.stderr):
        subject: Subject
        if function:
            if asked.script:
                raise ConfigError(f"Expected no arguments after -- beside {asked.target}: they are of a script.")
            subject = FileSubject(file, function, knobs, arguments)
        else:
            if arguments:
                raise ConfigError("Expected --set only beside FILE::FUNCTION; the arguments of a script come after --.")
            subject = ScriptSubject(file, asked.script, knobs)
        found = audit_subject(subject, asked.steps, _say)
    print(json.dumps(found.to_json(), indent=1) if asked.json else found)
    return FOUND if found.findings else CLEAN


def split(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of the command, and those of the script after ``--``.

    >>> split(["audit", "train.py", "--", "--seed", "{seed}"])
    (['audit', 'train.py'], ['--seed', '{seed}'])
    """
    place = list(given).index("--") if "--" in given else len(given)
    return list(given[:place]), list(given[place + 1 :])


def _say(training: str, seconds: float) -> None:
    print(f"stabilitykit audit: {training}, {seconds:.1f} s", file=sys.stderr)


def _file(path: str) -> Path:
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(
            f"Expected a file of Python, FILE.py::FUNCTION or FILE.py, but got {path!r}, which "
            f"{'is none' if file.exists() else 'does not exist'}."
        )
    return file


def _knobs(given: Sequence[str] | None) -> dict[str, tuple[Any, Any]] | list[str] | None:
    """Return knobs by name, with their two values if all have them; None if none are given."""
    if not given:
        return None
    valued = dict(_assigned("--knob", text) for text in given if "=" in text)
    if not valued:
        return list(given)
    if len(valued) < len(given):
        raise ConfigError(f"Expected two values for each --knob or for none but got {' '.join(given)}.")
    for name, value in valued.items():
        if not isinstance(value, tuple) or len(value) != 2:
            raise ConfigError(f"Expected two values, --knob {name}=0,1, but got {name}={value!r}.")
    return valued


def _assigned(option: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigError(f"Expected {option} NAME=VALUE but got {text!r}.")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value  # a text that is written without quotes
