"""Propose budgets for the tests whose studies a JSON report holds: 1.5 times the largest upper bound of each test.

    pytest stability_tests --stability-runs 10 --stability-undecided pass -n 2 --stability-json measured.json
    python benchmarks/budgets.py measured.json

The upper bound of an SD over 10 runs is 1.65 times the SD (docs/statistics.md), so such a budget is some 2.5 times
the SD: 5 runs of an unchanged model exceed that in one study of 20,000, and 3 runs in one of 500.
"""

import json
import sys
from pathlib import Path

MEASURES = ("accuracy_sd", "cross_entropy_sd", "disagreement", "ensemble_delta")
HEADROOM = 1.5


def cell(estimate):
    return "{value:.2g} [{low:.2g}, {high:.2g}]".format(**estimate)


document = json.loads(Path(sys.argv[1]).read_text())
environment = document["environment"]
judged = [study for study in document["studies"] if study["verdict"]]

print(", ".join(f"{key} {environment[key]}" for key in ("platform", "cpu_capability", "threads", "torch", "python")))
print(f"\n| task | varies | R | {' | '.join(MEASURES)} |\n|---|---|---{'|---' * len(MEASURES)}|")
for study in judged:
    cells = " | ".join(cell(study["metrics"][measure]) for measure in MEASURES)
    print(f"| {study['task']} | {study['name']} | {study['runs']} | {cells} |")

print("\nbudgets:")
for test in dict.fromkeys(study["test"].partition("[")[0] for study in judged):
    metrics = [study["metrics"] for study in judged if study["test"].partition("[")[0] == test]
    limits = {name: HEADROOM * max(estimates[name]["high"] for estimates in metrics) for name in MEASURES}
    print(f"{test}: " + ", ".join(f"{name}={limit:.2g}" for name, limit in limits.items()))
