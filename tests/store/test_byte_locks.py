"""Locks on bytes: exclusive between processes, remembered within one, freed by the kernel when their process dies."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stabilitykit.store.byte_locks import ByteLocks

HOLD = """
import sys, time
from pathlib import Path
from stabilitykit.store.byte_locks import ByteLocks
locks = ByteLocks.at(Path(sys.argv[1]))
print([locks.acquire(int(byte)) for byte in sys.argv[2:]], flush=True)
time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path, start_holder):
    """Start a process that locks bytes of the file and goes on living; give it and what it got."""

    def hold(*bytes_):
        return start_holder(HOLD, tmp_path / "file.lock", *bytes_)

    return hold


@pytest.fixture
def locks(tmp_path):
    return ByteLocks.at(tmp_path / "file.lock")


def test_a_byte_is_held_until_it_is_released(locks):
    assert not locks.is_held(3)
    assert locks.acquire(3)
    assert not locks.acquire(3)
    assert locks.is_held(3)
    assert not locks.is_held(4)
    locks.release(3)
    assert not locks.is_held(3)
    assert locks.acquire(3)
    locks.release(3)


def test_another_process_finds_held_bytes_held_and_others_free(locks, hold):
    assert locks.acquire(1)
    _, got = hold(0, 1, 2)
    assert got == "[True, False, True]"
    assert [locks.acquire(byte) for byte in (0, 2)] == [False, False]
    assert [locks.is_held(byte) for byte in range(4)] == [True, True, True, False]
    locks.release(1)


def test_looking_at_a_byte_frees_no_other(locks, hold):
    # The system drops all locks of a process on a file when it closes any handle of it.
    assert locks.acquire(0)
    assert locks.acquire(1)
    locks.release(1)
    assert not locks.is_held(2)
    assert ByteLocks.at(Path(os.path.relpath(locks._path))) is locks
    _, got = hold(0, 1)
    assert got == "[False, True]"
    locks.release(0)


def test_the_kernel_frees_the_bytes_of_a_process_that_is_killed(locks, hold):
    child, got = hold(5, 6)
    assert got == "[True, True]"
    assert locks.is_held(5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [locks.acquire(byte) for byte in (5, 6)] == [True, True]
    locks.release(5)
    locks.release(6)


def test_a_fork_does_not_believe_that_it_holds_its_parents_bytes(locks, tmp_path):
    assert locks.acquire(7)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        mine = ByteLocks.at(tmp_path / "file.lock")
        os.write(write, b"held" if mine is not locks and not mine.acquire(7) else b"free")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 4) == b"held"
    assert locks.is_held(7)
    locks.release(7)
    os.close(read)
    os.close(write)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
def test_no_file_stays_open_while_nothing_is_held(tmp_path):
    def open_here():
        """The open files of this test: other tests' may be closed meanwhile, when their owners are collected."""
        links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [link for link in links if tmp_path in link.parents]

    for i in range(50):
        locks = ByteLocks.at(tmp_path / f"{i}.lock")
        assert locks.acquire(0)
        assert len(open_here()) == 1
        locks.release(0)
        assert not locks.is_held(1)
    assert not open_here()


def test_a_path_that_cannot_be_locked_is_known_at_once(tmp_path):
    with pytest.raises(OSError, match="No such file or directory"):
        ByteLocks.at(tmp_path / "missing" / "file.lock")


def test_looking_at_a_byte_is_not_in_the_way_of_who_wants_it(locks, tmp_path):
    """While one process looks again and again, another gets the byte each time it asks."""
    look = "import sys; from pathlib import Path; from stabilitykit.store.byte_locks import ByteLocks\n"
    look += "print(1, flush=True)\nlocks = ByteLocks.at(Path(sys.argv[1]))\nwhile True: locks.is_held(0)"
    with subprocess.Popen([sys.executable, "-c", look, str(tmp_path / "file.lock")], stdout=subprocess.PIPE) as child:
        child.stdout.read(1)
        got = []
        for _ in range(3000):
            got.append(locks.acquire(0))
            if got[-1]:
                locks.release(0)
        child.kill()
    assert all(got)


def test_a_byte_can_be_looked_at_where_the_layout_of_the_question_is_not_known(locks, hold, monkeypatch):
    monkeypatch.setattr("stabilitykit.store.byte_locks._LAYOUT", None)
    child, _ = hold(2)
    assert (locks.is_held(2), locks.is_held(3)) == (True, False)
    child.kill()
    child.wait()
    assert not locks.is_held(2)


def test_a_lock_on_a_file_that_was_removed_is_none(locks, hold, tmp_path, monkeypatch):
    """Whoever prunes may remove the file between our opening and locking it; the next process would make another."""
    lockf = fcntl.lockf

    def late(*arguments):
        (tmp_path / "file.lock").unlink()
        monkeypatch.undo()
        return lockf(*arguments)

    monkeypatch.setattr(fcntl, "lockf", late)
    assert locks.acquire(0)
    _, got = hold(0)
    assert got == "[False]"
    locks.release(0)


def test_threads_share_the_bytes_of_their_process(locks):
    """One handle is opened and closed by all: without order among them, some would close another's."""
    got = []

    def work(byte):
        for _ in range(300):
            got.append(locks.acquire(byte) and locks.is_held(byte))
            locks.release(byte)

    threads = [threading.Thread(target=work, args=(byte,)) for byte in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [True] * 1200


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["from stabilitykit import measure", "import stabilitykit.cli", "import stabilitykit.zoo"]
)
def test_a_python_without_fcntl_is_told_what_to_do(line):
    script = f"import sys; sys.modules['fcntl'] = None; {line}"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("stabilitykit.errors.MissingModuleError: Expected Linux or macOS but got ")
    assert "POSIX locks" in error
    assert "WSL" in error


def test_windows_is_called_by_its_name():
    script = "import sys; sys.modules['fcntl'] = None; sys.platform = 'win32'; import stabilitykit.store.byte_locks"
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert "Expected Linux or macOS but got Windows, " in done.stderr
