"""What is pruned, what stays, and that pruning never meets a training: by the command, as users prune."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stabilitykit.execution.notice_board import Board
from stabilitykit.store.run_files import FORMAT
from stabilitykit.store.run_store import RunStore
from tests.store.small_records import claimed
from tests.store.two_experiments import ABOUT, DEAD, KEY, experiment_folder, keys, make_old, record
from tests.store_names import session_id


class TestPrune:
    @pytest.mark.parametrize(("age", "gone"), [("3d", True), ("72h", True), ("5d", False), ("1w", False)])
    def test_what_no_session_asked_for_lately_goes(self, carry_out, stored, age, gone):
        make_old(experiment_folder(stored, "ab34"), 4)
        code, out, _ = carry_out("prune", "--older-than", age)
        assert code == 0
        assert keys(stored) == ["ab12cd"] if gone else ["ab12cd", "ab34ef"]
        assert ("Removed ab34ef000000 mlp [init], " in out) == gone
        assert ("Nothing to remove." in out) == (not gone)

    def test_what_a_session_asked_for_lately_stays_however_old_its_runs_are(self, carry_out, stored):
        make_old(experiment_folder(stored, "ab34"), 4)
        RunStore(stored.folder, session_id("two")).experiment("ab34ef" + "0" * 26, {})
        carry_out("prune", "--older-than", "3d")
        assert keys(stored) == ["ab12cd", "ab34ef"]

    def test_only_failures_go(self, carry_out, stored):
        _, out, _ = carry_out("prune", "--failed")
        assert "Removed run 1 (failed) of ab12cd000000 digits [init], " in out
        runs = experiment_folder(stored, "ab12") / "runs"
        assert sorted(path.name[:5] for path in runs.iterdir()) == ["0000.", "0000."]
        assert keys(stored) == ["ab12cd", "ab34ef"]

    def test_what_cannot_be_read_is_a_failure(self, carry_out, stored):
        header = experiment_folder(stored, "ab34") / "runs/0000.json"
        header.write_text("{")
        assert "Removed run 0 (unreadable) of ab34ef000000" in carry_out("prune", "--failed", "--key", "ab34")[1]
        assert not list(header.parent.iterdir())

    def test_an_age_holds_for_failures_too(self, carry_out, stored):
        assert "Nothing to remove." in carry_out("prune", "--failed", "--older-than", "1d")[1]

    def test_old_files_and_earlier_formats_go(self, carry_out, stored):
        stored.experiment("ab12cd" + "0" * 26, {})._files.retire(1)
        v1, v3 = stored.folder / "v1" / KEY, stored.folder / "v3" / KEY
        for folder in (v1, v3):
            folder.mkdir(parents=True)
            (folder / "claims.lock").touch()
        _, out, _ = carry_out("prune", "--old")
        assert "Removed old/ of ab12cd000000 digits [init], " in out
        assert "Removed v1/, of an earlier format, " in out
        assert not v1.exists()
        assert v3.exists()  # of a later one
        assert not (experiment_folder(stored, "ab12") / "old").exists()
        assert keys(stored) == ["ab12cd", "ab34ef"]

    def test_an_earlier_format_that_is_in_use_stays(self, carry_out, stored, tmp_path):
        (stored.folder / "v1" / KEY).mkdir(parents=True)
        script = "import sys, time; from pathlib import Path; from stabilitykit.store.byte_locks import ByteLocks\n"
        script += "print(ByteLocks.at(Path(sys.argv[1])).acquire(3), flush=True); time.sleep(60)"
        command = [sys.executable, "-c", script, str(stored.folder / "v1" / KEY / "claims.lock")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "True\n"
            _, out, _ = carry_out("prune", "--old")
            child.kill()
        assert f"Kept v1/, of an earlier format: v1/{KEY}/claims.lock is held." in out
        assert (stored.folder / "v1" / KEY).exists()


class TestPruneWhileSomebodyTrains:
    @pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
    @pytest.mark.parametrize("select", [["--all"], ["--key", "ab34"], ["--older-than", "0h"]])
    def test_the_experiment_of_a_run_that_is_trained_stays_whole(self, carry_out, stored, hold, select, dry_run):
        child = hold("ab34", 5)
        before = sorted(experiment_folder(stored, "ab34").rglob("*"))
        code, out, _ = carry_out("prune", *select, *dry_run)
        assert code == 0
        assert f"Kept ab34ef000000 mlp [init]: run 5 is being trained by gw7 (pid {child.pid})." in out
        assert sorted(experiment_folder(stored, "ab34").rglob("*")) == before
        child.kill()
        child.wait()
        carry_out("prune", *select)
        assert "ab34ef" not in keys(stored)

    @pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
    def test_a_failed_run_that_is_tried_again_stays(self, carry_out, stored, hold, dry_run):
        experiment = experiment_folder(stored, "ab12")
        header = (experiment / "runs/0001.json").read_text()
        hold("ab12", 1)
        (experiment / "runs/0001.json").write_text(header)  # the claim moved it away: as if it had not come to that
        _, out, _ = carry_out("prune", "--failed", *dry_run)
        assert "Kept run 1 (failed) of ab12cd000000 digits [init]: it is being trained." in out
        assert (experiment / "runs/0001.json").exists()

    def test_who_had_it_open_goes_on_as_with_a_new_one(self, carry_out, stored):
        experiment = stored.experiment("ab34ef" + "0" * 26, {"task": "mlp", **ABOUT})
        carry_out("prune", "--all")
        with claimed(experiment, 4) as claim:
            assert "Kept ab34ef000000 mlp [init]: run 4 is being trained by gw1" in carry_out("prune", "--all")[1]
            experiment.publish(claim, record(4))
        assert RunStore(stored.folder, session_id("two")).experiment("ab34ef" + "0" * 26, {}).is_finished(4)

    def test_training_and_pruning_at_the_same_time_never_meet(self, carry_out, stored, tmp_path):
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
        command = [sys.executable, "-c", script, str(stored.folder / f"v{FORMAT}" / ("b" * 32)), str(enough)]
        pruned = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "ready\n"
            while pruned < 20 and child.poll() is None:
                pruned += "Removed bbbb" in carry_out("prune", "--all")[1]
            enough.touch()
            assert child.stdout.read() == "0\n"
        assert child.returncode == 0
        assert pruned == 20


class TestLeftovers:
    def leave(self, stored, days):
        session = stored.folder / "sessions" / DEAD
        Board(session)
        (session / "3.done").touch()
        make_old(session, days)
        return session

    def test_a_session_that_was_killed_the_day_before_yesterday_goes(self, carry_out, stored):
        session = self.leave(stored, 2)
        assert f"Removed the leftovers of session {DEAD}, " in carry_out("prune", "--older-than", "30d")[1]
        assert not session.exists()

    def test_a_session_of_today_stays(self, carry_out, stored):
        session = self.leave(stored, 0.5)
        carry_out("prune", "--all")
        assert session.exists()

    def test_a_session_that_lives_stays_however_long_its_test_takes(self, carry_out, stored):
        session = stored.folder / "sessions" / DEAD
        script = "import sys, time; from pathlib import Path; from stabilitykit.execution.notice_board import Board\n"
        script += "with Board(Path(sys.argv[1])).owning(3): print(1, flush=True); time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", script, str(session)], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            make_old(session, 9)
            assert (
                f"Kept the leftovers of session {DEAD}: sessions/{DEAD}/owners.lock is held."
                in carry_out("prune", "--all")[1]
            )
            child.kill()
        assert session.exists()

    def test_a_session_that_was_killed_a_while_ago_goes_if_it_is_known_to_be_dead(self, carry_out, stored):
        script = "import sys, time; from pathlib import Path; from stabilitykit.store.run_store import RunStore\n"
        script += "store = RunStore(Path(sys.argv[1]), sys.argv[2]); print(1, flush=True); time.sleep(60)"
        session = stored.folder / "sessions" / DEAD
        with subprocess.Popen(
            [sys.executable, "-c", script, str(stored.folder), DEAD], stdout=subprocess.PIPE
        ) as child:
            child.stdout.readline()
            make_old(session, 1 / 24)
            assert (
                f"Kept the leftovers of session {DEAD}: sessions/{DEAD}/living.lock is held."
                in carry_out("prune", "--all")[1]
            )
            child.kill()
        make_old(session, 0)
        carry_out("prune", "--all")
        assert session.exists(), "it may have begun a moment ago"
        make_old(session, 1 / 24)
        carry_out("prune", "--all")
        assert not session.exists()

    def test_half_written_files_of_yesterday_go_and_those_of_now_stay(self, carry_out, stored):
        runs = experiment_folder(stored, "ab34") / "runs"
        half, now = runs / ".0001.npy.4711.00aa00ab.tmp", runs / ".0002.npy.4711.00aa00ab.tmp"
        for path in (half, now):
            path.write_bytes(b"half")
        os.utime(half, (1, 1))
        carry_out("prune", "--failed")
        assert (half.exists(), now.exists()) == (False, True)

    def test_an_experiment_that_was_half_removed_goes_and_is_never_listed(self, carry_out, stored):
        folder = experiment_folder(stored, "ab34")
        folder.rename(folder.with_name(f".pruned-{folder.name}-00aa00ab"))
        assert "ab34" not in carry_out("list")[1]
        carry_out("prune", "--failed")
        assert not list(folder.parent.glob(".*"))

    def test_one_key_s_pruning_leaves_them(self, carry_out, stored):
        session = self.leave(stored, 2)
        carry_out("prune", "--key", "ab34")
        assert session.exists()


USE = """
import sys, time
from pathlib import Path
from stabilitykit.store.run_store import Experiment
with Experiment(Path(sys.argv[1]), "busy", {}).in_use():
    print("in use", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("select", [("--all",), ("--failed",)])
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_what_a_living_session_uses_stays_between_two_of_its_runs(carry_out, stored, start_holder, select, dry_run):
    key = "ab12cd" + "0" * 26
    users = [start_holder(USE, experiment_folder(stored, key))[0] for _ in range(2)]
    for user in users:
        _, out, _ = carry_out("prune", *select, *dry_run)
        assert "a session works through its runs" in out
        assert (experiment_folder(stored, key) / "runs" / "0001.json").exists()
        user.kill()
        user.wait()
    _, out, _ = carry_out("prune", *select, *dry_run)
    assert "a session works" not in out
