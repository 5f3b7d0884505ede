"""``stability-cache``: says what is there, finds what is not as it was written, removes what it is told to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stabilitykit.cli import main
from stabilitykit.execution.notice_board import Board
from stabilitykit.store.baseline_files import BaselineFiles
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_files import FORMAT
from stabilitykit.store.run_store import RunStore
from tests.store_names import key_of, session_id

DAY = 86_400
DEAD, KEY = session_id("dead"), key_of("key")
ABOUT = {"protocol": {"vary": ["init"], "perturb": None, "seed": 0, "constants": {}}, "environment": {"torch": "2.9"}}


@pytest.fixture
def store(tmp_path):
    """A store with two experiments: "ab12cd..." has run 0 and a failed run 1, "ab34ef..." has run 0 of yesterday."""
    store = RunStore(tmp_path / ".stabilitykit", session_id("one"), worker="gw1")
    fill(store, "ab12cd" + "0" * 26, "digits", [record(0), record(1, status="failed", error="Traceback: boom")])
    fill(store, "ab34ef" + "0" * 26, "mlp", [record(0, perturbation={"parameter": "fc.weight", "old": 1.0})])
    store.end_session()
    return store


def record(index, status="ok", **values):
    logits = torch.zeros(50, 2) if status == "ok" else None
    values = {"curve": ({"accuracy": 87.5}, {"accuracy": 90.0}), "environment": {"torch": "2.9"}} | values
    return RunRecord(index, {"init": 3 + index, "low_level": None}, status, 1.25, logits, **values)


def fill(store, key, task, records):
    experiment = store.experiment(key, {"task": task, **ABOUT})
    for made in records:
        with experiment.claimed(made.index) as claim:
            experiment.publish(claim, made)


@pytest.fixture
def run(store, capsys):
    """Carry out a command on the store, and give its exit code, what it wrote, and what it complained of."""

    def run(*arguments, at=None):
        try:
            code = main(["--store", str(at or store.folder), *arguments])
        except SystemExit as exit_:
            code = exit_.code
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


def keys(store):
    return sorted(path.name[:6] for path in (store.folder / f"v{FORMAT}").iterdir())


def experiment_folder(store, key):
    (found,) = (store.folder / f"v{FORMAT}").glob(f"{key}*")
    return found


def make_old(path, days):
    then = time.time() - days * DAY
    for inside in (*path.rglob("*"), path):
        os.utime(inside, (then, then))


HOLD = """
import sys, time
from pathlib import Path
from stabilitykit.store.run_store import Experiment
claim = Experiment(Path(sys.argv[1]), "busy", {}, worker="gw7", reuse=False).claim(int(sys.argv[2]))
print(claim.index, flush=True)
time.sleep(60)
"""


@pytest.fixture
def train(store):
    """Start a process that trains a run of an experiment for ever."""
    children = []

    def train(key, index):
        command = [sys.executable, "-c", HOLD, str(experiment_folder(store, key)), str(index)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout.readline() == f"{index}\n"
        return child

    yield train
    for child in children:
        child.kill()
        child.communicate()


class TestList:
    def test_an_experiment_is_one_line(self, run, store):
        make_old(experiment_folder(store, "ab34"), 3)
        code, out, _ = run("list")
        first, second, third = (re.split(r"\s{2,}", line) for line in out.splitlines())
        assert code == 0
        assert first == ["KEY", "TASK", "VARIES", "RUNS", "SIZE", "AGE", "LAST USED"]
        assert second[:4] == ["ab12cd000000", "digits", "init", "1 ok, 1 failed"]
        assert third[:4] == ["ab34ef000000", "mlp", "init", "1 ok"]
        assert re.fullmatch(r"[\d.]+ kB", third[4])
        assert (third[5][-1], third[6]) == ("s", "3 d")

    def test_what_is_trained_now_is_counted(self, run, train):
        child = train("ab34", 5)
        assert "1 ok, 1 running" in run("list")[1]
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert "running" not in run("list")[1]

    def test_json_says_the_same(self, run, store):
        _, out, _ = run("list", "--json")
        found = {entry["task"]: entry for entry in json.loads(out)}
        assert found["digits"].keys() == {
            "key", "task", "varies", "ok", "failed", "unreadable", "running", "bytes", "created", "used"
        }  # fmt: skip
        assert (found["digits"]["ok"], found["digits"]["failed"], found["digits"]["varies"]) == (1, 1, "init")
        assert abs(found["mlp"]["created"] - time.time()) < 60
        files = experiment_folder(store, "ab34").rglob("*")
        assert found["mlp"]["bytes"] == sum(path.stat().st_size for path in files if path.is_file())

    @pytest.mark.parametrize("about", ["", "[]", "{}", '{"protocol": {"vary": ["tea"], "perturb": {"kind": 3}}}'])
    def test_an_experiment_that_does_not_say_what_it_is_of_is_listed_all_the_same(self, run, store, about):
        (experiment_folder(store, "ab34") / "experiment.json").write_text(about)
        assert re.search(r"ab34ef000000 +unknown +unknown +1 ok", run("list")[1])

    def test_a_moved_weight_is_named(self, run, store):
        about = {"task": "x", "protocol": ABOUT["protocol"] | {"vary": [], "perturb": {"kind": "ulp"}}}
        (experiment_folder(store, "ab34") / "experiment.json").write_text(json.dumps(about))
        assert re.search(r"ab34ef000000 +x +ulp +1 ok", run("list")[1])

    def test_an_unreadable_run_is_counted(self, run, store):
        (experiment_folder(store, "ab34") / "runs/0000.json").write_text("{")
        assert "1 unreadable" in run("list")[1]

    def test_an_empty_store_says_so(self, run, tmp_path):
        RunStore(tmp_path / "empty", session_id("one"))
        assert run("list", at=tmp_path / "empty")[:2] == (0, f"No experiments in {tmp_path / 'empty'}.\n")


class TestWhichStore:
    def test_the_store_is_found_from_a_folder_below(self, store, tmp_path, monkeypatch, capsys):
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        assert main(["list"]) == 0
        assert "ab12cd000000" in capsys.readouterr().out

    def test_the_folder_that_it_lies_in_is_a_name_for_it(self, run, tmp_path):
        assert "ab12cd000000" in run("list", at=tmp_path)[1]

    def test_no_store_is_an_error(self, run, tmp_path, monkeypatch, capsys):
        (tmp_path / "none").mkdir()
        code, _, err = run("list", at=tmp_path / "none")
        assert code == 2
        assert err.startswith(f"stability-cache: Expected a run store but {tmp_path / 'none'} has no FORMAT file.")
        monkeypatch.chdir("/")
        assert main(["list"]) == 2
        assert "Expected a run store, .stabilitykit, in / or above it but found none" in capsys.readouterr().err


class TestBaselines:
    @pytest.fixture
    def kept(self, store):
        about = {"commit": "abc123", "saved": time.time() - 2 * DAY, "session": "one"}
        for call in (0, 1):
            BaselineFiles(store.folder, "main").write("t.py::test", call, about, np.zeros((3, 20), np.uint8))
        return store.folder / "baselines" / "main"

    def test_are_listed_with_their_studies_and_commit(self, run, kept):
        _, out, _ = run("list")
        assert re.search(r"\n\nBASELINE +STUDIES +COMMIT +SIZE +AGE\nmain +2 +abc123 +.*B +2 d\n$", out)
        assert "digits" in out

    def test_count_for_the_size(self, run, kept):
        sizes = json.loads(run("size", "--json")[1])
        assert sizes["baselines"] == sum(path.stat().st_size for path in kept.iterdir())
        assert sizes["total"] > sizes["experiments"] + sizes["baselines"]
        assert re.search(r"baselines +.* main; never pruned", run("size")[1])

    def test_are_never_pruned(self, run, store, kept):
        before = sorted(kept.iterdir())
        make_old(store.folder, days=90)
        run("prune", "--all")
        assert keys(store) == []
        assert sorted(kept.iterdir()) == before
        _, out, _ = run("list")
        assert out.startswith("No experiments in ")
        assert "\nmain " in out


class TestSize:
    def test_every_byte_is_counted_once(self, run, store):
        experiment = store.experiment("ab12cd" + "0" * 26, {})
        experiment._files.retire(1)
        (store.folder / "v1").mkdir()
        (store.folder / "v1" / "runs.npz").write_bytes(b"x" * 1000)
        (store.folder / "sessions" / DEAD).mkdir(parents=True)
        (store.folder / "sessions" / DEAD / "owners.lock").write_bytes(b"y" * 10)
        sizes = json.loads(run("size", "--json")[1])
        assert sizes["other_formats"] == 1000
        assert sizes["sessions"] == 10
        assert sizes["experiments"] == sum(sizes["keys"].values())
        top = sum(path.stat().st_size for path in store.folder.iterdir() if path.is_file())
        assert sizes["total"] == top + sizes["experiments"] + sizes["sessions"] + sizes["other_formats"]
        assert 0 < sizes["old"] < sizes["keys"][experiment.folder.name]
        _, out, _ = run("size")
        assert re.search(r"other formats +1 kB", out)
        assert out.index("digits [init], 1 ok") > 0

    @pytest.mark.parametrize(
        ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (123_456, "123 kB"), (2.5e13, "25 TB")]
    )
    def test_bytes_are_shown_in_decimal_units(self, count, shown):
        from stabilitykit.cli import _sized

        assert _sized(count) == shown


class TestShow:
    def test_an_experiment_shows_its_ingredients_and_its_runs(self, run, train):
        train("ab12", 7)
        code, out, _ = run("show", "ab12")
        assert code == 0
        assert out.startswith("ab12cd" + "0" * 26 + "  digits [init]\n")
        assert '"torch": "2.9"' in out
        assert re.search(r"^0 +ok +1\.2 +gw1, pid \d+", out, re.MULTILINE)
        assert re.search(r"^1 +failed", out, re.MULTILINE)
        assert re.search(r"^7 +running +\d+ +gw7, pid \d+", out, re.MULTILINE)

    def test_a_run_shows_its_record(self, run):
        code, out, _ = run("show", "ab34:0")
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

    def test_a_failed_run_shows_its_error(self, run):
        _, out, _ = run("show", "ab12:1")
        assert out.endswith("\nTraceback: boom\n")
        assert re.search(r"^logits +none$", out, re.MULTILINE)

    def test_json(self, run):
        assert json.loads(run("show", "ab12", "--json")[1])["runs"]["1"]["error"] == "Traceback: boom"
        assert json.loads(run("show", "ab12:0", "--json")[1])["record"]["seeds"] == {"init": 3, "low_level": None}

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
    def test_what_is_not_there_or_not_one_is_an_error(self, run, what, error):
        code, out, err = run("show", what)
        assert (code, out) == (2, "")
        assert re.search(error, err)
        assert len(err.splitlines()) == 1

    def test_a_run_that_is_not_whole_is_an_error_that_says_why(self, run, store):
        (experiment_folder(store, "ab34") / "runs/0000.json").write_text("{")
        code, _, err = run("show", "ab34:0")
        assert code == 2
        assert "run 0 of ab34ef000000 is not: the header is missing, empty or torn." in err


class TestVerify:
    def test_a_whole_store_is_whole(self, run):
        assert run("verify") == (0, "As written: 3 of 3 runs in 2 experiments.\n", "")
        assert run("verify", "ab34")[1] == "As written: 1 of 1 run in 1 experiment.\n"

    def damage(self, store):
        (array,) = experiment_folder(store, "ab34").glob("runs/*.npy")
        content = bytearray(array.read_bytes())
        content[-1] ^= 1  # one bit
        array.write_bytes(content)

    def test_one_wrong_bit_is_found(self, run, store):
        self.damage(store)
        code, out, _ = run("verify")
        assert code == 1
        assert re.search(
            r"^ab34ef000000:0 is bad: 0000\.\w+\.npy has other bytes than were written\.$", out, re.MULTILINE
        )
        assert out.endswith("As written: 2 of 3 runs in 2 experiments.\n")
        assert run("verify", "ab12")[0] == 0

    def test_a_torn_header_is_found(self, run, store):
        (experiment_folder(store, "ab12") / "runs/0001.json").write_text("")
        assert "ab12cd000000:1 is bad: the header is missing, empty or torn." in run("verify")[1]

    def test_what_tells_an_experiment_is_named_where_it_is_torn(self, run, store):
        (experiment_folder(store, "ab12") / "experiment.json").write_text("[]")
        code, out, _ = run("verify")
        assert code == 1
        assert out.startswith("ab12cd000000 is bad: experiment.json is torn.")
        assert "As written: 3 of 3 runs in 2 experiments." in out

    def test_what_is_bad_is_moved_away_and_trained_again(self, run, store):
        self.damage(store)
        code, out, _ = run("verify", "--remove")
        assert code == 1
        assert "Moved to old/; the next session trains it again." in out
        assert run("verify")[:2] == (0, "As written: 2 of 2 runs in 2 experiments.\n")
        assert len(list(experiment_folder(store, "ab34").glob("old/*"))) == 2
        assert RunStore(store.folder, session_id("two")).experiment("ab34ef" + "0" * 26, {}).is_free(0)

    def test_what_is_bad_and_trained_again_now_is_left_to_its_trainer(self, run, store, train):
        train("ab34", 0)
        self.damage(store)
        assert "Left alone: it is being trained again." in run("verify", "--remove")[1]
        assert not (experiment_folder(store, "ab34") / "old").exists()


class TestPrune:
    def test_nothing_selected_is_an_error_that_says_what_to_select(self, run, store):
        for command in (["prune"], ["prune", "--dry-run"]):
            code, out, err = run(*command)
            assert (code, out) == (2, "")
            assert "Expected prune to be told what to remove" in err
            assert all(option in err for option in ("--key", "--older-than", "--failed", "--old", "--all"))
        assert keys(store) == ["ab12cd", "ab34ef"]

    @pytest.mark.parametrize("also", [["--failed"], ["--old"], ["--key", "ab12"], ["--older-than", "1d"]])
    def test_all_and_less_than_all_contradict_each_other(self, run, store, also):
        code, _, err = run("prune", "--all", *also)
        assert code == 2
        assert "Expected --all to stand alone" in err
        assert keys(store) == ["ab12cd", "ab34ef"]

    @pytest.mark.parametrize("age", ["30", "d", "1y", "-3d", "3 d", "0.5d"])
    def test_an_age_that_is_none_is_an_error(self, run, age):
        code, _, err = run("prune", f"--older-than={age}")
        assert code == 2
        assert f"expected an age such as 12h, 30d or 2w but got '{age}'" in err

    @pytest.mark.parametrize(("age", "gone"), [("3d", True), ("72h", True), ("5d", False), ("1w", False)])
    def test_what_no_session_asked_for_lately_goes(self, run, store, age, gone):
        make_old(experiment_folder(store, "ab34"), 4)
        code, out, _ = run("prune", "--older-than", age)
        assert code == 0
        assert keys(store) == ["ab12cd"] if gone else ["ab12cd", "ab34ef"]
        assert ("Removed ab34ef000000 mlp [init], " in out) == gone
        assert ("Nothing to remove." in out) == (not gone)

    def test_what_a_session_asked_for_lately_stays_however_old_its_runs_are(self, run, store):
        make_old(experiment_folder(store, "ab34"), 4)
        RunStore(store.folder, session_id("two")).experiment("ab34ef" + "0" * 26, {})
        run("prune", "--older-than", "3d")
        assert keys(store) == ["ab12cd", "ab34ef"]

    def test_a_rehearsal_says_the_same_and_removes_nothing(self, run, store):
        make_old(store.folder / f"v{FORMAT}", 4)
        before = sorted(store.folder.rglob("*"))
        _, rehearsed, _ = run("prune", "--all", "--dry-run")
        assert sorted(store.folder.rglob("*")) == before
        _, done, _ = run("prune", "--all")
        assert rehearsed == done.replace("Removed", "Would remove")
        assert keys(store) == []

    def test_the_bytes_that_it_says_are_the_bytes_that_it_freed(self, run, store):
        def used():
            return sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())

        before = used()
        _, out, _ = run("prune", "--key", "ab34")
        from stabilitykit.cli import _sized

        assert keys(store) == ["ab12cd"]
        assert out.endswith(f"Removed 1 thing, {_sized(before - used())}.\n")

    def test_only_failures_go(self, run, store):
        _, out, _ = run("prune", "--failed")
        assert "Removed run 1 (failed) of ab12cd000000 digits [init], " in out
        runs = experiment_folder(store, "ab12") / "runs"
        assert sorted(path.name[:5] for path in runs.iterdir()) == ["0000.", "0000."]
        assert keys(store) == ["ab12cd", "ab34ef"]

    def test_what_cannot_be_read_is_a_failure(self, run, store):
        header = experiment_folder(store, "ab34") / "runs/0000.json"
        header.write_text("{")
        assert "Removed run 0 (unreadable) of ab34ef000000" in run("prune", "--failed", "--key", "ab34")[1]
        assert not list(header.parent.iterdir())

    def test_an_age_holds_for_failures_too(self, run, store):
        assert "Nothing to remove." in run("prune", "--failed", "--older-than", "1d")[1]

    def test_old_files_and_earlier_formats_go(self, run, store):
        store.experiment("ab12cd" + "0" * 26, {})._files.retire(1)
        v1, v3 = store.folder / "v1" / KEY, store.folder / "v3" / KEY
        for folder in (v1, v3):
            folder.mkdir(parents=True)
            (folder / "claims.lock").touch()
        _, out, _ = run("prune", "--old")
        assert "Removed old/ of ab12cd000000 digits [init], " in out
        assert "Removed v1/, of an earlier format, " in out
        assert not v1.exists()
        assert v3.exists()  # of a later one
        assert not (experiment_folder(store, "ab12") / "old").exists()
        assert keys(store) == ["ab12cd", "ab34ef"]

    def test_an_earlier_format_that_is_in_use_stays(self, run, store, tmp_path):
        (store.folder / "v1" / KEY).mkdir(parents=True)
        script = "import sys, time; from pathlib import Path; from stabilitykit.store.byte_locks import ByteLocks\n"
        script += "print(ByteLocks.at(Path(sys.argv[1])).acquire(3), flush=True); time.sleep(60)"
        command = [sys.executable, "-c", script, str(store.folder / "v1" / KEY / "claims.lock")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "True\n"
            _, out, _ = run("prune", "--old")
            child.kill()
        assert f"Kept v1/, of an earlier format: v1/{KEY}/claims.lock is held." in out
        assert (store.folder / "v1" / KEY).exists()


class TestPruneWhileSomebodyTrains:
    @pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
    @pytest.mark.parametrize("select", [["--all"], ["--key", "ab34"], ["--older-than", "0h"]])
    def test_the_experiment_of_a_run_that_is_trained_stays_whole(self, run, store, train, select, dry_run):
        child = train("ab34", 5)
        before = sorted(experiment_folder(store, "ab34").rglob("*"))
        code, out, _ = run("prune", *select, *dry_run)
        assert code == 0
        assert f"Kept ab34ef000000 mlp [init]: run 5 is being trained by gw7 (pid {child.pid})." in out
        assert sorted(experiment_folder(store, "ab34").rglob("*")) == before
        child.kill()
        child.wait()
        run("prune", *select)
        assert "ab34ef" not in keys(store)

    @pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
    def test_a_failed_run_that_is_tried_again_stays(self, run, store, train, dry_run):
        experiment = experiment_folder(store, "ab12")
        header = (experiment / "runs/0001.json").read_text()
        train("ab12", 1)
        (experiment / "runs/0001.json").write_text(header)  # the claim moved it away: as if it had not come to that
        _, out, _ = run("prune", "--failed", *dry_run)
        assert "Kept run 1 (failed) of ab12cd000000 digits [init]: it is being trained." in out
        assert (experiment / "runs/0001.json").exists()

    def test_who_had_it_open_goes_on_as_with_a_new_one(self, run, store):
        experiment = store.experiment("ab34ef" + "0" * 26, {"task": "mlp", **ABOUT})
        run("prune", "--all")
        with experiment.claimed(4) as claim:
            assert "Kept ab34ef000000 mlp [init]: run 4 is being trained by gw1" in run("prune", "--all")[1]
            experiment.publish(claim, record(4))
        assert RunStore(store.folder, session_id("two")).experiment("ab34ef" + "0" * 26, {}).is_finished(4)

    def test_training_and_pruning_at_the_same_time_never_meet(self, run, store, tmp_path):
        """One process claims, trains and gives back, again and again, while this one prunes all."""
        script = """
import sys, time
from pathlib import Path
from stabilitykit.store.run_store import Experiment
folder = Path(sys.argv[1])
experiment = Experiment(folder, "busy", {"task": "x"})
print("ready", flush=True)
met, turn = 0, 0
while not Path(sys.argv[2]).exists():
    turn = (turn + 1) % 3
    claim = experiment.claim(turn)
    if claim is not None:
        time.sleep(0.001)
        met += not (folder / "claims" / f"{turn:04d}.json").exists()
        experiment.release(claim)
    time.sleep(0.002)
print(met, flush=True)
"""
        enough = tmp_path / "enough"
        command = [sys.executable, "-c", script, str(store.folder / f"v{FORMAT}" / ("b" * 32)), str(enough)]
        pruned = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            while pruned < 20 and child.poll() is None:
                pruned += "Removed bbbb" in run("prune", "--all")[1]
            enough.touch()
            assert child.stdout.read() == "0\n"
        assert child.returncode == 0
        assert pruned == 20


class TestLeftovers:
    def leave(self, store, days):
        session = store.folder / "sessions" / DEAD
        Board(session)
        (session / "3.done").touch()
        make_old(session, days)
        return session

    def test_a_session_that_was_killed_the_day_before_yesterday_goes(self, run, store):
        session = self.leave(store, 2)
        assert f"Removed the leftovers of session {DEAD}, " in run("prune", "--older-than", "30d")[1]
        assert not session.exists()

    def test_a_session_of_today_stays(self, run, store):
        session = self.leave(store, 0.5)
        run("prune", "--all")
        assert session.exists()

    def test_a_session_that_lives_stays_however_long_its_test_takes(self, run, store):
        session = store.folder / "sessions" / DEAD
        script = "import sys, time; from pathlib import Path; from stabilitykit.execution.notice_board import Board\n"
        script += "with Board(Path(sys.argv[1])).owning(3): print(1, flush=True); time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", script, str(session)], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            make_old(session, 9)
            assert (
                f"Kept the leftovers of session {DEAD}: sessions/{DEAD}/owners.lock is held."
                in run("prune", "--all")[1]
            )
            child.kill()
        assert session.exists()

    def test_a_session_that_was_killed_a_while_ago_goes_if_it_is_known_to_be_dead(self, run, store):
        script = "import sys, time; from pathlib import Path; from stabilitykit.store.run_store import RunStore\n"
        script += "store = RunStore(Path(sys.argv[1]), sys.argv[2]); print(1, flush=True); time.sleep(60)"
        session = store.folder / "sessions" / DEAD
        with subprocess.Popen([sys.executable, "-c", script, str(store.folder), DEAD], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            make_old(session, 1 / 24)
            assert (
                f"Kept the leftovers of session {DEAD}: sessions/{DEAD}/living.lock is held."
                in run("prune", "--all")[1]
            )
            child.kill()
        make_old(session, 0)
        run("prune", "--all")
        assert session.exists(), "it may have begun a moment ago"
        make_old(session, 1 / 24)
        run("prune", "--all")
        assert not session.exists()

    def test_half_written_files_of_yesterday_go_and_those_of_now_stay(self, run, store):
        runs = experiment_folder(store, "ab34") / "runs"
        half, now = runs / ".0001.npy.4711.00aa00ab.tmp", runs / ".0002.npy.4711.00aa00ab.tmp"
        for path in (half, now):
            path.write_bytes(b"half")
        os.utime(half, (1, 1))
        run("prune", "--failed")
        assert (half.exists(), now.exists()) == (False, True)

    def test_an_experiment_that_was_half_removed_goes_and_is_never_listed(self, run, store):
        folder = experiment_folder(store, "ab34")
        folder.rename(folder.with_name(f".pruned-{folder.name}-00aa00ab"))
        assert "ab34" not in run("list")[1]
        run("prune", "--failed")
        assert not list(folder.parent.glob(".*"))

    def test_one_key_s_pruning_leaves_them(self, run, store):
        session = self.leave(store, 2)
        run("prune", "--key", "ab34")
        assert session.exists()


class TestFromOutside:
    def call(self, *arguments, cwd):
        command = [sys.executable, "-m", "stabilitykit.cli", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=environment())

    def test_the_command_lists_verifies_and_refuses(self, store, tmp_path):
        listed = self.call("list", cwd=tmp_path)
        assert (listed.returncode, listed.stderr) == (0, "")
        assert "ab12cd000000" in listed.stdout
        (experiment_folder(store, "ab34") / "runs/0000.json").write_text("")
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
    def test_neither_torch_nor_numpy_is_loaded(self, store, tmp_path, command):
        script = "import sys; from stabilitykit.cli import main; main(sys.argv[1:])\n"
        script += "assert not {'torch', 'numpy', 'pytest'} & set(sys.modules)"
        subprocess.run(
            [sys.executable, "-c", script, *command], check=True, cwd=tmp_path, env=environment(), capture_output=True
        )

    def test_a_reader_that_has_read_enough_is_no_error(self, store, tmp_path):
        for number in range(300):
            (store.folder / f"v{FORMAT}" / f"{number:032d}" / "runs").mkdir(parents=True)
        command = f"{sys.executable} -m stabilitykit.cli list | head -1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(
            ["bash", "-c", command], check=False, cwd=tmp_path, env=environment(), capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")


def environment():
    """This checkout is imported, wherever the process starts."""
    root = str(Path(__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
