"""The table: the paper's columns, and numbers to as many digits as they are worth."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stabilitykit.render.study_table import short_name, study_table
from stabilitykit.study.summary import summarize
from stabilitykit.testing import fake_study

LABELS = torch.arange(30) % 3
LOGITS = nn.functional.one_hot(LABELS, 3) + torch.randn(5, 30, 3, generator=torch.Generator().manual_seed(0))


def cell(value, sd=None):
    estimate = {"value": value, "low": None, "high": None}
    return estimate if sd is None else estimate | {"sd_of_sd": sd}


def summary(test="test_a.py::test_b", name="init", **values):
    metrics = {
        "accuracy": cell(90.123),
        "accuracy_sd": cell(0.2213, 0.0187),
        "flip_floor": cell(0.1931),
        "training_sd": cell(0.1081),
        "cross_entropy_sd": cell(0.00801, 0.00052),
        "disagreement": cell(10.7),
        "correlation": cell(0.8715),
        "pearson": cell(0.9),
        "ensemble_delta": cell(1.82),
    }
    return {
        "test": test,
        "task": "net",
        "kind": "classes",
        "name": name,
        "runs": 2,
        "runs_at_most": 2,
        "metrics": metrics,
        "verdict": None,
        "notes": [],
        "records": [{"status": "ok", "fingerprint": "a0"}, {"status": "ok", "fingerprint": "b1"}],
    } | values


def test_a_row_has_the_papers_columns():
    assert study_table([summary(verdict="pass")]) == [
        "test    varies  runs  accuracy %     acc. SD  floor           CE SD  disagree %  corr.  ens. delta  verdict",
        "test_b  init       2       90.12  0.22 ±0.02   0.19  0.0080 ±0.0005       10.70  0.872        1.82  PASS",
    ]


def test_two_tasks_of_one_test_are_told_apart():
    wide = [summary(task="wide"), summary(task="wide", name="shuffle")]
    rows = study_table([summary(), *wide, summary("a.py::test_c", name="augment")])
    assert [row.partition("  ")[0] for row in rows] == [
        "test",
        "test_b (net)",
        "test_b (wide)",
        "test_b (wide)",
        "test_c",
    ]


def test_rows_are_aligned_and_end_in_no_spaces():
    lines = study_table([summary(), summary("x.py::TestNet::test_longer[init]", "init+shuffle", verdict="undecided")])
    assert (
        len({line.index(end) + len(end) for line, end in zip(lines, ["ens. delta", "1.82", "1.82"], strict=True)}) == 1
    )
    assert lines[1].endswith("  -")
    assert lines[2].endswith("  UNDECIDED")
    assert all(line == line.rstrip() for line in lines)


def test_a_study_of_ours_has_a_number_in_every_column():
    (_, row) = study_table([summarize(fake_study(LOGITS, LABELS), "test_a.py::test_b")])
    assert row.split()[:3] == ["test_b", "all", "5"]
    assert " - " not in row


def test_a_metric_of_ones_own_gets_a_column_for_its_sd():
    lines = study_table(
        [summary(), summary(metrics={**summary()["metrics"], "f1": cell(0.5), "f1_sd": cell(0.1, 0.02)})]
    )
    assert lines[0].split()[-2:] == ["f1_sd", "verdict"]
    assert lines[1].split()[-2:] == ["-", "-"]
    assert lines[2].split()[-3:] == ["0.10", "±0.02", "-"]


def test_regressions_have_a_table_of_their_own():
    regression = summarize(fake_study(LOGITS[..., 0], LABELS.float()), "test_r.py::test_r")
    lines = study_table([summary(), regression])
    assert lines[2] == ""
    assert " ".join(lines[3].split()) == "test varies runs RMSE RMSE SD corr. ens. delta verdict"
    assert lines[4].startswith("test_r  all        5  ")
    assert len(study_table([regression])) == 2


def test_a_study_with_failed_runs_counts_those_that_are_left():
    failed = summary(
        metrics={},
        verdict="fail",
        records=[{"status": "ok", "fingerprint": "a0"}, {"status": "failed", "fingerprint": ""}],
    )
    row = study_table([failed])[1].split()
    assert row == ["test_b", "init", "1/2", *["-"] * 7, "FAIL"]


@pytest.mark.parametrize(
    ("metric", "estimate", "shown"),
    [
        ("correlation", cell(None), "undefined"),
        ("correlation", cell(1.0), "1.000"),
        ("disagreement", cell(0.0), "0.00"),
        ("ensemble_delta", cell(-0.003), "-3e-03"),
        ("accuracy_sd", cell(0.0, 0.0), "0 ±0"),
        ("cross_entropy_sd", cell(2e-8, 1e-9), "2e-08 ±1e-09"),
        ("accuracy_sd", cell(1.25, 0.31), "1.25 ±0.31"),
    ],
)
def test_a_number_is_shown_to_what_it_is_worth(metric, estimate, shown):
    row = study_table([summary(metrics={metric: estimate})])[1]
    assert f"  {shown}  " in row


def test_a_note_is_said_once_with_those_that_it_is_about():
    lines = study_table(
        [
            summary("a.py::one", verdict="pass", notes=["low-level source: native"]),
            summary(
                "a.py::two",
                verdict="pass",
                notes=["low-level source: native", "runs not kept, nor verdicts: x is a file"],
            ),
            summary("a.py::two", verdict="pass", notes=["low-level source: native"]),
        ]
    )
    assert lines[4:] == [
        "note: low-level source: native (one, two)",
        "note: runs not kept, nor verdicts: x is a file (two)",
    ]


def rows_of(*summaries):
    return [line.split()[0] for line in study_table(summaries)[1:] if not line.startswith("note")]


@pytest.mark.parametrize("verdict", [None, "pass"])
def test_a_study_that_another_test_shows_is_shown_again_only_with_a_verdict(verdict):
    first, again = summary("a.py::test_a", verdict=verdict), summary("a.py::test_b", verdict=None)
    judged = summary("a.py::test_c", verdict="fail")
    assert rows_of(first, again) == ["test_a"]
    assert rows_of(again, judged) == ["test_c"]
    assert rows_of(first, judged) == (["test_c"] if verdict is None else ["test_a", "test_c"])
    assert study_table([first, again])[-1] == "note: 1 more without a verdict, of studies that have a row"


@pytest.mark.parametrize("change", [{"task": "wide"}, {"name": "shuffle"}, {"metrics": {"accuracy": cell(90.2)}}])
def test_a_study_that_differs_in_anything_is_another_one(change):
    assert len(rows_of(summary("a.py::test_a"), summary("a.py::test_b", **change))) == 2


def test_no_study_is_no_table():
    assert study_table([]) == []


def test_a_name_without_a_file_is_kept():
    assert short_name("fake") == "fake"
    assert short_name("a/b.py::T::t[x::y]") == "T::t[x::y]"


def certified(test, alive, base="b0", line="held: x twice; alive: {}; traced: 1 files", task="net"):
    certificate = {"base": base, "alive": dict.fromkeys(alive, "seen"), "line": line.format(", ".join(alive))}
    return summary(test, task=task, certificate=certificate, environment={"kernels": "k1"})


def test_studies_of_one_base_run_share_a_line():
    studies = [
        certified("a.py::test_a", ["init"]),
        certified("a.py::test_b", ["init", "ulp"]),
        certified("a.py::test_other", ["shuffle"], base="b1"),
        certified("a.py::test_cut", ["init"], line="held: only 2 epochs; alive: {}; traced: 1 files"),
        certified("a.py::test_dead", [], line="held: x twice; moves nothing: augment; traced: 1 files"),
    ]
    said = [line for line in study_table(studies) if line.startswith("certificate")]
    assert said == [
        "certificate on kernels k1: held: x twice; alive: init, ulp; traced: 1 files (test_a, test_b)",
        "certificate on kernels k1: held: x twice; alive: shuffle; traced: 1 files (test_other)",
        "certificate on kernels k1: held: only 2 epochs; alive: init; traced: 1 files (test_cut)",
        "certificate on kernels k1: held: x twice; moves nothing: augment; traced: 1 files (test_dead)",
    ]
