"""The rooms of the package: which may import which, what importing costs, and that the drawing of them is right."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import stabilitykit

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stabilitykit"
DRAWING = ROOT / "docs" / "architecture.md"
FRONT_PAGE = "__init__"

#: Every room may import these.
OPEN = {"errors", "public"}

#: What each room imports of the others: a folder, or a module that lies beside the folders.
ROOMS: dict[str, set[str]] = {
    "public": set(),
    "errors": set(),
    "_version": set(),
    "protocol": set(),
    "estimates": set(),
    "store": {"protocol"},
    "verdicts": {"estimates"},
    "tracing": {"store"},
    "isolation": {"protocol"},
    "training": {"_version", "protocol", "store", "estimates", "tracing", "isolation"},
    "render": {"estimates", "verdicts"},
    "auditing": {"protocol", "store", "isolation", "training", "render"},
    "study": {"protocol", "store", "estimates", "verdicts", "isolation", "training", "render"},
    "execution": {"protocol", "store", "estimates", "verdicts", "tracing", "training", "study"},
    "adapters": {"protocol", "isolation", "store", "estimates", "training"},
    "commands": {"protocol", "store", "estimates", "verdicts", "render", "study", "execution", "adapters"},
    "plugin": {"protocol", "store", "estimates", "verdicts", "training", "render", "study", "execution", "auditing"},
    "zoo": {"training"},
    "testing": {"protocol", "store", "estimates", "training", "study"},
    "cli": {"_version", "store", "render"},
    "__main__": {"_version", "cli", "store", "training", "auditing", "commands"},
    FRONT_PAGE: {
        "_version",
        "protocol",
        "store",
        "estimates",
        "verdicts",
        "tracing",
        "training",
        "auditing",
        "study",
        "execution",
        "adapters",
    },
}


#: Loaded by every pytest run of every user, so these load none of HEAVY, themselves or through one another.
LIGHT = (
    FRONT_PAGE,
    "_version",
    "errors",
    "public",
    "store",
    "execution",
    "plugin",
    "protocol",
    "plugin.askers",
    "plugin.options",
    "execution.stop",
    "plugin.findings",
    "plugin.progress",
    "plugin.rootdir",
    "store.audit_events",
    "store.imported_variables",
    "store.imported_values",
    "store.layout",
    "store.loaded_files",
    "store.ownership",
    "tracing",
    "tracing.cached_reads",
    "tracing.callers",
    "tracing.earlier_reads",
    "tracing.opened_files",
    "tracing.untraced",
    "tracing.import_reads",
    "tracing.links",
    "tracing.variables",
    "plugin.hooks",
    "plugin.xdist",
)
HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib"}

#: Only these know that pytest exists.
PYTEST_MODULES = {"plugin.expected", "plugin.hooks", "plugin.progress", "plugin.rootdir", "plugin.xdist"}
PYTEST_PACKAGES = {"pytest", "_pytest", "pluggy", "xdist", "execnet"}


class Import(NamedTuple):
    """One name that one line imports."""

    line: int
    package: str  #: top-level name: "torch", "stabilitykit"
    module: str | None  #: for stabilitykit, its name as `modules` has it


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def tree_of(module: str) -> ast.Module:
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


def inside(dotted: str) -> str:
    """The module that `stabilitykit.a.b` is or comes from: the front page where it is none of them."""
    names = dotted.split(".")[1:]
    while names and not path_of(".".join(names)).is_file():
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


def modules() -> list[str]:
    """Every module by its dotted name below `stabilitykit`; a folder's `__init__.py` has the name of the folder."""
    return sorted(name_of(path) for path in PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


# Which room imports which


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in modules()} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_rooms_that_it_may(room: str) -> None:
    may = ROOMS[room] | {room, *OPEN}
    wrong = {
        f"{module}, line {i.line}: {i.module}"
        for module in modules()
        if room_of(module) == room
        for i in all_imports(module)
        if i.module and room_of(i.module) not in may
    }
    assert not wrong, f"{room} imports from a room that ROOMS does not name"


@pytest.mark.parametrize("room", ROOMS)
def test_room_needs_every_import_that_it_may_have(room: str) -> None:
    """A room that is allowed what it does not use would soon use it."""
    has = {
        room_of(i.module)
        for module in modules()
        if room_of(module) == room
        for i in all_imports(module)
        if i.module is not None
    }
    assert ROOMS[room] <= has


def test_no_room_imports_one_that_imports_it() -> None:
    list(graphlib.TopologicalSorter(ROOMS).static_order())  # raises CycleError


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = modules()
    graph = {m: {i.module for i in all_imports(m) if i.module} - {m, FRONT_PAGE} for m in names if m != FRONT_PAGE}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("module", [m for m in modules() if path_of(m).name == "__init__.py" and m.count(".") == 0])
def test_the_front_page_of_a_room_only_says_what_it_is(module: str) -> None:
    """Importing one module of a room loads its front page, and pytest loads `plugin.hooks` in every session."""
    if module not in (FRONT_PAGE, "zoo"):  # which are front pages for users
        assert [type(node) for node in tree_of(module).body] == [ast.Expr]


def drawing() -> str:
    """The table of the rooms and their picture."""
    (section,) = re.findall(r"^## The rooms$(.*?)(?=^## |\Z)", DRAWING.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(section)


def test_the_drawing_shows_the_rooms() -> None:
    rows = re.findall(r"^\| `([\w.]+?)/?(?:\.py)?` \|[^|\n]*\|([^|\n]*)\|$", drawing(), flags=re.MULTILINE)
    drawn = {room: set(re.findall(r"[a-z]+", imports)) for room, imports in rows}
    shown = {room: {other for other in others if other != "_version"} for room, others in ROOMS.items()}
    assert drawn == {room: others for room, others in shown.items() if not room.startswith("_")}


def test_the_arrows_of_the_drawing_are_the_imports_that_no_other_way_leads_to() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", drawing(), flags=re.MULTILINE))
    within = {room: others & BOXES for room, others in ROOMS.items() if room in BOXES}
    assert drawn == {(a, b) for a, others in within.items() for b in others if not reaches(within, others - {b}, b)}


def reaches(graph: dict[str, set[str]], starts: set[str], goal: str) -> bool:
    return any(goal in graph[start] or reaches(graph, graph[start], goal) for start in starts)


#: The rooms that the picture has as boxes: what a user's question goes through.
BOXES = {
    "protocol",
    "estimates",
    "store",
    "verdicts",
    "tracing",
    "isolation",
    "training",
    "auditing",
    "render",
    "study",
    "execution",
    "plugin",
}


def test_a_circle_and_an_arrow_upward_are_found() -> None:
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(ROOMS | {"store": {"study"}}).static_order())
    assert reaches({"a": {"b"}, "b": {"c"}, "c": set()}, {"a"}, "c")
    assert not reaches({"a": {"b"}, "b": {"c"}, "c": set()}, {"c"}, "a")


# Where the tests of a module are


#: Modules without a test file of their own name, and where they are tested instead.
TESTED_ELSEWHERE = {
    "_version": "nothing to test: one line",
    "__main__": "tests/options/test_plan.py and tests/test_env.py: by what the command prints",
    "adapters.supervisor": "tests/adapters/test_supervised.py: by what becomes of a command",
    "commands.options": "tests/commands/test_measure.py: by what a command line does",
    "execution.preload": "tests/execution/test_child_processes.py: it is what their server loads",
    "execution.session": "tests/study/test_study.py: by the studies that it makes",
    "execution.sharing": "tests/options/test_sharing.py: it needs workers of pytest-xdist",
    "execution.where": "tests/training/test_environment.py: which device a slot has",
    "execution.variables": "tests/execution/test_child_processes.py: it is about what a child process finds",
    "auditing.findings": "tests/auditing/test_audit.py: by the trainings that it tells of",
    "auditing.observation": "tests/auditing/test_observer.py: by what is noted in it",
    "auditing.observed_passes": "tests/auditing/test_observer.py: by what is noted of a pass",
    "auditing.observed_batches": "tests/auditing/test_observer.py: by what loaders and their processes give",
    "tracing.earlier_reads": "tests/tracing/test_import_reads.py and test_cached_reads.py: by what keeps it",
    "tracing.opened_files": "tests/tracing/test_tracing.py: by the files and databases of a training",
    "tracing.untraced": "tests/tracing/test_tracing.py: by what is said of a training",
    "tracing.seen": "tests/tracing/test_trace.py: by what it is told",
    "tracing.trace_inputs": "tests/tracing/test_trace.py: by the inputs of a trace",
    "plugin.askers": "tests/options/test_compare.py: by the studies of fixtures",
    "plugin.expected": "tests/options/test_reds.py: by failures that a test expects",
    "plugin.findings": "tests/options/test_json.py and test_table.py: by what a session says",
    "plugin.fixture": "tests/options/: by the tests of users",
    "plugin.hooks": "tests/options/: by the sessions of users",
    "plugin.progress": "tests/options/test_progress.py: by what a session says",
    "plugin.reds": "tests/options/test_reds.py: by retries",
    "plugin.rootdir": "tests/options/test_rootdir.py: by a session's folder",
    "render.calibration_table": "tests/options/test_calibrate.py: by what a session says",
    "render.scores_table": "tests/commands/test_measure.py: by what a command line prints",
    "render.comparison_words": "tests/options/test_compare.py and tests/study/test_comparison.py",
    "render.forecast_table": "tests/execution/test_forecast.py, beside the numbers that it shows",
    "store.baseline_files": "tests/plugin/test_baselines.py, beside what writes and reads them",
    "verdicts.undecided": "tests/verdicts/test_limits.py and test_gate.py: in the reasons that end with it",
    "verdicts.explanation": "tests/study/test_asserts.py: by the messages that it explains",
    "store.record": "tests/store/test_run_store.py: a record comes back bit for bit",
    "study.journal": "tests/study/test_asserts.py and test_summary.py: by what is noted and told",
    "study.planned_study": "tests/execution/test_forecast.py, which makes them",
    "zoo.layers": "tests/zoo/test_models.py: with the models made of them",
    "zoo.resnet": "tests/zoo/test_models.py",
    "zoo.shallow": "tests/zoo/test_models.py",
    "zoo.shufflenet": "tests/zoo/test_models.py",
    "zoo.vgg": "tests/zoo/test_models.py",
}


def without_tests_of_their_own(names: list[str]) -> set[str]:
    """The modules that have no test file of their own name at the same place under tests/; not the front pages."""
    files = [(name, *name.rpartition(".")[::2]) for name in names if path_of(name).name != "__init__.py"]
    return {
        name for name, room, noun in files if not ROOT.joinpath("tests", *room.split("."), f"test_{noun}.py").is_file()
    }


def test_every_module_has_tests_of_its_own_name() -> None:
    assert without_tests_of_their_own(modules()) == set(TESTED_ELSEWHERE)


def test_tests_that_are_elsewhere_are_there() -> None:
    named = {file for where in TESTED_ELSEWHERE.values() for file in re.findall(r"tests/[\w/.]+", where)}
    assert not {file for file in named if not (ROOT / file.rstrip(".")).exists()}


# What a module may load


@pytest.mark.parametrize("module", modules())
def test_module_does_not_import_the_front_page(module: str) -> None:
    assert not {f"line {i.line}" for i in all_imports(module) if i.module == FRONT_PAGE}


@pytest.mark.parametrize("module", [module for module in modules() if module.split(".")[0] != "zoo"])
def test_module_leaves_the_zoo_to_users(module: str) -> None:
    assert not {f"line {i.line}: {i.module}" for i in all_imports(module) if (i.module or "").split(".")[0] == "zoo"}


@pytest.mark.parametrize("module", modules())
def test_module_loads_torchvision_only_where_it_is_used(module: str) -> None:
    assert not {f"line {i.line}" for i in imports_on_load(module) if i.package == "torchvision"}


@pytest.mark.parametrize("module", [module for module in modules() if module not in PYTEST_MODULES])
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


@pytest.mark.parametrize("module", modules())
def test_public_methods_say_what_they_do(module: str) -> None:
    """In place of ruff's D102: a method that overrides a described one inherits the description."""
    loaded = importlib.import_module("stabilitykit" if module == FRONT_PAGE else f"stabilitykit.{module}")
    classes = [c for c in vars(loaded).values() if inspect.isclass(c) and defined_in(c) == loaded.__name__]
    undescribed = [
        f"{cls.__qualname__}.{name}"
        for cls in classes
        for name, value in vars(cls).items()
        if not cls.__name__.startswith("_") and not name.startswith("_")
        if inspect.isroutine(value) or isinstance(value, property | functools.cached_property)
        if not inspect.getdoc(getattr(cls, name))
    ]
    assert not undescribed


def defined_in(cls: type) -> str:
    """The module of a class, public ones too, which say that they are of `stabilitykit`."""
    home = stabilitykit._MODULE_OF.get(cls.__name__) if cls.__module__ == "stabilitykit" else None
    return f"stabilitykit.{home}" if home else cls.__module__
