"""Runs are found again only where everything that trains them is as it was: code, data, settings, libraries.

After public threads on caches that answered with yesterday's results, each with its link. Whatever is edited, the
next answer must be another one, and what is as it was must not be trained again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from stabilitykit.training.trainer import Trainer
from tests.conftest import recipe_of

pytestmark = pytest.mark.trains


def bits(study) -> list[str]:
    return [record.fingerprint for record in study.records]


# Settings that a training reads where it uses them


def loop(settings):
    """Train a network whose width is whatever ``settings()`` gives."""

    def train(run):
        width = int(settings())
        with run.stream("init"):
            model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
        run.perturb(model)
        for _ in run.epochs(1):
            pass
        return model(X)

    return train


X, Y = torch.randn(48, 6, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 3


def patched():
    with mock.patch.dict(os.environ, {"ACME_UNSET": "4"}):
        return os.environ["ACME_UNSET"]


class TestSettings:
    """A file or a variable that a training reads is part of what must match, whatever reads it when.

    https://github.com/ultralytics/ultralytics/pull/26207 (an edited data.yaml), https://github.com/calkit/calkit/issues/898
    (environment variables), https://github.com/joblib/joblib/issues/1533.
    """

    def test_an_edited_file_is_another_training_within_one_session(self, ask, tmp_path):
        config = tmp_path / "config.json"
        task = loop(lambda: json.loads(config.read_text())["width"])
        config.write_text('{"width": 4}')
        narrow = bits(ask(task, "init", labels=Y))
        config.write_text('{"width": 16}')
        wide = ask(task, "init", labels=Y)
        assert not set(narrow) & set(bits(wide))
        assert any("config.json" in note for note in wide.notes), wide.notes
        config.write_text('{"width": 4}')
        assert bits(ask(task, "init", labels=Y)) == narrow

    def test_and_so_is_a_variable(self, ask, monkeypatch):
        task = loop(lambda: os.environ.get("ACME_WIDTH", "4"))
        found = {}
        for width in ("8", "32", None, "8"):
            monkeypatch.delenv("ACME_WIDTH", raising=False)
            if width:
                monkeypatch.setenv("ACME_WIDTH", width)
            again = bits(ask(task, "init", labels=Y))
            assert found.setdefault(width, again) == again
        assert len({found[width][0] for width in found}) == 3

    @pytest.mark.parametrize(
        "settings",
        [
            lambda: os.environ.setdefault("ACME_UNSET", "4"),
            lambda: len(os.environ.copy()) and "4",
            patched,
            lambda: importlib.import_module("acme_unset").WIDTH and os.environ["ACME_UNSET"],
            lambda: argparse.ArgumentParser().parse_args([]) and "4",
        ],
        ids=["setdefault", "copy", "patch", "import", "argparse"],
    )
    def test_a_task_that_sets_or_copies_variables_trains_as_often_as_one_that_does_not(
        self, ask, tmp_path, monkeypatch, settings
    ):
        monkeypatch.setenv("ACME_UNSET", "")
        monkeypatch.delenv("ACME_UNSET")
        (tmp_path / "acme_unset.py").write_text("import os\nWIDTH = os.environ.setdefault('ACME_UNSET', '4')\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        plain = self.trainings(ask, monkeypatch, lambda: "4")
        assert self.trainings(ask, monkeypatch, settings) == plain
        monkeypatch.delenv("ACME_UNSET", raising=False)  # as in a new process
        assert self.trainings(ask, monkeypatch, settings) == [0, 0]
        sys.modules.pop("acme_unset", None)

    def trainings(self, ask, monkeypatch, settings):
        """Ask for two sources of a task, and give how many trainings each takes."""
        counts, train = [], Trainer._train
        for vary in ("init", "none"):
            for name in ("PYTEST_CURRENT_TEST", "ACME_OTHER", "LANGUAGE"):
                monkeypatch.setenv(name, f"test_{vary}")
            trained = []
            with monkeypatch.context() as patched:
                patched.setattr(Trainer, "_train", lambda *given, to=trained: to.append(given) or train(*given))
                ask(loop(settings), vary, labels=Y)
            counts.append(len(trained))
        return counts

    # Siblings

    def test_two_sources_of_one_task_are_two_studies_of_each_setting(self, ask, tmp_path):
        config = tmp_path / "width.txt"
        task = loop(config.read_text)
        seen = set()
        for width in ("5", "9"):
            config.write_text(width)
            for vary in ("init", "none"):
                seen.add(ask(task, vary, labels=Y).records[0].fingerprint)
        assert len(seen) == 2  # run 0 is the base run of both sources, and there is one for each width

    @pytest.mark.xfail(strict=True, reason="Python tells no hook of a file that is only asked whether it exists")
    def test_a_file_that_appears_is_seen(self, ask, tmp_path):
        override = tmp_path / "local.cfg"
        task = loop(lambda: override.read_text() if override.exists() else "4")
        before = bits(ask(task, "init", labels=Y))
        override.write_text("12")
        assert bits(ask(task, "init", labels=Y)) != before

    def test_a_file_that_goes_is_seen(self, ask, tmp_path):
        override = tmp_path / "local.cfg"
        override.write_text("12")

        def width():
            try:
                return override.read_text()
            except FileNotFoundError:
                return "4"

        before = bits(ask(loop(width), "init", labels=Y))
        override.unlink()
        assert bits(ask(loop(width), "init", labels=Y)) != before

    def test_a_listed_folder_is_seen(self, ask, tmp_path):
        folder = tmp_path / "shards"
        folder.mkdir()
        (folder / "a.bin").touch()
        task = loop(lambda: 4 + len(os.listdir(folder)))  # noqa: PTH208  # what users write
        before = bits(ask(task, "init", labels=Y))
        (folder / "b.bin").touch()
        assert bits(ask(task, "init", labels=Y)) != before

    def test_the_folder_of_the_project_is_found_again(self, ask, tmp_path):
        """Whatever lists the rootdir: its name is that of a folder, and its content is as it was."""
        task = loop(lambda: 4 + 0 * len([*tmp_path.glob("*.yaml")]))
        study = ask(task, "init", labels=Y)
        again = ask(task, "init", labels=Y)
        assert bits(again) == bits(study)
        assert again.notes == study.notes


class TestWorkingFolder:
    """A relative path means another file in another folder, within one session and across sessions."""

    def test_each_folder_trains_its_own(self, ask, tmp_path, monkeypatch):
        task, found = loop(lambda: Path("width.txt").read_text()), {}
        for name, width in {"a": "4", "b": "16", "c": "4"}.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "width.txt").write_text(width)
            monkeypatch.chdir(tmp_path / name)
            found[name] = bits(ask(task, "init", labels=Y))
        assert not set(found["a"]) & set(found["b"])
        assert found["c"] == found["a"]
        monkeypatch.chdir(tmp_path / "b")
        assert bits(ask(task, "init", labels=Y)) == found["b"]

    def test_a_temporary_folder_of_each_session(self, project):
        project.tests(
            """
            from pathlib import Path

            def other(run):
                print("TRAINED")
                return train(run, float(Path("rate.txt").read_text()))

            @pytest.mark.parametrize("rate", ["0.1", "0.3"])
            def test_it(stability, tmp_path, monkeypatch, rate):
                (tmp_path / "rate.txt").write_text(rate)
                monkeypatch.chdir(tmp_path)
                study = stability.measure(other, vary="shuffle", runs=2, labels=Y)
                print("OUT", float(study.outputs.double().sum()))
            """
        )
        seen = []
        for is_first in (True, False):
            result = project.run("-rP")
            result.assert_outcomes(passed=2)
            assert ("TRAINED" in result.stdout.lines) == is_first
            seen.append([line for line in result.stdout.lines if line.startswith("OUT ")])
            assert len(set(seen[-1])) == 2
        assert seen[0] == seen[1]


class TestRelabelledFiles:
    """Labels that were corrected in place are trained on.

    https://github.com/ScrollPrize/villa/pull/1661: a cache keyed by paths went on with the old ones.
    """

    class Folder(Dataset):
        """Paths in memory and content on disk."""

        def __init__(self, root: Path) -> None:
            self.paths = sorted(root.glob("*.json"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, i: int):
            item = json.loads(self.paths[i].read_text())
            return torch.tensor(item["x"]), item["y"]

    @staticmethod
    def write(root: Path, wrong: int = 0) -> None:
        root.mkdir(exist_ok=True)
        for i, (x, y) in enumerate(zip(X.tolist(), Y.tolist(), strict=True)):
            (root / f"{i:03}.json").write_text(json.dumps({"x": x, "y": (y + 1) % 3 if i < wrong else y}))

    def ask(self, ask, root: Path):
        data = self.Folder(root)
        task = recipe_of(lambda: nn.Linear(6, 3), (X, Y), lr=0.1)
        return ask(type(task)(**{**vars(task), "train": data, "test": data, "_prepared": {}}), "init")

    def test_corrected_labels_train_again(self, ask, tmp_path):
        self.write(tmp_path / "train", wrong=12)
        before = self.ask(ask, tmp_path / "train")
        self.write(tmp_path / "train")
        after = self.ask(ask, tmp_path / "train")
        assert not set(bits(before)) & set(bits(after))
        assert after.labels.tolist() == Y.tolist()

    # Siblings

    def test_the_same_bytes_are_the_same_data(self, ask, tmp_path):
        self.write(tmp_path / "train")
        before = self.ask(ask, tmp_path / "train")
        self.write(tmp_path / "train")  # another time stamp
        assert bits(self.ask(ask, tmp_path / "train")) == bits(before)

    def test_one_label_of_all_is_enough(self, ask, tmp_path):
        self.write(tmp_path / "train")
        before = self.ask(ask, tmp_path / "train")
        self.write(tmp_path / "train", wrong=1)
        assert bits(self.ask(ask, tmp_path / "train")) != bits(before)


# Code, wherever it lies: real processes on a project whose model is edited between two of them


NET = """
    from torch import nn

    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, {width}), nn.ReLU(), nn.Linear({width}, 2))
"""

TEST = """
    import torch
    {imports}

    # The function of that name imports torch's compiler, which costs a process another second and a half.
    torch.use_deterministic_algorithms = lambda mode, warn_only=False: torch.set_deterministic_debug_mode(int(mode))

    def test_model(stability{fixtures}):
        def train(run):
            print("TRAINED")
            with run.stream("init"):
                model = {model}()
            run.perturb(model)
            for _ in run.epochs(1):
                pass
            return model(torch.linspace(-1, 1, 64).reshape(16, 4))

        study = stability.measure(train, vary="init", labels=torch.arange(16) % 2)
        print("OUT", float(study.outputs.double().sum()))
"""


class Edited:
    """A project of which one file is edited between two sessions."""

    def __init__(self, project, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project, self.monkeypatch = project, monkeypatch

    def put(self, name: str, text: str, **values: object) -> None:
        (self.project.path / name).parent.mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            text = text.replace("{" + key + "}", str(value))
        self.project.write(name, text)

    def out(self, *arguments: object, trains: bool = True, **variables: str) -> str:
        """What the tests print, in order, of one session, which trains or finds all that it needs."""
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)
        result = self.project.run("--stability-runs", "2", "-rP", *arguments)
        assert result.ret == 0, result.stdout.str()
        assert ("TRAINED" in result.stdout.lines) == trains
        return " ".join(re.findall(r"^OUT (\S+)$", result.stdout.str(), re.MULTILINE))

    def is_seen(self, edit: Callable[[], None], *arguments: object, **variables: str) -> None:
        """Ask, ask again, edit, and ask once more: the second finds the runs, and the third has others."""
        before = self.out(*arguments, **variables)
        assert before == self.out(*arguments, trains=False, **variables)
        edit()
        assert self.out(*arguments, **variables) != before


@pytest.fixture
def edited(project, monkeypatch) -> Edited:
    return Edited(project, monkeypatch)


class TestCode:
    """Code counts by its content wherever it lies; a stale answer in CI is a false green."""

    def test_a_sibling_of_the_rootdir(self, edited):
        """https://github.com/streamlit/streamlit/issues/1797: the user's code taken for a library's."""
        edited.put("models/src/acme_models/__init__.py", NET, width=4)
        edited.put("quality/pytest.ini", "[pytest]\n")
        edited.put("quality/test_case.py", TEST, imports="from acme_models import Net", model="Net", fixtures="")
        edited.monkeypatch.chdir(edited.project.path / "quality")
        edited.is_seen(
            lambda: edited.put("models/src/acme_models/__init__.py", NET, width=16),
            PYTHONPATH=str(edited.project.path / "models/src"),
        )

    def test_an_installed_copy_of_one_version(self, edited):
        """https://github.com/feder-cr/invisible_playwright_mcp/pull/1217: tests run against what tox installed."""
        site = f".tox/py/lib/python3.{sys.version_info.minor}/site-packages"
        edited.put(f"{site}/acme_nets/__init__.py", "__version__ = '0.1.0'\n\n" + _plain(NET), width=4)
        edited.put("src/acme_nets/__init__.py", "__version__ = '0.1.0'\n\n" + _plain(NET), width=4)
        edited.put("tests/test_case.py", TEST, imports="from acme_nets import Net", model="Net", fixtures="")
        edited.is_seen(
            lambda: edited.put(f"{site}/acme_nets/__init__.py", "__version__ = '0.1.0'\n\n" + _plain(NET), width=16),
            "tests",
            PYTHONPATH=str(edited.project.path / site),
        )

    def test_a_script_that_is_loaded_by_its_path(self, edited):
        """https://github.com/microsoft/qlib/pull/431: its module is in no sys.modules."""
        edited.put("scripts/train.py", NET, width=4)
        edited.put(
            "conftest.py",
            """
            import importlib.util
            from pathlib import Path
            import pytest

            @pytest.fixture(scope="session")
            def script():
                path = Path(__file__).parent / "scripts/train.py"
                spec = importlib.util.spec_from_file_location("train_script", path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
            """,
        )
        edited.put("test_case.py", TEST, imports="", model="script.Net", fixtures=", script")
        edited.is_seen(lambda: edited.put("scripts/train.py", NET, width=16))

    @pytest.mark.parametrize("where", ["tests", "", "in tests"])
    def test_no_ini_file_and_wherever_pytest_is_called(self, edited, where):
        """https://github.com/SUSE-Enceladus/img-proof/pull/389: the rootdir depends on the command line."""
        (edited.project.path / "tox.ini").unlink()
        edited.put("mymodel/__init__.py", NET, width=4)
        edited.put("tests/test_case.py", TEST, imports="from mymodel import Net", model="Net", fixtures="")
        if where == "in tests":
            edited.monkeypatch.chdir(edited.project.path / "tests")
        arguments = [where] if where == "tests" else []
        edit = lambda: edited.put("mymodel/__init__.py", NET, width=16)  # noqa: E731
        edited.is_seen(edit, *arguments, PYTHONPATH=str(edited.project.path))

    def test_a_library_that_is_imported_inside_the_function(self, edited):
        """https://github.com/native-federation/native-federation-core/pull/104: its version was not in the key."""
        for version, width in (("1.0", 4), ("2.0", 16)):
            text = f"__version__ = {version!r}\n\n" + _plain(NET)
            edited.put(f"lib{version}/acme_layers/__init__.py", text, width=width)
        build = "\n    def build():\n        import acme_layers\n        return acme_layers.Net()\n"
        edited.put("tests/test_case.py", TEST, imports=build, model="build", fixtures="")
        one, two = (str(edited.project.path / f"lib{version}") for version in ("1.0", "2.0"))
        before = edited.out("tests", PYTHONPATH=one)
        assert before != edited.out("tests", PYTHONPATH=two)
        assert before == edited.out("tests", trains=False, PYTHONPATH=one)

    @pytest.mark.slow
    def test_two_files_of_one_name_in_importlib_mode(self, edited):
        """https://github.com/pytest-dev/pytest/pull/7870: made-up names of modules, which no look-up finds."""
        own = _plain(NET) + "\n" + _plain(TEST)
        for folder in ("a", "b"):
            edited.put(f"{folder}/test_case.py", own, width=4, imports="", model="Net", fixtures="")
        before = edited.out("--import-mode=importlib").split()
        edited.put("a/test_case.py", own, width=16, imports="", model="Net", fixtures="")
        after = edited.out("--import-mode=importlib").split()
        assert (before[0] != after[0], before[1] == after[1]) == (True, True)
        in_children = ["--stability-cache", "off", "--stability-isolation", "process"]
        assert " ".join(after) == edited.out("--import-mode=importlib", *in_children, trains=False)

    # Siblings

    def test_a_module_that_the_function_names_by_text(self, edited):
        edited.put("plugins/net.py", NET, width=4)
        edited.put("plugins/__init__.py", "")
        build = (
            "\n    import importlib\n    def build():\n"
            "        return importlib.import_module('plugins.' + 'ten'[::-1]).Net()\n"
        )
        edited.put("test_case.py", TEST, imports=build, model="build", fixtures="")
        edit = lambda: edited.put("plugins/net.py", NET, width=16)  # noqa: E731
        edited.is_seen(edit, PYTHONPATH=str(edited.project.path))

    def test_code_that_is_executed_from_a_file(self, edited):
        """As configuration files in Python are read by many trainers."""
        edited.put("nets/net.cfg", NET, width=4)
        build = (
            "\n    from pathlib import Path\n    def build():\n        found = {}\n"
            "        exec(Path(__file__).with_name('nets').joinpath('net.cfg').read_text(), found)\n"
            "        return found['Net']()\n"
        )
        edited.put("test_case.py", TEST, imports=build, model="build", fixtures="")
        edited.is_seen(lambda: edited.put("nets/net.cfg", NET, width=16))

    def test_a_base_class_in_a_package_beside_the_tests(self, edited):
        edited.put("pkg/__init__.py", "")
        edited.put("pkg/base.py", NET, width=4)
        edited.put("pkg/net.py", "from .base import Net as _Net\n\nclass Net(_Net):\n    pass\n")
        edited.put("test_case.py", TEST, imports="from pkg.net import Net", model="Net", fixtures="")
        edit = lambda: edited.put("pkg/base.py", NET, width=16)  # noqa: E731
        edited.is_seen(edit, PYTHONPATH=str(edited.project.path))


def test_two_workers_with_other_settings_at_once_train_their_own(project):
    """A sibling of the settings: neither takes the other's first run for its own."""
    project.tests(
        """
        @pytest.mark.parametrize("rate", ["0.1", "0.3"])
        def test_it(stability, monkeypatch, rate):
            monkeypatch.setenv("ACME_RATE", rate)

            def other(run):
                return train(run, float(os.environ["ACME_RATE"]))

            study = stability.measure(other, vary="init", runs=2, labels=Y)
            print("OUT", float(study.outputs.double().sum()))
        """
    )
    project.sleep_in_runs(0.3)
    result = project.run("-rP", way="n2")
    result.assert_outcomes(passed=2)
    assert len({line for line in result.stdout.lines if line.startswith("OUT ")}) == 2


class TestNothingToSee:
    """What changes no bit trains nothing again."""

    def test_a_temporary_folder(self, project):
        """https://github.com/bespokelabsai/curator/issues/294: a path of tmp_path is in what is hashed."""
        project.tests(
            """
            def test_it(stability, tmp_path):
                def other(run):
                    outputs = train(run)
                    torch.save(outputs, tmp_path / f"best-{run.index}.pt")
                    return torch.load(tmp_path / f"best-{run.index}.pt", weights_only=True)

                stability.measure(other, vary="shuffle", runs=3, labels=Y)
            """
        )
        project.run().assert_outcomes(passed=1)
        assert project.trained()
        project.run().assert_outcomes(passed=1)
        assert project.trained() == []

    def test_a_split_without_a_seed_is_named(self, project):
        """https://github.com/marco-c/autowebcompat/issues/160: another split, and so another accuracy, each time."""
        project.tests(
            """
            @pytest.fixture
            def rows():
                draws = torch.Generator().manual_seed(int.from_bytes(os.urandom(4)))
                return torch.randperm(64, generator=draws)[:48]

            def test_it(stability, rows):
                def other(run):
                    return train(run)[rows]

                stability.measure(other, vary="init", runs=2, labels=Y[rows])
            """
        )
        project.run().assert_outcomes(passed=1)
        _, report = project.study()
        (study,) = report["studies"]
        assert any("although no file does: is it made from a generator without a seed" in n for n in study["notes"])


def _plain(text: str) -> str:
    """Text without the indentation that it has here."""
    return "\n".join(line.removeprefix("    ") for line in text.splitlines()) + "\n"
