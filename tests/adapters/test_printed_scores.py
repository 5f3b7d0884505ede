"""Scores from what a command leaves: what is taken, and each way in which nothing, or another number, would be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stabilitykit.adapters.printed_scores import JsonFile, Pattern, end_of, last_line, plain
from stabilitykit.errors import TaskError
from stabilitykit.training.task import TrainingError

LOSS = "val_loss=([0-9.]+)"


def read(output: str, regex: str = LOSS, pick: str = "only") -> float:
    return Pattern.of(regex, pick).read(output)  # type: ignore[arg-type]  # a text of two


# Patterns


@pytest.mark.parametrize(
    ("regex", "name"),
    [
        (LOSS, "val_loss"),
        (r"val_loss: ([0-9.]+)", "val_loss"),
        (r"acc\s+([0-9.]+)", "acc"),
        (r"F1 on test: (?P<f1>[0-9.]+)", "f1"),
    ],
)
def test_a_pattern_names_its_score(regex: str, name: str) -> None:
    assert Pattern.of(regex).name == name


@pytest.mark.parametrize("regex", ["([0-9.]+)", "[Ll]oss=(.*)", ".*loss=(.*)"])
def test_a_pattern_without_a_name_is_refused_with_two_ways_to_name_it(regex: str) -> None:
    with pytest.raises(TaskError, match=r"Begin it with the name, .*or name its group: .*\(\?P<loss>"):
        Pattern.of(regex)


@pytest.mark.parametrize(("regex", "groups"), [("loss=[0-9.]+", 0), ("(loss)=([0-9.]+)", 2)])
def test_a_pattern_of_none_or_two_groups_is_refused(regex: str, groups: int) -> None:
    with pytest.raises(TaskError, match=rf"one group, around the number, but .* has {groups}\."):
        Pattern("loss", regex).check()


def test_what_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(TaskError, match=r"to be a regular expression but 'loss=\(': missing \)"):
        Pattern.of("loss=(")


def test_a_pattern_takes_its_number() -> None:
    assert read("epoch 1\nval_loss=0.25\n") == 0.25


def test_a_pattern_that_matches_nothing_shows_the_lines_with_its_name() -> None:
    with pytest.raises(
        TrainingError, match=r"matches nothing in the output\. The last lines with 'val_loss':\n  val_loss=nan"
    ):
        read("one\nval_loss=nan\ntwo\n")


def test_a_pattern_that_matches_nothing_shows_the_end_where_no_line_has_its_name() -> None:
    with pytest.raises(TrainingError, match=r"It ends:\n  one\n  two"):
        read("one\ntwo\n")


def test_a_pattern_that_matches_twice_shows_the_first_and_the_last() -> None:
    with pytest.raises(
        TrainingError, match=r"matches 3 times.*\n  epoch 1 val_loss=3\n  epoch 3 val_loss=1\n.*--pick last"
    ):
        read("epoch 1 val_loss=3\nepoch 2 val_loss=2\nepoch 3 val_loss=1\n")


def test_the_last_match_is_taken_where_that_is_asked() -> None:
    assert read("val_loss=3\nval_loss=2\n", pick="last") == 2.0


def test_a_name_matches_no_end_of_a_longer_one() -> None:
    assert read("best_val_loss=0.1\nval_loss=0.3\n") == 0.3
    with pytest.raises(TrainingError, match="matches nothing"):
        read("best_val_loss=0.1\n")


@pytest.mark.parametrize("printed", ["1.5e-05", "1.5E5", "1,234.5"])
def test_a_number_that_goes_on_behind_the_group_is_refused(printed: str) -> None:
    with pytest.raises(TrainingError, match=rf"a part of a number, from:\n  val_loss={printed}"):
        read(f"val_loss={printed}\n")


@pytest.mark.parametrize("printed", ["-0.5", "+0.5", "10.5"])
def test_a_number_that_begins_before_the_group_is_refused(printed: str) -> None:
    with pytest.raises(TrainingError, match=r"takes '0\.5', a part of a number"):
        read(f"loss: {printed}\n", r"loss: .*?(0[0-9.]+)")


def test_a_hyphen_in_a_name_is_no_sign_and_a_pattern_may_end_a_number_itself() -> None:
    assert read("loss of run-3\n", r"loss of run-(\d+)") == 3.0
    assert read("loss 1,234\n", r"loss (\d+),") == 1.0


def test_a_sign_and_an_exponent_are_taken_where_the_pattern_has_them() -> None:
    assert read("loss=-1.5e-05\n", r"loss=([-+.0-9e]+)") == -1.5e-05


@pytest.mark.parametrize(("printed", "said"), [("nan", "is nan"), ("inf", "is inf"), ("n/a", "is no number but 'n/a'")])
def test_what_is_no_finite_number_is_refused(printed: str, said: str) -> None:
    with pytest.raises(TrainingError, match=rf"the score 'val_loss' {said} in the line\n  val_loss={printed}"):
        read(f"val_loss={printed}\n", r"val_loss=(\S+)")


def test_lines_that_are_written_over_and_colours_are_plain_text() -> None:
    assert read(plain(b"10%\r\x1b[32mval_loss=0.5\x1b[0m\r\n"), r"^val_loss=([0-9.]+)$") == 0.5


def test_the_end_of_an_output_is_short() -> None:
    assert end_of([*map(str, range(100)), "", "x" * 500]).splitlines() == [
        *(f"  {number}" for number in range(86, 100)),
        f"  {'x' * 200}",
    ]
    assert end_of([]) == "  (nothing)"


# JSON files


def json_scores(folder: Path, content: object, keys: str = "") -> dict[str, float]:
    file = folder / "m.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return JsonFile.of(f"m.json{keys}").read(file)


def test_every_number_of_a_file_is_a_score(tmp_path: Path) -> None:
    content = {"loss": 0.5, "name": "a", "ok": True, "eval": {"f1": 1, "per_class": [1, 2]}, "eval/auc": 0.7}
    assert json_scores(tmp_path, content) == {"loss": 0.5, "eval_f1": 1.0, "eval_auc": 0.7}


def test_keys_choose(tmp_path: Path) -> None:
    assert json_scores(tmp_path, {"loss": 0.5, "eval": {"f1": 1}}, ":eval.f1") == {"eval_f1": 1.0}
    assert JsonFile.of("m.json:eval.f1,loss").names == ("eval_f1", "loss")
    assert JsonFile.of("m.json").names is None


@pytest.mark.parametrize(
    ("content", "keys", "said"),
    [
        ("{", "", "m.json is no JSON: "),
        ("[1]", "", "m.json has no numbers"),
        ({"name": "a"}, "", "m.json has no numbers"),
        ({"loss": 0.5, "eval": {"f1": 1}}, ":f1", r"m.json has no key 'f1'\. Its numbers are loss, eval\.f1\."),
        ({"loss": None, "f1": 1}, ":loss", "the score 'loss' is no number but 'None' in m.json"),
        ({"loss": True, "f1": 1}, ":loss", "the score 'loss' is no number but 'True' in m.json"),
        ('{"loss": NaN}', "", "the score 'loss' is nan in m.json"),
        ({"a.b": 1, "a": {"b": 2}}, "", "m.json has a key with a dot in it"),
        ({"a/b": 1, "a": {"b": 2}}, "", "give one name of a score"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, content: object, keys: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        json_scores(tmp_path, content, keys)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"did not write m\.json: No such file"):
        JsonFile.of("m.json").read(tmp_path / "m.json")


# The last line


def test_the_last_line_may_be_a_number_or_an_object() -> None:
    assert last_line("a\n-1.5e3\n\n") == {"score": -1500.0}
    assert last_line('a\n{"loss": 1, "eval": {"f1": 0.5}}\n') == {"loss": 1.0, "eval_f1": 0.5}


@pytest.mark.parametrize("output", ["", "done\n", "0.5 done\n", "{}\n", '{"a": "b"}\n', "[1]\n", "true\n", "null\n"])
def test_another_last_line_is_refused_and_shown(output: str) -> None:
    with pytest.raises(TrainingError, match="the last line of the output is no number"):
        last_line(output)


def test_nan_in_the_last_line_is_said() -> None:
    with pytest.raises(TrainingError, match="the score 'score' is nan in the last line"):
        last_line("nan\n")
