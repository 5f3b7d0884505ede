"""``stabilitykit measure``: train a command R times, and say how far its scores differ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..errors import UsageError
from ..execution.question import Question
from ..render.scores_table import scores_table
from ..render.study_table import study_table
from ..study.study import Study
from ..study.summary import document, summarize
from ..verdicts.budgets import Budget
from ..verdicts.judgement import Outcome
from .limits import budget_of
from .options import (
    BEYOND,
    SCORES,
    UNDECIDED,
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
Runs a command R times, each time with another seed, and says how far its scores differ: any framework, any language,
no line of the script changed. Runs are kept: asked again, it answers at once, and trains again what has changed.

  {seed}                    one seed, which moves everything
  {init} {shuffle} {augment} {stochastic}
                            a seed for each source, where the script has such flags: then --vary init is possible
  {run_dir}                 a new folder of the run's own, for what it writes
  {{ }}                     braces
"""

_EPILOG = f"""\
{SCORES}
budgets, of which there may be several; with one, training ends as soon as the verdict stands, after R runs at most:
  --budget 'val_loss_sd<=0.01'            the SD over runs
  --budget 'val_loss<=3.28 alpha=0.01'    half of all runs come to 3.28 or less, wrong in 1 % of studies at most
  --budget 'reward>=450 share=0.9'        90 % of all runs come to 450 or more
  --budget 'val_loss<=3.28 mean'          the mean over all runs; see docs/outputs.md for what that assumes

examples:
  stabilitykit measure --runs 8 --score 'val_loss=([0-9.]+)' -- python train.py --seed {{seed}}
  stabilitykit measure --vary init --score 'acc=([0-9.]+)' -- python train.py --init {{init}} --data {{shuffle}}
  stabilitykit measure -n 4 --score-json {{run_dir}}/m.json -- ./train --seed {{seed}} --out {{run_dir}}
  stabilitykit measure --budget 'val_loss_sd<=0.01' --score 'val_loss=([0-9.]+)' -- python train.py --seed {{seed}}

exit codes: 0 within every budget, or none was asked; 1 beyond one; 2 undecided; 3 no answer: a wrong option, a run that
failed, a source that is not held; 130 interrupted, and the finished runs are kept.
"""

_CODES = {Outcome.PASS: WITHIN, Outcome.FAIL: BEYOND, Outcome.UNDECIDED: UNDECIDED}


def main(arguments: Sequence[str]) -> int:
    """Carry out the command and return its exit code."""
    given = list(arguments)
    place = given.index("--") if "--" in given else len(given)
    asked = _parser().parse_args(given[:place])
    return code_of(lambda: _measure(asked, given[place + 1 :]))


def _measure(asked: argparse.Namespace, command: Sequence[str]) -> int:
    if not command:
        raise UsageError("Expected a command after -- but got none: stabilitykit measure ... -- python train.py ...")
    task, budget = task_of(asked, command), budget_of(asked.budget)
    asks = {"budget": budget, "control": asked.control, "stops_early": budget is not None}
    question = Question(task, protocol_of(asked), **asks)
    say_if_taking_turns(asked, task)
    with session_of(asked) as session:
        study = session.answer(question)
        _write(asked, study, budget)
    return _CODES[study.verdicts[-1].outcome] if budget else WITHIN


def _write(asked: argparse.Namespace, study: Study, budget: Budget | None) -> None:
    summary = summarize(study, study.task)
    if asked.json:
        write_json(asked.json, document([summary]))
    if asked.json == "-":
        return
    lines = [*scores_table([summary]), "", *study_table([summary])]
    if budget:
        verdict = study.verdicts[-1]
        lines += ["", verdict.summary(), verdict.error_rates()]
    sys.stdout.write("\n".join([*lines, ""]))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="stabilitykit measure",
        usage="stabilitykit measure [options] --score REGEX -- COMMAND ...",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--budget", action="append", default=[], metavar="LIMIT", help="the most that is accepted")
    return parser
