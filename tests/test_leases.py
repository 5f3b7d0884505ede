"""Leases: what `ByteLocks` promises, on file systems that have no locks, and between machines."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stabilitykit import leases
from stabilitykit.leases import Leases, locks_at
from stabilitykit.locks import ByteLocks
from stabilitykit.record import RunRecord
from stabilitykit.store import RunStore

HOLD = """
import sys, time
from pathlib import Path
from stabilitykit import leases
folder, machine, *bytes_ = sys.argv[1:]
if machine != "here":
    leases._machine = lambda: machine
locks = leases.Leases.at(Path(folder))
print([locks.acquire(int(byte)) for byte in bytes_], flush=True)
time.sleep(1000)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "file.lock.leases"


@pytest.fixture
def locks(folder):
    return Leases.at(folder)


@pytest.fixture
def hold(folder, start_holder):
    """Start a process that leases bytes and goes on living, here or on another machine; give it and what it got."""

    def hold(*bytes_, machine="here"):
        return start_holder(HOLD, folder, machine, *bytes_)

    return hold


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.wait()


def age(folder, byte, seconds):
    """Let the newest lease on a byte have been touched that long ago."""
    lease = folder / str(byte) / str(leases._newest(folder / str(byte)))
    then = time.time() - seconds
    os.utime(lease, (then, then))


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="elsewhere only a process's number is known"
)


class TestOneMachine:
    def test_a_byte_is_held_until_it_is_released(self, locks):
        for _ in range(3):
            assert not locks.is_held(3)
            assert locks.acquire(3)
            assert not locks.acquire(3)
            assert locks.is_held(3)
            assert not locks.is_held(4)
            locks.release(3)
        assert not locks.is_held(3)

    def test_a_byte_leaves_one_small_file(self, locks, folder):
        for _ in range(5):
            assert locks.acquire(3)
            locks.release(3)
        assert [path.name for path in (folder / "3").iterdir()] == ["5"]

    def test_another_process_finds_held_bytes_held_and_others_free(self, locks, hold):
        assert locks.acquire(1)
        _, got = hold(0, 1, 2)
        assert got == "[True, False, True]"
        assert [locks.acquire(byte) for byte in (0, 2)] == [False, False]
        assert [locks.is_held(byte) for byte in range(4)] == [True, True, True, False]
        locks.release(1)

    @needs_proc
    def test_the_bytes_of_a_process_that_is_killed_are_free_at_once(self, locks, hold):
        child, _ = hold(5, 6)
        assert locks.is_held(5)
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and its parent has not looked: a zombie
        assert not locks.is_held(5)
        assert locks.acquire(5)
        child.wait()
        assert locks.acquire(6)
        locks.release(5)
        locks.release(6)

    def test_a_process_that_stands_still_keeps_its_bytes(self, locks, hold, folder):
        child, _ = hold(0)
        child.send_signal(signal.SIGSTOP)
        age(folder, 0, 1000)
        assert not locks.acquire(0)

    @needs_proc
    def test_another_process_of_the_same_number_is_not_the_owner(self, locks, hold, folder):
        hold(0)
        lease = folder / "0" / "1"
        lease.write_text(json.dumps(json.loads(lease.read_text()) | {"start": "1"}))
        assert not locks.is_held(0)

    def test_a_fork_keeps_no_lease_and_touches_none(self, locks, folder):
        assert locks.acquire(7)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            mine = Leases.at(folder)
            answers = [mine is locks, mine.acquire(7), bool(locks._held), locks.acquire(7), mine.acquire(8)]
            locks.release(7)
            os.write(write, json.dumps(answers).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert json.loads(os.read(read, 100)) == [False, False, False, False, True]
        assert locks.is_held(7)
        assert not locks.is_held(8)
        locks.release(7)
        assert not locks.is_held(7)
        os.close(read)
        os.close(write)

    def test_threads_get_a_byte_one_at_a_time(self, locks):
        inside, most = [], []

        def work():
            for _ in range(50):
                if locks.acquire(0):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    locks.release(0)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(most) == {1}


class TestManyMachines:
    def test_two_machines_exclude_each_other(self, locks, hold):
        _, got = hold(0, machine="elsewhere")
        assert got == "[True]"
        assert locks.is_held(0)
        assert not locks.acquire(0)
        assert locks.acquire(1)
        _, got = hold(0, 1, 2, machine="a third")
        assert got == "[False, False, True]"
        locks.release(1)

    def test_a_dead_owner_on_another_machine_is_dead_when_it_is_silent_for_a_minute(self, locks, hold, folder):
        child, _ = hold(0, machine="elsewhere")
        kill(child)
        assert not locks.acquire(0)
        age(folder, 0, leases.STALE / 2)  # half a minute is left to look at it
        assert not locks.acquire(0)
        age(folder, 0, leases.STALE + 5)
        assert not locks.is_held(0)
        assert locks.acquire(0)
        locks.release(0)

    def test_the_clock_is_the_server_s_and_not_the_machine_s(self, locks, hold, monkeypatch):
        hold(0, machine="elsewhere")
        monkeypatch.setattr(time, "time", lambda: 2e9)
        assert not locks.acquire(0)

    def test_a_living_owner_touches_its_leases(self, folder, monkeypatch):
        monkeypatch.setattr(leases, "BEAT", 0.05)
        leases._heart_of.cache_clear()
        locks = Leases.at(folder)
        assert locks.acquire(0)
        assert locks.acquire(1)
        age(folder, 0, 1000)
        age(folder, 1, 1000)
        monkeypatch.setattr(leases, "_machine", lambda: "elsewhere")
        deadline = time.monotonic() + 120  # of a hang; it takes a twentieth of a second
        while not (locks.is_held(0) and locks.is_held(1)):
            assert time.monotonic() < deadline, "nobody touches them"
            time.sleep(0.01)
        assert [thread.name for thread in threading.enumerate()].count(
            "stabilitykit-leases"
        ) <= 2  # and an earlier test's
        locks.release(0)
        locks.release(1)
        leases._heart_of.cache_clear()

    def test_an_owner_that_wakes_up_outnumbered_gives_nothing_away(self, locks, hold, folder, monkeypatch):
        assert locks.acquire(0)
        age(folder, 0, 1000)
        child, got = hold(0, machine="elsewhere")  # it cannot see that we live
        assert got == "[True]"
        locks.release(0)
        assert locks.is_held(0)
        kill(child)

    def test_the_same_number_is_never_made_twice(self, locks, hold, folder):
        """Who judged a lease dead a while ago must not take what was taken and given back since."""
        slow = Leases(folder)
        newest, looks = leases._newest, []

        def look(place):
            found = newest(place)
            looks.append(found)
            if len(looks) == 1:  # meanwhile, others
                for _ in range(2):
                    assert locks._take("0")
                    locks._give("0")
                assert locks._take("0")
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "_newest", look)
            assert not slow._take("0")
        assert [path.name for path in (folder / "0").iterdir()] == ["3"]
        locks.release(0)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3"])
    def test_a_lease_that_nobody_can_read_is_judged_by_its_age(self, locks, folder, content):
        (folder / "0").mkdir()
        (folder / "0" / "1").write_text(content)
        assert not locks.acquire(0)
        age(folder, 0, leases.STALE + 5)
        assert locks.acquire(0)
        locks.release(0)

    def test_without_hard_links_a_byte_is_still_held_by_one(self, locks, hold, monkeypatch):
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
        assert locks.acquire(0)
        _, got = hold(0)
        assert got == "[False]"
        locks.release(0)
        hold(1)
        assert not locks.acquire(1)
        monkeypatch.setattr(leases, "_newest", lambda place: 0)
        assert not locks.acquire(1)

    def test_a_link_whose_answer_was_lost_is_ours(self, locks, monkeypatch):
        link = os.link

        def lost(*paths):
            link(*paths)
            raise FileExistsError

        monkeypatch.setattr(os, "link", lost)
        assert locks.acquire(0)
        assert locks.is_held(0)
        locks.release(0)


@pytest.fixture(params=["kernel", "leases"])
def two(request, tmp_path):
    """This process's locks of either kind, and those of another process, by command."""
    kind = {"kernel": "stabilitykit.locks import ByteLocks", "leases": "stabilitykit.leases import Leases"}[
        request.param
    ]
    place = tmp_path / ("locks" if request.param == "kernel" else "leases")
    script = f"import sys\nfrom pathlib import Path\nfrom {kind} as Locks\nlocks = Locks.at(Path({str(place)!r}))\n"
    script += "for line in sys.stdin: print(eval(line), flush=True)"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def there(command):
        child.stdin.write(f"locks.{command}\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    yield (ByteLocks if request.param == "kernel" else Leases).at(place), there
    child.kill()
    child.communicate()


class TestAllBytes:
    def test_all_bytes_are_to_be_had_only_while_none_is_held(self, two):
        locks, there = two
        assert there("acquire(3)") == "True"
        assert not locks.acquire_all()
        there("release(3)")
        assert locks.acquire_all()
        assert there("acquire(3)") == "False"
        assert there("acquire_all()") == "False"
        assert not locks.acquire_all()
        locks.release_all()
        assert there("acquire(3)") == "True"

    def test_who_holds_a_byte_does_not_get_all(self, two):
        locks, there = two
        assert locks.acquire(0)
        assert not locks.acquire_all()
        assert there("acquire(0)") == "False"
        locks.release(0)
        assert locks.acquire_all()
        assert not locks.acquire(0)
        locks.release_all()
        assert locks.acquire(0)
        locks.release(0)

    def test_what_was_removed_is_made_anew_and_excludes(self, two, tmp_path):
        locks, there = two
        assert there("is_held(0)") == "False"
        assert locks.acquire_all()
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        locks.release_all()
        (tmp_path / "leases").mkdir()
        assert there("acquire(0)") == "True"
        assert not locks.acquire(0)


class TestChoice:
    @pytest.fixture
    def without_locks(self, monkeypatch):
        def without(code=errno.ENOLCK):
            def lockf(*_):
                raise OSError(code, os.strerror(code))

            monkeypatch.setattr(fcntl, "lockf", lockf)

        return without

    def test_the_kernel_s_locks_are_taken_where_there_are_some(self, tmp_path):
        assert isinstance(locks_at(tmp_path / "file.lock"), ByteLocks)

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
    def test_leases_are_taken_where_there_are_none(self, tmp_path, without_locks, code):
        without_locks(code)
        locks = locks_at(tmp_path / "file.lock")
        assert isinstance(locks, Leases)
        assert locks_at(tmp_path / "file.lock") is locks

    def test_an_error_that_says_something_else_is_one(self, tmp_path, without_locks):
        without_locks(errno.EIO)
        with pytest.raises(OSError, match="Input/output error"):
            locks_at(tmp_path / "file.lock")

    def test_where_one_process_took_leases_all_do(self, tmp_path, without_locks, monkeypatch):
        without_locks()
        assert locks_at(tmp_path / "file.lock").acquire(0)
        monkeypatch.undo()
        locks = locks_at(tmp_path / "file.lock")
        assert isinstance(locks, Leases)
        locks.release(0)

    def test_a_store_without_locks_trains_claims_and_notices_death(self, tmp_path, without_locks):
        without_locks()
        script = """
import errno, fcntl, sys, time
from pathlib import Path
def lockf(*_): raise OSError(errno.ENOLCK, "none")
fcntl.lockf = lockf
from stabilitykit.store import RunStore
claim = RunStore(Path(sys.argv[1]), "one").experiment("key", {}).claim(0)
print(claim.attempt, flush=True)
time.sleep(1000)
"""
        command = [sys.executable, "-c", script, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout.readline() == "1\n"
            experiment = RunStore(tmp_path, "one").experiment("key", {})
            assert experiment.claim(0) is None
            assert list(experiment.running()) == [0]
            kill(child)
        assert experiment.running() == {}
        claim = experiment.claim(0)
        assert claim.attempt == 2
        experiment.publish(claim, RunRecord(0, {}, "failed", 0.0, error="x"))
        experiment.release(claim)
        assert experiment.status(0) == "failed"


STORM = """
import os, sys, time
from pathlib import Path
from stabilitykit import leases
folder = Path(sys.argv[1])
locks = leases.Leases.at(folder / "leases")
while (free := [i for i in range(int(sys.argv[2])) if not (folder / f"{i}.done").exists()]):
    allowed = int((folder / "allowed").read_text())
    if free[0] >= allowed:
        time.sleep(0.001)
    for i in free:
        if i >= allowed or not locks.acquire(i):
            continue
        if not (folder / f"{i}.done").exists():
            with open(folder / "ledger", "a") as ledger:
                ledger.write(f"{i} {os.getpid()} {time.monotonic_ns()} start\\n")
            time.sleep(0.01)
            with open(folder / "ledger", "a") as ledger:
                ledger.write(f"{i} {os.getpid()} {time.monotonic_ns()} end\\n")
            (folder / f"{i}.done").touch()
        locks.release(i)
"""


def allow(folder, count):
    """Let the work below that number be done."""
    (folder / "new").write_text(str(count))
    (folder / "new").replace(folder / "allowed")


def wait_for_work(folder, wanted):
    """Wait until so much is done, and return how much that is."""
    deadline = time.monotonic() + 300
    while (done := len(list(folder.glob("*.done")))) < wanted:
        assert time.monotonic() < deadline, "the storm hangs"
        time.sleep(0.01)
    return done


@pytest.mark.slow
def test_a_storm_of_kills_leaves_no_two_on_one_byte_and_nobody_waiting(tmp_path):
    """Workers are killed at random and started again, until all work is done.

    What counts is work and not seconds: one is killed whenever the three have done some more, and they may not get
    further ahead than 60, so that ten are killed however fast or slow the machine is.
    """
    todo, dice, killed = 600, random.Random(0), {}
    allow(tmp_path, 60)
    command = [sys.executable, "-c", STORM, str(tmp_path), str(todo)]
    workers = [subprocess.Popen(command) for _ in range(3)]
    done = 0
    while done < todo:
        done = wait_for_work(tmp_path, min(todo, done + dice.randint(5, 40)))
        allow(tmp_path, done + 60)
        place = dice.randrange(len(workers))
        killed[workers[place].pid] = time.monotonic_ns()
        kill(workers[place])
        workers[place] = subprocess.Popen(command)
    for worker in workers:
        worker.wait(timeout=300)

    spans = {}
    for line in (tmp_path / "ledger").read_text().splitlines():
        byte, pid, when, what = line.split()
        span = spans.setdefault((int(byte), int(pid)), {})
        span[what] = int(when)
    assert len(killed) >= 10
    assert {byte for byte, _ in spans} == set(range(todo))
    for byte in range(todo):
        times = sorted(
            (span["start"], span.get("end", killed.get(pid))) for (b, pid), span in spans.items() if b == byte
        )
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(times)), (byte, times)
