"""Entries of what trainings read: the one that is as this machine is now is found, whichever was written last."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.store import traced_inputs
from stabilitykit.store.layout import LATER, LAYOUT
from stabilitykit.store.loaded_files import Stamp, stamp_of
from stabilitykit.store.traced_inputs import (
    ABSENT,
    Inputs,
    content_digest,
    entries_of,
    folder_digest,
    later_of,
    matching,
    path_digest,
    place_of,
    renew_stamps,
    variable_digest,
    write,
    write_later,
)


def of_variable(value):
    return Inputs(variables={"ACME_RATE": variable_digest(value, Path("/none"))})


def of_file(root, name):
    return Inputs(files={name: content_digest(root / name)})


class TestChanged:
    def test_nothing_read_is_nothing_changed(self, tmp_path):
        assert Inputs().changed(tmp_path) == ()

    def test_each_kind_is_said_in_words(self, tmp_path, monkeypatch):
        monkeypatch.delenv("ACME_RATE", raising=False)
        (tmp_path / "config.json").write_text("{}")
        inputs = Inputs(
            modules={"acme_none": "0"},
            files={"config.json": "0", "gone.json": "0", "config.json/": "0"},
            variables={"ACME_RATE": "0"},
        )
        assert inputs.changed(tmp_path) == (
            "variable ACME_RATE",
            "file config.json (edited)",
            "file gone.json (gone)",
            "folder config.json/ (gone)",
            "module acme_none (gone)",
        )

    def test_a_large_file_is_read_again_only_with_another_stamp(self, tmp_path, monkeypatch):
        path = tmp_path / "large"
        path.write_bytes(b"0" * (traced_inputs.SMALL + 1))
        inputs = replace(of_file(tmp_path, "large"), stamps={"large": stamp_of(path)})
        with monkeypatch.context() as patch:
            patch.setattr(traced_inputs, "content_digest", None)
            assert inputs.changed(tmp_path) == ()
        os.utime(path, (1, 1))
        assert inputs.changed(tmp_path) == ()
        path.write_bytes(b"1" * (traced_inputs.SMALL + 1))
        assert inputs.changed(tmp_path) == ("file large (edited)",)

    @pytest.mark.parametrize("how", ["in place", "renamed"])
    def test_a_large_file_of_equal_size_and_time_is_read_again(self, tmp_path, how):
        """``cp -p``, ``rsync -t`` and ``touch -r`` give a new file the time of an old one."""
        path, other = tmp_path / "large", tmp_path / "other"
        path.write_bytes(b"0" * (traced_inputs.SMALL + 1))
        inputs = replace(of_file(tmp_path, "large"), stamps={"large": stamp_of(path)})
        target = path if how == "in place" else other
        before = path.stat()
        target.write_bytes(b"1" * (traced_inputs.SMALL + 1))
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        target.rename(path)
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert inputs.changed(tmp_path) == ("file large (edited)",)

    def test_a_small_file_is_read_again_whatever_its_stamp(self, tmp_path):
        path = tmp_path / "small"
        path.write_text("a")
        os.utime(path, (1, 1))
        inputs = of_file(tmp_path, "small")
        path.write_text("b")
        os.utime(path, (1, 1))
        assert inputs.changed(tmp_path) == ("file small (edited)",)

    def test_a_temporary_file_that_is_gone_is_no_change(self, tmp_path):
        """Pytest makes tmp_path anew in each session; the paths that a task holds count by what is in them."""
        project, temporary = tmp_path / "project", tmp_path / "x.json"
        temporary.write_text("{}")
        inputs = of_file(project, str(temporary))
        temporary.write_text("[]")
        assert inputs.changed(project) == (f"file {temporary} (edited)",)
        temporary.unlink()
        assert inputs.changed(project) == ()

    def test_a_temporary_folder_that_is_gone_is_no_change_nor_one_that_the_training_makes(self, tmp_path):
        project = tmp_path / "project"
        for made in ({f"{tmp_path}/out/": "exp#"}, {}):
            inputs = Inputs(files={f"{tmp_path}/out/": folder_digest(["data"], "exp#")}, made=made)
            assert inputs.changed(project) == ()
        filled = Inputs(files={"out/": folder_digest(None, "exp#")}, made={"out/": "exp#"})
        assert filled.changed(project) == ()
        (project / "out" / "exp3").mkdir(parents=True)
        assert filled.changed(project) == ()
        (project / "out" / "data").touch()
        assert filled.changed(project) == ("folder out/ (other names in it)",)

    def test_shapes_are_those_of_the_digest_that_is_taken(self):
        one, other = Inputs(files={"a/": "1"}, made={"a/": "x#"}), Inputs(files={"a/": "2"})
        assert one.merged(other) == other
        assert other.merged(one) == one

    def test_a_variable_with_a_temporary_path_counts_by_what_is_there(self, tmp_path, monkeypatch):
        project = tmp_path / "project"
        for name, rate in (("one", "1"), ("two", "1"), ("three", "3"), ("four", "")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "rate").write_text(rate)
        one = str(tmp_path / "one")
        spelled = {"ACME_RATE": path_digest(one)}
        inputs = Inputs(variables={"ACME_RATE": variable_digest(one, project)}, spelled=spelled)
        for name, changed in (("one", False), ("two", False), ("three", True), ("four", True), ("none", True)):
            monkeypatch.setenv("ACME_RATE", str(tmp_path / name))
            assert inputs.changed(project) == ("variable ACME_RATE",) * changed
        (tmp_path / "one" / "written").write_text("by the training itself")
        monkeypatch.setenv("ACME_RATE", one)
        assert inputs.changed(project) == ()

    def test_an_entry_of_before_variables_counted_by_content_is_as_good_as_ever(self, monkeypatch):
        kept = of_variable("8").to_json()
        del kept["spelled"]
        monkeypatch.setenv("ACME_RATE", "8")
        assert Inputs.from_json(kept).changed(Path("/none")) == ()

    def test_a_project_may_lie_in_another_folder(self, tmp_path):
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text("{}")
        assert of_file(tmp_path / "one", "config.json").changed(tmp_path / "two") == ()


class TestEntries:
    def test_the_one_that_is_as_now_is_found_when_two_alternate(self, tmp_path, monkeypatch):
        for value in ("8", "32"):
            write(tmp_path, of_variable(value))
        for value in ("8", "32", "8"):
            monkeypatch.setenv("ACME_RATE", value)
            assert matching(entries_of(tmp_path), tmp_path) == of_variable(value)
        monkeypatch.setenv("ACME_RATE", "64")
        assert matching(entries_of(tmp_path), tmp_path) is None

    def test_the_latest_is_first_to_say_what_differs_from_it(self, tmp_path):
        for number, value in enumerate(("1", "2", "3")):
            write(tmp_path, of_variable(value))
            file = tmp_path / "inputs" / f"{of_variable(value).digest[:16]}.json"
            os.utime(file, (number, number))
        assert entries_of(tmp_path) == tuple(of_variable(value) for value in ("3", "2", "1"))

    def test_what_later_runs_write_is_not_compared(self, tmp_path):
        for name in ("large", "small"):
            (tmp_path / name).write_bytes(b"0" * (traced_inputs.SMALL + 1))
        read = of_file(tmp_path, "large").merged(of_file(tmp_path, "small"))
        read = replace(read, stamps={"large": stamp_of(tmp_path / "large"), "small": stamp_of(tmp_path / "small")})
        (tmp_path / "large").write_text("1")
        assert matching([read], tmp_path) is None
        assert matching([read], tmp_path, lambda one: {"large"} if one is read else set()) is read
        (tmp_path / "small").write_text("1")
        assert matching([read], tmp_path, lambda _: {"large"}) is None

    def test_one_of_several_that_match_is_chosen_by_its_content(self, tmp_path):
        some = [Inputs(), Inputs(files={"a": ABSENT}), Inputs(files={"b": ABSENT})]
        chosen = {matching(order, tmp_path).digest for order in (some, some[::-1])}
        assert len(chosen) == 1

    @pytest.mark.parametrize("copied", [True, False])
    def test_a_copied_store_is_hashed_once_and_not_trained_anew(self, tmp_path, monkeypatch, copied):
        """Earlier versions kept two numbers of a stamp; on another machine there are other numbers."""
        path = tmp_path / "large"
        path.write_bytes(b"0" * (traced_inputs.SMALL + 1))
        stamp = stamp_of(path)
        kept = of_file(tmp_path, "large").to_json()
        kept["stamps"] = {"large": [*stamp[:2], 5, 7] if copied else stamp[:2]}
        (tmp_path / "inputs").mkdir()
        digest = of_file(tmp_path, "large").digest[:16]
        (tmp_path / "inputs" / f"{digest}.json").write_text(json.dumps(kept))
        found = matching(entries_of(tmp_path), tmp_path)
        assert found.files == of_file(tmp_path, "large").files
        renew_stamps(tmp_path, found, tmp_path)
        (renewed,) = entries_of(tmp_path)
        monkeypatch.setattr(traced_inputs, "content_digest", None)
        assert renewed.changed(tmp_path) == ()

    def test_a_stamp_is_renewed_only_of_the_content_that_was_read(self, tmp_path):
        path = tmp_path / "large"
        path.write_bytes(b"0" * (traced_inputs.SMALL + 1))
        inputs = replace(of_file(tmp_path, "large"), stamps={"large": stamp_of(path)})
        write(tmp_path, inputs)
        path.write_bytes(b"1" * (traced_inputs.SMALL + 1))
        renew_stamps(tmp_path, inputs, tmp_path)
        assert entries_of(tmp_path) == (inputs,)

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", "{}", '{"files": 1}', json.dumps(Inputs().to_json() | {"files": {"a": 1}}),
         json.dumps(Inputs().to_json() | {"untraced": 3}), json.dumps(Inputs().to_json() | {"stamps": {"a": ["x"]}}),
         json.dumps(Inputs().to_json() | {"stamps": {"a": [1, 2, 3, 4, 5]}}),
         json.dumps(Inputs().to_json() | {"modules": []}), json.dumps(Inputs().to_json() | {"more": {}})],
    )  # fmt: skip
    def test_one_that_is_torn_is_left_out(self, tmp_path, content):
        write(tmp_path, of_variable("1"))
        (tmp_path / "inputs" / ("0" * 16 + ".json")).write_text(content)
        assert entries_of(tmp_path) == (of_variable("1"),)

    def test_the_files_are_of_the_stores_layout(self, tmp_path):
        write(tmp_path, Inputs())
        (file,) = (tmp_path / "inputs").iterdir()
        experiment = LAYOUT.find("v2").find("0" * 32)
        assert experiment.find("inputs").find(file.name) is not None


texts = st.text(max_size=5)
mappings = st.dictionaries(texts, texts, max_size=3)


@given(mappings, mappings, mappings, st.lists(texts).map(tuple), st.integers(0, 2**60))
def test_json_and_back(modules, files, variables, untraced, size):
    stamps = {"large": Stamp(size, 1, 2, 3)}
    inputs = Inputs(modules, files, variables, untraced, modules, stamps, files, untraced)
    assert Inputs.from_json(json.loads(json.dumps(inputs.to_json()))) == inputs


def test_an_entry_of_an_earlier_version_is_read():
    kept = Inputs(files={"a": "1"}).to_json()
    del kept["written"]
    assert Inputs.from_json(kept) == Inputs(files={"a": "1"})


def test_the_digest_is_of_names_and_contents_alone():
    plain = Inputs(files={"a": "1", "b": "2"})
    assert plain.digest == Inputs(files={"b": "2", "a": "1"}, untraced=("x",), stamps={"a": (1, 1)}).digest
    others = [Inputs(files={"a": "1"}), Inputs(variables=plain.files), Inputs(files={"a": "2", "b": "1"}), Inputs()]
    assert len({plain.digest, *(other.digest for other in others)}) == 5


def test_a_module_is_found_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "acme_found").mkdir()
    (tmp_path / "acme_found" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "acme_found" / "part.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert place_of("acme_found.part") == tmp_path / "acme_found" / "part.py"
    assert place_of("acme_found.none") is None


class TestLater:
    """Runs after run 0: what they read beside what is known, and what they must not have read otherwise."""

    def test_what_is_known_is_left_out_and_so_is_what_an_earlier_run_has_written(self):
        known = Inputs({"m": "1"}, {"a": "1", "d/": "1"}, {"V": "1"}, ("s",), written=("cache.pt",))
        read = Inputs(
            {"m": "1", "n": "1"},
            {"a": "1", "d/": "2", "b": "1", "cache.pt": "1"},
            {"V": "2", "W": "1"},
            ("s", "t"),
            places={"m": "m.py", "n": "n.py"},
            stamps={"a": (1, 1), "b": (1, 1)},
            relative={"a": "a", "b": "b"},
            written=("c",),
        )
        said = "It reads cache.pt, which an earlier run has written: it is not traced."
        assert read.beyond(known) == Inputs(
            {"n": "1"}, {"b": "1"}, {"W": "1"}, ("t", said), {"n": "n.py"}, {"b": (1, 1)}, {"b": "b"}, ("c",)
        )
        assert read.beyond(known.merged(read.beyond(known))) == Inputs()

    def test_what_a_look_has_written_and_run_0_has_read_is_traced(self):
        known = Inputs(files={"cache.csv": "1"}, written=("cache.csv",))
        assert Inputs(files={"cache.csv": "1"}).beyond(known) == Inputs()

    def test_what_a_run_writes_is_no_input_of_what_was_trained_before_it(self):
        looked = Inputs(files={"stats.json": "1", "a.csv": "1"}, unheard={"stats.json": "2"})
        run = Inputs(files={"stats.json": "2", "a.csv": "1"}, unheard={"stats.json": "3"}).explained(["stats.json"])
        inputs = looked.beside(run.to_json())
        assert (dict(inputs.files), inputs.written, inputs.unheard) == ({"a.csv": "1"}, ("stats.json",), {})

    def test_what_run_0_has_read_and_a_later_run_writes_is_said(self):
        known, read = Inputs(files={"best": "1"}), Inputs(files={"best": "2"}, written=("best", "log"))
        said = "It writes to best: what it reads there is not traced."
        assert read.beyond(known) == Inputs(untraced=(said,), written=("best", "log"))

    def test_another_content_of_a_file_or_module_is_a_contradiction(self):
        known = Inputs({"m": "1"}, {"a": "1", "d/": "1", "mine": "1", "theirs": "1"}, {"V": "1"}, written=("theirs",))
        other = Inputs({"m": "2"}, {"a": "2", "d/": "2", "mine": "2", "theirs": "2"}, {"V": "2"}, written=("mine",))
        assert other.contradicted(known) == ("file a", "module m")
        assert known.contradicted(known) == Inputs().contradicted(known) == ()

    def test_now_is_what_is_there_now(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ACME_RATE", "2")
        (tmp_path / "a").write_text("new")
        before = replace(of_variable("1"), files={"a": "old", "b": "old"})
        now = before.now(tmp_path)
        assert now.files == {"a": content_digest(tmp_path / "a"), "b": ABSENT}
        assert (now.variables, now.changed(tmp_path)) == (of_variable("2").variables, ())

    def test_those_of_several_runs_are_kept_and_nothing_for_a_run_that_reads_nothing(self, tmp_path):
        write_later(tmp_path, Inputs())
        assert later_of(tmp_path) == ()
        write_later(tmp_path, Inputs(written=("log",)))
        (only,) = later_of(tmp_path)
        assert only.written == ("log",), "a run of another session may read it"
        shutil.rmtree(tmp_path / LATER)
        for inputs in (of_variable("1"), of_variable("1"), Inputs(untraced=("s",)), Inputs(untraced=("t",))):
            write_later(tmp_path, inputs)
        assert len(later_of(tmp_path)) == 3
        for file in (tmp_path / LATER).iterdir():
            assert LAYOUT.find("v2").find("0" * 32).find(LATER).find(file.name) is not None
            file.write_text("{}")
        assert {"file in the run store is damaged" in one.untraced[0] for one in later_of(tmp_path)} == {True}
