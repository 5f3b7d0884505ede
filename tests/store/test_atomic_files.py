"""Files are written whole or not at all, and a disk that refuses is one error that names the file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from stabilitykit.errors import StoreError
from stabilitykit.store.atomic_files import Draft
from stabilitykit.store.run_store import FORMAT, RunStore
from tests.store.small_records import KEY, publish, record
from tests.store_names import key_of, session_id


def break_disk(monkeypatch, operation):
    """Let one operation on a file find the disk full; return what the error will name."""
    full = OSError(errno.ENOSPC, "No space left on device")
    *which, name = operation.split()

    def breaking(call):
        def broken(first, *rest, **options):
            path = first if isinstance(first, Path) else getattr(first, "_place", None)
            if not which or (path is not None and path.suffix == ".json"):
                raise full
            return call(first, *rest, **options)

        return broken

    if name == "open":
        call = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, mode="r", *_: breaking(call)(path) if "x" in mode else call(path, mode)
        )
    elif name == "write":
        monkeypatch.setattr(Draft, "write", breaking(Draft.write))
    elif which:  # of the header alone
        monkeypatch.setattr(Draft, "put_first", breaking(Draft.put_first))
    else:
        monkeypatch.setattr(os, name, breaking(getattr(os, name)))
    return r"0000\.json" if which or name == "link" else r"0000\.npy"


def mount(*options):
    command = shutil.which("mount")
    if os.geteuid() or not command:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run([command, *options], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this root may not mount a small disk: {done.stderr.strip()}")


@contextlib.contextmanager
def small_disk(folder):
    mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class TestDiskThatRefuses:
    @pytest.mark.parametrize("broken", ["open", "write", "fsync", "link", "header write", "header fsync"])
    def test_a_full_disk_is_one_error_that_names_the_file_and_leaves_no_half_of_it(
        self, open_store, tmp_path, monkeypatch, broken
    ):
        experiment = open_store()
        claim = experiment.claim(0)
        file = break_disk(monkeypatch, broken)
        with pytest.raises(StoreError, match=rf"Expected to write .*{file} but got: .*No space left on device.*free"):
            experiment.publish(claim, record(0))
        monkeypatch.undo()
        runs = tmp_path / f"store/v{FORMAT}/{KEY}/runs"
        assert not list(runs.iterdir())
        experiment.release(claim)
        assert experiment.is_free(0)
        publish(experiment, record(0))

    @pytest.mark.parametrize("broken", ["open", "write"])
    def test_a_claim_is_not_given_where_it_cannot_be_written(self, open_store, tmp_path, monkeypatch, broken):
        experiment = open_store()
        publish(experiment, record(1))
        break_disk(monkeypatch, broken)
        with pytest.raises(StoreError, match=r"Expected to write .*claims/0000\.json but got: .*No space left"):
            experiment.claim(0)
        monkeypatch.undo()
        assert experiment.is_free(0)
        assert not list((tmp_path / f"store/v{FORMAT}/{KEY}/claims").iterdir())

    @pytest.mark.parametrize("broken", ["open", "write"])
    def test_a_store_cannot_be_started_on_a_full_disk(self, tmp_path, monkeypatch, broken):
        break_disk(monkeypatch, broken)
        with pytest.raises(StoreError, match=r"Expected to write .* but got: .*No space left"):
            RunStore(tmp_path / "store", session_id("one"))

    def test_a_real_disk_that_is_full_is_one_error(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        with small_disk(disk):
            experiment = RunStore(disk / "store", session_id("one")).experiment(KEY, {"task": "a"})
            publish(experiment, record(0))
            claim = experiment.claim(1)
            with pytest.raises(StoreError, match=r"Expected to write .*0001\.npy but got: .*No space left on device"):
                experiment.publish(claim, record(1, logits=torch.zeros(1 << 19, 2)))
            experiment.release(claim)
            assert not list(disk.rglob("*.tmp"))
            again = RunStore(disk / "store", session_id("two")).experiment(KEY, {})
            assert [again.is_finished(index) for index in (0, 1)] == [True, False]

    def test_a_real_disk_that_is_read_only_is_one_error(self, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        with small_disk(disk):
            store = RunStore(disk / "store", session_id("one"))
            claim = (experiment := store.experiment(KEY, {"task": "a"})).claim(0)
            experiment.release(claim)
            mount("-o", "remount,ro", str(disk))
            for work in (
                lambda: experiment.claim(1),
                lambda: store.experiment(key_of("other"), {}),
                lambda: RunStore(disk / "store", session_id("two")),
            ):
                with pytest.raises(StoreError, match=r"Expected to write .*disk/store.* but got: .*Read-only"):
                    work()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_without_write_permission_is_refused(self, tmp_path):
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(StoreError, match="Expected to write the run store"):
                RunStore(tmp_path / "store", session_id("one"))
        finally:
            tmp_path.chmod(0o700)
