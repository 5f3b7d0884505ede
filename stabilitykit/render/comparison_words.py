"""A comparison of two models, in words and as a table, from the object of `Comparison.to_json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..estimates.estimate import Estimate
from ..estimates.measure_kinds import kind_of
from ..estimates.scores import ScoreKind, TaskKind, score_kind
from .columns import aligned
from .study_table import short_name

Summary = Mapping[str, Any]


def conclusion(summary: Summary) -> str:
    """Answer in plain words: is the candidate better, does it vary more, and on how much do the two differ?"""
    if summary["identical"]:
        return "Run for run, both give the same answers: there is no difference to judge."
    parts = _of_mean(summary), _of_spread(summary), _of_disagreement(summary), _of_churn(summary)
    return " ".join(filter(None, parts))


def conclusions(summaries: Sequence[Summary]) -> list[str]:
    """Return a line for each comparison of a session: its test, and the answer."""
    return [f"{short_name(summary['test'])}: {_answer(summary)}" for summary in summaries]


def _answer(summary: Summary) -> str:
    baseline, candidate = summary["baseline"], summary["candidate"]
    varies = f"[{candidate['question']}]"
    if not baseline["saved"]:
        return f"{candidate['task']} against {baseline['task']} {varies}. {summary['conclusion']}"
    against = f"against the baseline {baseline['saved']} {varies}"
    if summary["got_worse"]:
        return f"FAIL {against}. {summary['conclusion']}"
    if summary["identical"]:
        return f"PASS {against}: run for run the same answers"
    if "scores" in summary:
        return f"PASS {against}: not changed beyond error. {summary['conclusion']}"
    numbers = f"mean {_interval(summary['mean'])}, spread {_interval(summary['spread'])} times"
    return f"PASS {against}: not worse beyond error ({numbers}, disagreement {_interval(summary['disagreement'])})"


def comparison_table(summary: Summary) -> list[str]:
    """Return the lines of a table: each question with both models' numbers, their difference, and what it shows."""
    baseline, candidate = summary["baseline"], summary["candidate"]
    score = kind_of(summary["metric"]).title
    pairs = "disagreement %" if _is_of_classes(summary) else "1 - correlation"
    rows = [
        ["", f"baseline {_named(baseline)}", f"candidate {_named(candidate)}", "difference", ""],
        ["runs", str(baseline["runs"]), str(candidate["runs"]), "seeds shared" if summary["paired"] else "", ""],
        [f"mean {score}", _number(baseline["mean"]), _number(candidate["mean"]), *_cells(summary, "mean")],
        ["  on other test sets", "", "", *_cells(summary, "mean_on_distribution")],
        [f"SD of {score}", _number(baseline["sd"]), _number(candidate["sd"]), *_cells(summary, "spread")],
        [pairs, _number(baseline["differing"]), _number(candidate["differing"]), *_cells(summary, "disagreement")],
    ]
    if summary["churn"] is not None:
        rows.append(["churn between them %", "", "", _number(summary["churn"]), ""])
    return aligned(rows, "<>><<")


def score_conclusion(summary: Summary) -> str:
    """Answer for each score of two studies: is its mean another, and does it vary more?"""
    if summary["identical"]:
        return "Run for run, both have the same scores: there is no difference to judge."
    parts = (_of_score(summary, name, of) for name, of in summary["scores"].items())
    return " ".join(parts)


def _of_score(summary: Summary, name: str, of: Summary) -> str:
    mean, spread = of["difference"], of["spread"]
    shown = _shown(summary, mean)
    if shown:
        text = f"The mean of {name} is {'higher' if shown > 0 else 'lower'}, by {_interval(mean, sign=shown)}"
        text += f" ({_p(_p_of(mean))})."
    else:
        sign = 1 if mean["value"] is None or mean["value"] >= 0 else -1
        text = _not_shown(f"That the mean of {name} differs", _interval(mean), mean, sign)
    if spread["p_more"] is None or spread["method"] == "no spread in either":
        return text
    varies = _shown(summary, spread)
    if varies:
        return f"{text} It varies {'more' if varies > 0 else 'less'}, {_interval(spread)} times the baseline's spread."
    return f"{text} That it varies more is not shown: {_interval(spread)} times ({_p(spread['p_more'])})."


def score_table(summary: Summary) -> list[str]:
    """Return the lines of a table with two rows a score: both means and SDs, and how far they differ."""
    baseline, candidate = summary["baseline"], summary["candidate"]
    rows = [
        ["", f"baseline {_named(baseline)}", f"candidate {_named(candidate)}", "difference"],
        ["runs", str(baseline["runs"]), str(candidate["runs"]), "seeds shared" if summary["paired"] else ""],
    ]
    for name, of in summary["scores"].items():
        means, sds = ([f"{of[side][what]:.6g}" for side in ("baseline", "candidate")] for what in ("mean", "sd"))
        rows.append([f"mean {name}", *means, _interval(of["difference"])])
        rows.append([f"SD of {name}", *sds, f"{_interval(of['spread'])} times"])
    return aligned(rows, "<>><")


def _named(side: Summary) -> str:
    of = f" of {side['saved']}" if side["saved"] else ""
    return f"({side['task']} [{side['question']}]{of})"


def _cells(summary: Summary, name: str) -> tuple[str, str]:
    difference = summary[name]
    if difference["p_more"] is None:
        return _interval(difference), difference["method"]
    more, less = ("better", "worse") if name.startswith("mean") else ("larger", "smaller")
    less_is_good = name.startswith("mean") and not _score(summary).more_is_better
    if less_is_good:
        more, less = less, more
    times = " times" if name == "spread" else ""
    shown = _shown(summary, difference)
    word = {1: more, -1: less, 0: "not shown"}[shown]
    p = difference["p_less"] if shown < 0 or (less_is_good and not shown) else difference["p_more"]
    return f"{_interval(difference)}{times}", f"{word} ({_p(p)}, {difference['method']})"


def _of_mean(summary: Summary) -> str:
    here, elsewhere = summary["mean"], summary["mean_on_distribution"]
    if here["value"] is None:
        return "The means cannot be compared, since a score is not finite."
    unit = _score(summary).unit or f" in {_score(summary).noun}"
    shown = _shown(summary, here)
    sign = 1 if _score(summary).more_is_better else -1
    if not shown:
        claim = "That the candidate is better on this test set"
        return _not_shown(claim, f"candidate less baseline is {_interval(here)}{unit}", here, sign)
    better = "better" if shown * sign > 0 else "worse"
    text = f"The candidate is {better} by {_interval(here, sign=shown)}{unit} on this test set ({_p(_p_of(here))})"
    if _shown(summary, elsewhere) == shown:
        return f"{text}, and on other test sets of this kind too ({_p(_p_of(elsewhere))})."
    more = ""
    if elsewhere["runs_needed"]:
        more = f"; about {elsewhere['runs_needed']} runs of each would show one of that size"
    elif elsewhere["examples_needed"]:
        more = f"; no number of runs would show one of that size, about {elsewhere['examples_needed']} examples could"
    p = elsewhere["p_more"] if shown > 0 else elsewhere["p_less"]
    return f"{text}; on other test sets of this kind that is not shown ({_p(p)}{more})."


def _of_spread(summary: Summary) -> str:
    spread, what = summary["spread"], _score(summary).noun
    if spread["p_more"] is None:
        return f"The spreads cannot be compared, which is {spread['method']}."
    if spread["value"] is None:
        return "It varies from run to run, which the baseline does not."
    if spread["method"] == "no spread in either":
        return f"The {what} of neither varies from run to run."
    times = f"{_interval(spread)} times the baseline's spread of {what} ({_p(_p_of(spread))}, {spread['method']})"
    shown = _shown(summary, spread)
    if shown:
        return f"It varies {'more' if shown > 0 else 'less'} from run to run, {times}."
    return _not_shown("That it varies more from run to run", f"{_interval(spread)} times the spread", spread)


def _of_disagreement(summary: Summary) -> str:
    difference, classes = summary["disagreement"], _is_of_classes(summary)
    verb, unit = ("disagree", " % of the examples") if classes else ("differ", " in 1 - correlation")
    if difference["p_more"] is None:
        return f"How far its runs {verb} cannot be compared: {difference['method']}."
    shown = _shown(summary, difference)
    if shown:
        size = f"{_interval(difference, sign=shown)}{unit} ({_p(_p_of(difference))})"
        return f"Its runs {verb} {'more' if shown > 0 else 'less'} with each other, by {size}."
    return _not_shown(f"That its runs {verb} more with each other", f"{_interval(difference)}{unit}", difference)


def _not_shown(claim: str, size: str, difference: Summary, sign: int = 1) -> str:
    p = difference["p_more"] if sign > 0 else difference["p_less"]
    needed = difference["runs_needed"] if p < 0.5 else None  # otherwise the difference points the other way
    more = f"; about {needed} runs of each would show a difference of that size" if needed else ""
    return f"{claim} is not shown: {size} ({_p(p)}{more})."


def _of_churn(summary: Summary) -> str:
    if not summary["churn"]:
        return ""
    one, other = (f"two of the {side} on {_number(summary[side]['differing'])} %" for side in ("baseline", "candidate"))
    churn = _number(summary["churn"])
    return f"Two runs, one of each, predict different classes on {churn} % of the examples; {one}, {other}."


def _score(summary: Summary) -> ScoreKind:
    return score_kind(summary["metric"])


def _is_of_classes(summary: Summary) -> bool:
    return TaskKind.CLASSES in _score(summary).tasks


def _shown(summary: Summary, difference: Summary) -> int:
    """1 where the candidate is shown to have more, -1 for less, 0 where neither is."""
    if difference["p_more"] is None:
        return 0
    return int(difference["p_more"] < summary["alpha"]) - int(difference["p_less"] < summary["alpha"])


def _p_of(difference: Summary) -> float:
    return float(min(difference["p_more"], difference["p_less"]))


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _interval(difference: Summary, sign: int = 1) -> str:
    """Write a difference and its bounds; a negative ``sign`` negates them."""
    if difference["value"] is None:
        return "undefined" if difference["p_more"] is None else "inf"
    low = -math.inf if difference["low"] is None else difference["low"]
    high = math.inf if difference["high"] is None else difference["high"]
    if sign < 0:
        low, high = -high, -low
    return str(Estimate(sign * difference["value"], low, high, runs=0, method=""))


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"
