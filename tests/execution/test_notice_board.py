"""The notice board: who owns a test, what it asked for, and that a dead worker owns nothing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from stabilitykit.errors import StoreError
from stabilitykit.execution.notice_board import Announcement, Board


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "session")


def test_a_test_is_owned_while_it_runs_and_done_after(board):
    assert (board.is_owned(3), board.is_done(3)) == (False, False)
    with board.owning(3):
        assert (board.is_owned(3), board.is_done(3)) == (True, False)
        assert not board.is_owned(4)
    assert (board.is_owned(3), board.is_done(3)) == (False, True)
    assert not board.is_done(4)


def test_a_test_that_fails_is_done_too(board):
    with pytest.raises(KeyboardInterrupt), board.owning(3):
        raise KeyboardInterrupt
    assert (board.is_owned(3), board.is_done(3)) == (False, True)


def test_where_every_worker_runs_every_test_the_first_stays_the_owner(board):
    with board.owning(3):
        with board.owning(3):
            pass
        assert board.is_owned(3)


OWN = """
import sys, time
from pathlib import Path
from stabilitykit.execution.notice_board import Board
with Board(Path(sys.argv[1])).owning(3):
    print("owned", flush=True)
    time.sleep(60)
"""


def test_a_worker_that_is_killed_owns_nothing_and_has_done_nothing(board):
    command = [sys.executable, "-c", OWN, str(board.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "owned\n"
        assert board.is_owned(3)
        worker.send_signal(signal.SIGKILL)
    assert (board.is_owned(3), board.is_done(3)) == (False, False)


def test_studies_are_announced_once_and_in_order(board, tmp_path):
    assert board.announced(3) == []
    first, second = Announcement(0, "/a", 10), Announcement(1, "/b", 20)
    for announcement in (first, second, first):
        board.announce(3, announcement)
    assert Board(tmp_path / "session").announced(3) == [first, second]
    assert len((tmp_path / "session" / "3.studies").read_text().splitlines()) == 2
    assert board.announced(4) == []


def test_a_dispute_is_seen_by_all(board, tmp_path):
    assert board.dispute_of(3) is None
    board.dispute(3, "train.X differs")
    assert Board(tmp_path / "session").dispute_of(3) == "train.X differs"
    assert board.dispute_of(4) is None


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "session").write_text("")
    with pytest.raises(StoreError, match=r"^Expected to write .*session but got: .* make the folder writable"):
        Board(tmp_path / "session")
