"""Which of the user's files a file can reach, read and never run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import py_compile
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from stabilitykit.store.provenance import Provenance
from stabilitykit.store.source_files import conftests_of, in_tree, sources_of


@pytest.fixture
def write(tmp_path: Path):
    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            os.utime(path, ns=(write.now, write.now))  # two edits within one tick of the clock must differ
            write.now += 1_000_000
        return tmp_path

    write.now = 1_700_000_000 * 10**9
    return write


def reached(root: Path, *roots: str) -> set[str]:
    sources = sources_of([root / name for name in roots], Provenance(root))
    return {str(path.relative_to(root)) for path in sources.paths}


def source_digest(roots: list[Path], root: Path) -> str:
    return repr(sources_of(roots, Provenance(root)).parts())


@pytest.mark.parametrize(
    "statement",
    [
        "import helper",
        "import helper as h",
        "from helper import rate",
        "from helper import *",
        "def train():\n    import helper",
        "def train():\n    if False:\n        from helper import rate",
        "class Net:\n    import helper",
        "try:\n    import helper\nexcept ImportError:\n    pass",
    ],
)
def test_an_import_is_followed_wherever_it_stands(write, statement):
    root = write({"test_a.py": statement, "helper.py": "import deeper", "deeper.py": "", "other.py": ""})
    assert reached(root, "test_a.py") == {"test_a.py", "helper.py", "deeper.py"}


PACKAGE = {
    "pkg/__init__.py": "from .top import x",
    "pkg/top.py": "",
    "pkg/unused.py": "",
    "pkg/sub/__init__.py": "",
    "pkg/sub/leaf.py": "from ..sibling import y",
    "pkg/sibling.py": "",
}


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import pkg", {"pkg/__init__.py", "pkg/top.py"}),
        ("import pkg.unused", {"pkg/__init__.py", "pkg/top.py", "pkg/unused.py"}),
        ("from pkg import unused", {"pkg/__init__.py", "pkg/top.py", "pkg/unused.py"}),
        (
            "import pkg.sub.leaf",
            {"pkg/__init__.py", "pkg/top.py", "pkg/sub/__init__.py", "pkg/sub/leaf.py", "pkg/sibling.py"},
        ),
        (
            "from pkg.sub import leaf",
            {"pkg/__init__.py", "pkg/top.py", "pkg/sub/__init__.py", "pkg/sub/leaf.py", "pkg/sibling.py"},
        ),
    ],
)
def test_a_module_counts_with_the_packages_on_the_way(write, statement, modules):
    root = write({"test_a.py": statement, **PACKAGE})
    assert reached(root, "test_a.py") == {"test_a.py", *modules}


@pytest.mark.parametrize("statement", ["from . import near", "from .near import z", "from ..pkg.near import z"])
def test_relative_imports_are_followed(write, statement):
    root = write({"pkg/__init__.py": "", "pkg/a.py": statement, "pkg/near.py": "", "near.py": ""})
    assert {"pkg/a.py", "pkg/near.py"} <= reached(root, "pkg/a.py")
    assert "near.py" not in reached(root, "pkg/a.py")


def test_a_namespace_package_needs_no_init_file(write):
    root = write({"test_a.py": "from space.inner import tool", "space/inner/tool.py": ""})
    assert reached(root, "test_a.py") == {"test_a.py", "space/inner/tool.py"}


def test_the_src_layout_and_the_folder_of_the_importing_file_are_searched(write):
    root = write({"tests/test_a.py": "import model, near", "src/model.py": "", "tests/near.py": ""})
    assert reached(root, "tests/test_a.py") == {"tests/test_a.py", "src/model.py", "tests/near.py"}


def test_a_circle_of_imports_ends(write):
    root = write({"a.py": "import b", "b.py": "import a"})
    assert reached(root, "a.py") == {"a.py", "b.py"}


def test_conftests_from_the_file_up_to_the_root_count_with_what_they_import(write):
    root = write(
        {
            "conftest.py": "import shared",
            "shared.py": "",
            "tests/conftest.py": "",
            "tests/deep/test_a.py": "",
            "tests/other/conftest.py": "",
        }
    )
    assert reached(root, "tests/deep/test_a.py") == {
        "tests/deep/test_a.py",
        "tests/conftest.py",
        "conftest.py",
        "shared.py",
    }
    assert conftests_of(root / "tests/deep/test_a.py", root) == [root / "tests/conftest.py", root / "conftest.py"]


SITE = ".venv/lib/python3.11/site-packages"
INSTALLED = {f"{SITE}/lib.py": "import deeper", f"{SITE}/deeper.py": ""}


def installed(root: Path, name: str, *files: str, version: str = "1.0", **more: str) -> dict[str, str]:
    """The metadata of a distribution whose files lie in the site-packages folder of ``root``."""
    info = f"{SITE}/{name}-{version}.dist-info"
    lines = "".join(f"{file},sha256={hash((root / SITE / file).read_bytes())},1\n" for file in files)
    named = {"RECORD": lines, "METADATA": f"Name: {name}\n", **more}
    return {f"{info}/{file}": text for file, text in named.items()}


def packages(root: Path) -> dict[str, str]:
    parts = sources_of([root / "test_a.py"], Provenance(root)).parts()
    return {name: text for name, text in parts.items() if name.startswith("package ")}


def test_an_installed_distribution_counts_by_version_and_record_and_is_not_read(write, monkeypatch):
    root = write({"test_a.py": "def train():\n    import lib", **INSTALLED})
    monkeypatch.syspath_prepend(root / SITE)
    write(installed(root, "Some_Lib", "lib.py", "deeper.py"))
    assert reached(root, "test_a.py") == {"test_a.py"}
    before = packages(root)
    assert list(before) == ["package some-lib"]
    write({f"{SITE}/lib.py": "import deeper  # another build"})
    write(installed(root, "Some_Lib", "lib.py", "deeper.py"))
    assert packages(root) != before


def test_what_a_distribution_needs_counts_and_what_runs_tests_does_not(write, monkeypatch):
    root = write({"test_a.py": "import lib, pytest", **INSTALLED})
    monkeypatch.syspath_prepend(root / SITE)
    write(
        installed(
            root,
            "lib",
            "lib.py",
            METADATA="Name: lib\nRequires-Dist: deep.er>=1\nRequires-Dist: more; extra == 'x'\n\n",
        )
    )
    write(installed(root, "deep_er", "deeper.py"))
    write(installed(root, "more"))
    assert list(packages(root)) == ["package deep-er", "package lib"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"pyproject.toml": "[project]\nname = 'Some.Lib'"},
        {"setup.cfg": "[metadata]\nname = some_lib"},
        {f"{SITE}/some_lib-1.0.dist-info/direct_url.json": '{"url": "file:///src", "dir_info": {}}'},
        {f"{SITE}/some_lib-1.0.dist-info/direct_url.json": '{"url": "file:///src", "dir_info": {"editable": true}}'},
    ],
)
def test_the_project_under_test_counts_by_its_content_where_it_is_installed(write, monkeypatch, more):
    root = write({"test_a.py": "import lib", **INSTALLED})
    monkeypatch.syspath_prepend(root / SITE)
    if more:  # else no distribution is there at all, as where an installer was told a target folder
        write(installed(root, "some_lib", "lib.py", "deeper.py") | more)
    assert reached(root, "test_a.py") == {"test_a.py", f"{SITE}/lib.py", f"{SITE}/deeper.py"}


def test_a_folder_of_installed_packages_is_not_in_the_tree(write):
    root = write(INSTALLED)
    assert not in_tree(root / SITE / "lib.py", root)
    assert in_tree(root / "lib.py", root)
    assert not in_tree(root / "lib.py", root / "tests")


def test_a_sibling_of_the_root_counts_with_what_it_imports(write, monkeypatch, tmp_path):
    write({"project/test_a.py": "import elsewhere", "models/elsewhere.py": "import deeper", "models/deeper.py": ""})
    monkeypatch.syspath_prepend(tmp_path / "models")
    sources = sources_of([tmp_path / "project/test_a.py"], Provenance(tmp_path / "project"))
    assert [label for label, _ in sources.files] == ["deeper.py", "elsewhere.py", "test_a.py"]


def test_names_do_not_depend_on_the_place_of_a_repository(write, monkeypatch, tmp_path):
    found = []
    for clone in ("one", "two"):
        write({f"{clone}/.git/HEAD": "", f"{clone}/tests/test_a.py": "import near", f"{clone}/lib/near.py": ""})
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / clone / "lib")
            sources = sources_of([tmp_path / clone / "tests/test_a.py"], Provenance(tmp_path / clone / "tests"))
        found.append(sources.parts())
    assert found[0] == found[1]
    assert list(found[0]) == ["file lib/near.py", "file test_a.py"]


def test_a_module_that_only_an_import_hook_finds_counts(write, monkeypatch, tmp_path):
    root = write({"project/test_a.py": "import hooked.part", "src/hooked/__init__.py": "", "src/hooked/part.py": ""})

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            place = root / "src/hooked/__init__.py"
            return importlib.util.spec_from_file_location(name, place) if name == "hooked" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    sources = sources_of([root / "project/test_a.py"], Provenance(root / "project"))
    assert {path.name for path in sources.paths} == {"test_a.py", "__init__.py", "part.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "import importlib\ndef train():\n    importlib.import_module('helper')",
        "helper = __import__('helper')",
        "import pytest\nhelper = pytest.importorskip('helper')",
        "pytest_plugins = ['helper']",
        "pytest_plugins = 'helper'",
    ],
)
def test_a_module_that_is_named_by_text_counts(write, statement):
    root = write({"test_a.py": statement, "helper.py": ""})
    assert reached(root, "test_a.py") == {"test_a.py", "helper.py"}


def test_an_extension_module_of_the_users_counts_by_its_bytes(write):
    name = f"fast{EXTENSION_SUFFIXES[0]}"
    root = write({"test_a.py": "import fast", name: "\0"})
    assert reached(root, "test_a.py") == {"test_a.py", name}


def test_a_file_that_is_no_python_counts_by_its_bytes(write):
    root = write({"broken.py": "def (", "test_a.py": "import broken"})
    assert reached(root, "test_a.py") == {"test_a.py", "broken.py"}
    before = source_digest([root / "test_a.py"], root)
    write({"broken.py": "def ["})
    assert source_digest([root / "test_a.py"], root) != before


def test_the_digest_changes_with_each_reached_file_and_with_no_other(write):
    files = {
        "test_a.py": "def f():\n    import pkg.mod",
        "pkg/__init__.py": "",
        "pkg/mod.py": "x = 1",
        "conftest.py": "",
    }
    root = write({**files, "unrelated.py": ""})
    digests = [source_digest([root / "test_a.py"], root)]
    write({"unrelated.py": "import os"})
    assert source_digest([root / "test_a.py"], root) == digests[0]
    for name, text in files.items():
        write({name: text + "\n"})
        digests.append(source_digest([root / "test_a.py"], root))
        assert digests[-1] not in digests[:-1], name


def test_the_digest_does_not_depend_on_where_the_root_lies(write, tmp_path):
    write({"one/test_a.py": "import b", "one/b.py": "", "two/test_a.py": "import b", "two/b.py": ""})
    one, two = (source_digest([tmp_path / name / "test_a.py"], tmp_path / name) for name in ("one", "two"))
    assert one == two


def test_a_module_in_a_zip_file_counts_with_the_file(write, tmp_path, monkeypatch):
    root = write({"test_a.py": "def train():\n    import in_a_zip"})
    digests = []
    for text in ("A = 1\n", "A = 2\n"):
        with zipfile.ZipFile(tmp_path / "code.zip", "w") as file:
            file.writestr("in_a_zip.py", text)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "code.zip"), *sys.path])
        importlib.invalidate_caches()
        assert reached(root, "test_a.py") == {"test_a.py", "code.zip"}
        digests.append(source_digest([root / "test_a.py"], root))
    assert digests[0] != digests[1]


def test_a_compiled_module_without_a_source_counts(write):
    root = write({"test_a.py": "def train():\n    import nets", "nets.py": "A = 1\n"})
    py_compile.compile(str(root / "nets.py"), cfile=str(root / "nets.pyc"))
    (root / "nets.py").unlink()
    assert reached(root, "test_a.py") == {"test_a.py", "nets.pyc"}
