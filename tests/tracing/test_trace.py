"""What a trace makes of what it is told: by which name a file counts, what is written, what is edited meanwhile."""

from __future__ import annotations

import importlib
import json
import logging.handlers
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import ClassVar

import numpy
import pytest
import torch
from torch.utils.data import DataLoader

from stabilitykit.store.traced_inputs import Inputs
from stabilitykit.tracing.tracing import traced
from tests.tracing.reading import Appending, Numbers, attached, read_in, run_in_thread


class TestWorkingFolder:
    """A relative path is a question to the working folder, whichever that is when the question is asked again."""

    @pytest.fixture
    def folders(self, root, monkeypatch):
        for name, text in {"one": "1", "two": "2", "same": "1"}.items():
            (root / name / "in").mkdir(parents=True)
            (root / name / "cfg.json").write_text(text)
            (root / name / "in" / "cfg.json").write_text(text)
        (root / "none").mkdir()
        monkeypatch.chdir(root / "one")
        return root

    @staticmethod
    def move_and_read(_):
        os.chdir("in")
        Path("cfg.json").read_text()
        os.chdir("..")

    WAYS: ClassVar = {
        "open": lambda _: open("cfg.json").close(),  # noqa: PTH123  # as users do
        "above": lambda _: Path("in/../cfg.json").read_text(),
        "bytes": lambda _: open(b"cfg.json").close(),  # noqa: PTH123  # as users do
        "abspath": lambda _: open(os.path.abspath("cfg.json")).close(),  # noqa: PTH123, PTH100  # as users do
        "cwd": lambda _: (Path.cwd() / "cfg.json").read_text(),
        "cwdb": lambda _: open(os.path.join(os.getcwdb(), b"cfg.json")).close(),  # noqa: PTH123, PTH118, PTH109  # as users do
        "resolve": lambda _: Path("cfg.json").resolve().read_text(),
        "in a worker": lambda _: list(DataLoader(Numbers(Path("cfg.json")), num_workers=1)),
        "moved": move_and_read,
        "database": lambda _: sqlite3.connect("cfg.json").close(),
    }

    @pytest.mark.parametrize("way", WAYS)
    def test_another_folder_is_another_file(self, folders, monkeypatch, way):
        inputs = read_in(folders, lambda: self.WAYS[way](folders))
        assert inputs.changed(folders) == ()
        monkeypatch.chdir(folders / "two")
        (said,) = inputs.changed(folders)
        assert "cfg.json (edited, seen from another working folder)" in said
        monkeypatch.chdir(folders / "none")
        (said,) = inputs.changed(folders)
        assert "cfg.json (gone, seen from another working folder)" in said
        monkeypatch.chdir(folders / "same")
        assert inputs.changed(folders) == ()

    def test_one_content_in_two_folders_is_one_key(self, folders, monkeypatch):
        digests = set()
        for name in ("one", "same", "two"):
            monkeypatch.chdir(folders / name)
            digests.add(read_in(folders, lambda: Path("cfg.json").read_text()).digest)
        assert len(digests) == 2

    def test_in_the_rootdir_it_is_as_by_its_place(self, folders, monkeypatch):
        monkeypatch.chdir(folders)
        by_place = read_in(folders, (folders / "one/cfg.json").read_text)
        relative = read_in(folders, lambda: Path("one/cfg.json").read_text())
        assert (relative.files, relative.digest) == (by_place.files, by_place.digest)

    def test_a_folder_is_seen_from_there(self, folders, monkeypatch):
        (folders / "two" / "more").touch()
        inputs = read_in(folders, lambda: os.listdir("."))  # noqa: PTH208  # as users do
        monkeypatch.chdir(folders / "same")
        assert inputs.changed(folders) == ()
        monkeypatch.chdir(folders / "two")
        assert inputs.changed(folders) == ("folder ./ (other names in it, seen from another working folder)",)

    def test_a_file_by_its_place_is_no_other_file(self, folders, monkeypatch):
        inputs = read_in(folders, (folders / "one/cfg.json").read_text)
        monkeypatch.chdir(folders / "two")
        assert inputs.changed(folders) == ()

    def test_a_training_that_goes_to_an_absolute_place_is_there_the_next_time(self, folders, monkeypatch):
        def read():
            back = os.getcwd()  # noqa: PTH109  # as users do
            os.chdir(folders / "same")
            Path("cfg.json").read_text()
            os.chdir(back)

        inputs = read_in(folders, read)
        monkeypatch.chdir(folders / "two")
        assert inputs.changed(folders) == ()

    def test_both_ways_count(self, folders, monkeypatch):
        def read():
            Path("cfg.json").read_text()
            (folders / "one/cfg.json").read_text()

        inputs = read_in(folders, read)
        monkeypatch.chdir(folders / "same")
        assert inputs.changed(folders) == ()
        (folders / "one/cfg.json").write_text("3")
        assert inputs.changed(folders) == ("file one/cfg.json (edited)",)
        (folders / "one/cfg.json").write_text("1")
        monkeypatch.chdir(folders / "two")
        assert inputs.changed(folders) == ("file cfg.json (edited, seen from another working folder)",)

    def test_a_temporary_folder_that_is_made_anew(self, tmp_path, monkeypatch):
        project = tmp_path / "project"
        for name, text in {"one": "1", "again": "1", "other": "2", "empty": ""}.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / ("cfg.json" if text else "no.json")).write_text(text)
        monkeypatch.chdir(tmp_path / "one")
        inputs = read_in(project, lambda: Path("cfg.json").read_text())
        (tmp_path / "one" / "cfg.json").unlink()
        assert inputs.changed(project)
        (tmp_path / "one").rmdir()
        assert inputs.changed(project)
        for name, is_equal in {"again": True, "other": False, "empty": False}.items():
            monkeypatch.chdir(tmp_path / name)
            assert (not inputs.changed(project)) == is_equal

    @pytest.mark.parametrize(
        "ask",
        [
            lambda: logging.FileHandler("train.log", delay=True),
            lambda: logging.handlers.RotatingFileHandler("train.log", delay=True),
            lambda: tempfile.NamedTemporaryFile(dir="in").close() or tempfile.TemporaryDirectory(dir="in").cleanup(),
        ],
    )
    def test_python_asks_where_it_is_for_itself(self, folders, ask):
        def read():
            ask()
            (folders / "one" / "cfg.json").read_text()

        inputs = read_in(folders, read)
        assert (dict(inputs.relative), "one/cfg.json" in inputs.files) == ({}, True)


class TestNoInput:
    def test_what_the_training_has_written(self, root):
        def read():
            (root / "log.txt").write_text("a")
            (root / "log.txt").read_text()
            torch.save([1], root / "best.pt")
            torch.load(root / "best.pt", weights_only=True)
            with (root / "both").open("w+") as file:
                file.read()

        inputs = read_in(root, read)
        assert (dict(inputs.files), inputs.untraced) == ({}, ())

    def test_the_files_of_python_and_of_installed_packages(self, root):
        def read():
            for file in (os.__file__, torch.__file__, "/proc/self/status", "/dev/null"):
                with open(file, "rb") as opened:  # noqa: PTH123  # names of any kind
                    opened.read(1)

        assert read_in(root, read).files == {}

    def test_the_lines_of_a_warning(self, root):
        def read():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.formatwarning("look", UserWarning, str(root / "acme_traced" / "layers.py"), 1)

        assert read_in(root, read).files == {}

    def test_what_is_read_before_and_after_the_block(self, root):
        (root / "config.json").read_text()
        inputs = read_in(root, lambda: None)
        (root / "config.json").read_text()
        assert (inputs.files, inputs.variables, inputs.modules) == ({}, {}, {})


class TestDatabases:
    """A database is opened in one way for reading and for writing: what was written is known when the block is over."""

    SAID = "It writes to the database log.db: what it reads there is not traced."

    @staticmethod
    def log(root):
        connection = sqlite3.connect(root / "log.db")
        connection.execute("create table if not exists log (loss)")
        connection.execute("insert into log values (0.5)")
        connection.commit()
        connection.close()

    def test_one_that_the_training_makes_and_then_goes_on_with_is_no_input(self, root):
        for _ in range(2):
            time.sleep(0.02)
            with traced(root) as trace:
                self.log(root)
            assert (trace.changed_meanwhile, trace.inputs().files) == ((), {})
            assert (trace.inputs().untraced, trace.inputs().written) == ((self.SAID,), ("log.db",))

    def test_one_that_it_only_reads_is_an_input(self, root):
        self.log(root)
        inputs = read_in(root, lambda: attached(root / "log.db", "attach '{path}' as one"))
        assert (list(inputs.files), inputs.untraced) == (["log.db"], ())
        self.log(root)
        assert inputs.changed(root) == ("file log.db (edited)",)

    @pytest.mark.parametrize("name", [":memory:", "", "file::memory:", "file:one?mode=memory&cache=shared"])
    def test_one_in_memory_is_no_file(self, root, name):
        inputs = read_in(root, lambda: sqlite3.connect(name, uri=True).close())
        assert (inputs.files, inputs.untraced) == ({}, ())

    def test_a_wrong_call_is_the_users_own_error(self, root):
        with traced(root) as trace, pytest.raises(TypeError):
            sqlite3.connect()
        assert trace.inputs() == Inputs()


class TestReadAndWritten:
    """A file that a training reads and then writes itself has no content that could be compared: it is said."""

    @staticmethod
    def results(root):
        known = json.loads((root / "kept").read_text())
        (root / "kept").write_text(json.dumps([*known, 1]))

    @staticmethod
    def appended(root):
        (root / "kept").read_text()
        with (root / "kept").open("a") as file:
            file.write("1")

    @staticmethod
    def mapped(root):
        numpy.memmap(root / "kept", dtype="uint8", mode="r+", shape=(2,))[:] = 9

    @staticmethod
    def in_place(root):
        with (root / "kept").open("r+") as file:
            file.write("9")

    @staticmethod
    def read_after_append(root):
        with (root / "kept").open("a+") as file:
            file.seek(0)
            file.write(file.read())

    @staticmethod
    def replaced(root):
        (root / "draft").write_text((root / "kept").read_text() * 2)
        (root / "draft").replace(root / "kept")

    @staticmethod
    def best(root):
        torch.save((root / "kept").read_bytes(), root / "kept")

    @staticmethod
    def removed(root):
        (root / "kept").read_text()
        (root / "kept").unlink()

    @staticmethod
    def moved(root):
        (root / "kept").read_text()
        (root / "kept").rename(root / "old")

    @staticmethod
    def truncated(root):
        (root / "kept").read_text()
        os.truncate(root / "kept", 1)

    @staticmethod
    def saved_by_another_name(root):
        torch.serialization.save((root / "kept").read_bytes(), root / "kept")

    @staticmethod
    def linked(root):
        (root / "draft").write_text((root / "kept").read_text())
        (root / "kept").unlink()
        (root / "kept").symlink_to("draft")

    @staticmethod
    def hard_linked(root):
        (root / "draft").write_text((root / "kept").read_text() * 2)
        (root / "kept").unlink()
        (root / "kept").hardlink_to(root / "draft")

    @staticmethod
    def by_the_name_of_a_link(root):
        (root / "link").symlink_to(root)
        (root / "kept").read_text()
        (root / "link" / "kept").write_text("9")

    @staticmethod
    def in_a_worker(root):
        list(DataLoader(Appending(root / "kept"), num_workers=1))

    WAYS = (
        "results", "appended", "mapped", "in_place", "read_after_append", "replaced", "best", "removed", "moved",
        "truncated", "in_a_worker", "saved_by_another_name", "linked", "hard_linked", "by_the_name_of_a_link",
    )  # fmt: skip

    @pytest.mark.parametrize("size", [2, 100_000])
    @pytest.mark.parametrize("way", WAYS)
    def test_it_is_said_and_no_input(self, root, way, size):
        (root / "kept").write_text(f"[{'0' if size == 2 else ' ' * size}]")
        time.sleep(0.02)
        with traced(root) as trace:
            getattr(self, way)(root)
        inputs = trace.inputs()
        assert (trace.changed_meanwhile, dict(inputs.files)) == ((), {})
        assert inputs.untraced == ("It writes to kept: what it reads there is not traced.",)
        assert "kept" in inputs.written

    @pytest.mark.parametrize("mode", ["r+", "a", "a+", "w"])
    def test_one_that_holds_the_same_afterwards_too(self, root, mode):
        """The next run may find another content, since a rehearsal has written it meanwhile."""

        def read():
            text = (root / "kept").read_text()
            with (root / "kept").open(mode) as file:
                file.truncate(0)
                file.write(text)

        (root / "kept").write_text("1")
        inputs = read_in(root, read)
        assert inputs == Inputs(untraced=("It writes to kept: what it reads there is not traced.",), written=("kept",))

    @pytest.mark.parametrize("mode", ["r+", "a+"])
    def test_one_that_could_be_written_and_is_not_is_an_input(self, root, mode):
        (root / "kept").write_text("1")
        inputs = read_in(root, lambda: (root / "kept").open(mode).close())
        assert (list(inputs.files), inputs.untraced, inputs.written) == (["kept"], (), ())
        (root / "kept").write_text("2")
        assert inputs.changed(root) == ("file kept (edited)",)

    @pytest.mark.parametrize("mode", ["w+", "a+", "x+"])
    def test_one_that_it_makes_is_no_input(self, root, mode):
        def make():
            with (root / "made").open(mode) as file:
                file.write("1")
            (root / "made").read_text()

        assert read_in(root, make) == Inputs(written=("made",))

    @pytest.mark.parametrize("mode", ["a", "r+"])
    def test_one_that_another_process_edits_is_seen_where_it_was_only_read(self, root, mode):
        for name in ("kept", "read"):
            (root / name).write_text("1")
        time.sleep(0.02)
        with traced(root) as trace:
            for name in ("kept", "read"):
                (root / name).read_text()
            with (root / "kept").open(mode) as file:
                file.write("2")
            subprocess.run(["sh", "-c", f"echo 2 > {root / 'read'}"], check=True)
        assert trace.changed_meanwhile == ("file read",)


class TestFoldersWritten:
    """A folder that a training replaces, removes or links as a whole is written with all that is in it."""

    @staticmethod
    def replaced(root):
        (root / "new").mkdir()
        (root / "new" / "meta.json").write_text("2")
        shutil.rmtree(root / "out")
        (root / "new").rename(root / "out")

    @staticmethod
    def moved_away(root):
        (root / "out").rename(root / "old")
        (root / "out").mkdir()
        (root / "out" / "meta.json").write_text("2")

    @staticmethod
    def linked(root):
        (root / "exp2").mkdir()
        (root / "exp2" / "meta.json").write_text("2")
        shutil.rmtree(root / "out")
        (root / "out").symlink_to("exp2")

    @staticmethod
    def removed(root):
        shutil.rmtree(root / "out")

    @staticmethod
    def swapped(root):
        (root / "out").rename(root / "exp1")
        (root / "draft").symlink_to("exp1")
        (root / "draft").replace(root / "out")

    @pytest.mark.parametrize("way", ["replaced", "moved_away", "linked", "removed", "swapped"])
    def test_what_was_read_in_it_is_said(self, root, way):
        (root / "out").mkdir()
        (root / "out" / "meta.json").write_text("1")
        time.sleep(0.02)
        with traced(root) as trace:
            (root / "out" / "meta.json").read_text()
            getattr(self, way)(root)
        inputs = trace.inputs()
        assert (trace.changed_meanwhile, dict(inputs.files)) == ((), {})
        assert inputs.untraced == ("It writes to out/meta.json: what it reads there is not traced.",)
        assert "out/meta.json" in inputs.written

    @pytest.mark.parametrize("name", ["exp1", "exp1/meta.json"])
    @pytest.mark.parametrize(
        "link", [os.symlink, os.link, lambda target, path: Path(path).symlink_to(Path(target).name)]
    )
    def test_what_is_read_by_a_link_that_it_makes_is_read_where_that_leads(self, root, name, link):
        if link is os.link and name == "exp1":
            pytest.skip("a folder has no second name")
        (root / "exp1").mkdir()
        (root / "exp1" / "meta.json").write_text("1")

        def read():
            link(root / name, (root / name).with_name("now"))
            path = (root / name).with_name("now")
            (path / "meta.json" if path.is_dir() else path).read_text()

        inputs = read_in(root, read)
        assert list(inputs.files) == ["exp1/meta.json"]
        (root / "exp1" / "meta.json").write_text("2")
        assert inputs.changed(root) == ("file exp1/meta.json (edited)",)


class TestLinks:
    """A link of which the training asks for the target is an input: the path that comes of it names no link."""

    WAYS: ClassVar = {
        "resolve": lambda path: path.resolve(),
        "realpath": os.path.realpath,
        "readlink": lambda path: path.readlink(),
        "below": lambda path: (path / "c.json").resolve(),
        "through another": lambda path: path.with_name("other").resolve(),
        "in a thread": lambda path: run_in_thread(path.resolve),
    }

    @pytest.fixture
    def data(self, root):
        for name in ("v1", "v2"):
            (root / name).mkdir()
        (root / "data").symlink_to("v1")
        (root / "other").symlink_to("data")
        return root / "data"

    @staticmethod
    def lead(link, target):
        link.unlink()
        link.symlink_to(target)

    @pytest.mark.parametrize("way", WAYS)
    def test_it_counts_by_where_it_leads(self, root, data, way):
        inputs = read_in(root, lambda: self.WAYS[way](data))
        assert inputs.changed(root) == ()
        self.lead(data, "v2")
        assert inputs.changed(root) == ("link data (leads elsewhere)",)
        data.unlink()
        assert inputs.changed(root) == ("link data (gone)",)

    def test_one_asked_for_relative_to_the_working_folder(self, root, data, monkeypatch):
        for name in ("one", "two"):
            (root / name).mkdir()
            (root / name / "data").symlink_to(root / "v1")
        monkeypatch.chdir(root / "one")
        inputs = read_in(root, lambda: os.path.realpath("data"))
        monkeypatch.chdir(root / "two")
        assert inputs.changed(root) == ()
        self.lead(root / "two" / "data", root / "v2")
        assert inputs.changed(root) == ("link data (leads elsewhere, seen from another working folder)",)

    def test_one_that_it_leads_elsewhere_itself_is_said(self, root, data):
        def read():
            data.resolve()
            self.lead(data, "v2")

        inputs = read_in(root, read)
        said = ("It writes to data: what it reads there is not traced.",)
        assert (dict(inputs.files), inputs.untraced, inputs.unheard) == ({}, said, {})

    def test_one_that_another_program_leads_elsewhere_meanwhile(self, root, data):
        with traced(root) as trace:
            data.resolve()
            subprocess.run(["ln", "-sfn", "v2", str(data)], check=True)
        assert trace.changed_meanwhile == ("link data",)

    def test_one_to_the_project_itself_is_none(self, root, tmp_path_factory):
        link = tmp_path_factory.mktemp("home") / "project"
        link.symlink_to(root)
        assert read_in(root, (link / "config.json").resolve) == Inputs()

    def test_one_that_a_library_asks_for_is_none(self, root, data):
        code = compile("import os; os.path.realpath(path)", torch.__file__, "exec")
        assert read_in(root, lambda: exec(code, {"path": data})) == Inputs()


class TestWritten:
    """What a training writes is no input of its later runs."""

    def test_files_by_name(self, root):
        def read():
            (root / "log.txt").write_text("a")
            (root / "draft").write_text("a")
            (root / "draft").replace(root / "whole")
            (root / "whole").read_text()

        inputs = read_in(root, read)
        assert inputs == Inputs(written=("draft", "log.txt", "whole"))


class TestFilledFolders:
    """A folder that a training lists and fills counts without the names that it makes."""

    #: What is made in the listed folder by the training that is traced, and by another.
    MADE: ClassVar = {
        "uuid": ("0f3c2d1e-5b6a-4c7d-8e9f-0a1b2c3d4e5f/", "bd5f2c1e-cafe-4bad-beef-0a1b2c3d4ef6/"),
        "hex": ("0f3c2d1e5b6a4c7d8e9f0a1b2c3d4e5f/", "bd5f2c1ecafe4badbeef0a1b2c3d4ef6/"),
        "number": ("exp1/", "exp12/"),
        "version": ("version_0/", "version_1/"),
        "date": ("2026-11-30_12-00-01/", "2027-01-02_03-04-05/"),
        "run": ("run-20261130_120001-ab1c2d3e/", "run-20261130_120002-4fx2d3ea/"),
        "events": ("events.out.tfevents.1764503758.host.4711.0", "events.out.tfevents.1764503760.host.12.0"),
        "checkpoint": ("ckpt3.pt", "ckpt11.pt"),
        "fixed": ("cache.npy", "cache.npy"),
    }

    @staticmethod
    def fill(folder, name):
        folder.mkdir(exist_ok=True)
        os.listdir(folder)  # noqa: PTH208  # as users do
        if name.endswith("/"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "m.txt").write_text("1")
        else:
            (folder / name).write_text("1")
        list(folder.iterdir())

    @pytest.mark.parametrize("how", MADE)
    @pytest.mark.parametrize("is_there", [True, False])
    def test_what_other_trainings_make_there_is_no_change(self, root, how, is_there):
        mine, other = self.MADE[how]
        if is_there:
            self.fill(root / "out", mine)
        inputs = read_in(root, lambda: self.fill(root / "out", mine))
        assert list(inputs.files) == ["out/"]
        assert inputs.changed(root) == ()
        self.fill(root / "out", other)
        assert inputs.changed(root) == ()
        assert read_in(root, lambda: self.fill(root / "out", other)).digest == inputs.digest
        assert (root / "out").rename(root / "gone").exists()
        assert inputs.changed(root) == ()
        assert len(inputs.untraced) == (how != "fixed")

    @pytest.mark.parametrize("how", MADE)
    @pytest.mark.parametrize("new", ["img_0042.png", "dogs2/", "cats/", "later.npy"])
    def test_a_new_image_is_a_change(self, root, how, new):
        self.fill(root / "images", "img_0001.png")
        self.fill(root / "images", "dogs1/")
        inputs = read_in(root, lambda: self.fill(root / "images", self.MADE[how][0]))
        self.fill(root / "images", self.MADE[how][1])
        assert inputs.changed(root) == ()
        self.fill(root / "images", new)
        assert inputs.changed(root) == ("folder images/ (other names in it)",)

    def test_the_folder_around_it_is_no_folder_that_is_filled(self, root):
        (root / "images").mkdir()
        inputs = read_in(root, lambda: (os.listdir(root), (root / "images" / "cache.npy").write_text("1")))  # noqa: PTH208
        (root / "images2").mkdir()
        assert inputs.changed(root) == ("folder ./ (other names in it)",)

    def test_what_is_there_is_not_said_in_numbers(self, root):
        inputs = read_in(root, lambda: self.fill(root / "out", "exp1/"))
        assert inputs.untraced == ("It makes names like exp# in out/: which of these are there is not traced.",)


class TestChangedMeanwhile:
    @pytest.mark.parametrize("size", [2, 100_000])
    def test_a_file_that_is_edited_by_another_process(self, root, size):
        (root / "config.json").write_text("a" * size)
        time.sleep(0.02)
        with traced(root) as trace:
            (root / "config.json").read_text()
            subprocess.run(
                [sys.executable, "-c", f"open({str(root / 'config.json')!r}, 'w').write('b' * {size})"], check=True
            )
        assert trace.changed_meanwhile == ("file config.json",)
        assert trace.inputs().changed(root)

    def test_a_module(self, root):
        time.sleep(0.02)
        with traced(root) as trace:
            importlib.import_module("acme_traced.layers")
            subprocess.run(["sh", "-c", f"echo WIDTH = 16 > {root / 'acme_traced' / 'layers.py'}"], check=True)
        assert trace.changed_meanwhile == ("module acme_traced.layers",)

    def test_nothing(self, root):
        time.sleep(0.02)
        with traced(root) as trace:
            (root / "config.json").read_text()
            importlib.import_module("acme_traced.layers")
        assert trace.changed_meanwhile == ()
