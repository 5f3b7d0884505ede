"""What a module has read while it was imported is an input of each training that imports it again."""

from __future__ import annotations

import importlib
import sys
import textwrap

import pytest

from tests.tracing.reading import read_in


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write modules that are imported from a project, and forget them afterwards."""
    root = tmp_path.resolve() / "project"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    known = set(sys.modules)

    def write(**sources):
        for name, source in sources.items():
            file = root / f"{name.replace('__', '/')}.py"
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return root

    yield write
    for name in set(sys.modules) - known:
        if str(root) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


#: Ways to read ``c.json`` beside the module, as users write it.
READS = {
    "a helper of its own": """
        from pathlib import Path
        def read(name): return Path(__file__).with_name(name).read_text()
        TEXT = read("c.json")
    """,
    "a helper of another module": """
        from acme_reading import read
        TEXT = [read("c.json")] * 5000
    """,
    "a config parser": """
        from configparser import ConfigParser
        from pathlib import Path
        PARSER = ConfigParser(); PARSER.read(Path(__file__).with_name("c.json"))
    """,
    "the body of a class": """
        from pathlib import Path
        class Config(dict):
            text, other = Path(__file__).with_name("c.json").read_text(), 1
    """,
    "its loader": """
        import os
        TEXT = __loader__.get_data(os.path.join(os.path.dirname(__file__), "c.json"))
    """,
    "a thread": """
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        with ThreadPoolExecutor() as pool:
            TEXT = list(pool.map(Path.read_text, [Path(__file__).with_name("c.json")]))
    """,
    "numpy": """
        import numpy as np
        from pathlib import Path
        WEIGHTS = np.loadtxt(Path(__file__).with_name("c.json"), dtype=str)
    """,
}
HELPER = """
    from pathlib import Path
    def read(name): return Path(__file__).with_name(name).read_text()
"""


@pytest.mark.parametrize("way", READS)
def test_a_file_counts_whether_the_module_is_loaded_already_or_not(project, way):
    root = project(acme_settings=READS[way], acme_reading=HELPER)
    (root / "c.json").write_text("[a]")
    new = read_in(root, lambda: importlib.import_module("acme_settings"))
    again = read_in(root, lambda: importlib.import_module("acme_settings"))
    assert new.files == again.files
    assert [name for name in again.files if not name.endswith("/")] == ["c.json"]
    assert again.changed(root) == ()
    (root / "c.json").write_text("[b]")
    assert again.changed(root) == ("file c.json (edited)",)


def test_an_import_statement_counts_too_and_what_that_module_imports(project):
    inner = 'import os\nRATE = float(os.environ.get("ACME_RATE", 1))\n'
    root = project(acme_outer="from acme_inner import RATE", acme_inner=inner)
    importlib.import_module("acme_inner")  # by a conftest, say
    importlib.import_module("acme_outer")

    def train():
        from acme_outer import RATE  # noqa: F401

    inputs = read_in(root, train)
    assert sorted(inputs.modules) == ["acme_inner", "acme_outer"]
    assert list(inputs.variables) == ["ACME_RATE"]


def test_a_variable_counts_as_it_was_at_the_import(project, monkeypatch):
    root = project(acme_env='import os\nRATE = os.environ.get("ACME_RATE")')
    monkeypatch.setenv("ACME_RATE", "1")
    importlib.import_module("acme_env")
    monkeypatch.setenv("ACME_RATE", "2")
    inputs = read_in(root, lambda: importlib.import_module("acme_env"))
    assert inputs.changed(root) == ("variable ACME_RATE",)
    monkeypatch.setenv("ACME_RATE", "1")
    assert inputs.changed(root) == ()


def test_a_variable_that_a_module_sets_unless_it_is_set_counts_as_before(project, monkeypatch):
    monkeypatch.delenv("ACME_DEFAULT", raising=False)
    root = project(acme_default='import os\nRATE = os.environ.setdefault("ACME_DEFAULT", "1")')
    importlib.import_module("acme_default")
    inputs = read_in(root, lambda: importlib.import_module("acme_default"))
    assert (list(inputs.variables), inputs.changed(root)) == (["ACME_DEFAULT"], ())
    monkeypatch.setenv("ACME_DEFAULT", "2")
    assert inputs.changed(root) == ("variable ACME_DEFAULT",)
    monkeypatch.delenv("ACME_DEFAULT")
    assert inputs.changed(root) == ("variable ACME_DEFAULT",)  # the module would not set it again
    del sys.modules["acme_default"]
    assert inputs.changed(root) == ()


@pytest.mark.parametrize("way", ["{**os.environ}", "os.environ.copy()", "list(os.environ.items())"])
def test_a_look_at_all_variables_makes_none_an_input(project, way):
    root = project(acme_all=f"import os\nALL = {way}")
    importlib.import_module("acme_all")
    assert read_in(root, lambda: importlib.import_module("acme_all")).variables == {}


def test_a_module_that_is_imported_anew_counts_with_what_it_reads_then(project, monkeypatch):
    root = project(acme_anew='import os\nRATE = os.environ.get("ACME_RATE")')
    module = importlib.import_module("acme_anew")
    monkeypatch.setenv("ACME_RATE", "2")
    importlib.reload(module)
    inputs = read_in(root, lambda: importlib.import_module("acme_anew"))
    assert inputs.changed(root) == ()


def test_what_an_earlier_import_kept_elsewhere_counts(project):
    root = project(
        acme_memory="""
        KEPT = {}
        """,
        acme_settings="""
        from pathlib import Path
        import acme_memory
        TEXT = acme_memory.KEPT.setdefault("c", 0) or Path(__file__).with_name("c.json").read_text()
        acme_memory.KEPT["c"] = TEXT
        """,
    )
    (root / "c.json").write_text("one")
    module = importlib.import_module("acme_settings")
    importlib.reload(module)
    read = read_in(root, lambda: importlib.import_module("acme_settings"))
    assert "c.json" in read.files


@pytest.mark.parametrize("kept", ["import", "cache"])
def test_a_source_that_is_read_as_data_counts(project, kept):
    root = project(
        acme_conf="RATE = 0.1",
        acme_settings="""
        from functools import lru_cache
        from pathlib import Path
        @lru_cache
        def load():
            exec(Path(__file__).with_name("acme_conf.py").read_text(), scope := {})
            return scope["RATE"]
        """
        + ("RATE = load()" if kept == "import" else ""),
    )
    module = importlib.import_module("acme_settings")
    module.load()
    read = read_in(root, lambda: importlib.import_module("acme_settings").load())
    assert "acme_conf.py" in read.files


def test_a_file_that_was_edited_since_counts_as_it_was(project):
    root = project(acme_early='from pathlib import Path\nTEXT = Path(__file__).with_name("c.json").read_text()')
    (root / "c.json").write_text("a")
    importlib.import_module("acme_early")
    (root / "c.json").write_text("b")
    inputs = read_in(root, lambda: importlib.import_module("acme_early"))
    assert inputs.changed(root) == ("file c.json (edited)",)
    (root / "c.json").write_text("a")
    assert inputs.changed(root) == ()


def test_a_folder_that_is_listed_counts_by_its_names(project):
    source = "import os\nfrom pathlib import Path\nNAMES = sorted(os.listdir(Path(__file__).parent / 'plugins'))"
    root = project(acme_listing=source)
    (root / "plugins").mkdir()
    importlib.import_module("acme_listing")
    inputs = read_in(root, lambda: importlib.import_module("acme_listing"))
    assert inputs.changed(root) == ()
    (root / "plugins" / "new.txt").touch()
    assert inputs.changed(root) == ("folder plugins/ (other names in it)",)


def test_a_link_that_is_resolved_counts_by_where_it_led(project):
    source = 'from pathlib import Path\nDATA = (Path(__file__).parent / "data").resolve()'
    root = project(acme_linking=source)
    (root / "v1").mkdir()
    (root / "data").symlink_to("v1")
    importlib.import_module("acme_linking")
    inputs = read_in(root, lambda: importlib.import_module("acme_linking"))
    assert inputs.changed(root) == ()
    (root / "data").unlink()
    (root / "data").symlink_to("v2")
    assert inputs.changed(root) == ("link data (leads elsewhere)",)


def test_a_relative_path_is_looked_for_in_the_working_folder(project, monkeypatch, tmp_path):
    root = project(acme_relative='from pathlib import Path\nTEXT = Path("c.json").read_text()')
    (root / "c.json").write_text("a")
    monkeypatch.chdir(root)
    importlib.import_module("acme_relative")
    inputs = read_in(root, lambda: importlib.import_module("acme_relative"))
    (tmp_path / "c.json").write_text("b")
    monkeypatch.chdir(tmp_path)
    assert inputs.changed(root) == ("file c.json (edited, seen from another working folder)",)


def test_a_cache_that_a_module_makes_for_itself_is_no_input(project):
    source = """
        import os
        from pathlib import Path
        FILE = Path(__file__).with_name("cache.txt")
        if not FILE.exists():
            pass
        try:
            TEXT = FILE.read_text()
        except FileNotFoundError:
            FILE.with_suffix(".new").write_text("made")
            os.replace(FILE.with_suffix(".new"), FILE)
            TEXT = FILE.read_text()
    """
    root = project(acme_making=source)
    importlib.import_module("acme_making")
    inputs = read_in(root, lambda: importlib.import_module("acme_making"))
    assert (dict(inputs.files), inputs.changed(root)) == ({}, ())


def test_modules_of_computed_names_count_with_the_module_that_imports_them(project):
    registry = """
        import importlib
        for name in ("acme_plugin",):
            importlib.import_module(name)
    """
    root = project(acme_registry=registry, acme_plugin="WIDTH = 1")
    importlib.import_module("acme_registry")
    inputs = read_in(root, lambda: importlib.import_module("acme_registry"))
    assert sorted(inputs.modules) == ["acme_plugin", "acme_registry"]
    (root / "acme_plugin.py").write_text("WIDTH = 2  # wider")
    assert inputs.changed(root) == ("module acme_plugin",)


def test_a_module_that_was_edited_since_its_import_is_what_no_file_holds(project):
    root = project(acme_edited="WIDTH = 1")
    importlib.import_module("acme_edited")
    (root / "acme_edited.py").write_text("WIDTH = 2  # wider")
    inputs = read_in(root, lambda: importlib.import_module("acme_edited"))
    assert inputs.changed(root) == ("module acme_edited",)


def test_a_training_that_imports_nothing_of_it_has_no_such_input(project):
    root = project(acme_unused='import os\nRATE = os.environ.get("ACME_RATE")')
    importlib.import_module("acme_unused")
    assert read_in(root, lambda: None).are_none


SCANS = {
    "all variables": ("import os\nALL = {key.lower(): value for key, value in os.environ.items()}", "all environment"),
    "a program": ("import subprocess\nsubprocess.run(['true'], check=True)", "another program (true)"),
    "the network": (
        """
        import contextlib, socket
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 1))
        """,
        "the network",
    ),
}


@pytest.mark.parametrize("way", SCANS)
def test_what_cannot_be_compared_is_said_of_each_training_that_imports_it(project, way):
    source, said = SCANS[way]
    root = project(acme_scanning=source)
    importlib.import_module("acme_scanning")
    assert said in " ".join(read_in(root, lambda: importlib.import_module("acme_scanning")).untraced)
    assert read_in(root, lambda: None).untraced == ()


MAKES = {
    "a temporary file": "import tempfile\nF = tempfile.NamedTemporaryFile(mode='w+')",
    "a log": "from pathlib import Path\nF = Path(__file__).with_name('events.log').open('w+')",
}


@pytest.mark.parametrize("way", MAKES)
def test_a_file_that_a_module_makes_and_may_read_is_no_input(project, way):
    root = project(acme_logging=MAKES[way])
    (root / "events.log").write_text("of the last session")
    module = importlib.import_module("acme_logging")
    inputs = read_in(root, lambda: importlib.import_module("acme_logging"))
    module.F.close()
    assert (dict(inputs.files), inputs.changed(root)) == ({}, ())


def test_a_file_that_a_module_reads_and_then_writes_is_said(project):
    source = """
        from pathlib import Path
        FILE = Path(__file__).with_name("state.json")
        COUNT = int(FILE.read_text()) + 1
        FILE.write_text(str(COUNT))
    """
    root = project(acme_counting=source)
    (root / "state.json").write_text("1")
    importlib.import_module("acme_counting")
    inputs = read_in(root, lambda: importlib.import_module("acme_counting"))
    assert (dict(inputs.files), inputs.untraced) == (
        {},
        ("It writes to state.json: what it reads there is not traced.",),
    )


def test_a_database_counts(project):
    root = project(acme_rows="import sqlite3\nsqlite3.connect(FILE).close()")
    file = root / "rows.db"
    file.write_bytes(b"")
    (root / "acme_rows.py").write_text(f"import sqlite3\nsqlite3.connect('file:{file}?mode=ro', uri=True).close()")
    importlib.import_module("acme_rows")
    assert list(read_in(root, lambda: importlib.import_module("acme_rows")).files) == ["rows.db"]


def test_what_a_conftest_beside_it_had_imported_is_no_input(project):
    variable = 'import os\nRUN = os.environ.get("ACME_RUN_ID")'
    root = project(acme_beside="RATE = 1", acme_of_conftest=variable, conftest="import acme_of_conftest")
    importlib.import_module("acme_of_conftest")
    importlib.import_module("acme_beside")
    assert read_in(root, lambda: importlib.import_module("acme_beside")).variables == {}
