"""Ways to read, in a traced block, what lies in the project of the fixture `root`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time

from torch.utils.data import Dataset

from stabilitykit.tracing.tracing import traced


def read_in(root, read):
    time.sleep(0.02)  # the clock of time stamps has steps of 4 to 10 ms
    with traced(root) as trace:
        read()
    return trace.inputs()


def run_in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


class Numbers(Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return index + len(self.path.read_text()) + int(os.environ.get("ACME_WORKER", "0"))


class Appending(Numbers):
    def __getitem__(self, index):
        self.path.read_text()
        with self.path.open("a") as file:
            return file.write("1")


def attached(path, statement, *values):
    connection = sqlite3.connect(":memory:")
    with contextlib.suppress(sqlite3.DatabaseError):  # it is none, which SQLite finds after it has opened it
        connection.execute(statement.format(path=path), values)
    connection.close()
