"""What pytest says of the plugin: --help, --markers, the header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stabilitykit.plugin.options import OPTIONS

if TYPE_CHECKING:
    from .conftest import Project


def test_help_shows_every_option_and_ini_key(project: Project) -> None:
    text = " ".join(project.run("--help").stdout.str().split())
    for option in OPTIONS:
        assert f" {option.flag} " in text.replace("=", " ")
        assert option.help in text
        assert f"{option.key} (string): the same as {option.flag}" in text


def test_markers_show_the_one_of_ours(project: Project) -> None:
    project.run("--markers").stdout.fnmatch_lines(["@pytest.mark.stability(runs=N, vary='init'): R and what varies, *"])


def test_header_names_what_every_number_depends_on(project: Project, way: str) -> None:
    project.write("test_any.py", "def test_any():\n    pass\n")
    result = project.run("--stability-seed", 3, way=way)
    result.stdout.fnmatch_lines(["stability: runs 10, seed 3, device auto, threads 1, cache auto"])
