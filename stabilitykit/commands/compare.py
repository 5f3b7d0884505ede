"""``stabilitykit compare``: train two commands R times each, and say whether their scores differ."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from ..errors import UsageError
from ..execution.question import Question
from ..study.comparison import comparison_of
from ..study.score_comparison import ScoreComparison
from ..study.summary import document, summarize
from .options import (
    BEYOND,
    SCORES,
    WITHIN,
    Parser,
    add_options,
    code_of,
    protocol_of,
    say_if_taking_turns,
    session_of,
    task_of,
    write_json,
)

_DESCRIPTION = """\
Runs two commands R times each, run i of both with the same seeds, and says for each score whether its mean is another,
and whether it varies more. The first command is the baseline. See stabilitykit measure --help for what is in {braces}.
"""

_EPILOG = f"""\
{SCORES}
examples:
  stabilitykit compare --runs 8 --score 'val_loss=([0-9.]+)' \\
      --command 'python train.py --seed {{seed}}' --command 'python train.py --seed {{seed}} --lr 0.2'

exit codes: 0 no difference is shown, which does not show that there is none; 1 a mean or a spread is shown to differ,
each with an error rate of 5 %; 3 no answer: a wrong option, a run that failed, a source that is not held; 130
interrupted, and the finished runs are kept.
"""


def main(arguments: Sequence[str]) -> int:
    """Carry out the command and return its exit code."""
    asked = _parser().parse_args(list(arguments))
    return code_of(lambda: _compare(asked))


def _compare(asked: argparse.Namespace) -> int:
    if len(asked.command) != 2:
        raise UsageError(
            f"Expected two commands to compare but got {len(asked.command)}. Write --command 'python a.py --seed "
            f"{{seed}}' --command 'python b.py --seed {{seed}}'."
        )
    tasks = [task_of(asked, _words(text)) for text in asked.command]
    questions = [Question(task, protocol_of(asked), control=asked.control) for task in tasks]
    say_if_taking_turns(asked, tasks[0])
    with session_of(asked) as session:
        studies = [session.answer(question) for question in questions]
        summaries = [summarize(study, text) for study, text in zip(studies, asked.command, strict=True)]
    comparison = comparison_of(*studies)
    assert isinstance(comparison, ScoreComparison), "commands leave scores alone"
    if asked.json:
        write_json(asked.json, document(summaries, [comparison.to_json()]))
    if asked.json != "-":
        notes = dict.fromkeys(f"note: {note}" for summary in summaries for note in summary["notes"])
        sys.stdout.write("\n".join([str(comparison), "", *notes, ""]))
    return BEYOND if _differs(comparison) else WITHIN


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"Expected --command to be written as for a shell but got {text!r}: {error}.") from None


def _differs(comparison: ScoreComparison) -> bool:
    found = (difference for one in comparison.differences for difference in (one.mean, one.spread))
    return any(difference.is_more or difference.is_less for difference in found)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="stabilitykit compare",
        usage="stabilitykit compare [options] --score REGEX --command 'A ...' --command 'B ...'",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--command", action="append", default=[], metavar="'A ...'", help="the baseline, then another")
    return parser
