"""Which of the user's files a file can reach, read and never run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stabilitykit.store.source_files import conftests_of, is_own, source_closure, source_digest


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
    return {str(path.relative_to(root)) for path in source_closure([root / name for name in roots], root)}


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


@pytest.mark.parametrize("folder", [".venv/lib/python3.11/site-packages", "venv", ".tox/py", "env/dist-packages"])
def test_installed_packages_are_not_the_users_own(write, folder):
    root = write({"test_a.py": "import lib", f"{folder}/lib.py": ""})
    assert not is_own(root / folder / "lib.py", root)
    assert reached(root, "test_a.py", f"{folder}/lib.py") == {"test_a.py"}


def test_a_file_outside_the_root_is_not_the_users_own(write):
    root = write({"project/test_a.py": "", "elsewhere.py": ""})
    assert is_own(root / "project/test_a.py", root / "project")
    assert not is_own(root / "elsewhere.py", root / "project")


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
