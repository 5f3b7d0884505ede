"""What holds for the repository as a whole: the order of imports, what importing costs, what the files may say."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import ipaddress
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stabilitykit"
FRONT_PAGE = "__init__"

#: Each module imports only modules above it. The name of a room alone is its `__init__.py`.
ORDER = (
    "_version",
    "errors",
    "estimates",
    "store",
    "verdicts",
    "training",
    "study",
    "execution",
    "plugin",
    "sources",
    "protocol",
    "plugin.options",
    "execution.devices",
    "execution.stop",
    "training.environment",
    "training.streams",
    "training.perturb",
    "store.source_files",
    "store.fingerprint",
    "estimates.metrics.runs",
    "estimates.metrics.scores",
    "estimates.metrics.ranks",
    "estimates.metrics.pairwise",
    "estimates.metrics.ensembles",
    "estimates.metrics.streaming",
    "estimates.metrics.variance",
    "estimates.metrics.curves",
    "estimates.metrics.representation",
    "estimates.metrics",
    "estimates.estimate",
    "verdicts.sequential_levels",
    "estimates.intervals",
    "estimates.anova",
    "estimates.ratios",
    "estimates.flip_floor",
    "verdicts.power",
    "verdicts.limits",
    "verdicts.budgets",
    "verdicts.calibration",
    "verdicts.gate",
    "estimates.measures",
    "study.reduction",
    "study.flips",
    "training.data",
    "training.corpus",
    "training.schedule",
    "store.record",
    "training.views",
    "training.checkpoint",
    "store.ownership",
    "store.atomic_files",
    "store.byte_locks",
    "store.shared_epochs",
    "training.run",
    "training.task",
    "study.growth",
    "study.condition_number",
    "study.layer_choice",
    "study.layer_similarity",
    "training.language",
    "training.trainer",
    "training.control",
    "plugin.budget_file",
    "store.run_files",
    "store.run_store",
    "store.baseline_files",
    "execution.watch",
    "execution.executor",
    "execution.variables",
    "execution.payload",
    "execution.child_processes",
    "store.catalog",
    "store.pruning",
    "cli",
    "execution.runner",
    "study.study",
    "execution.session",
    "study.variance_components",
    "study.selftest",
    "execution.preload",
    "execution.forecast",
    "study.summary",
    "render",
    "render.study_table",
    "render.budget_table",
    "render.forecast_table",
    "render.comparison_words",
    "estimates.differences",
    "study.comparison",
    "plugin.baselines",
    "study.likeness",
    "study.asserts",
    "testing",
    "execution.notice_board",
    "plugin.findings",
    "execution.sharing",
    "plugin.fixture",
    "zoo.layers",
    "zoo.resnet",
    "zoo.vgg",
    "zoo.shufflenet",
    "zoo.shallow",
    "zoo.qrnn",
    "zoo.settings",
    "zoo.remedies",
    "zoo",
    FRONT_PAGE,
    "__main__",
    "plugin.progress",
    "plugin.rootdir",
    "plugin.xdist",
    "plugin.hooks",
)

#: Loaded by every pytest run of every user, so these load none of HEAVY, themselves or through one another.
LIGHT = (
    FRONT_PAGE,
    "_version",
    "errors",
    "store",
    "execution",
    "plugin",
    "sources",
    "protocol",
    "plugin.options",
    "execution.devices",
    "execution.stop",
    "plugin.findings",
    "plugin.progress",
    "plugin.rootdir",
    "store.ownership",
    "plugin.hooks",
    "plugin.xdist",
)
HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib"}

#: Only these know that pytest exists.
PYTEST_MODULES = {"plugin.hooks", "plugin.progress", "plugin.rootdir", "plugin.xdist"}
PYTEST_PACKAGES = {"pytest", "_pytest", "pluggy", "xdist", "execnet"}


class Import(NamedTuple):
    """One name that one line imports."""

    line: int
    package: str  #: top-level name: "torch", "stabilitykit"
    module: str | None  #: for stabilitykit, the module as ORDER writes it


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def tree_of(module: str) -> ast.Module:
    path = path_of(module)
    assert path.is_file(), f"ORDER names {module}, and {path.relative_to(ROOT)} does not exist"
    return ast.parse(path.read_text(encoding="utf-8"))


def inside(dotted: str) -> str:
    """The module of ORDER that `stabilitykit.a.b` is or comes from: the front page where it is none of them."""
    names = dotted.split(".")[1:]
    while names and ".".join(names) not in ORDER:
        names.pop()
    return ".".join(names) or FRONT_PAGE


def imports_of(module: str, node: ast.AST) -> Iterator[Import]:
    """What one statement imports; nothing for a statement that is no import."""
    if isinstance(node, ast.Import):
        dotted = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        origin = node.module or ""
        if node.level:
            package = ["stabilitykit", *module.split(".")]
            if path_of(module).name != "__init__.py" or module == FRONT_PAGE:
                package.pop()
            origin = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
        # `from .metrics import scores` imports metrics.scores, and `from .metrics import accuracy` imports metrics.
        dotted = [f"{origin}.{alias.name}" for alias in node.names]
    else:
        return
    for name in dotted:
        top = name.split(".")[0]
        yield Import(node.lineno, top, inside(name) if top == "stabilitykit" else None)


def all_imports(module: str) -> Iterator[Import]:
    """Every import, those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree_of(module)):
        yield from imports_of(module, node)


def imports_on_load(module: str) -> Iterator[Import]:
    """The imports that run when the module is imported: not those in functions, not those for the type checker."""
    pending: list[ast.AST] = [tree_of(module)]
    while pending:
        node = pending.pop()
        yield from imports_of(module, node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))


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


# The order of imports


def test_order_lists_each_module_on_disk_once() -> None:
    on_disk = [name_of(path) for path in PACKAGE.rglob("*.py")]
    assert sorted(ORDER) == sorted(on_disk)


@pytest.mark.parametrize("module", ORDER)
def test_module_imports_only_modules_above_it(module: str) -> None:
    above = ORDER[: ORDER.index(module)]
    wrong = {f"line {i.line}: {i.module}" for i in all_imports(module) if i.module and i.module not in above}
    assert not wrong, f"{module} imports what is not above it in ORDER"


@pytest.mark.parametrize("module", ORDER)
def test_module_does_not_import_the_front_page(module: str) -> None:
    assert not {f"line {i.line}" for i in all_imports(module) if i.module == FRONT_PAGE}


@pytest.mark.parametrize("module", [module for module in ORDER if module.split(".")[0] != "zoo"])
def test_module_leaves_the_zoo_to_users(module: str) -> None:
    assert not {f"line {i.line}: {i.module}" for i in all_imports(module) if (i.module or "").split(".")[0] == "zoo"}


@pytest.mark.parametrize("module", ORDER)
def test_module_loads_torchvision_only_where_it_is_used(module: str) -> None:
    assert not {f"line {i.line}" for i in imports_on_load(module) if i.package == "torchvision"}


@pytest.mark.parametrize("module", [module for module in ORDER if module not in PYTEST_MODULES])
def test_module_does_not_know_pytest(module: str) -> None:
    assert not {f"line {i.line}: {i.package}" for i in all_imports(module) if i.package in PYTEST_PACKAGES}


@pytest.mark.parametrize("module", LIGHT)
def test_light_module_loads_nothing_heavy(module: str) -> None:
    loaded = list(imports_on_load(module))
    assert not [f"line {i.line}: {i.package}" for i in loaded if i.package in HEAVY]
    # Neither through a module of ours.
    assert not [f"line {i.line}: {i.module}" for i in loaded if i.module and i.module not in LIGHT]


@pytest.mark.parametrize(
    ("module", "line", "expected"),
    [
        ("study.study", "from ..store.record import RunRecord", {"store.record"}),
        ("study.study", "from . import flips, growth", {"study.flips", "study.growth"}),
        ("study.study", "from .. import measure", {FRONT_PAGE}),
        ("study.study", "from stabilitykit import Budget", {FRONT_PAGE}),
        ("study.study", "import stabilitykit", {FRONT_PAGE}),
        ("study.study", "import stabilitykit.store.record as kept", {"store.record"}),
        (
            "study.study",
            "from ..estimates.metrics import scores, accuracy",
            {"estimates.metrics.scores", "estimates.metrics"},
        ),
        ("estimates.metrics.pairwise", "from .scores import accuracy", {"estimates.metrics.scores"}),
        ("estimates.metrics.pairwise", "from ...errors import UsageError", {"errors"}),
        ("estimates.metrics", "from .scores import accuracy", {"estimates.metrics.scores"}),
        ("estimates.metrics", "from ...errors import UsageError", {"errors"}),
        (FRONT_PAGE, "from .study.study import Study", {"study.study"}),
        ("study.study", "from torch import nn", {None}),
    ],
)
def test_an_import_is_traced_to_its_module(module: str, line: str, expected: set[str | None]) -> None:
    (statement,) = ast.parse(line).body
    assert {i.module for i in imports_of(module, statement)} == expected


@pytest.mark.parametrize("module", ORDER)
def test_public_methods_say_what_they_do(module: str) -> None:
    """In place of ruff's D102: a method that overrides a described one inherits the description."""
    loaded = importlib.import_module("stabilitykit" if module == FRONT_PAGE else f"stabilitykit.{module}")
    classes = [c for c in vars(loaded).values() if inspect.isclass(c) and c.__module__ == loaded.__name__]
    undescribed = [
        f"{cls.__qualname__}.{name}"
        for cls in classes
        for name, value in vars(cls).items()
        if not cls.__name__.startswith("_") and not name.startswith("_")
        if inspect.isroutine(value) or isinstance(value, property | functools.cached_property)
        if not inspect.getdoc(getattr(cls, name))
    ]
    assert not undescribed


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
