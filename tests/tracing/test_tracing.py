"""What a training reads while it trains is seen: files, folders, variables and modules, by whoever reads for it."""

from __future__ import annotations

import argparse
import builtins
import ctypes
import getpass
import importlib
import importlib.util
import json
import multiprocessing
import os
import pickle
import pydoc
import shutil
import socket
import sqlite3
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import ChainMap
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store import imported_variables
from stabilitykit.store.traced_inputs import ABSENT, Inputs, path_digest
from stabilitykit.tracing import variables
from stabilitykit.tracing.tracing import traced
from stabilitykit.tracing.variables import put_back
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask
from stabilitykit.training.trainer import Trainer
from tests.tracing.reading import Numbers, attached, read_in, run_in_thread


def pickled_numbers(root):
    np.save(root / "x.npy", np.zeros(3))
    torch.save([torch.zeros(3)], root / "x.pt")


#: Ways to read config.json, each as a user would write it.
READS = {
    "open": lambda path: path.open().close(),
    "read_text": lambda path: path.read_text(),
    "relative": lambda path: open(os.path.relpath(path)).close(),  # noqa: PTH123  # as users do
    "os.open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "bytes": lambda path: open(os.fsencode(path), "rb").close(),  # noqa: PTH123  # as users do
    "genfromtxt": lambda path: np.genfromtxt(path, delimiter=","),
    "memmap": lambda path: np.memmap(path, mode="r"),
    "in a thread": lambda path: run_in_thread(path.read_text),
    "by a string of code": lambda path: exec("open(path).close()", {"path": path}),
    "in a worker": lambda path: list(DataLoader(Numbers(path), num_workers=1)),
    "database": lambda path: sqlite3.connect(path).close(),
    "database of a URI": lambda path: sqlite3.connect(f"file:{path}?mode=ro", uri=True).close(),
    "database of a keyword": lambda path: sqlite3.connect(database=f"{path}").close(),
    "attached": lambda path: attached(path, "attach '{path}' as one"),
    "attached URI": lambda path: attached(path, "ATTACH DATABASE 'file:{path}?mode=ro' AS one"),
    "attached by a parameter": lambda path: attached(path, "attach database ? as one", str(path)),
    "library": lambda path: loaded(f"{path}"),
}


def loaded(path):
    with pytest.raises(OSError, match=r"config\.json"):  # it is no library, which is seen when it is opened
        ctypes.CDLL(path)


@pytest.mark.filterwarnings("ignore:genfromtxt")
@pytest.mark.parametrize("way", READS)
def test_a_file_is_seen_however_it_is_read(root, way):
    inputs = read_in(root, lambda: READS[way](root / "config.json"))
    assert list(inputs.files) == ["config.json"]
    assert inputs.changed(root) == ()
    (root / "config.json").write_text("[1]")
    assert inputs.changed(root) == ("file config.json (edited)",)


@pytest.mark.parametrize("name", ["x.npy", "x.pt"])
def test_what_libraries_read_for_their_caller_is_seen(root, name):
    pickled_numbers(root)
    load = {"x.npy": np.load, "x.pt": partial(torch.load, weights_only=True)}[name]
    assert list(read_in(root, lambda: load(root / name)).files) == [name]


def test_a_file_that_is_not_there_is_an_input(root):
    def read():
        (root / "local.json").exists()
        with pytest.raises(FileNotFoundError):
            (root / "local.json").read_text()

    inputs = read_in(root, read)
    assert inputs.changed(root) == ()
    (root / "local.json").write_text("{}")
    assert inputs.changed(root) == ("file local.json (new)",)


@pytest.mark.parametrize(
    "listing",
    [
        os.listdir,
        lambda path: os.scandir(path).close(),
        lambda path: list(path.glob("*.json")),
        lambda p: list(p.iterdir()),
    ],
)
def test_the_names_in_a_folder_are_an_input(root, listing):
    (root / "data").mkdir()
    inputs = read_in(root, lambda: listing(root / "data"))
    assert list(inputs.files) == ["data/"]
    (root / "data" / "more.json").write_text("")
    assert inputs.changed(root) == ("folder data/ (other names in it)",)


def test_the_folder_of_the_project_itself_has_a_name(root):
    inputs = read_in(root, lambda: os.listdir(root))  # noqa: PTH208  # what users write
    assert list(inputs.files) == ["./"]
    assert inputs.changed(root) == ()
    (root / "another.txt").touch()
    assert inputs.changed(root) == ("folder ./ (other names in it)",)


def import_setting(root, monkeypatch, statement):
    """Import ``acme_sets``, which sets a variable; it is forgotten after the test."""
    monkeypatch.delenv("ACME_IMPORTED", raising=False)
    (root / "acme_sets.py").write_text(f"import os\n{statement}\n")
    monkeypatch.setitem(sys.modules, "acme_sets", sys)
    monkeypatch.delitem(sys.modules, "acme_sets")
    with put_back():
        importlib.import_module("acme_sets")


class TestVariables:
    @pytest.mark.parametrize(
        "read",
        [
            lambda: os.environ.get("ACME_RATE"),
            lambda: os.getenv("ACME_RATE", "1"),
            lambda: "ACME_RATE" in os.environ,
            lambda: os.environb.get(b"ACME_RATE"),
            lambda: os.environ.setdefault("ACME_RATE", "2"),
        ],
    )
    def test_a_read_is_seen_and_no_value_is_kept(self, root, monkeypatch, read):
        monkeypatch.setenv("ACME_RATE", "secret-0.25")
        inputs = read_in(root, read)
        assert list(inputs.variables) == ["ACME_RATE"]
        assert "secret" not in json.dumps(inputs.to_json())
        assert inputs.changed(root) == ()
        monkeypatch.setenv("ACME_RATE", "0.5")
        assert inputs.changed(root) == ("variable ACME_RATE",)
        monkeypatch.delenv("ACME_RATE")
        assert inputs.changed(root) == ("variable ACME_RATE",)

    def test_one_that_is_missing_is_an_input(self, root, monkeypatch):
        inputs = read_in(root, lambda: os.environ.get("ACME_RATE"))
        assert inputs.changed(root) == ()
        monkeypatch.setenv("ACME_RATE", "1")
        assert inputs.changed(root) == ("variable ACME_RATE",)

    def test_what_the_training_itself_sets_is_none(self, root, monkeypatch):
        monkeypatch.setenv("ACME_OWN", "0")

        def read():
            os.environ["ACME_OWN"] = "1"
            assert os.environ["ACME_OWN"] == "1"

        assert read_in(root, read).variables == {}

    def test_what_torch_reads_for_itself_is_none(self, root):
        def read():
            torch.hub.get_dir()
            torch.utils.data.DataLoader([1])

        assert read_in(root, read).variables == {}

    @pytest.fixture
    def installed(self, tmp_path, monkeypatch):
        """A package in site-packages that reads a variable when it is imported, and one for its caller."""
        folder = tmp_path / "site-packages"
        folder.mkdir()
        source = "import os\nHOME = os.environ.get('ACME_HOME')\ndef config(name): return os.environ.get(name)\n"
        (folder / "acme_settings.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        yield
        sys.modules.pop("acme_settings", None)

    def test_what_a_library_reads_for_its_caller_is_seen_and_not_what_it_reads_for_itself(self, root, installed):
        inputs = read_in(root, lambda: importlib.import_module("acme_settings").config("ACME_RATE"))
        assert list(inputs.variables) == ["ACME_RATE"]
        assert (inputs.files, inputs.modules) == ({}, {})

    def test_one_that_it_sets_unless_it_is_set_counts_as_it_was(self, root, monkeypatch):
        monkeypatch.delenv("ACME_OWN", raising=False)

        def read():
            os.environ.setdefault("ACME_OWN", "1")
            assert os.environ["ACME_OWN"] == "1"

        with put_back():
            inputs = read_in(root, read)
        assert dict(inputs.variables) == {"ACME_OWN": ABSENT}
        assert inputs.changed(root) == ()

    @pytest.mark.parametrize(("reads", "digest"), [("acme_sets", ABSENT), ("os", path_digest("1"))])
    def test_one_that_an_import_has_set_counts_as_it_was_for_what_imports_that_too(
        self, root, monkeypatch, reads, digest
    ):
        import_setting(root, monkeypatch, "os.environ.setdefault('ACME_IMPORTED', '1')")
        inputs = read_in(root, lambda: (importlib.import_module(reads), os.environ["ACME_IMPORTED"]))
        assert dict(inputs.variables) == {"ACME_IMPORTED": digest}
        assert inputs.changed(root) == ()
        monkeypatch.setenv("ACME_IMPORTED", "2")
        assert inputs.changed(root) == ("variable ACME_IMPORTED",)
        monkeypatch.delenv("ACME_IMPORTED")
        assert inputs.changed(root) == ("variable ACME_IMPORTED",)  # the import is over
        monkeypatch.delitem(sys.modules, "acme_sets")
        assert inputs.changed(root) == (("variable ACME_IMPORTED",) if reads == "os" else ())  # as in a new process

    def test_one_that_a_test_removes_after_an_import_has_set_it_is_another_one(self, root, monkeypatch):
        import_setting(root, monkeypatch, "os.environ['ACME_IMPORTED'] = '1'")

        def inputs():
            return read_in(root, lambda: (importlib.import_module("acme_sets"), os.environ.get("ACME_IMPORTED")))

        kept = inputs()
        monkeypatch.delenv("ACME_IMPORTED")
        removed = inputs()
        assert (removed.changed(root), kept.changed(root)) == ((), ("variable ACME_IMPORTED",))
        monkeypatch.setenv("ACME_IMPORTED", "1")
        assert (removed.changed(root), kept.changed(root)) == (("variable ACME_IMPORTED",), ())

    def test_one_that_another_training_has_set_counts_as_unset_and_is_said(self, root, monkeypatch):
        monkeypatch.delenv("ACME_ONCE", raising=False)
        monkeypatch.setattr(variables, "_shared", {})

        def set_up():
            os.environ["ACME_ONCE"] = "1"

        def read():
            with put_back(max):
                assert os.environ["ACME_ONCE"] == "1"

        with put_back(object()):
            set_up()
        inputs = read_in(root, read)
        assert dict(inputs.variables) == {"ACME_ONCE": ABSENT}
        assert inputs.untraced == (
            "It reads variable ACME_ONCE, which the training of another task has set, once in this process.",
        )

    @pytest.mark.parametrize("name", ["environ", "environb"])
    def test_variables_that_a_test_replaces_count_as_a_whole(self, root, monkeypatch, name):
        usual = read_in(root, lambda: None)
        key, tests, *values = (
            ("ACME", "PYTEST_X", "1", "2") if name == "environ" else (b"ACME", b"PYTEST_X", b"1", b"2")
        )
        monkeypatch.setattr(os, name, {key: values[0], tests: values[0]})
        inputs = read_in(root, lambda: getattr(os, name)[key])
        assert list(inputs.variables) == ["os.environ"]
        assert (inputs.changed(root), usual.changed(root)) == ((), ())
        monkeypatch.setattr(os, name, {key: values[1]})
        assert inputs.changed(root) == ("variable os.environ",)
        monkeypatch.setattr(os, name, {key: values[0]})
        assert inputs.changed(root) == ()
        monkeypatch.undo()
        assert inputs.changed(root) == ("variable os.environ",)

    @pytest.mark.parametrize("place", ["os.environ", "os.environ.get"])
    def test_a_mock_in_the_place_of_the_variables_never_counts_as_another_or_itself(self, root, place):
        with mock.patch(place):
            inputs = read_in(root, lambda: None)
            assert inputs.changed(root) == ("variable os.environ",)
        assert inputs.changed(root) == ("variable os.environ",)

    def test_one_that_was_read_counts_as_it_is_there_and_in_what_replaces_the_variables(self, root, monkeypatch):
        monkeypatch.setenv("ACME", "1")
        inputs = read_in(root, lambda: os.environ["ACME"])
        with mock.patch("os.environ", {"ACME": "1"}):
            assert inputs.changed(root) == ()
            monkeypatch.setitem(imported_variables.ENVIRON, "ACME", "2")
            assert inputs.changed(root) == ("variable ACME",)
        with mock.patch("os.environ", {"ACME": "1"}):
            assert inputs.changed(root) == ("variable ACME",)

    @pytest.mark.parametrize(
        "look",
        [
            lambda: subprocess.run(["true"], check=True),
            lambda: argparse.ArgumentParser().parse_args([]),
            shutil.get_terminal_size,
            getpass.getuser,
            lambda: shutil.which("true"),
            urllib.request.getproxies_environment,
            tempfile._candidate_tempdir_list,
            lambda: "PYTEST_CURRENT_TEST" in os.environ,
        ],
    )
    def test_what_python_looks_up_by_itself_is_none(self, root, look):
        assert read_in(root, look).variables == {}

    @pytest.mark.parametrize(
        ("read", "name"),
        [
            (lambda: os.path.expandvars("$ACME_RATE/x"), "ACME_RATE"),
            (lambda: string.Template("$ACME_RATE").substitute(os.environ), "ACME_RATE"),
            (lambda: ChainMap({}, os.environ)["ACME_RATE"], "ACME_RATE"),
            (lambda: "{ACME_RATE}".format_map(os.environ), "ACME_RATE"),
            (lambda: "ACME_RATE" in os.environ.keys(), "ACME_RATE"),  # noqa: SIM118  # what users write
            (lambda: list(ThreadPoolExecutor(1).map(os.getenv, ["ACME_RATE"])), "ACME_RATE"),
            (Path.home, "HOME"),
            (lambda: Path("~/x").expanduser(), "HOME"),
            (lambda: os.environ.get("PATH"), "PATH"),
        ],
    )
    def test_what_python_looks_up_by_a_name_of_the_user_is_one(self, root, monkeypatch, read, name):
        monkeypatch.setenv("ACME_RATE", "1")
        inputs = read_in(root, read)
        assert (list(inputs.variables), inputs.untraced) == ([name], ())

    @pytest.mark.parametrize(
        "read",
        [
            lambda: dict(os.environ),
            lambda: {**os.environ, "ACME_X": "1"},
            os.environ.copy,
            lambda: os.environ | {"ACME_X": "1"},
            lambda: {"ACME_X": "1"} | os.environ,
            lambda: list(os.environ),
            lambda: sorted(os.environ.items()),
            lambda: [value for name, value in os.environ.items() if name.startswith("ACME_")],
            lambda: list(os.environ.values()),
            lambda: dict(ChainMap({}, os.environ)),
            lambda: dict(os.environb),
            lambda: "{HOME}".format(**os.environ),  # what users write
            mock.patch.dict(os.environ, {"ACME_X": "1"})(lambda: None),
        ],
    )
    def test_reading_all_of_them_is_said_and_makes_none_an_input(self, root, read):
        inputs = read_in(root, read)
        assert inputs == Inputs(untraced=("It reads all environment variables at once: they are not traced.",))

    @pytest.mark.parametrize(
        "read",
        [
            lambda: (os.environ.copy(), os.environ.get("ACME_RATE")),
            mock.patch.dict(os.environ, {"ACME_X": "1"})(lambda: os.environ["ACME_RATE"]),
            lambda: (mock.patch.dict(os.environ, {"ACME_X": "1"})(lambda: None)(), os.environ["ACME_RATE"]),
            lambda: [os.environ[name] for name in os.environ if name == "ACME_RATE"],
        ],
    )
    def test_one_that_is_read_by_its_name_beside_all_counts(self, root, monkeypatch, read):
        monkeypatch.setenv("ACME_RATE", "1")
        assert list(read_in(root, read).variables) == ["ACME_RATE"]

    def test_the_environment_is_as_it_was_afterwards(self, root):
        kind, kept = type(os.environ), os.environ
        with pytest.raises(ZeroDivisionError), traced(root):
            self.divide_by_zero()
        assert (type(os.environ), type(os.environb), os.environ) == (kind, kind, kept)

    def divide_by_zero(self):
        assert type(os.environ) is not os._Environ
        raise ZeroDivisionError


class TestVariablesOfLibraries:
    """A variable by which a library finds the user's files counts, and no other of a library."""

    @pytest.fixture
    def hub(self, root, tmp_path_factory, monkeypatch):
        """Two folders of the user, outside the project and the folder for temporary files, each with a file."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        places = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
        for place in places:
            (place / "hub").mkdir()
            (place / "hub" / "scale.txt").write_text(place.name)
        for name in ("TORCH_HOME", "TORCH_HUB", "SCIKIT_LEARN_DATA"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", tempfile.gettempdir())
        time.sleep(0.02)  # what is written while it trains is no input
        return places

    def read_scale(self):
        file = Path(torch.hub.get_dir()) / "scale.txt"
        return file.read_text() if file.exists() else ""

    def test_by_its_path(self, root, hub, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(hub[0]))
        inputs = read_in(root, self.read_scale)
        assert (list(inputs.variables), len(inputs.files)) == (["TORCH_HOME"], 1)
        assert inputs.changed(root) == ()
        monkeypatch.setenv("TORCH_HOME", str(hub[1]))
        assert inputs.changed(root) == ("variable TORCH_HOME",)

    def test_by_a_path_from_the_working_folder(self, root, hub, monkeypatch):
        monkeypatch.chdir(hub[0].parent)
        monkeypatch.setenv("TORCH_HOME", hub[0].name)
        assert list(read_in(root, self.read_scale).variables) == ["TORCH_HOME"]

    def test_by_its_name_if_it_is_not_set(self, root, hub, monkeypatch):
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(hub[0]))
        (hub[0] / ".cache" / "torch").mkdir(parents=True)
        (hub[0] / "hub").rename(hub[0] / ".cache" / "torch" / "hub")
        inputs = read_in(root, self.read_scale)
        assert sorted(inputs.variables) == ["HOME", "TORCH_HOME", "XDG_CACHE_HOME"]
        monkeypatch.setenv("TORCH_HOME", str(hub[1]))
        assert inputs.changed(root) == ("variable TORCH_HOME",)

    def test_of_another_library(self, root, hub, monkeypatch):
        datasets = pytest.importorskip("sklearn.datasets")
        monkeypatch.setenv("SCIKIT_LEARN_DATA", str(hub[0]))

        def read():
            (Path(datasets.get_data_home()) / "hub" / "scale.txt").read_text()

        inputs = read_in(root, read)
        assert list(inputs.variables) == ["SCIKIT_LEARN_DATA"]

    @pytest.mark.parametrize("name", ["TORCH_HOME", "HOME"])
    def test_no_file_lies_there(self, root, hub, monkeypatch, name):
        monkeypatch.setenv(name, str(root.parent))  # the project's own files are found without it
        inputs = read_in(root, lambda: (torch.hub.get_dir(), (root / "config.json").read_text()))
        assert (list(inputs.files), dict(inputs.variables)) == (["config.json"], {})

    def test_a_temporary_path_is_none(self, root, hub, monkeypatch):
        monkeypatch.setattr(tempfile, "tempdir", str(hub[0].parent))
        monkeypatch.setenv("TORCH_HOME", str(hub[0]))
        assert read_in(root, self.read_scale).variables == {}

    def test_what_it_reads_when_it_is_imported_or_for_its_kernels_is_none(self, root, hub, tmp_path, monkeypatch):
        folder = tmp_path / "site-packages" / "triton"
        folder.mkdir(parents=True)
        source = "import os\nos.environ.get('ACME_DATA_HOME')\ndef find(name): return os.environ.get(name)\n"
        (folder / "acme.py").write_text(source)
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        monkeypatch.setenv("ACME_DATA_HOME", str(hub[0]))
        monkeypatch.setenv("ACME_CACHE_DIR", str(hub[0]))

        def read(name):
            module = importlib.import_module("acme")
            return module.find(name), (hub[0] / "hub" / "scale.txt").read_text()

        for name in ("ACME_CACHE_DIR", "ACME_LOGS"):
            assert read_in(root, partial(read, name)).variables == {}
            del sys.modules["acme"]
        assert list(read_in(root, partial(read, "ACME_DATA_HOME")).variables) == ["ACME_DATA_HOME"]
        del sys.modules["acme"]


class TestModules:
    def test_one_that_is_imported_in_the_block_counts_by_its_source(self, root):
        def read():
            import acme_traced.layers  # noqa: F401  # as users do

        inputs = read_in(root, read)
        assert list(inputs.modules) == ["acme_traced", "acme_traced.layers"]
        assert inputs.files == {}
        assert inputs.changed(root) == ()
        (root / "acme_traced" / "layers.py").write_text("WIDTH = 8\n")
        assert inputs.changed(root) == ("module acme_traced.layers",)
        (root / "acme_traced" / "layers.py").unlink()
        assert inputs.changed(root) == ("module acme_traced.layers (gone)",)

    def test_one_that_was_loaded_before_is_seen_when_it_is_asked_for_by_a_name(self, root):
        importlib.import_module("acme_traced.layers")
        inputs = read_in(root, lambda: importlib.import_module("acme_traced.layers"))
        assert list(inputs.modules) == ["acme_traced.layers"]

    #: Ways to come by a module that another test has loaded, each by a name that no reader of the code sees.
    BY_NAME: ClassVar = {
        "import_module": lambda name, _: importlib.import_module(name),
        "__import__": lambda name, _: __import__(name),
        "a part of a package": lambda name, _: __import__(name.rpartition(".")[0], fromlist=[name.rpartition(".")[2]]),
        "pydoc": lambda name, _: pydoc.locate(f"{name}.Sized"),
        "exec": lambda name, _: exec(f"import {name}"),
        "in a thread": lambda name, _: run_in_thread(partial(__import__, name)),
        "pickle": lambda _, root: pickle.loads((root / "sized.pkl").read_bytes()),
        "pickle in Python": lambda _, root: pickle._loads((root / "sized.pkl").read_bytes()),
        "torch.load": lambda _, root: torch.load(root / "sized.pt", weights_only=False),
    }

    @pytest.mark.parametrize("way", BY_NAME)
    def test_one_that_was_loaded_before_is_seen_however_it_is_come_by(self, root, way):
        (root / "acme_traced" / "layers.py").write_text("class Sized: pass\n")
        sized = importlib.import_module("acme_traced.layers").Sized()
        (root / "sized.pkl").write_bytes(pickle.dumps(sized))
        torch.save(sized, root / "sized.pt")
        inputs = read_in(root, lambda: self.BY_NAME[way]("acme_traced.layers", root))
        assert "acme_traced.layers" in inputs.modules
        (root / "acme_traced" / "layers.py").write_text("class Sized: width = 8\n")
        assert "module acme_traced.layers" in inputs.changed(root)

    def test_one_that_is_not_there_is_an_input(self, root, monkeypatch):
        def read():
            for load in (importlib.import_module, __import__):
                with pytest.raises(ImportError):
                    load("acme_traced." + "more")

        inputs = read_in(root, read)
        assert inputs.modules["acme_traced.more"] == ABSENT
        assert inputs.changed(root) == ()
        (root / "acme_traced" / "more.py").write_text("")
        importlib.invalidate_caches()
        assert inputs.changed(root) == ("module acme_traced.more (new)",)

    @pytest.mark.parametrize(("file", "names"), [(torch.__file__, []), (__file__, ["acme_none"])])
    def test_one_that_a_library_looks_for_in_vain_is_none(self, root, file, names):
        def read():
            with pytest.raises(ImportError):
                exec(compile("import acme_none", file, "exec"))

        assert list(read_in(root, read).modules) == names

    def test_imports_are_as_they_were_afterwards(self, root):
        before = builtins.__import__, importlib._bootstrap._gcd_import, sqlite3.connect, os.getcwd, os.getcwdb
        read_in(root, lambda: None)
        assert before == (
            builtins.__import__, importlib._bootstrap._gcd_import, sqlite3.connect, os.getcwd, os.getcwdb
        )  # fmt: skip

    def test_a_script_that_is_loaded_by_its_path_is_a_file(self, root):
        def read():
            spec = importlib.util.spec_from_file_location("any", root / "acme_traced" / "layers.py")
            spec.loader.exec_module(importlib.util.module_from_spec(spec))

        for _ in range(2):  # the second time from its compiled file
            assert list(read_in(root, read).files) == ["acme_traced/layers.py"]

    def test_a_resource_of_a_package_is_a_file(self, root):
        def read():
            import pkgutil

            pkgutil.get_data("acme_traced", "sizes.json")

        assert list(read_in(root, read).files) == ["acme_traced/sizes.json"]

    def test_installed_ones_count_by_version_elsewhere(self, root):
        sys.modules.pop("sklearn.calibration", None)
        assert read_in(root, lambda: importlib.import_module("sklearn.calibration")).modules == {}


class TestUntraced:
    def test_a_program(self, root):
        assert read_in(root, lambda: subprocess.run(["true"], check=True)).untraced == (
            "It starts another program (true): what that reads is not traced.",
        )

    def test_the_network(self, root):
        def read():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.1", 1))

        assert read_in(root, read).untraced == ("It reads the network (127.0.0.1:1): what is answered is not traced.",)

    def test_processes_that_are_not_forked(self, root):
        def read():
            list(DataLoader(Numbers(root / "config.json"), num_workers=1, multiprocessing_context="spawn"))

        assert read_in(root, read).untraced == ("It starts other processes (spawn): what these read is not traced.",)

    def test_processes_that_live_longer_than_one_training(self, root):
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert read_in(root, lambda: pool.apply(len, ["abc"])).untraced == (
                "Other processes were there before it (ForkProcess): what they read is not traced.",
            )

    def test_workers_that_a_loader_keeps(self, root):
        loader = DataLoader(Numbers(root / "config.json"), num_workers=1, persistent_workers=True)
        assert read_in(root, lambda: list(loader)).untraced == ()
        said = read_in(root, lambda: list(loader)).untraced
        assert [sentence.partition("(")[0] for sentence in said] == ["Other processes were there before it "]
        loader._iterator._shutdown_workers()

    def test_a_library_that_wrote_without_python(self, root):
        def read():
            subprocess.run(["cp", root / "config.json", root / "copy.json"], check=True)
            (root / "copy.json").read_text()

        assert read_in(root, read).untraced[1:] == (
            "The file copy.json was written while it trained: it is not traced.",
        )


def test_workers_of_a_loader_are_traced(root):
    inputs = read_in(root, lambda: list(DataLoader(Numbers(root / "config.json"), num_workers=2)))
    assert (list(inputs.files), list(inputs.variables), inputs.untraced) == (["config.json"], ["ACME_WORKER"], ())


def test_a_worker_that_outlives_the_block_goes_on(root):
    loader = DataLoader(Numbers(root / "config.json"), num_workers=1, persistent_workers=True)
    inputs = read_in(root, lambda: list(loader))
    (root / "config.json").write_text("[1]")
    assert [int(item) for item in loader] == [3, 4, 5, 6]
    assert list(inputs.files) == ["config.json"]


def test_blocks_may_lie_in_one_another(root):
    time.sleep(0.02)
    with traced(root) as outer:
        (root / "config.json").read_text()
        with traced(root) as inner:
            os.environ.get("ACME_RATE")
    assert (list(outer.inputs().files), list(outer.inputs().variables)) == (["config.json"], ["ACME_RATE"])
    assert (dict(inner.inputs().files), list(inner.inputs().variables)) == ({}, ["ACME_RATE"])


def test_the_inputs_are_known_when_the_block_is_over(root):
    with traced(root) as trace, pytest.raises(RuntimeError, match="still runs"):
        trace.inputs()


def test_an_error_of_the_users_is_his_own(root):
    with traced(root), pytest.raises(FileNotFoundError, match="nowhere"):
        open("nowhere\udcff")  # noqa: SIM115, PTH123  # a name that is no text


@pytest.mark.trains
@pytest.mark.parametrize("vary", ["init", "low_level"])
def test_a_training_that_reads_nothing_has_no_inputs(tmp_path, vary):
    x = torch.arange(48.0).reshape(12, 4) / 48
    recipe = Recipe(
        model=lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)),
        train=(x, torch.arange(12) % 3),
        test=(x, torch.arange(12) % 3),
        epochs=2,
        batch_size=4,
        optimizer=lambda model: torch.optim.Adam(model.parameters()),
    )
    trainer = Trainer(recipe, "cpu", 1, tmp_path)
    inputs = read_in(tmp_path, lambda: trainer.train_once(NoiseProtocol(vary, runs=2).plans()[0]))
    assert inputs == Inputs()


@pytest.mark.trains
def test_the_settings_that_a_train_function_reads_are_its_inputs(root, monkeypatch):
    monkeypatch.setenv("ACME_WIDTH", "8")

    def train(run):
        settings = json.loads((root / "config.json").read_text())
        with run.stream("init"):
            model = nn.Linear(4, int(os.environ.get("ACME_WIDTH", settings.get("width"))))
        run.perturb(model)
        for _ in run.epochs(1):
            for x, _ in run.batches((torch.ones(4, 4), torch.zeros(4)), batch_size=2):
                model(x)
        return model(torch.ones(6, 4))

    trainer = Trainer(LoopTask(train, torch.arange(6) % 3), "cpu", 1, root)
    inputs = read_in(root, lambda: trainer.train_once(NoiseProtocol("init", runs=2).plans()[0]))
    assert (list(inputs.files), list(inputs.variables), inputs.untraced) == (["config.json"], ["ACME_WIDTH"], ())
