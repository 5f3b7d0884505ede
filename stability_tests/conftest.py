"""The paper's experiments at three scales, and its numbers beside ours."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import inspect
import json
import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stabilitykit import RandomCropFlip, Recipe, Study
from stabilitykit.zoo import cifar10, cifar10_shallow, linear, resnet14

#: Every row of the paper's tables.
PAPER = json.loads((Path(__file__).parent / "paper.json").read_text())

#: Where torchvision puts what it downloads.
DATA = Path(os.environ.get("STABILITY_DATA", "data"))

#: Where Debian's package dataset-fashion-mnist puts its files.
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


class Images(NamedTuple):
    """``[N, C, H, W]`` images of mean 0 and SD 1 and their classes ``[N]``."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    padding: int  #: of random crops, pixels
    flip: bool = True  #: whether a mirrored image is one of its class; a mirrored 2 is no 2

    @property
    def channels(self) -> int:
        return self.train[0].shape[1]

    @property
    def size(self) -> int:
        return self.train[0].shape[-1]


@functools.cache
def digits(test_thirds: int = 1) -> Images:
    """A third of the 1,797 images of 8 x 8 pixels that come with scikit-learn to train on, and one or two to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = (torch.tensor(data.images[:, None]).float() / 16 - 0.305) / 0.376, torch.tensor(data.target)
    third = torch.arange(len(y)) % 3
    train, test = third == 0, (third > 0) & (third <= test_thirds)
    return Images("digits", (x[train], y[train]), (x[test], y[test]), padding=1, flip=False)


@functools.cache
def fashion_mnist() -> Images:
    """Fashion-MNIST at 14 x 14 pixels: its first 2,500 training and its first 2,000 test images."""

    def read(name: str, header: int, *shape: int) -> Tensor:
        content = gzip.decompress((folder / f"{name}-ubyte.gz").read_bytes())
        return torch.tensor(np.frombuffer(content, np.uint8, offset=header).reshape(shape))

    def split(name: str, count: int) -> tuple[Tensor, Tensor]:
        x = read(f"{name}-images-idx3", 16, -1, 1, 28, 28)[:count]
        return nn.functional.avg_pool2d((x / 255 - 0.286) / 0.353, 2), read(f"{name}-labels-idx1", 8, -1)[:count].long()

    folder = DEBIAN
    if not folder.is_dir():
        from torchvision.datasets import FashionMNIST

        FashionMNIST(DATA, download=True)
        folder = DATA / "FashionMNIST" / "raw"
    return Images("Fashion-MNIST", split("train", 2_500), split("t10k", 2_000), padding=1)


def _torchvision(name: str, mean: float, sd: float, **how: Any) -> Images:
    import torchvision.datasets

    def split(train: bool) -> tuple[Tensor, Tensor]:
        data = getattr(torchvision.datasets, name)(DATA, train=train, download=True)
        x = torch.as_tensor(data.data).float()
        x = x.permute(0, 3, 1, 2) if x.dim() == 4 else x[:, None]
        return (x / 255 - mean) / sd, torch.as_tensor(data.targets)

    return Images(name, split(True), split(False), **how)


@functools.cache
def cifar10_images() -> Images:
    """CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 pixels."""
    return _torchvision("CIFAR10", 0.473, 0.251, padding=4)


@functools.cache
def mnist_images() -> Images:
    """MNIST: 60,000 training and 10,000 test images of 28 x 28 pixels."""
    return _torchvision("MNIST", 0.131, 0.308, padding=2, flip=False)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything: the findings in minutes on a laptop, or every table, up to days on GPUs."""

    name: str
    images: Callable[[], Images]
    easy_images: Callable[[], Images]  #: of the task with a very high accuracy
    runs: int  #: R, where ``--stability-runs`` does not say it
    few: int  #: R of the long tables
    compared: int  #: R of the studies whose SDs are compared
    within: float  #: the factor within which so many runs can show SDs, and few runs disagreements, to be alike
    undecided: str  #: what ``--stability-undecided`` is, where it is not given
    width: float  #: of the convolutional networks, as a share of the paper's
    epochs: int
    shallow_epochs: int  #: of the models of no or one hidden layer
    warmup_epochs: float
    lr: float
    batch_size: int
    cycles: int  #: of snapshot ensembles

    @staticmethod
    def skip_weak_snapshots(epochs: int) -> None:
        """Skip the rest of a test whose cycles of so many epochs end in no network that is worth averaging."""
        if epochs < 5:
            pytest.skip(f"cycles of {epochs} epochs leave weak members: the row is above, and nothing is claimed of it")


#: More images to test on leave less to chance; the small third to train on leaves the networks something to get wrong.
well_tested_digits = functools.partial(digits, test_thirds=2)

SCALES = {
    scale.name: scale
    for scale in (
        Scale("tiny", well_tested_digits, digits, 10, 10, 10, 3, "fail", 0.5, 16, 40, 1, 0.1, 32, cycles=2),
        Scale("small", fashion_mnist, digits, 10, 5, 50, 3, "skip", 0.5, 10, 40, 0.5, 0.2, 64, cycles=5),
        Scale("paper", cifar10_images, mnist_images, 100, 100, 100, 2, "skip", 1, 500, 500, 3, 0.4, 512, cycles=5),
    )
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("paper", "the paper's experiments")
    group.addoption(
        "--stability-scale",
        choices=list(SCALES),
        default="tiny",
        help="tiny (default): the findings, on digits, 10 runs, a few minutes; small: every table and figure, on "
        "Fashion-MNIST, 5 to 50 runs, an hour and a half on 2 cores; paper: its settings, CIFAR-10, 100 runs, days on "
        "GPUs",
    )
    group.addoption("--paper-json", metavar="PATH", help="write every row and figure to PATH, for benchmarks/paper.py")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take R, and what becomes of the undecided, from the scale where the user did not say."""
    config.addinivalue_line("markers", "scale(*names): run at these scales only; without it, at every one")
    chosen = SCALES[config.getoption("stability_scale")]
    for key, value in {"stability_runs": chosen.runs, "stability_undecided": chosen.undecided}.items():
        if config.getoption(key) is None and not config.getini(key):
            setattr(config.option, key, value)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what belongs to another scale."""
    chosen = config.getoption("stability_scale")
    other = [item for item in items if any(chosen not in mark.args for mark in item.iter_markers("scale"))]
    if other:
        config.hook.pytest_deselected(items=other)
        items[:] = [item for item in items if item not in set(other)]


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    chosen = SCALES[pytestconfig.getoption("stability_scale")]
    runs = int(pytestconfig.getoption("stability_runs") or pytestconfig.getini("stability_runs"))
    return chosen if runs == chosen.runs else dataclasses.replace(chosen, runs=runs, few=runs, compared=runs)


@pytest.fixture(scope="session")
def images(scale: Scale) -> Images:
    return scale.images()


@pytest.fixture(scope="session")
def setting(scale: Scale) -> Callable[..., Recipe]:
    """Make a recipe from a model of the zoo: the paper's setting (section 3.2), at this scale."""

    def setting(model: Callable[..., nn.Module], images: Images | None = None, **changes: Any) -> Recipe:
        images = images or scale.images()
        known = inspect.signature(model).parameters
        sized = {"channels": images.channels, "size": images.size, "width": scale.width}
        sized = {name: value for name, value in sized.items() if name in known} | changes.pop("sized", {})
        how = {
            "epochs": scale.epochs,
            "warmup_epochs": scale.warmup_epochs,
            "batch_size": scale.batch_size,
            "augment": RandomCropFlip(images.padding, images.flip),
            "name": model.__name__,
        }
        make = changes.pop("make", cifar10)
        how |= {"lr": scale.lr} if make is cifar10 else {}
        return make(functools.partial(model, **sized), images.train, images.test, **(how | changes))

    return setting


@pytest.fixture(scope="session")
def shallow(scale: Scale, setting: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Make a recipe from a model of no or one hidden layer: a linear one converges at a lower rate only."""

    def shallow(model: Callable[..., nn.Module], **changes: Any) -> Recipe:
        lr = 0.01 if model is linear else 0.1
        how = {"make": cifar10_shallow, "lr": lr, "epochs": scale.shallow_epochs, "memory_format": None}
        return setting(model, **(how | changes))

    return shallow


@pytest.fixture(scope="session")
def main_recipe(setting: Callable[..., Recipe]) -> Recipe:
    """ResNet-14, the paper's main model; its weights are kept, for figure 1."""
    return setting(resnet14, keep_weights=True)


@pytest.fixture(scope="session")
def learned() -> Callable[..., Study]:
    """Return a study as it is, after a look at each of its networks: how far untrained ones differ says nothing.

    The floor is far above chance, which is 10 % of ten classes, and far below the 96 to 97 % that studies of the ResNet
    had on average (SD 0.3 to 0.7 points over runs): only a network that did not train is under it.
    """

    def learned(study: Study, at_least: float = 85) -> Study:
        worst = float(study.measures.of_runs("accuracy").min())
        assert worst > at_least, f"a network of {study!r} is right in {worst:.1f} % only: it has not learned its task"
        return study

    return learned


class Findings:
    """Notes what a test found, for the table at the end and for ``--paper-json``."""

    def __init__(self, note: Callable[[str, object], None]) -> None:
        self._note = note

    def row(self, table: str, row: str, study: Study) -> None:
        """Put a study beside a row of the paper."""
        columns = PAPER[table]["columns"]
        assert row in PAPER[table]["rows"], f"{table} has no row {row!r}"
        ours = {name: study[name].to_json() for name in [*columns, _score_of(study)]}
        self._note("row", {"table": table, "row": row, "runs": len(study.records), "task": study.task, "ours": ours})

    def figure(self, figure: str, series: str, values: object) -> None:
        """Put the numbers of one curve, or one panel, beside a figure of the paper."""
        self._note("figure", {"figure": figure, "series": series, "values": values})

    def sentence(self, sentence: str) -> None:
        """Say what was found so that it can be understood without the paper; the verdict is put before it."""
        self._note("sentence", sentence)

    def say(self, *lines: object) -> None:
        """Put lines below the tables."""
        self._note("line", "\n".join(map(str, lines)))


def _score_of(study: Study) -> str:
    return "perplexity" if "perplexity" in study.measures else "accuracy"


@pytest.fixture
def findings(record_property: Callable[[str, object], None]) -> Findings:
    return Findings(record_property)


def pytest_report_header(config: pytest.Config) -> str:
    chosen = config.getoption("stability_scale")
    more = (
        "; every table and figure: --stability-scale small, an hour and a half on 2 cores" if chosen == "tiny" else ""
    )
    return f"paper: scale {chosen}{more}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the paper's numbers beside ours, and write them down."""
    reports = [report for report in _reports(terminalreporter) if report.user_properties or report.when == "call"]
    reports.sort(key=lambda report: report.location[:2])  # by file and line: workers report as they come
    noted = [(report, *noted) for report in reports for noted in report.user_properties]
    rows = [value for _, name, value in noted if name == "row"]
    scale = SCALES[config.getoption("stability_scale")]
    sentences = [(report.passed, value) for report, name, value in noted if name == "sentence"]
    for title, lines in (_overview(scale, rows, sentences) if sentences else {}).items():
        _section(terminalreporter, title, lines)
    if config.getoption("verbose") > 0 or not sentences:
        for table in [table for table in PAPER if any(row["table"] == table for row in rows)]:
            lines = ["ours [90 % interval] | the paper's", "", *_table(table, [r for r in rows if r["table"] == table])]
            _section(terminalreporter, f"{table}: {PAPER[table]['title']}", lines)
        said = [value for _, name, value in noted if name == "line"]
        if said:
            _section(terminalreporter, "findings of the paper", said)
    path = config.getoption("paper_json")
    if path:
        Path(path).write_text(json.dumps(_document(config, reports), indent=1) + "\n")


def _section(terminalreporter: Any, title: str, lines: list[str]) -> None:
    terminalreporter.section(title)
    for line in lines:
        terminalreporter.write_line(line)


#: What a row of the paper's tables is called where they are not shown as such, and of which network it is.
PLAINLY = {
    "Parameter initialization": "new initial weights",
    "Data shuffling": "another order of the images",
    "Data augmentation": "other random crops of the images",
    "Low-level operations": "other rounding in every step",
    "Stochastic operations": "other dropout",
    "All sources": "all of these",
    "Random bit change": "one initial weight, by the least amount",
    "Vanilla (N = 2)": "all of these, two networks averaged",
}
NETWORKS = {
    "table 2": "language model",
    "table 4": "language model",
    "Linear": "linear model",
}


def _overview(scale: Scale, rows: list[dict[str, Any]], sentences: list[tuple[bool, str]]) -> dict[str, list[str]]:
    """Make the sections that say what was found to a reader who does not know the paper."""
    verdicts = [
        line
        for passed, sentence in sentences
        for line in textwrap.wrap(
            sentence, 126, initial_indent="HOLDS  " if passed else "FAILS  ", subsequent_indent=" " * 7
        )
    ]
    table = {"how far two trainings of a network differ": _plain_table(scale, rows)} if rows else {}
    return table | {"what the paper found, and whether it holds here": verdicts}


def _plain_table(scale: Scale, rows: list[dict[str, Any]]) -> list[str]:
    heads = ["network", "two trainings differ in", "score", "disagree, %", "paper", "SD of the loss", "paper"]
    cells = [heads, *(_plainly(row) for row in rows)]
    images = scale.images()
    about = (
        f"{min(row['runs'] for row in rows)} or more trainings a row, each compared with each. Images: {images.name}, "
        f"{len(images.train[1])} to train on, {len(images.test[1])} to test; ResNet-14 at {scale.width:g} of its "
        f"width, {scale.epochs} epochs. score: right answers, or perplexity. disagree: test examples for which two "
        "trainings give different answers. SD of the loss: over the trainings (language model: of the perplexity). "
        "Brackets, here and below: 90 % intervals, over trainings. paper: Summers & Dinneen, ICML 2021, on other data "
        "and with larger networks: compare the pattern of the rows, not the numbers. A factor of three is what so few "
        "trainings decide without luck. More: -v."
    )
    return [*_lined_up(cells), *textwrap.wrap(about, 133)]


def _lined_up(cells: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _plainly(row: dict[str, Any]) -> list[str]:
    """Write a row without the words of the paper."""
    columns, ours = PAPER[row["table"]]["columns"], row["ours"]
    published = dict(zip(columns, PAPER[row["table"]]["rows"][row["row"]], strict=True))
    network, _, change = row["row"].rpartition(": ")
    score = "perplexity" if "perplexity" in ours else "accuracy"
    sd = next(name for name in ("cross_entropy_sd", "perplexity_sd") if name in ours)
    return [
        NETWORKS.get(network or row["table"], "ResNet-14"),
        PLAINLY[change],
        f"{ours[score]['value']:.1f}{' %' if score == 'accuracy' else ''}",
        "{value:.1f} [{low:.1f}, {high:.1f}]".format(**ours["disagreement"]),
        f"{published['disagreement']:g}",
        f"{ours[sd]['value']:.2g}",
        f"{published[sd]:g}",
    ]


def _reports(terminalreporter: Any) -> Iterator[Any]:
    for category in ("passed", "failed", "skipped", "xfailed"):
        for report in terminalreporter.stats.get(category, []):
            if getattr(report, "when", None) in ("call", "setup") and "stability_tests" in report.nodeid:
                yield report


def _table(table: str, rows: list[dict[str, Any]]) -> list[str]:
    columns = PAPER[table]["columns"]
    cells = [["", "runs", *(name.replace("_", " ").replace("cross entropy", "CE") for name in columns)]]
    for row in rows:
        published = PAPER[table]["rows"][row["row"]]
        numbers = [
            f"{_interval(row['ours'][name])} | {value:g}" for name, value in zip(columns, published, strict=True)
        ]
        cells.append([row["row"], str(row["runs"]), *numbers])
    return _lined_up(cells)


def _interval(estimate: dict[str, Any]) -> str:
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    shown = "-" if value is None else f"{value:.2g}"
    return shown if low is None or high is None or low == high else f"{shown} [{low:.2g}, {high:.2g}]"


def _document(config: pytest.Config, reports: list[Any]) -> dict[str, Any]:
    from stabilitykit.training.environment import current_environment

    tests = [
        {
            "test": report.nodeid.partition("stability_tests/")[2],
            "outcome": report.outcome,
            "why": _why(report),
            "seconds": round(report.duration, 1),
            "found": [[name, value] for name, value in report.user_properties],
        }
        for report in reports
    ]
    environment = current_environment("cpu", 1, config.rootpath).to_json()
    return {"scale": config.getoption("stability_scale"), "environment": environment, "tests": tests}


def _why(report: Any) -> str:
    """Say why a test did not pass, without the places on this machine."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message) if crash else ""
