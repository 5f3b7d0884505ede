"""What holds for the repository as a whole: what its files may say, its commands, the versions that it promises."""

from __future__ import annotations

import ast
import importlib
import importlib.util
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


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "benchmarks").glob("*.py")))
def test_a_benchmark_imports_what_the_package_has(script: str) -> None:
    """They run for minutes, so that no test runs them; they must not rot unseen when a name moves."""
    tree = ast.parse((ROOT / "benchmarks" / script).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    ours = [node for node in imports if (node.module or "").partition(".")[0] == "stabilitykit"]
    missing = [
        f"line {node.lineno}: {node.module}.{alias.name}"
        for node in ours
        for alias in node.names
        if not hasattr(importlib.import_module(node.module or ""), alias.name)
        and importlib.util.find_spec(f"{node.module}.{alias.name}") is None
    ]
    assert not missing


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


# The contributor's door


def contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_commands_for_contributors_are_those_of_readme_and_tox() -> None:
    (block,) = re.findall(r"^```bash\n(.*?)^```$", contributing(), flags=re.MULTILINE | re.DOTALL)
    environment, tests, style, types = block.splitlines()
    assert environment == readme_block("main").partition(" && .venv/bin/pytest")[0].replace("[test]", "[dev]")
    assert f"`{tests}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    lint = tox.partition("[testenv:lint]")[2].partition("commands =\n")[2].partition("\n\n")[0]
    assert style.replace(".venv/bin/", "").split(" && ") == [line.strip() for line in lint.splitlines()]
    assert f"commands = {types.removeprefix('.venv/bin/')} {{posargs}}\n" in tox


def test_a_commit_is_checked_by_the_commands_for_contributors() -> None:
    """They are the environment's own tools: a version in this file would be one more to keep equal."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    *commands, subject = re.findall(r"^ +entry: (.*)$", hooks, flags=re.MULTILINE)
    assert commands
    assert all(command in re.split(r"\n| && ", contributing()) for command in commands)
    assert "rev:" not in hooks
    assert "additional_dependencies" not in hooks
    (most,) = re.findall(r"at most (\d+) characters", contributing())
    pygrep = re.compile(subject, re.MULTILINE | re.DOTALL)
    assert pygrep.search("x" * (int(most) + 1) + "\n\nbody")
    assert not pygrep.search("x" * int(most) + "\n\n" + "body " * 30)


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "README.md", "docs/README.md", "docs/architecture.md", "tests/README.md"]
)
def test_what_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [ROOT / page / ".." / link for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    files = [ROOT / name for name in re.findall(r"`((?:stabilitykit|tests|docs|benchmarks|scripts)/[\w./]+)`", text)]
    assert not [str(path) for path in links + files if not path.resolve().exists()]


def test_every_page_of_the_docs_is_in_their_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert {f"({page.name})" for page in (ROOT / "docs").glob("*.md")} - {"(README.md)"} == set(
        re.findall(r"\(\w+\.md\)", index)
    )


def test_what_we_use_of_pytest_without_its_promise_is_listed() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([\w.]+)` \| `(plugin/\w+\.py)` \|", page, flags=re.MULTILINE))
    code = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "stabilitykit" / "plugin").glob("*.py")}
    assert {name for name in listed if name.startswith("_pytest")} == {
        f"{module}.{name}"
        for text in code.values()
        for module, names in re.findall(r"^ *from (_pytest[\w.]*) import ([\w, ]+)", text, flags=re.MULTILINE)
        for name in re.split(r", *", names.strip())
    }
    assert not [name for name, file in listed.items() if name.rpartition(".")[2] not in code[Path(file).name]]
    attributes = {name for text in code.values() for name in re.findall(r"(?<!self)(?<!cls)\.(_[a-z]\w*)", text)}
    assert attributes <= {part for name in listed for part in name.split(".")}


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
