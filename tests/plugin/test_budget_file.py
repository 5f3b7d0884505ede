"""stability-budgets.toml: what is read, what is refused, and what stays of a reviewer's hand."""

from __future__ import annotations

import datetime
import errno
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

from stabilitykit import Budget
from stabilitykit.errors import BudgetError
from stabilitykit.plugin import budget_file
from stabilitykit.plugin.budget_file import BudgetFile, write
from stabilitykit.store.atomic_files import Draft
from stabilitykit.verdicts.calibration import Calibration, Proposal

DAY, LATER = datetime.date(2026, 11, 24), datetime.date(2026, 12, 1)

GOOD = """\
format = 1

[[study]]
test = "test_a.py::test_a"
varies = "init"

[study.budgets]
accuracy_sd = 0.5
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stability-budgets.toml"


def calibration(test: str = "test_a.py::test_a", study: int = 1, position: int = 0, **limits: float) -> Calibration:
    limits = limits or {"accuracy_sd": 0.6, "disagreement": 11.0}
    proposals = tuple(Proposal(name, limit, "0.4 [0.3, 0.6]", 10, 0.011, 0.192) for name, limit in limits.items())
    return Calibration(test, study, position, "Net", "init", 10, "torch 2.14.1, cpu, AVX512, 1 thread", proposals)


def read(path: Path, text: str) -> BudgetFile:
    path.write_text(dedent(text))
    return BudgetFile.read(path)


# Reading


def test_what_is_written_is_read(path: Path) -> None:
    done = write(path, [calibration(), calibration(study=2, accuracy_sd=0.7)], update=False, date=DAY)
    assert (done.new, done.updated, done.refused) == (2, 0, {})
    file = BudgetFile.read(path)
    entry, budget = file.require("test_a.py::test_a", 1)
    assert budget == Budget(accuracy_sd=0.6, disagreement=11.0)
    assert (entry.varies, entry.environment) == ("init", "torch 2.14.1, cpu, AVX512, 1 thread")
    assert path.read_text().splitlines()[entry.line - 1] == "[[study]]"
    assert file.require("test_a.py::test_a", 2)[1] == Budget(accuracy_sd=0.7)


def test_each_limit_says_beside_it_where_it_comes_from(path: Path) -> None:
    write(path, [calibration()], update=False, date=DAY)
    text = path.read_text()
    rates = "fails 1.1 % of unchanged models (19.2 % at the value itself)"
    assert f"accuracy_sd = 0.6 # points; measured 0.4 [0.3, 0.6] in 10 runs; {rates}" in text
    assert "\ndate = 2026-11-24\n" in text
    assert text.startswith("# Budgets of the stability tests")
    assert "--stability-calibrate --stability-update TEST" in text


def test_a_missing_file_or_entry_names_the_command_that_makes_it(path: Path) -> None:
    with pytest.raises(BudgetError, match=r"not exist\. Measure one: pytest --stability-calibrate 't.py::t\[a b\]'"):
        BudgetFile.read(path).require("t.py::t[a b]", 1)
    file = read(path, GOOD)
    with pytest.raises(BudgetError, match=r"has none for test_a.py::test_a, check 2\. Measure one: pytest --stab"):
        file.require("test_a.py::test_a", 2)


def test_error_rates_and_the_ratio_may_stand_in_an_entry(path: Path) -> None:
    settings = "alpha = 0.01\nmax_failed_runs = 1\nratio = 3\n\n[study.budgets]"
    _, budget = read(path, GOOD.replace("[study.budgets]", settings)).require("test_a.py::test_a", 1)
    assert budget == Budget(accuracy_sd=0.5, alpha=0.01, max_failed_runs=1, ratio=3)


WRONG = {
    "TOML": (
        "format = 1\nstudy =\n",
        "Expected stability-budgets.toml to be TOML but got: .* at line 2 col .\\. Mend",
    ),
    "no format": ("", "Expected format = 1 in stability-budgets.toml but got None"),
    "format 2": ("format = 2\n", "but got 2. Another version"),
    "unknown at the top": ("format = 1\nbudgets = 3\n", r"to have format and \[\[study\]\] but got 'budgets'"),
    "no array of tables": ("format = 1\nstudy = [{test = 'a'}]\n", r"to begin with a line \[\[study\]\]"),
    "unknown key": (GOOD.replace("varies", "vary"), "line 3 .test_a.py::test_a. but got 'vary'. Did you mean 'varies'"),
    "no test": (GOOD.replace("test =", "task ="), "Expected test = '<node id>' in stability-budgets.toml, line 3 but"),
    "test of another type": (GOOD.replace('"test_a.py::test_a"', "3"), "Expected test to be a str in .* test = 3"),
    "study 0": (GOOD.replace("varies =", "study = 0\ntask ="), "Expected study >= 1 in .*, line 3 "),
    "study true": (GOOD.replace("varies =", "study = true\ntask ="), "Expected study to be a int in .*, line 3 "),
    "no number": (GOOD.replace("0.5", '"much"'), r"In .*, line 3 \(test_a.py::test_a\): .*accuracy_sd='much'"),
    "a flag": (GOOD.replace("0.5", "true"), "In .*, line 3 .*accuracy_sd=True"),
    "infinite": (GOOD.replace("0.5", "inf"), "In .*, line 3 .*accuracy_sd=inf"),
    "negative": (GOOD.replace("0.5", "-1"), "In .*, line 3 .*accuracy_sd >= 0"),
    "two contradict": (GOOD + "disagreement = 0.001\n", "In .*, line 3 .*contradict"),
    "alpha among the limits": (GOOD + "alpha = 0.01\n", r"Expected alpha above \[study.budgets\] in .*, line 3"),
    "alpha of 1": (GOOD.replace("varies =", "alpha = 1.0\ntask ="), "In .*, line 3 .*alpha=1.0"),
    "two entries": (GOOD + GOOD.partition("\n")[2], r"line 10 \(test_a.py::test_a\) is the second after line 3"),
    "a limit twice": (GOOD + "accuracy_sd = 1\n", 'to be TOML but got: Key "accuracy_sd" already exists\\. Mend'),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_one_error_that_says_where(path: Path, what: str) -> None:
    text, message = WRONG[what]
    with pytest.raises(BudgetError, match=message):
        read(path, text)


def test_an_entry_that_a_reviewer_emptied_is_an_error_only_when_it_is_asked_for(path: Path) -> None:
    file = read(path, GOOD.replace("accuracy_sd = 0.5", ""))
    with pytest.raises(BudgetError, match=r"at least one limit but .*, line 3 .* has none"):
        file.require("test_a.py::test_a", 1)


def test_a_test_with_another_budget_than_the_file_is_refused_and_both_are_said(path: Path) -> None:
    file = read(path, GOOD)
    file.check_agrees("test_a.py::test_a", 1, Budget(accuracy_sd=0.5))
    file.check_agrees("test_a.py::test_b", 1, Budget(accuracy_sd=0.4))
    with pytest.raises(BudgetError, match=r"has Budget\(accuracy_sd=0.4\) and .*line 3.* has Budget\(.*=0.5\)"):
        file.check_agrees("test_a.py::test_a", 1, Budget(accuracy_sd=0.4))


def test_limits_of_another_question_are_refused(path: Path) -> None:
    entry, _ = read(path, GOOD).require("test_a.py::test_a", 1)
    entry.check_varies("init")
    with pytest.raises(BudgetError, match=r"varies all but .*, line 3 .* with init.*--stability-update test_a.py"):
        entry.check_varies("all")


def test_entries_of_tests_that_are_gone_are_named(path: Path, tmp_path: Path) -> None:
    file = read(path, GOOD)
    with pytest.raises(BudgetError, match=r"test_a.py::test_a but test_a.py does not exist, and .*, line 3"):
        file.check_tests_exist(tmp_path)
    (tmp_path / "test_a.py").touch()
    file.check_tests_exist(tmp_path)
    assert file.unknown_below("test_a.py", ["test_a.py::test_a", "test_a.py::test_b"]) == []
    assert file.unknown_below("test_b.py", []) == []
    (message,) = file.unknown_below("test_a.py", ["test_a.py::test_a2"])
    assert "Expected a test test_a.py::test_a but test_a.py has no such test" in message


def test_a_class_answers_for_its_own_tests(path: Path) -> None:
    file = read(path, GOOD.replace("::test_a", "::TestA::test_a[x::y]"))
    assert file.unknown_below("test_a.py", ["test_a.py::TestA"]) == []
    assert file.unknown_below("test_a.py::TestA", ["test_a.py::TestA::test_a[x::y]"]) == []
    assert len(file.unknown_below("test_a.py::TestA", ["test_a.py::TestA::test_a[x]"])) == 1


# Writing


def test_the_same_calibration_writes_the_same_bytes_but_for_the_date(path: Path) -> None:
    write(path, [calibration()], update=False, date=DAY)
    first = path.read_text()
    path.unlink()
    write(path, [calibration()], update=False, date=DAY)
    assert path.read_text() == first
    done = write(path, [calibration()], update=True, date=LATER)
    assert (done.new, done.updated) == (0, 1)
    assert path.read_text() == first.replace("2026-11-24", "2026-12-01")


def test_entries_stand_in_the_order_of_collection_whichever_was_measured_first(path: Path) -> None:
    several = [calibration(f"test_{name}", position=i) for i, name in enumerate(["a.py::x", "a.py::y", "b.py::x"])]
    write(path, several, update=False, date=DAY)
    wanted = path.read_text()
    path.unlink()
    write(path, [several[2], several[0]], update=False, date=DAY)
    write(path, [several[1]], update=False, date=DAY)  # behind those of its file
    assert path.read_text() == wanted
    path.unlink()
    write(path, several[1:], update=False, date=DAY)
    write(path, [several[0], Calibration("test_a.py::y", 1, 1, refused="it is there")], update=False, date=DAY)
    assert path.read_text() == wanted


def test_an_entry_is_never_replaced_unasked_and_others_are_added(path: Path) -> None:
    write(path, [calibration()], update=False, date=DAY)
    before = path.read_text()
    others = [calibration(accuracy_sd=9.0), calibration("test_a.py::test_b", position=1)]
    done = write(path, others, update=False, date=LATER)
    assert (done.new, done.updated, list(done.refused)) == (1, 0, ["test_a.py::test_a"])
    assert "--stability-update test_a.py::test_a" in done.refused["test_a.py::test_a"]
    assert path.read_text().startswith(before)
    assert done.lines()[0] == "written: stability-budgets.toml (1 new); review it, and commit it"


REVIEWED = """\
# our own head
format = 1

# agreed in review
[[study]]
test = "test_a.py::test_a"  # the slow one
date = 2026-01-01
ratio = 3  # wide

[study.budgets]
# disagreement went: it is noise here
accuracy_sd = 0.5  # old

# another
[[study]]
test = "test_b.py::test_b"

[study.budgets]
accuracy_sd = 0.1
"""


def test_a_renewal_keeps_what_a_reviewer_wrote_and_does_not_bring_back_what_was_deleted(path: Path) -> None:
    path.write_text(REVIEWED)
    done = write(path, [calibration()], update=True, date=LATER)
    assert (done.new, done.updated) == (0, 1)
    wanted = REVIEWED.replace("2026-01-01", "2026-12-01")
    line = f"accuracy_sd = 0.6 # {calibration().proposals[0].comment()}"
    assert path.read_text() == wanted.replace("accuracy_sd = 0.5  # old", line)


def test_a_new_entry_goes_above_the_comment_of_the_next(path: Path) -> None:
    path.write_text(REVIEWED)
    write(path, [calibration("test_a.py::test_c", position=5)], update=False, date=LATER)
    text = path.read_text()
    assert text.index("test_a.py::test_a") < text.index("test_a.py::test_c") < text.index("# another")
    assert (
        text.replace(text[text.index('[[study]]\ntest = "test_a.py::test_c"') : text.index("# another")], "")
        == REVIEWED
    )


def test_an_emptied_entry_gets_all_limits(path: Path) -> None:
    path.write_text(GOOD.replace("accuracy_sd = 0.5", ""))
    write(path, [calibration()], update=True, date=LATER)
    assert BudgetFile.read(path).require("test_a.py::test_a", 1)[1] == Budget(accuracy_sd=0.6, disagreement=11.0)


def test_a_limit_that_cannot_be_renewed_leaves_its_entry_as_it_is(path: Path) -> None:
    path.write_text(GOOD + "correlation = 0.9\n")
    before = path.read_text()
    done = write(path, [calibration()], update=True, date=LATER)
    assert "correlation is not proposed, so its limit cannot be renewed" in done.refused["test_a.py::test_a"]
    assert path.read_text() == before


def test_an_inline_table_of_limits_is_renewed_without_comments(path: Path) -> None:
    path.write_text('format = 1\n\n[[study]]\ntest = "test_a.py::test_a"\nbudgets = { accuracy_sd = 0.5 }\n')
    write(path, [calibration()], update=True, date=LATER)
    assert "budgets = { accuracy_sd = 0.6 }\n" in path.read_text()


def test_nothing_is_written_of_a_study_that_failed(path: Path) -> None:
    failed = Calibration("test_a.py::test_a", 1, 0, refused="1 of 10 runs failed")
    done = write(path, [failed], update=False, date=DAY)
    assert done.lines() == ["not written: test_a.py::test_a: 1 of 10 runs failed"]
    assert not path.exists()


def test_what_cannot_be_written_is_one_error_and_the_file_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(draft: Draft) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path.write_text(GOOD)
    monkeypatch.setattr(Draft, "put", full)
    with pytest.raises(BudgetError, match=r"Expected to write .*stability-budgets.toml but got: .*No space left"):
        write(path, [calibration("test_b.py::b")], update=False, date=DAY)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.read_text() == GOOD


def test_a_folder_of_that_name_is_one_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(BudgetError, match=r"Expected to read .*stability-budgets.toml but got: .*is no regular file"):
        write(path, [calibration()], update=False, date=DAY)


def test_two_sessions_write_one_after_the_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = budget_file._put

    def slowly(path: Path, text: str) -> None:
        time.sleep(0.2)
        put(path, text)

    monkeypatch.setattr(budget_file, "_put", slowly)
    tests = [f"test_a.py::test_{number}" for number in range(4)]

    def calibrate(number: int) -> None:
        write(path, [calibration(tests[number], position=number)], update=False, date=DAY)

    with ThreadPoolExecutor(4) as sessions:
        list(sessions.map(calibrate, range(4)))
    assert sorted(entry.test for entry in BudgetFile.read(path).entries) == tests


def test_a_folder_that_stays_locked_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_file, "_PATIENCE", 0.1)
    with budget_file._alone(path), pytest.raises(BudgetError, match="another process has locked its folder"):
        write(path, [calibration()], update=False, date=DAY)
