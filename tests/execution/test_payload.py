"""What goes to a child process comes back the same, or says why it cannot be sent."""

from __future__ import annotations

import os
import pickle
import stat
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stabilitykit.errors import StoreError
from stabilitykit.execution.payload import CannotSend, Payload, SentPayload
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask
from stabilitykit.training.trainer import Trainer

ROOT = Path(__file__).parents[2]


def trainer_of(function: Callable, tmp_path: Path) -> Trainer:
    return Trainer(LoopTask(function, torch.arange(6) % 3), "cpu", 1, tmp_path)


class Received(SentPayload):
    """A payload as a child gets it: with files of its own."""

    @classmethod
    def of(cls, payload: Payload) -> Received:
        sent = payload.sent()
        return cls(os.dup(sent.task), os.dup(sent.tensors), sent.sha256)


class TestPayload:
    def test_tensors_are_mapped_and_stay_one_where_they_were_one(self, tmp_path: Path) -> None:
        x = torch.arange(12.0).reshape(6, 2)
        recipe = Recipe(
            model=lambda: torch.nn.Linear(2, 3),
            train=(x, torch.arange(6) % 3),
            test=(x, torch.arange(6) % 3),
            epochs=1,
            batch_size=2,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        )
        recipe._prepared["of this process"] = x
        payload = Payload(Trainer(recipe, "cpu", 1, tmp_path), ROOT)
        before = dict(os.environ)
        read = Received.of(payload).read().task
        assert dict(os.environ) == before
        assert torch.equal(read.train[0], x)
        assert read.train[0] is read.test[0]
        assert read._prepared == {}
        payload.close()

    def test_two_modules_of_one_name_are_told_apart(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as the conftest of two folders: a child would import whichever it finds first."""
        (tmp_path / "conftest.py").write_text("WORD = 'mine'\ndef train(run):\n    return WORD\n")
        module = types.ModuleType("conftest")
        module.__file__ = str(tmp_path / "conftest.py")
        exec((tmp_path / "conftest.py").read_text(), vars(module))
        monkeypatch.setitem(sys.modules, "conftest", module)
        payload = Payload(trainer_of(module.train, tmp_path), tmp_path)
        monkeypatch.delitem(sys.modules, "conftest")
        assert Received.of(payload).read().task.function(None) == "mine"
        payload.close()

    def test_what_cannot_be_sent_says_why(self, tmp_path: Path) -> None:
        lock = threading.Lock()
        with pytest.raises(CannotSend, match=r"TypeError: .*_thread\.lock"):
            Payload(trainer_of(lambda run: lock, tmp_path), ROOT)

    def test_a_full_disk_is_a_store_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(StoreError, match=r"No space left on device.*set TMPDIR"):
            Payload(trainer_of(lambda run: None, tmp_path), ROOT)

    def test_its_files_have_no_name_and_are_this_users_alone(self, tmp_path: Path) -> None:
        payload = Payload(trainer_of(lambda run: None, tmp_path), ROOT)
        for file in (payload.sent().task, payload.sent().tensors):
            status = os.fstat(file)
            assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 0o600)
        payload.close()

    def test_a_task_of_other_bytes_is_not_run(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> tuple:
                return (Path.touch, (tmp_path / "harmed",))

        payload = Payload(trainer_of(lambda run: None, tmp_path), ROOT)
        harmful = pickle.dumps(Harm())
        os.pwrite(payload.sent().task, harmful, 0)
        with pytest.raises(StoreError, match=r"^Expected the task that was sent to this process but got other bytes"):
            Received.of(payload).read()
        payload.close()
        assert not (tmp_path / "harmed").exists()
        pickle.loads(harmful)
        assert (tmp_path / "harmed").exists(), "it would have been harmful"
