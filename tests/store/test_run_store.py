"""The run store: exact, whatever folder it finds, and a finished run serves every later session."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabilitykit.errors import StoreError
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_store import FORMAT, RunStore
from tests.store.small_records import KEY, LOGITS, publish, record
from tests.store_names import session_id

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

    def test_a_certificate_serves_later_sessions_but_not_one_that_refreshes(self, open_store):
        assert open_store().read_certificate() == {}
        open_store().write_certificate({"held": {"base run": "x"}})
        assert open_store("two").read_certificate()["held"] == {"base run": "x"}
        assert open_store("three", "refresh").read_certificate() == {}
        open_store("three", "refresh").write_certificate({"held": {"base run": "y"}})
        assert open_store("three", "refresh").read_certificate()["session"] == session_id("three")

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "{}", '{"held": {}}', '{"held": "x", "of": "00000000000000000000000000000000"}']
    )
    def test_a_certificate_that_is_not_whole_or_of_another_task_counts_for_nothing(self, open_store, tmp_path, content):
        experiment = open_store()
        (tmp_path / f"store/v{FORMAT}/{KEY}/certificate.json").write_text(content)
        assert experiment.read_certificate() == {}
