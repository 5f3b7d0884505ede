"""The run store: exact, whole or missing, claimed by one, and never the reason for a wrong answer."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabilitykit.errors import StoreError
from stabilitykit.store import run_files
from stabilitykit.store.atomic_files import Draft
from stabilitykit.store.claims import MOST_DEATHS
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_store import FORMAT, RunStore
from tests.store_names import key_of, session_id

KEY = key_of("key")
LOGITS = torch.tensor([[0.25, -1.5], [2.0, 0.0]])


def record(index=0, **values):
    values = {"status": "ok", "seconds": 0.5, "logits": LOGITS, "seeds": {"init": 3, "low_level": None}} | values
    if values["status"] != "ok":
        values["logits"] = None
    return RunRecord(index=index, **values)


@pytest.fixture
def open_store(tmp_path):
    """The experiment "key" as a session by name sees it."""

    def open_store(session="one", cache="auto", key="key", worker="main", **options):
        return RunStore(tmp_path / "store", session_id(session), cache, worker).experiment(
            key_of(key), {"task": "a"}, **options
        )

    return open_store


def publish(experiment, *records):
    for made in records:
        with experiment.claimed(made.index) as claim:
            assert claim is not None
            experiment.publish(claim, made)


sessions = itertools.count()
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=5)


class TestRoundTrip:
    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        index=st.integers(0, 20_000),
        shape=st.lists(st.integers(0, 4), min_size=1, max_size=4),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        seed=st.integers(0, 2**32),
        values=st.fixed_dictionaries(
            {
                "seeds": st.dictionaries(names, st.none() | st.integers(0, 2**32 - 1)),
                "seconds": st.floats(0, 1e9),
                "fingerprint": st.text("0123456789abcdef", max_size=64),
                "trace": st.lists(names, max_size=2).map(tuple),
                "curve": st.lists(st.dictionaries(names, finite, max_size=2), max_size=3).map(tuple),
                "perturbation": st.none() | st.dictionaries(names, finite | names, max_size=3),
                "low_level": st.sampled_from(["deterministic", "gradient rounding"]),
                "environment": st.dictionaries(names, names | st.integers() | st.none(), max_size=3),
            }
        ),
    )
    def test_a_record_comes_back_bit_for_bit(self, tmp_path, index, shape, dtype, seed, values):
        generator = torch.Generator().manual_seed(seed)
        # Any bits: denormal numbers, infinities and NaN with payloads among them.
        integers = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
        limits = torch.iinfo(integers)
        bits = torch.randint(limits.min, limits.max, shape, generator=generator, dtype=integers)
        made = RunRecord(
            index=index, status="ok", logits=bits.view(dtype) if bits.numel() else bits.to(dtype), **values
        )
        session = session_id(str(next(sessions)))
        experiment = RunStore(tmp_path, session).experiment(KEY, {}, private=True)
        publish(experiment, made)
        again = RunStore(tmp_path, session).experiment(KEY, {}, private=True)
        for got in (experiment.load(index), again.load(index)):
            assert got.logits.dtype == dtype
            assert got.logits.shape == made.logits.shape
            assert got.logits.numpy().tobytes() == made.logits.numpy().tobytes()
            ours = {f.name for f in dataclasses.fields(RunRecord)} - {"logits", "trained_by"}
            assert {name: getattr(got, name) for name in ours} == {name: getattr(made, name) for name in ours}
            assert got.trained_by["pid"] == os.getpid()
            assert got.trained_by["attempt"] == 1

    def test_logits_that_are_a_view_come_back_as_they_looked(self, open_store):
        view = torch.arange(12.0).reshape(3, 4).T[1:]
        publish(open_store(), record(logits=view))
        assert torch.equal(open_store("two").load(0).logits, view)

    def test_a_failed_record_comes_back_with_its_error(self, open_store):
        publish(open_store(), record(status="failed", error="Traceback: boom"))
        got = open_store().load(0)
        assert (got.status, got.error, got.logits) == ("failed", "Traceback: boom", None)


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


class TestWholeOrMissing:
    """A run file that is not exactly what was written counts as not there, and is trained again."""

    @pytest.fixture
    def files(self, open_store, tmp_path):
        publish(open_store(), record(0), record(1))
        runs = tmp_path / "store" / f"v{FORMAT}" / KEY / "runs"
        (arrays,) = runs.glob("0000.*.npy")
        return runs / "0000.json", arrays

    def missing(self, open_store):
        experiment = open_store("two")
        assert not experiment.is_finished(0)
        assert experiment.status(0) is None
        assert experiment.is_finished(1)
        with pytest.raises(StoreError, match=r"Expected run 0 in .* but it is not there, or not whole"):
            experiment.load(0)
        publish(experiment, record(0))
        assert torch.equal(open_store("three").load(0).logits, LOGITS)

    @pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"3", b"\xff\xfe", b"{}", b'{"record": 3}'])
    def test_a_torn_header_is_trained_again(self, open_store, files, content):
        files[0].write_bytes(content)
        self.missing(open_store)

    @pytest.mark.parametrize(
        "change",
        [
            {"format": "1"},
            {"format": None},
            {"arrays": None},
            {"arrays": "0000.missing.npy"},
            {"arrays.file": "0000.missing.npy"},
            {"arrays.file": "../../../FORMAT"},
            {"arrays.file": "0000../../../FOR.npy", "arrays.sha256": "../../../FOR"},
            {"arrays.sha256": "0" * 64},
            {"arrays.sha256": None},
            {"arrays.dtype": "<f8"},
            {"arrays.dtype": "|O"},
            {"arrays.shape": [4]},
            {"arrays.shape": [2, -2]},
            {"arrays.shape": [2, True]},
            {"arrays.shape": [2, 1 << 70]},
            {"arrays.shape": 4},
            {"arrays.extra": 1},
            {"record": {}},
            {"record.status": "great"},
            {"record.seconds": "1"},
            {"record.seeds": None},
            {"record.index": 1},
            {"record.status": "failed"},
            {"record.trained_by": None},
            {"record.extra": 1},
        ],
    )
    def test_a_header_that_says_something_else_is_trained_again(self, open_store, files, change):
        header = json.loads(files[0].read_text())
        for path, value in change.items():
            *outer, name = path.split(".")
            (header[outer[0]] if outer else header)[name] = value
        files[0].write_text(json.dumps(header))
        self.missing(open_store)

    @pytest.mark.parametrize("key", ["format", "arrays", "record"])
    def test_a_header_that_lacks_something_is_trained_again(self, open_store, files, key):
        header = json.loads(files[0].read_text())
        del header[key]
        files[0].write_text(json.dumps(header))
        self.missing(open_store)

    @pytest.mark.parametrize(
        "change", [lambda c: b"", lambda c: c[:-1], lambda c: c + b"x", lambda c: c[:90] + b"?" + c[91:]]
    )
    def test_arrays_with_other_bytes_are_trained_again(self, open_store, files, change):
        files[1].write_bytes(change(files[1].read_bytes()))
        self.missing(open_store)

    def test_missing_arrays_are_trained_again(self, open_store, files):
        files[1].unlink()
        self.missing(open_store)

    def test_another_runs_file_is_not_taken_for_it(self, open_store, files):
        files[0].write_bytes((files[0].parent / "0001.json").read_bytes())
        self.missing(open_store)

    def test_a_pickle_is_never_executed(self, open_store, files, tmp_path):
        class Harm:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "harmed",))

        np.save(files[1], np.array([Harm()], dtype=object), allow_pickle=True)
        digest = hashlib.sha256(files[1].read_bytes()).hexdigest()
        harmful = files[1].rename(files[1].with_name(f"0000.{digest[:12]}.npy"))
        header = json.loads(files[0].read_text())
        header["arrays"] |= {"sha256": digest, "file": harmful.name, "shape": [1]}
        files[0].write_text(json.dumps(header))
        self.missing(open_store)
        assert not (tmp_path / "harmed").exists()

    def rename_to_its_digest(self, files):
        """Write a header that vouches for whatever the array file holds now."""
        digest = hashlib.sha256(files[1].read_bytes()).hexdigest()
        renamed = files[1].rename(files[1].with_name(f"0000.{digest[:12]}.npy"))
        header = json.loads(files[0].read_text())
        header["arrays"] |= {"sha256": digest, "file": renamed.name}
        files[0].write_text(json.dumps(header))

    @pytest.mark.parametrize(
        "change",
        [
            lambda c: b"",
            lambda c: c[:-4],
            lambda c: c + b"more",
            lambda c: c[:20],
            lambda c: c.replace(b"<f4", b"<i4"),
            lambda c: c.replace(b"(2, 2)", b"(9, 2)"),
            lambda c: c.replace(b"False", b"True "),
            lambda c: c.replace(b"{'descr'", b"{'other'"),
        ],
    )
    def test_a_well_hashed_file_that_holds_another_array_is_trained_again(self, open_store, files, change):
        """What would be mapped is looked at first: a file that is too short would kill who reads past its end."""
        files[1].write_bytes(change(files[1].read_bytes()))
        self.rename_to_its_digest(files)
        self.missing(open_store)

    def test_a_whole_file_may_be_renamed_by_the_test_above(self, open_store, files):
        self.rename_to_its_digest(files)
        assert open_store("two").is_finished(0)

    def test_a_retrained_run_leaves_no_old_arrays_behind(self, open_store, files):
        files[0].write_text("")
        publish(open_store("two"), record(0, logits=LOGITS + 1))
        assert len(list(files[0].parent.glob("0000.*.npy"))) == 1
        assert len(list(files[0].parent.glob("0001.*.npy"))) == 1
        assert not list(files[0].parent.glob("*.tmp"))

    def test_what_was_bad_is_moved_away_when_it_is_retried_and_not_lost(self, open_store, files):
        files[0].write_text("torn")
        experiment = open_store("two")
        assert not experiment.is_finished(0)
        assert files[0].read_text() == "torn"  # who only looks changes nothing
        with experiment.claimed(0):
            pass
        assert not files[0].exists()
        old = files[0].parent.parent / "old"
        (header,) = old.glob("0000.*.json")
        assert header.read_text() == "torn"
        assert [path.name for path in old.glob("*.npy")] == [files[1].name]

    def test_each_failure_of_an_earlier_session_is_kept_when_it_is_retried(self, open_store, tmp_path):
        for session in ("one", "two", "three"):
            publish(open_store(session), record(status="failed", error=session))
        old = sorted((tmp_path / f"store/v{FORMAT}/{KEY}/old").iterdir())
        assert [json.loads(path.read_text())["record"]["error"] for path in old] == ["one", "two"]

    def test_what_a_killed_process_left_is_harmless_and_goes_with_the_next_claim(self, open_store, files):
        runs = files[0].parent
        left = [
            runs / ".0002.json.4711.00aa00ab.tmp",
            runs / ".0002.npy.4711.00aa00ab.tmp",
            runs / "0002.0123456789ab.npy",
        ]
        others = [runs / ".0003.json.4711.00aa00ab.tmp", runs / "0003.0123456789ab.npy"]
        for path in (*left, *others):
            path.write_bytes(b"half")
        experiment = open_store("two")
        assert not experiment.is_finished(2)
        publish(experiment, record(2))
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in others)  # somebody may be writing these now
        assert [open_store("three").is_finished(index) for index in range(4)] == [True, True, True, False]

    def test_the_claim_of_a_process_killed_after_it_published_is_cleared_away(self, open_store, files):
        claim = files[0].parent.parent / "claims" / "0000.json"
        claim.write_text("{}")
        assert open_store("two").claim(0) is None
        assert not claim.exists()


class TestArrays:
    def runs(self, tmp_path):
        return tmp_path / "store" / f"v{FORMAT}" / KEY / "runs"

    def test_logits_are_mapped_not_read_and_a_change_of_them_changes_no_file(self, open_store):
        publish(open_store(), record())
        experiment = open_store("two")
        logits = experiment.load(0).logits
        assert isinstance(experiment._files.array(experiment._header(0)), np.memmap)
        logits.zero_()
        assert torch.equal(experiment.load(0).logits, LOGITS)
        assert torch.equal(open_store("three").load(0).logits, LOGITS)

    def test_logits_outlive_their_file(self, open_store, tmp_path):
        publish(open_store(), record())
        logits = open_store("two").load(0).logits
        shutil.rmtree(self.runs(tmp_path))
        assert torch.equal(logits, LOGITS)

    def test_a_run_is_hashed_once_a_process_and_not_by_who_wrote_it(self, open_store, monkeypatch):
        hashed = []
        digest = run_files.sha256
        monkeypatch.setattr(run_files, "sha256", lambda path: hashed.append(path.name) or digest(path))
        experiment = open_store()
        publish(experiment, record())
        experiment.load(0)
        assert hashed == []
        again = open_store("two")
        for _ in range(3):
            assert again.is_finished(0)
            again.load(0)
        assert len(hashed) == 1

    @pytest.mark.parametrize("logits", [torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.float16)])
    def test_logits_that_no_training_leaves_behind_are_refused(self, open_store, tmp_path, logits):
        with pytest.raises(StoreError, match=r"Expected logits of dtype <f4 or <f8 but got <.*: run 0"):
            publish(open_store(), record(logits=logits))
        assert not list(self.runs(tmp_path).iterdir())

    def test_large_logits_are_written_and_checked_without_a_second_copy_of_them(self, open_store, tmp_path):
        """32 MiB of logits; NumPy tells tracemalloc of its memory, and Python's bytes are seen anyway."""
        logits = torch.arange(1 << 23, dtype=torch.float32).reshape(1 << 11, 1 << 12)
        for index, made in enumerate((logits, logits.T)):
            tracemalloc.start()
            publish(open_store(), record(index, logits=made))
            publishing = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            got = open_store("two").load(index).logits
            loading = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert torch.equal(got, made)
            assert max(publishing, loading) < 4 << 20

    def test_a_run_that_is_pruned_while_it_is_used_is_an_error_that_says_so(self, open_store, tmp_path):
        publish(open_store(), record())
        experiment = open_store("two")
        assert experiment.is_finished(0)
        shutil.rmtree(self.runs(tmp_path).parent)
        with pytest.raises(StoreError, match=r"Expected the logits .*npy but got: .* was the store pruned\?"):
            experiment.load(0)
        assert experiment.is_free(0)

    def test_an_experiment_that_is_pruned_between_two_claims_is_made_anew(self, open_store, tmp_path):
        experiment = open_store()
        shutil.rmtree(self.runs(tmp_path).parent)
        assert experiment.is_free(0)
        publish(experiment, record())
        assert torch.equal(open_store("two").load(0).logits, LOGITS)
        assert (self.runs(tmp_path).parent / "experiment.json").exists()


class TestFirstWriterWins:
    def test_a_result_that_was_seen_never_changes(self, open_store):
        experiment, other = open_store(), open_store()
        with experiment.claimed(0) as claim:
            experiment.publish(claim, record(logits=LOGITS))
            other.publish(claim, record(logits=LOGITS + 1))  # its lock was taken from it, and it does not know
        for reader in (experiment, other, open_store("two")):
            assert torch.equal(reader.load(0).logits, LOGITS)

    @pytest.mark.parametrize("code", [None, errno.EPERM, errno.ENOTSUP])
    def test_of_two_at_the_same_time_the_first_stays(self, open_store, tmp_path, monkeypatch, code):
        experiment, other = open_store(), open_store()
        claim = experiment.claim(0)
        looked = other._files.header

        def look(index):
            found = looked(index)
            if not experiment.is_finished(0):
                experiment.publish(claim, record(logits=LOGITS))  # between the other's look and its link
            return found

        monkeypatch.setattr(other._files, "header", look)
        if code:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
        other.publish(claim, record(logits=LOGITS + 1))
        experiment.release(claim)
        monkeypatch.undo()
        assert torch.equal(open_store("two").load(0).logits, LOGITS)
        runs = tmp_path / "store" / f"v{FORMAT}" / KEY / "runs"
        assert len(list(runs.iterdir())) == 2

    def test_the_same_result_twice_stays_whole(self, open_store):
        """The loser must not take the winner's array away, which has the same name."""
        publish(open_store(), record(1))
        files = open_store()._files
        values = record().to_json() | {"trained_by": {}}
        assert files.write(0, values, LOGITS.numpy()) is not None
        assert files.write(0, values | {"seconds": 9.0}, LOGITS.numpy()) is None
        assert files.problem(0) == ""


class TestFolder:
    def test_a_store_keeps_itself_out_of_git_and_names_its_format(self, tmp_path):
        RunStore(tmp_path / "store", session_id("one"))
        assert (tmp_path / "store" / ".gitignore").read_text() == "*\n"
        assert (tmp_path / "store" / "FORMAT").read_text() == FORMAT

    @pytest.mark.parametrize("found", ["", "one", "-1"])
    def test_a_folder_that_is_no_store_is_refused(self, tmp_path, found):
        (tmp_path / "FORMAT").write_text(found)
        with pytest.raises(StoreError) as refusal:
            RunStore(tmp_path, session_id("one"))
        assert str(refusal.value) == (
            f"Expected {tmp_path / 'FORMAT'} to name the format of a run store but it says {found!r}. Is this a folder "
            "of stabilitykit? Move it away to start a new store."
        )

    @pytest.mark.parametrize(("found", "after"), [("1", "2"), ("2", "2"), ("3", "3"), ("10", "10")])
    def test_a_store_of_another_format_is_gone_on_beside_it(self, tmp_path, found, after):
        """Who upgrades loses nothing and is not stopped; who goes back finds all as it was."""
        theirs = tmp_path / f"v{1 if found < FORMAT else 3}" / KEY / "runs" / "0000.json"
        theirs.parent.mkdir(parents=True)
        theirs.write_text("theirs")
        (tmp_path / "FORMAT").write_text(found)
        experiment = RunStore(tmp_path, session_id("one")).experiment(KEY, {})
        assert not experiment.is_finished(0)
        publish(experiment, record())
        assert RunStore(tmp_path, session_id("two")).experiment(KEY, {}).is_finished(0)
        assert (tmp_path / "FORMAT").read_text() == after
        assert theirs.read_text() == "theirs"

    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path):
        (tmp_path / "store").write_text("")
        with pytest.raises(
            StoreError, match=r"^Expected to write the run store .*store but got: .* make the folder writable"
        ):
            RunStore(tmp_path / "store", session_id("one"))

    @pytest.mark.parametrize("name", [f"v{FORMAT}", f"v{FORMAT}/{KEY}", f"v{FORMAT}/{KEY}/runs"])
    def test_a_file_in_place_of_a_folder_inside_is_refused(self, open_store, tmp_path, name):
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True)
        (tmp_path / "store" / "FORMAT").write_text(FORMAT)
        path.write_text("")
        with pytest.raises(StoreError, match=rf"^Expected to remove or to write .* {path} is no folder\."):
            open_store().claim(0)

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

    def test_an_experiment_says_what_its_key_was_made_of(self, open_store, tmp_path):
        publish(open_store(), record())
        assert json.loads((tmp_path / f"store/v{FORMAT}/{KEY}/experiment.json").read_text()) == {"task": "a"}


class TestReuse:
    def test_a_finished_run_serves_every_later_session(self, open_store):
        publish(open_store(), record())
        assert open_store("two").is_finished(0)
        assert open_store("two").claim(0) is None
        assert open_store("two").status(0) == "ok"

    def test_experiments_do_not_share_runs(self, open_store):
        publish(open_store(), record())
        assert not open_store(key="other").is_finished(0)

    @pytest.mark.parametrize("status", ["failed", "crashed", "timeout"])
    def test_a_failed_run_is_an_answer_in_its_session_and_tried_again_in_the_next(self, open_store, status):
        publish(open_store(), record(status=status, error="x"))
        assert open_store("one").is_finished(0)
        assert open_store("one").status(0) == status
        assert not open_store("two").is_finished(0)
        publish(open_store("two"), record())
        assert open_store("two").status(0) == "ok"

    def test_refresh_trains_again_once_a_session(self, open_store):
        publish(open_store(), record(logits=LOGITS))
        refreshed = open_store("two", "refresh")
        assert not refreshed.is_finished(0)
        publish(refreshed, record(logits=LOGITS + 1))
        for experiment in (refreshed, open_store("two", "refresh"), open_store("three")):
            assert torch.equal(experiment.load(0).logits, LOGITS + 1)

    def test_off_keeps_nothing_after_the_session(self, tmp_path):
        store = RunStore(tmp_path, session_id("one"), "off")
        publish(store.experiment(KEY, {}), record())
        assert store.experiment(KEY, {}).is_finished(0)
        store.end_session()
        assert not RunStore(tmp_path, session_id("one"), "off").experiment(KEY, {}).is_finished(0)
        assert not RunStore(tmp_path, session_id("two")).experiment(KEY, {}).is_finished(0)
        assert not list(tmp_path.rglob("*.npy"))

    def test_a_private_experiment_is_seen_by_its_session_alone(self, open_store, tmp_path):
        publish(open_store(private=True), record())
        assert open_store(private=True).is_finished(0)
        assert not open_store().is_finished(0)
        assert not open_store("two", private=True).is_finished(0)
        RunStore(tmp_path / "store", session_id("one")).end_session()
        assert not open_store(private=True).is_finished(0)

    def test_the_end_of_a_session_leaves_what_is_shared(self, open_store, tmp_path):
        publish(open_store(), record())
        RunStore(tmp_path / "store", session_id("one")).end_session()
        assert open_store("two").is_finished(0)
        assert not (tmp_path / "store" / "sessions" / session_id("one")).exists()

    def test_a_control_serves_later_sessions_but_not_one_that_refreshes(self, open_store):
        control = {"proven": True, "scope": "x", "trace": [], "mode": "auto"}
        assert open_store().read_control() is None
        open_store().write_control(control)
        assert open_store("two").read_control()["proven"] is True
        assert open_store("three", "refresh").read_control() is None
        open_store("three", "refresh").write_control(control)
        assert open_store("three", "refresh").read_control()["session"] == session_id("three")

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"proven": true, "session": "one"}'])
    def test_a_control_that_is_not_whole_is_proven_again(self, open_store, tmp_path, content):
        experiment = open_store()
        (tmp_path / f"store/v{FORMAT}/{KEY}/control.json").write_text(content)
        assert experiment.read_control() is None


HOLD = """
import sys, time
from pathlib import Path
from stabilitykit.store.run_store import RunStore
claim = RunStore(Path(sys.argv[1]), sys.argv[2]).experiment(sys.argv[3], {}).claim(0)
print("none" if claim is None else claim.attempt, flush=True)
time.sleep(60)
"""


@pytest.fixture
def claim_elsewhere(tmp_path, start_holder):
    """Start a process that claims run 0 in a session and trains for ever; give it and its attempt."""

    def start(session="one"):
        return start_holder(HOLD, tmp_path / "store", session_id(session), KEY)

    return start


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.wait()


class TestClaims:
    def test_a_run_is_claimed_by_one(self, open_store, tmp_path):
        one, other = open_store(), open_store()
        claim = one.claim(0)
        assert (claim.index, claim.attempt) == (0, 1)
        assert one.claim(0) is None
        assert other.claim(0) is None
        assert not other.is_free(0)
        assert other.is_free(1)
        one.release(claim)
        assert other.is_free(0)
        assert not list((tmp_path / f"store/v{FORMAT}/{KEY}/claims").iterdir())

    def test_another_process_holds_its_claim_until_it_is_killed_and_then_the_run_is_free(
        self, open_store, claim_elsewhere
    ):
        child, attempt = claim_elsewhere()
        experiment = open_store()
        assert attempt == "1"
        assert experiment.claim(0) is None
        assert not experiment.is_finished(0)
        kill(child)
        claim = experiment.claim(0)
        assert (claim.index, claim.attempt) == (0, 2)
        experiment.publish(claim, record())
        experiment.release(claim)
        assert experiment.load(0).trained_by["attempt"] == 2

    def test_two_deaths_in_one_session_make_a_crash(self, open_store, claim_elsewhere):
        pids = []
        for attempt in ("1", "2"):
            child, got = claim_elsewhere()
            assert got == attempt
            pids.append(child.pid)
            kill(child)
        experiment = open_store()
        assert experiment.claim(0) is None
        crashed = experiment.load(0)
        assert crashed.status == "crashed"
        assert crashed.error.startswith("2 processes died while training this run: ")
        assert all(f"process {pid} on " in crashed.error for pid in pids)
        # Nothing stays claimed, and the next session tries again from the start.
        later = open_store("two")
        assert not later.is_finished(0)
        claim = later.claim(0)
        assert claim.attempt == 1
        later.release(claim)

    def test_a_child_that_dies_twice_makes_a_crash_that_says_why(self, open_store):
        experiment = open_store(worker="gw1")
        claim = experiment.claim(0)
        claim = experiment.note_death(claim, "exit code -9 (SIGKILL)", pid=4711)
        assert (claim.index, claim.attempt) == (0, 2)
        assert not open_store().is_free(0)
        claim = experiment.note_death(claim, "exit code 3")
        assert claim.attempt == 3 > MOST_DEATHS
        experiment.publish_crash(claim, seeds={"init": 3}, seconds=2.5)
        experiment.release(claim)
        crashed = open_store().load(0)
        host = socket.gethostname()
        assert crashed.error == (
            f"2 processes died while training this run: process 4711 on {host} (worker gw1), exit code -9 "
            f"(SIGKILL); a process on {host} (worker gw1), exit code 3"
        )
        assert (crashed.status, crashed.seeds, crashed.seconds) == ("crashed", {"init": 3}, 2.5)

    def test_a_child_that_dies_once_is_forgotten_when_its_claim_is_given_back(self, open_store):
        experiment = open_store()
        claim = experiment.note_death(experiment.claim(0), "exit code 3")
        experiment.release(claim)
        assert experiment.claim(0).attempt == 1

    def test_the_deaths_of_children_and_of_their_parent_add_up(self, open_store, claim_elsewhere):
        child, _ = claim_elsewhere()
        kill(child)
        experiment = open_store()
        claim = experiment.claim(0)
        assert claim.attempt == 2
        claim = experiment.note_death(claim, "exit code 3")
        assert claim.attempt == 3
        experiment.publish_crash(claim)
        experiment.release(claim)
        assert f"process {child.pid} on " in experiment.load(0).error
        assert "left no exit status; a process on" in experiment.load(0).error

    def test_a_claim_that_cannot_be_written_is_an_error_and_is_not_held(self, open_store, tmp_path):
        experiment = open_store()
        (tmp_path / f"store/v{FORMAT}/{KEY}/claims/0000.json").mkdir(parents=True)
        with pytest.raises(StoreError, match=r"Expected to write .*claims/0000\.json but got:"):
            experiment.claim(0)
        assert experiment.is_free(0)

    def test_who_trains_what_is_known_to_all(self, open_store, claim_elsewhere):
        experiment = open_store(worker="gw1")
        assert experiment.running() == {}
        child, _ = claim_elsewhere("two")
        before = time.time()
        claim = experiment.claim(3)
        running = experiment.running()
        assert list(running) == [0, 3]
        assert (running[0].worker, running[0].pid, running[0].host) == ("main", child.pid, socket.gethostname())
        assert (running[3].worker, running[3].pid, running[3].attempt) == ("gw1", os.getpid(), 1)
        assert before <= running[3].started <= time.time()
        kill(child)
        assert list(open_store().running()) == [3]
        experiment.note_death(claim, "exit code 3")
        assert experiment.running()[3].attempt == 2
        experiment.release(claim)
        assert experiment.running() == {}

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}'])
    def test_a_claim_that_nobody_can_read_is_nobody_s(self, open_store, tmp_path, content):
        experiment = open_store()
        claim = experiment.claim(0)
        (tmp_path / f"store/v{FORMAT}/{KEY}/claims/0000.json").write_text(content)
        assert experiment.running() == {}
        experiment.release(claim)

    def test_a_finished_run_names_its_trainer_and_its_seconds(self, open_store):
        experiment = open_store(worker="gw1")
        assert (experiment.trainer_of(0), experiment.seconds(0)) == (None, None)
        publish(experiment, record(seconds=1.5))
        assert (open_store("two").trainer_of(0), open_store("two").seconds(0)) == ("gw1", 1.5)

    def test_a_child_s_word_on_where_it_trained_goes_before_its_parent_s(self, open_store):
        publish(open_store(worker="gw1"), record(trained_by={"pid": 4711, "session": "x", "isolation": "process"}))
        trained_by = open_store("two").load(0).trained_by
        assert (trained_by["pid"], trained_by["session"], trained_by["isolation"]) == (
            4711,
            session_id("one"),
            "process",
        )

    def test_a_death_in_an_earlier_session_is_no_attempt_of_this_one(self, open_store, claim_elsewhere):
        child, _ = claim_elsewhere("yesterday")
        kill(child)
        claim = open_store().claim(0)
        assert claim.attempt == 1
        claim = open_store().note_death(claim, "exit code 3")
        assert claim.attempt == 2
        open_store().release(claim)

    def test_a_run_that_kills_every_session_is_told_by_the_fourth_and_tried_by_the_fifth(
        self, open_store, claim_elsewhere
    ):
        for session in ("mon", "tue", "wed"):
            child, attempt = claim_elsewhere(session)
            assert attempt == "1"
            kill(child)
        assert open_store("thu").claim(0) is None
        assert open_store("thu").load(0).error.startswith("3 processes died while training this run: ")
        claim = open_store("fri").claim(0)
        assert claim.attempt == 1
        open_store("fri").release(claim)

    @pytest.mark.parametrize("content", ["", "[]", "{"])
    def test_what_the_key_was_made_of_is_written_again_where_it_was_damaged(self, open_store, content):
        publish(open_store(), record())
        about = open_store().folder / "experiment.json"
        about.write_text(content)
        publish(open_store(), record(1))
        assert json.loads(about.read_text()) == {"task": "a"}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
    def test_an_interrupted_training_gives_its_claim_back_and_is_no_death(self, open_store, error):
        experiment = open_store()

        def interrupted():
            with experiment.claimed(0):
                raise error

        for _ in range(3):
            with pytest.raises(error):
                interrupted()
        claim = experiment.claim(0)
        assert claim.attempt == 1
        experiment.release(claim)

    def test_there_is_no_claim_on_a_finished_run(self, open_store):
        experiment = open_store()
        publish(experiment, record())
        with experiment.claimed(0) as claim:
            assert claim is None
        assert not experiment.is_free(0)

    def test_a_run_that_is_finished_while_its_lock_is_taken_is_not_trained_again(self, open_store, monkeypatch):
        experiment, other = open_store(), open_store()
        acquire = experiment._claims.locks.acquire

        def late(index):
            with other.claimed(index) as claim:
                other.publish(claim, record(index))
            monkeypatch.setattr(experiment._claims.locks, "acquire", acquire)
            return acquire(index)

        monkeypatch.setattr(experiment._claims.locks, "acquire", late)
        monkeypatch.setattr(
            other._claims, "locks", type("Free", (), {"acquire": lambda *_: True, "release": lambda *_: None})()
        )
        assert experiment.claim(0) is None
        monkeypatch.undo()
        assert not experiment._claims.locks.is_held(0)
