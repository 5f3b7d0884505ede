"""Write docs/paper.md: the paper's tables and figures beside ours, from what a session of stability_tests wrote down.

::

    pytest stability_tests --stability-scale small -n 2 --paper-json docs/paper/small.json
    python benchmarks/paper.py

The words are in docs/paper/template.md; every number is from the JSON. Figures need matplotlib (the extra ``report``).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "paper"
PAPER = json.loads((ROOT / "stability_tests" / "paper.json").read_text())

#: Columns as the paper heads them.
HEADINGS = {
    "accuracy": "accuracy, %",
    "accuracy_sd": "accuracy SD, points",
    "cross_entropy_sd": "cross-entropy SD, nats",
    "disagreement": "disagreement, %",
    "correlation": "correlation",
    "ensemble_delta": "ensemble Δ, points",
    "perplexity": "perplexity",
    "perplexity_sd": "perplexity SD",
    "perplexity_ensemble_delta": "ensemble perplexity Δ",
}
OUTCOMES = {
    "passed": "reproduced",
    "failed": "**not reproduced**",
    "skipped": "undecided",
    "xfailed": "**not reproduced**",
}


class Results:
    """What one session found."""

    def __init__(self, path: Path) -> None:
        self.document = json.loads(path.read_text())
        self.tests: list[dict[str, Any]] = self.document["tests"]
        found = [(kind, value) for test in self.tests for kind, value in test["found"]]
        self.rows = [value for kind, value in found if kind == "row"]
        self.figures: dict[str, dict[str, Any]] = {}
        for kind, value in found:
            if kind == "figure":
                self.figures.setdefault(value["figure"], {})[value["series"]] = value["values"]

    def table(self, name: str) -> str:
        """One table of the paper: ours with its 90 % interval, and below it in italics the paper's."""
        columns = PAPER[name]["columns"]
        rows = {row["row"]: row for row in self.rows if row["table"] == name}
        score = next(iter(set(next(iter(rows.values()))["ours"]) - set(columns)))
        lines = []
        for title, published in PAPER[name]["rows"].items():
            if title in rows:
                ours = rows[title]["ours"]
                cells = [f"{_shown(ours[c])}<br>*{p:g}*" for c, p in zip(columns, published, strict=True)]
                lines.append([title, str(rows[title]["runs"]), _number(ours[score]["value"], 3), *cells])
        return _table(["", "R", HEADINGS[score], *(HEADINGS[column] for column in columns)], lines)

    def outcomes(self, module: str) -> str:
        """What became of the tests of a module, as a list: those of one function and one outcome together."""
        groups: dict[tuple[str, str], list[str]] = {}
        for test in self.tests:
            file, _, name = test["test"].partition("::")
            if file == f"{module}.py":
                function, _, case = name.partition("[")
                groups.setdefault((function, _outcome(test)), []).append(case.removesuffix("]"))
        return "\n".join(
            f"- `{function}`{cases[0] and f' ({_listed(cases)})'}: {outcome}"
            for (function, outcome), cases in groups.items()
        )

    def series(self, figure: str) -> str:
        """A figure's numbers as a table, where they are one estimate each or a flat object of them."""
        panels = self.figures[figure]
        names = list(next(iter(panels.values())))
        heads = ["", *(HEADINGS.get(name, name.replace("_", " ")) for name in names)]
        return _table(heads, [[title, *(_shown(panel[name]) for name in names)] for title, panel in panels.items()])

    def remedies(self) -> str:
        """Appendix A: one row a remedy, below the one without."""
        columns = ("accuracy", "accuracy_sd", "cross_entropy_sd", "disagreement")
        panels = self.figures["remedies"]
        any_panel = next(iter(panels.values()))
        plain = {column: any_panel["plain" if column == "accuracy" else f"plain {column}"] for column in columns}
        rows = {"without": plain} | panels
        heads = ["", *(HEADINGS[column] for column in columns)]
        return _table(heads, [[name, *(_shown(found[column]) for column in columns)] for name, found in rows.items()])

    def condition_numbers(self) -> str:
        """Section 4.1: how much larger two runs' distance has become by the end of training, by score."""
        titles = {
            "at_least": "largest over pairs",
            "median": "median over pairs",
            "change": "scores end apart by",
            "step": "initial weights start apart by",
        }
        rows = [
            [f"of {score.replace('_', '-')}", *(f"{found[name]:.2g}" for name in titles)]
            for score, found in self.figures["condition number"].items()
        ]
        return _table(["condition number, at least", *titles.values()], rows)

    def components(self) -> str:
        """Appendix D: the SDs that a crossed design splits a score's SD into, and those under each constant."""
        titles = {
            "rows": "of initialisation, whatever the constant",
            "columns": "of the constant",
            "rest": "of both together, and the rest",
            "within": "of initialisation under one constant",
        }
        panels = self.figures["appendix D"]
        rows = [
            [title, *(_shown(panel["component_sds"][name]) for panel in panels.values())]
            for name, title in titles.items()
        ]
        under_each = zip(*(panel["sds"] for panel in panels.values()), strict=True)
        rows += [[f"under constant {i}", *map(_shown, sds)] for i, sds in enumerate(under_each)]
        rows.append(["largest ratio of two", *(_shown(panel["largest_ratio"]) for panel in panels.values())])
        return _table(["SD", *(score.replace("_", "-") for score in panels)], rows)

    def setting(self) -> str:
        """Where and when it was run."""
        environment = self.document["environment"]
        seconds = sum(test["seconds"] for test in self.tests)
        parts = [f"{name.replace('_', ' ')} {environment[name]}" for name in ("python", "torch") if name in environment]
        return f"scale `{self.document['scale']}`, {', '.join(parts)}; tests took {seconds / 60:.0f} worker-minutes"


def _outcome(test: dict[str, Any]) -> str:
    why = test["why"].removeprefix("Skipped: ")
    if test["outcome"] != "skipped":
        return OUTCOMES[test["outcome"]]
    if not why.startswith("UNDECIDED"):
        return f"left out, {why}"
    return f"undecided: {why.split('UNDECIDED')[1].split(': --stability-runs')[0].strip()}"


def _listed(cases: list[str]) -> str:
    return ", ".join(cases) if len(cases) < 6 else f"{len(cases)} cases"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}g}" if abs(value) < 100 else f"{value:.0f}"


def _shown(estimate: Any) -> str:
    if not isinstance(estimate, dict) or "value" not in estimate:
        return _number(estimate, 3) if isinstance(estimate, (int, float)) else str(estimate)
    value, low, high = (estimate.get(name) for name in ("value", "low", "high"))
    if low is None or high is None or low == high:
        return _number(value)
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def figure_1(results: Results, plt: Any) -> Any:
    """CKA between runs, by layer and source."""
    panels = results.figures["figure 1"]
    layers = list(next(iter(panels.values())))
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for number, (source, found) in enumerate(panels.items()):
        places = [i + (number - len(panels) / 2 + 0.5) * 0.15 for i in range(len(layers))]
        values = [found[layer]["value"] for layer in layers]
        errors = [[abs(found[layer][end] - found[layer]["value"]) for layer in layers] for end in ("low", "high")]
        axes.bar(places, values, 0.14, yerr=errors, label=source, error_kw={"lw": 0.8})
    axes.set_xticks(range(len(layers)), layers)
    axes.set(ylabel="CKA between two runs", ylim=(0, 1))
    figure.legend(ncols=len(panels), fontsize=8, loc="outside upper center")
    return figure


def figure_2(results: Results, plt: Any) -> Any:
    """Spread against the epoch from which a source varies."""
    measures = {
        "accuracy_sd": "accuracy SD, points",
        "cross_entropy_sd": "cross-entropy SD, nats",
        "disagreement": "disagreement, %",
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for name, values in results.figures["figure 2"].items():
        source, measure = name.split(": ")
        panel = axes[list(measures).index(measure)]
        x = [100 * int(epoch) / values["epochs"] for epoch in values["onset"]]
        found = list(values["onset"].values())
        panel.plot(x, [one["value"] for one in found], marker="o", label=source)
        panel.fill_between(x, [one["low"] for one in found], [one["high"] for one in found], alpha=0.12)
        panel.set(xlabel="onset, % of the epochs", ylabel=measures[measure], ylim=(0, None))
    axes[0].legend(fontsize=8)
    return figure


def figure_3(results: Results, plt: Any) -> Any:
    """SD and central 95 % range of the cross-entropy after every epoch, one ulp apart."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for name, growth in results.figures["figure 3"].items():
        of_epochs, label = growth["epochs"], name.replace("_", " ")
        x, low, high = ([one[key] for one in of_epochs] for key in ("epoch", "low", "high"))
        axes[0].plot(x, [one["mean"] for one in of_epochs], lw=0.8, label=label)
        axes[0].fill_between(x, low, high, alpha=0.5)
        axes[1].semilogy(x, [one["sd"]["value"] for one in of_epochs], marker=".", label=label)
    axes[0].set(xlabel="epoch", ylabel="cross-entropy, mean and central 95 %")
    axes[1].set(xlabel="epoch", ylabel="cross-entropy SD, nats")
    axes[0].legend(fontsize=8)
    return figure


FIGURES: dict[str, Callable[[Results, Any], Any]] = {"figure 1": figure_1, "figure 2": figure_2, "figure 3": figure_3}


def page(results: Results, template: str) -> str:
    """Fill the places of the template, such as ``{{table table 1}}`` and ``{{outcomes test_sources}}``."""

    def fill(place: re.Match[str]) -> str:
        kind, _, rest = place[1].partition(" ")
        if kind == "table":
            return results.table(rest)
        if kind == "figure":
            return f"![{FIGURES[place[1]].__doc__}](paper/{place[1].replace(' ', '-')}.png)"
        return str(getattr(results, kind)(rest) if rest else getattr(results, kind)())

    return re.sub(r"{{(.+?)}}", fill, template)


def draw(results: Results) -> None:
    """Write the figures beside the JSON."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for name, make in FIGURES.items():
        make(results, plt).savefig(FOLDER / f"{name.replace(' ', '-')}.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="?", type=Path, default=FOLDER / "small.json")
    results = Results(parser.parse_args().json)
    draw(results)
    target = ROOT / "docs" / "paper.md"
    target.write_text(page(results, (FOLDER / "template.md").read_text()))
    print(f"wrote {target} and {len(FIGURES)} figures")


if __name__ == "__main__":
    main()
