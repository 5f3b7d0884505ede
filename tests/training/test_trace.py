"""What a trace makes of what it is told: by which name a file counts, what is written, what is edited meanwhile."""

from __future__ import annotations

import importlib
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch.utils.data import DataLoader

from stabilitykit.store.traced_inputs import Inputs
from stabilitykit.training.tracing import traced
from tests.training.reading import Numbers, attached, read_in


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


class TestWritten:
    """What a training writes is no input of its later runs."""

    def test_files_and_variables_by_name(self, root, monkeypatch):
        monkeypatch.setenv("ACME_SET", "")

        def read():
            (root / "log.txt").write_text("a")
            (root / "draft").write_text("a")
            (root / "draft").replace(root / "whole")
            (root / "whole").read_text()
            os.environ["ACME_SET"] = "1"

        inputs = read_in(root, read)
        assert inputs == Inputs(written=("variable ACME_SET", "draft", "log.txt", "whole"))


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
