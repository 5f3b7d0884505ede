"""The options that `stabilitykit measure` and `compare` share, and the session and task that they make."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..adapters.command import Command
from ..adapters.printed_scores import Pattern
from ..errors import ConfigError, StabilityError, check_count
from ..execution.runner import Progress
from ..execution.session import Session
from ..execution.where import Where
from ..protocol import NoiseProtocol
from ..store.layout import STORE
from ..store.run_store import RunStore

WITHIN, BEYOND, UNDECIDED, NO_ANSWER, INTERRUPTED = 0, 1, 2, 3, 130

#: How scores are written, for the help of both.
SCORES = """\
scores:
  --score 'val_loss=([0-9.]+)'            the number in the group; the name is what stands before it
  --score 'Test F1: (?P<f1>[0-9.]+)'      or the name of the group
  --score-json metrics.json               every number in a JSON file that the run writes
  --score-json m.json:loss,eval.f1        some of them, one in another
  --score-json m.json:acc=accuracy        under another name, since accuracy is a measure of its own here
  --last-line                             the last line: a number, named score, or a JSON object
"""

#: Seconds between two lines of progress in which no run has ended.
_SILENCE = 60.0


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors have an exit code of their own, since 2 is a verdict."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        self.print_usage(sys.stderr)
        self.exit(NO_ANSWER, f"{self.prog}: {message}\n")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what both commands take."""
    runs = parser.add_argument_group("the question")
    runs.add_argument("--runs", type=int, default=10, metavar="R", help="trainings of each command (default: 10)")
    runs.add_argument("--vary", default="all", help="all, or sources that the command has a seed for: init+shuffle")
    runs.add_argument(
        "--control",
        default="auto",
        metavar="full",
        help="full also runs one {seed} twice, which must leave equal scores",
    )
    runs.add_argument("--seed", type=int, default=0, metavar="N", help="base seed of all runs (default: 0)")

    scores = parser.add_argument_group("the scores")
    scores.add_argument("--score", action="append", default=[], metavar="REGEX", help="takes a number of the output")
    scores.add_argument("--score-json", metavar="FILE[:KEYS]", help="a JSON file that a run writes")
    scores.add_argument("--last-line", action="store_true", help="the last line is a number, or a JSON object")
    scores.add_argument("--pick", default="only", metavar="last", help="take the last match of each --score")

    place = parser.add_argument_group("the runs")
    place.add_argument("-n", type=int, default=1, dest="workers", metavar="N", help="runs at once (default: 1)")
    place.add_argument("--cwd", metavar="FOLDER", help="where the command runs (default: here)")
    place.add_argument("--copy", action=argparse.BooleanOptionalAction, help="whether each run gets a copy of FOLDER")
    place.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the command")
    place.add_argument("--input", action="append", default=[], metavar="FILES", help="data that counts: data/*.csv")
    place.add_argument("--timeout", type=float, metavar="S", help="seconds that one run may take")
    place.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads of one run (default: 1)")
    place.add_argument("--store", type=Path, default=Path(STORE), metavar="PATH", help=f"kept runs (default: {STORE})")
    place.add_argument("--json", metavar="FILE", help="write the study as JSON, - to standard output")


def task_of(asked: argparse.Namespace, command: Sequence[str]) -> Command:
    """Return the task of a command line; raise `UsageError` for what is wrong with it."""
    patterns = [Pattern.of(regex, asked.pick) for regex in asked.score]
    names = [pattern.name for pattern in patterns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"Expected each --score to have a name of its own but {twice[0]!r} is there twice.")
    return Command(
        list(command),
        scores={pattern.name: pattern.regex for pattern in patterns},
        score_json=asked.score_json,
        last_line=asked.last_line,
        pick=asked.pick,
        cwd=asked.cwd,
        env=dict(map(_variable, asked.env)),
        inputs=tuple(asked.input),
        copy=asked.copy,
        timeout=asked.timeout,
    )


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise ConfigError(f"Expected --env NAME=VALUE but got {text!r}.")
    return name, value


def protocol_of(asked: argparse.Namespace) -> NoiseProtocol:
    """Return what varies, and over how many runs."""
    return NoiseProtocol(asked.vary, runs=asked.runs, seed=asked.seed)


@contextlib.contextmanager
def session_of(asked: argparse.Namespace) -> Iterator[Session]:
    """Yield a session that trains in child processes, whose output is kept as the log of each run."""
    check_count(ConfigError, "-n", asked.workers, 1, "It is how many runs train at once.")
    check_count(ConfigError, "--threads", asked.threads, 1, "It is how many CPU threads a run has.")
    where = Where(threads=asked.threads, isolation="process", workers=asked.workers)
    store = RunStore(asked.store.absolute())
    try:
        yield Session(store, Path.cwd(), where, on_progress=ProgressLines().show)
    finally:
        store.end_session()


def say_if_taking_turns(asked: argparse.Namespace, task: Command) -> None:
    """Say that -n has no effect where runs use one folder."""
    if asked.workers > 1 and task.takes_turns:
        tell(
            f"runs take turns in {task.folder}, since each could overwrite what another writes there. They run at once "
            f"if the command names {{run_dir}} for its files, with --copy, or with --no-copy if it writes none."
        )


def code_of(carry_out: Callable[[], int]) -> int:
    """Return the exit code of a command; what ends it without an answer is told."""
    try:
        return carry_out()
    except KeyboardInterrupt:
        tell("interrupted. The finished runs are kept: the same command goes on from there.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the pipe has closed it
        sys.stderr.close()
        return NO_ANSWER
    except (OSError, StabilityError) as error:
        tell(str(error))
        return NO_ANSWER


def write_json(place: str, content: Mapping[str, Any]) -> None:
    """Write a document to a file, or to standard output where the place is ``-``."""
    text = json.dumps(content, indent=1)
    if place == "-":
        sys.stdout.write(f"{text}\n")
    else:
        Path(place).write_text(f"{text}\n", encoding="utf-8")


def tell(line: str) -> None:
    """Write a line for people to standard error."""
    sys.stderr.write(f"stabilitykit: {line}\n")


class ProgressLines:
    """A line on standard error for each run that has ended."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._told = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Write a line if a run has ended, or if none has for a while."""
        has_ended = progress.new and self._last.get(progress.study) != progress.finished
        if not has_ended and not (progress.running and time.monotonic() - self._told > _SILENCE):
            return
        self._last[progress.study], self._told = progress.finished, time.monotonic()
        parts = [f"{progress.study}: {progress.finished}/{progress.total} runs"]
        parts += [f"{progress.failed} failed"] if progress.failed else []
        parts += [f"{len(progress.running)} running"] if progress.running else []
        parts += [f"about {progress.seconds_left:.0f} s left"] if progress.seconds_left else []
        tell(", ".join(parts))
