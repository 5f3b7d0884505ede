"""Run files: whole or missing, hashed, mapped, and never changed once seen."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from stabilitykit.errors import StoreError
from stabilitykit.store import run_files
from stabilitykit.store.run_store import FORMAT
from tests.store.small_records import KEY, LOGITS, claimed, publish, record


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
        with claimed(experiment, 0):
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
        assert all(path.exists() for path in others)  # another process may be writing these now
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
        check = run_files.check_digest
        monkeypatch.setattr(run_files, "check_digest", lambda path, sha: hashed.append(path.name) or check(path, sha))
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
        with claimed(experiment, 0) as claim:
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
