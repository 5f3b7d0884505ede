"""What holds for the repository as a whole: what its files may say, its commands, the versions that it promises."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def repository_files() -> list[Path]:
    """The text files that git tracks or would track."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout, so nothing says which files belong to the repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


def readme_block(name: str) -> str:
    found = re.findall(
        rf"^<!-- ci: {name} -->\n```\w*\n(.*?)^```$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    assert len(found) == 1, f"README.md has {len(found)} fenced blocks right below `<!-- ci: {name} -->`, not one"
    return str(found[0])


# What the files may say


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    machine = "/" + "work/"  # in two parts, or this file would be found
    assert not [path.relative_to(ROOT) for path in repository_files() if machine in path.read_text(encoding="utf-8")]


def test_no_file_names_a_private_host_or_a_package_index() -> None:
    """A stranger's pip reads its own configuration; ours stays out of the repository."""
    index = re.compile(r"\b(?:extra-index|index|find)-(?:url|links)\s*[=\s]\s*\S*[/:]", re.IGNORECASE)
    wrong = []
    for path in repository_files():
        text = path.read_text(encoding="utf-8")
        hosts = re.findall(r"\b(?:https?|ftp|git\+https|ssh)://(?:[^\s/@]+@)?(\[[^\]]+\]|[\w.-]+)", text)
        wrong += [f"{path.relative_to(ROOT)}: {host}" for host in hosts if is_private(host)]
        wrong += [f"{path.relative_to(ROOT)}: {found}" for found in index.findall(text)]
    assert not wrong


def is_private(host: str) -> bool:
    host = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost" and ("." not in host or host.endswith((".internal", ".local", ".lan", ".corp")))
    return address.is_private and not address.is_loopback


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("docs.pytest.org", False),
        ("localhost", False),
        ("127.0.0.1", False),
        ("10.0.0.7", True),
        ("[fd00::1]", True),
        ("mirror", True),
        ("packages.corp", True),
    ],
)
def test_a_private_host_is_recognised(host: str, private: bool) -> None:
    assert is_private(host) == private


# The README's commands


@pytest.mark.parametrize("name", ["main", "test"])
def test_readme_command_starts_from_nothing(name: str) -> None:
    assert readme_block(name).startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_ci_runs_the_readme_test_command_and_none_of_its_own() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "readme_command test" in script
    assert "pytest" in readme_block("test")


def test_lint_environment_of_tox_has_the_ruff_of_the_dev_extra() -> None:
    wanted = re.findall(r"ruff[><=~!][^\"\s]*", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert wanted == re.findall(r"ruff[><=~!]\S*", (ROOT / "tox.ini").read_text(encoding="utf-8"))


# The versions that are promised


def test_lowest_environment_of_tox_has_the_oldest_versions_that_the_project_accepts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["xdist"], *extras["report"], *extras["zoo"], *extras["test"][1:]]
    oldest = dict(line.split(">=") for line in wanted)
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8").partition("[testenv:lowest]")[2].partition("[testenv:")[0]
    tested = dict(re.findall(r"^    ([\w-]+)==(\S+)$", tox, flags=re.MULTILINE))
    assert {name: Version(version) for name, version in tested.items()} == {
        name: Version(version) for name, version in oldest.items()
    }


def test_the_oldest_python_and_pytest_are_the_same_wherever_they_are_named() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, tools = settings["project"], settings["tool"]
    oldest = project["requires-python"].removeprefix(">=")
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert named[0] == oldest == tools["mypy"]["python_version"]
    assert tools["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    environments = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert f"py3{{{','.join(version.partition('.')[2] for version in named)}}}" in environments
    assert f"base_python = py{oldest.replace('.', '')}" in environments
    assert f"pytest>={tools['pytest']['ini_options']['minversion']}" in project["dependencies"]
