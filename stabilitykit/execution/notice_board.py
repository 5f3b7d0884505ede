"""What the workers of one session tell each other: files that every worker can read.

::

    .stabilitykit/sessions/<id>/owners.lock   a lock on byte 3: a worker, the owner of test 3, runs it now
                               3.begun        a worker has begun to run test 3
                               3.done         test 3 has ended
                               3.studies      one line for each study that test 3 has asked for
                               3.0.settled    the verdict on its first study stands
                               3.disputed     a helper made a different task of test 3
                               3.0.refuted    why a helper must not train for its first study: it computes other bits

A test's number is its position in the collection, which xdist demands to be the same in all workers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError
from ..store.atomic_files import write_once
from ..store.byte_locks import ByteLocks
from ..store.layout import OWNERS_LOCK, file_of_test


@dataclass(frozen=True)
class Announcement:
    """One study that a test asked for: where its runs are kept, and how many it wants."""

    call: int  #: the test's first study is 0
    folder: str
    runs: int


class Board:
    """The notice board of one session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._owners = ByteLocks.at(folder / OWNERS_LOCK)
        except OSError as error:
            raise StoreError(
                f"Expected to write {folder} but got: {error}. The workers of a session find each other there; make "
                f"the folder writable, or free space."
            ) from error

    @contextlib.contextmanager
    def owning(self, test: int) -> Iterator[None]:
        """Be the owner of a test for a block, and mark it done after."""
        acquired = self._owners.acquire(test)  # False under --dist each, where every worker runs every test
        file_of_test(self.folder, test, "begun").touch()
        try:
            yield
        finally:
            file_of_test(self.folder, test, "done").touch()
            if acquired:
                self._owners.release(test)

    def is_owned(self, test: int) -> bool:
        """Whether a living worker runs the test now."""
        return self._owners.is_held(test)

    def is_done(self, test: int) -> bool:
        """Whether the test has ended."""
        return file_of_test(self.folder, test, "done").exists()

    def settle(self, test: int, call: int) -> None:
        """Mark a study of the test as needing no further run."""
        file_of_test(self.folder, test, "settled", call).touch()

    def is_settled(self, test: int, call: int) -> bool:
        """Whether a study of the test needs no further run, though some may be free."""
        return file_of_test(self.folder, test, "settled", call).exists()

    def dispute(self, test: int, difference: str) -> None:
        """Tell the owner of a test that another worker made a different task of it, and in which value."""
        file_of_test(self.folder, test, "disputed").write_text(difference, encoding="utf-8")

    def dispute_of(self, test: int) -> str | None:
        """Return how the task that a helper made of the test differs; None if none did."""
        try:
            return file_of_test(self.folder, test, "disputed").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def refute(self, test: int, call: int, why: str) -> None:
        """Tell the owner of a test that a process computes other bits than its study's base run has."""
        write_once(file_of_test(self.folder, test, "refuted", call), why)

    def why_refuted(self, test: int, call: int) -> str:
        """Return what `refute` was told; empty if nothing."""
        try:
            return file_of_test(self.folder, test, "refuted", call).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def announce(self, test: int, announcement: Announcement) -> None:
        """Tell the other workers of a study; telling again changes nothing."""
        if announcement not in self.announced(test):
            with self._studies_file(test).open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(announcement)) + "\n")  # one write: lines of two workers do not mix

    def announced(self, test: int) -> list[Announcement]:
        """Return the studies that the test is known to want."""
        try:
            lines = self._studies_file(test).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return list(dict.fromkeys(Announcement(**json.loads(line)) for line in lines))

    def _studies_file(self, test: int) -> Path:
        return file_of_test(self.folder, test, "studies")
