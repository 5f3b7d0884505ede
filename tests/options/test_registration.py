"""Registering the plugin does nothing: pytest before 8.3 reads every attribute of a plugin, in search of fixtures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: Reads every attribute of our plugins once more, in each process of the session, whatever this pytest does itself.
READER = """
    import os
    import sys

    import pytest

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(session):
        manager = session.config.pluginmanager
        ours = [p for name, p in manager.list_name_plugin() if name.startswith("stabilitykit-")]
        before = set(sys.modules)
        for plugin in ours:
            for name in dir(plugin):
                getattr(plugin, name)
        with open("read.txt", "a") as file:
            file.write(f"{os.getpid()} {len(ours)} {sorted(set(sys.modules) - before)}\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "processes", "plugins"), [("plain", 1, 1), ("n2", 3, 2)])
def test_reading_every_attribute_of_the_plugins_loads_and_writes_nothing(
    project: Project, way: str, processes: int, plugins: int
) -> None:
    project.write("conftest.py", READER)
    project.write("test_any.py", "def test_any():\n    pass\n\ndef test_other():\n    pass\n")
    project.python = sys.executable
    project.run(way=way).assert_outcomes(passed=2)
    lines = (project.path / "read.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [f"{plugins} []"] * processes
    assert not (project.path / ".stabilitykit").exists()
