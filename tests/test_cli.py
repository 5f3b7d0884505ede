"""``stability-cache``: says what is there, finds what is not as it was written, removes what it is told to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stabilitykit.__main__ import main as package_main
from stabilitykit.store.baseline_files import BaselineFiles
from stabilitykit.store.run_files import FORMAT
from stabilitykit.store.run_store import RunStore
from tests.store.two_experiments import DAY, experiment_folder, keys, make_old
from tests.store_names import session_id


class TestList:
    def test_an_experiment_is_one_line(self, carry_out, stored):
        make_old(experiment_folder(stored, "ab34"), 3)
        code, out, _ = carry_out("list")
        first, second, third = (re.split(r"\s{2,}", line) for line in out.splitlines())
        assert code == 0
        assert first == ["KEY", "TASK", "VARIES", "RUNS", "SIZE", "AGE", "LAST USED"]
        assert second[:4] == ["ab12cd000000", "digits", "init", "1 ok, 1 failed"]
        assert third[:4] == ["ab34ef000000", "mlp", "init", "1 ok"]
        assert re.fullmatch(r"[\d.]+ kB", third[4])
        assert (third[5][-1], third[6]) == ("s", "3 d")

    def test_json_says_the_same(self, carry_out, stored):
        _, out, _ = carry_out("list", "--json")
        found = {entry["task"]: entry for entry in json.loads(out)}
        assert found["digits"].keys() == {
            "key", "task", "varies", "ok", "failed", "unreadable", "running", "bytes", "created", "used"
        }  # fmt: skip
        assert (found["digits"]["ok"], found["digits"]["failed"], found["digits"]["varies"]) == (1, 1, "init")
        assert abs(found["mlp"]["created"] - time.time()) < 60
        files = experiment_folder(stored, "ab34").rglob("*")
        assert found["mlp"]["bytes"] == sum(path.stat().st_size for path in files if path.is_file())

    def test_an_empty_store_says_so(self, carry_out, tmp_path):
        RunStore(tmp_path / "empty", session_id("one"))
        assert carry_out("list", at=tmp_path / "empty")[:2] == (0, f"No experiments in {tmp_path / 'empty'}.\n")


class TestBaselines:
    @pytest.fixture
    def kept(self, stored):
        about = {"commit": "abc123", "saved": time.time() - 2 * DAY, "session": "one"}
        for call in (0, 1):
            BaselineFiles(stored.folder, "main").write("t.py::test", call, about, np.zeros((3, 20), np.uint8))
        return stored.folder / "baselines" / "main"

    def test_are_listed_with_their_studies_and_commit(self, carry_out, kept):
        _, out, _ = carry_out("list")
        assert re.search(r"\n\nBASELINE +STUDIES +COMMIT +SIZE +AGE\nmain +2 +abc123 +.*B +2 d\n$", out)
        assert "digits" in out

    def test_count_for_the_size(self, carry_out, kept):
        sizes = json.loads(carry_out("size", "--json")[1])
        assert sizes["baselines"] == sum(path.stat().st_size for path in kept.iterdir())
        assert sizes["total"] > sizes["experiments"] + sizes["baselines"]
        assert re.search(r"baselines +.* main; never pruned", carry_out("size")[1])

    def test_are_never_pruned(self, carry_out, stored, kept):
        before = sorted(kept.iterdir())
        make_old(stored.folder, days=90)
        carry_out("prune", "--all")
        assert keys(stored) == []
        assert sorted(kept.iterdir()) == before
        _, out, _ = carry_out("list")
        assert out.startswith("No experiments in ")
        assert "\nmain " in out


class TestSize:
    @pytest.mark.parametrize(
        ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (123_456, "123 kB"), (2.5e13, "25 TB")]
    )
    def test_bytes_are_shown_in_decimal_units(self, count, shown):
        from stabilitykit.cli import _sized

        assert _sized(count) == shown


class TestShow:
    def test_an_experiment_shows_its_ingredients_and_its_runs(self, carry_out, hold):
        hold("ab12", 7)
        code, out, _ = carry_out("show", "ab12")
        assert code == 0
        assert out.startswith("ab12cd" + "0" * 26 + "  digits [init]\n")
        assert '"torch": "2.9"' in out
        assert re.search(r"^0 +ok +1\.2 +gw1, pid \d+", out, re.MULTILINE)
        assert re.search(r"^1 +failed", out, re.MULTILINE)
        assert re.search(r"^7 +running +\d+ +gw7, pid \d+", out, re.MULTILINE)

    def test_a_run_shows_its_record(self, carry_out):
        code, out, _ = carry_out("show", "ab34:0")
        assert code == 0
        for line in (
            r"status +ok",
            r"seconds +1\.250",
            r"trained by +gw1, pid \d+, .+",
            r"seed of init +3",
            r"seed of low_level +None",
            r"perturbation +parameter fc\.weight, old 1",
            r"logits +<f4 \[50, 2\] in 0000\.[0-9a-f]{12}\.npy",
            r"epoch 1 +accuracy 90",
        ):
            assert re.search(rf"^{line}$", out, re.MULTILINE), line

    def test_a_failed_run_shows_its_error(self, carry_out):
        _, out, _ = carry_out("show", "ab12:1")
        assert out.endswith("\nTraceback: boom\n")
        assert re.search(r"^logits +none$", out, re.MULTILINE)

    def test_json(self, carry_out):
        assert json.loads(carry_out("show", "ab12", "--json")[1])["runs"]["1"]["error"] == "Traceback: boom"
        assert json.loads(carry_out("show", "ab12:0", "--json")[1])["record"]["seeds"] == {"init": 3, "low_level": None}

    @pytest.mark.parametrize(
        ("what", "error"),
        [
            (
                "ab",
                r"Expected the beginning of one key but 'ab' begins 2: ab12\S+ \(digits \[init\]\), ab34\S+ \(mlp \[in",
            ),
            ("x", r"Expected the beginning of a key but no experiment in \S+ has 'x'\."),
            ("ab12:5", r"Expected a run of ab12cd000000 but got '5'\. It has the runs: 0, 1\."),
            ("ab12:one", r"Expected a run of ab12cd000000 but got 'one'\. It has the runs: 0, 1\."),
        ],
    )
    def test_what_is_not_there_or_not_one_is_an_error(self, carry_out, what, error):
        code, out, err = carry_out("show", what)
        assert (code, out) == (2, "")
        assert re.search(error, err)
        assert len(err.splitlines()) == 1

    def test_a_run_that_is_not_whole_is_an_error_that_says_why(self, carry_out, stored):
        (experiment_folder(stored, "ab34") / "runs/0000.json").write_text("{")
        code, _, err = carry_out("show", "ab34:0")
        assert code == 2
        assert "run 0 of ab34ef000000 is not: the header is missing, empty or torn." in err


class TestVerify:
    def test_a_whole_store_is_whole(self, carry_out):
        assert carry_out("verify") == (0, "As written: 3 of 3 runs in 2 experiments.\n", "")
        assert carry_out("verify", "ab34")[1] == "As written: 1 of 1 run in 1 experiment.\n"

    def damage(self, stored):
        (array,) = experiment_folder(stored, "ab34").glob("runs/*.npy")
        content = bytearray(array.read_bytes())
        content[-1] ^= 1  # one bit
        array.write_bytes(content)

    def test_one_wrong_bit_is_found(self, carry_out, stored):
        self.damage(stored)
        code, out, _ = carry_out("verify")
        assert code == 1
        assert re.search(
            r"^ab34ef000000:0 is bad: 0000\.\w+\.npy has other bytes than were written\.$", out, re.MULTILINE
        )
        assert out.endswith("As written: 2 of 3 runs in 2 experiments.\n")
        assert carry_out("verify", "ab12")[0] == 0

    def test_a_torn_header_is_found(self, carry_out, stored):
        (experiment_folder(stored, "ab12") / "runs/0001.json").write_text("")
        assert "ab12cd000000:1 is bad: the header is missing, empty or torn." in carry_out("verify")[1]

    def test_what_tells_an_experiment_is_named_where_it_is_torn(self, carry_out, stored):
        (experiment_folder(stored, "ab12") / "experiment.json").write_text("[]")
        code, out, _ = carry_out("verify")
        assert code == 1
        assert out.startswith("ab12cd000000 is bad: experiment.json is torn.")
        assert "As written: 3 of 3 runs in 2 experiments." in out

    def test_what_is_bad_is_moved_away_and_trained_again(self, carry_out, stored):
        self.damage(stored)
        code, out, _ = carry_out("verify", "--remove")
        assert code == 1
        assert "Moved to old/; the next session trains it again." in out
        assert carry_out("verify")[:2] == (0, "As written: 2 of 2 runs in 2 experiments.\n")
        assert len(list(experiment_folder(stored, "ab34").glob("old/*"))) == 2
        assert RunStore(stored.folder, session_id("two")).experiment("ab34ef" + "0" * 26, {}).is_free(0)

    def test_what_is_bad_and_trained_again_now_is_left_to_its_trainer(self, carry_out, stored, hold):
        hold("ab34", 0)
        self.damage(stored)
        assert "Left alone: it is being trained again." in carry_out("verify", "--remove")[1]
        assert not (experiment_folder(stored, "ab34") / "old").exists()


class TestPrune:
    def test_nothing_selected_is_an_error_that_says_what_to_select(self, carry_out, stored):
        for command in (["prune"], ["prune", "--dry-run"]):
            code, out, err = carry_out(*command)
            assert (code, out) == (2, "")
            assert "Expected prune to be told what to remove" in err
            assert all(option in err for option in ("--key", "--older-than", "--failed", "--old", "--all"))
        assert keys(stored) == ["ab12cd", "ab34ef"]

    @pytest.mark.parametrize("also", [["--failed"], ["--old"], ["--key", "ab12"], ["--older-than", "1d"]])
    def test_all_and_less_than_all_contradict_each_other(self, carry_out, stored, also):
        code, _, err = carry_out("prune", "--all", *also)
        assert code == 2
        assert "Expected --all to stand alone" in err
        assert keys(stored) == ["ab12cd", "ab34ef"]

    @pytest.mark.parametrize("age", ["30", "d", "1y", "-3d", "3 d", "0.5d"])
    def test_an_age_that_is_none_is_an_error(self, carry_out, age):
        code, _, err = carry_out("prune", f"--older-than={age}")
        assert code == 2
        assert f"expected an age such as 12h, 30d or 2w but got '{age}'" in err

    def test_a_rehearsal_says_the_same_and_removes_nothing(self, carry_out, stored):
        make_old(stored.folder / f"v{FORMAT}", 4)
        before = sorted(stored.folder.rglob("*"))
        _, rehearsed, _ = carry_out("prune", "--all", "--dry-run")
        assert sorted(stored.folder.rglob("*")) == before
        _, done, _ = carry_out("prune", "--all")
        assert rehearsed == done.replace("Removed", "Would remove")
        assert keys(stored) == []

    def test_the_bytes_that_it_says_are_the_bytes_that_it_freed(self, carry_out, stored):
        def used():
            return sum(path.stat().st_size for path in stored.folder.rglob("*") if path.is_file())

        before = used()
        _, out, _ = carry_out("prune", "--key", "ab34")
        from stabilitykit.cli import _sized

        assert keys(stored) == ["ab12cd"]
        assert out.endswith(f"Removed 1 thing, {_sized(before - used())}.\n")


class TestFromOutside:
    def call(self, *arguments, cwd):
        command = [sys.executable, "-m", "stabilitykit.cli", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=environment())

    def test_the_command_lists_verifies_and_refuses(self, stored, tmp_path):
        listed = self.call("list", cwd=tmp_path)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "ab12cd000000" in listed.stdout
        (experiment_folder(stored, "ab34") / "runs/0000.json").write_text("")
        assert self.call("verify", cwd=tmp_path).returncode == 1
        refused = self.call("prune", cwd=tmp_path)
        assert refused.returncode == 2
        assert "Traceback" not in refused.stderr

    @pytest.mark.parametrize("arguments", [[], ["tidy"], ["show"], ["list", "--wrong"]])
    def test_a_command_that_is_none_is_a_usage_error(self, arguments, tmp_path):
        assert self.call(*arguments, cwd=tmp_path).returncode == 2

    def test_help_shows_examples_and_exit_codes(self, tmp_path):
        shown = self.call("--help", cwd=tmp_path).stdout
        for wanted in ("stability-cache prune --older-than 30d", "exit codes:", "list", "size", "show", "verify"):
            assert wanted in shown

    @pytest.mark.parametrize("command", [["list"], ["size"], ["show", "ab12:0"], ["prune", "--all"]])
    def test_neither_torch_nor_numpy_is_loaded(self, stored, tmp_path, command):
        script = "import sys; from stabilitykit.cli import main; main(sys.argv[1:])\n"
        script += "assert not {'torch', 'numpy', 'pytest'} & set(sys.modules)"
        subprocess.run(
            [sys.executable, "-c", script, *command], check=True, cwd=tmp_path, env=environment(), capture_output=True
        )

    def test_a_reader_that_has_read_enough_is_no_error(self, stored, tmp_path):
        for number in range(300):
            (stored.folder / f"v{FORMAT}" / f"{number:032d}" / "runs").mkdir(parents=True)
        command = f"{sys.executable} -m stabilitykit.cli list | head -1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command], check=False, cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")


def environment():
    """This checkout is imported, wherever the process starts."""
    root = str(Path(__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


class TestWhy:
    def test_each_training_of_a_study_says_what_differed(self, carry_out, stored):
        code, out, _ = carry_out("why", "digits")
        head, columns, row = out.splitlines()
        assert (code, head) == (0, "digits [init]")
        assert columns.split("  ")[0] == "KEY"
        assert row.endswith("nothing was kept of this study before")

    def test_a_study_that_is_not_known_is_an_error(self, carry_out, stored):
        code, _, err = carry_out("why", "nets")
        assert code == 2
        assert "Expected the name of a task, the id of a test or the beginning of a key" in err
        assert "It has the tasks digits, mlp" in err

    def test_a_store_that_is_not_there_is_an_error(self, carry_out, stored, tmp_path):
        code, _, err = carry_out("why", "digits", "--store", str(tmp_path / "none"))
        assert (code, "Expected a run store but" in err) == (2, True)

    def test_it_is_a_command_of_the_package_too(self, stored, capsys):
        assert package_main(["why", "digits", "--store", str(stored.folder)]) == 0
        assert "digits [init]" in capsys.readouterr().out
        assert package_main(["why", "nets", "--store", str(stored.folder)]) == 2
        assert capsys.readouterr().err.startswith("stabilitykit: Expected the name of a task")
