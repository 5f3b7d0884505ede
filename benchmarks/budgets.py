"""Propose budgets from measured studies: 1.25 times the largest upper 95 % bound, per task and measure.

pytest stability_tests --stability-runs 10 --stability-undecided pass -n 2 --stability-json measured.json
python benchmarks/budgets.py measured.json
"""

import json
import sys
from pathlib import Path

MEASURES = ("accuracy_sd", "cross_entropy_sd", "disagreement", "ensemble_delta")

#: A study of 5 runs of an unchanged model exceeds 2.5 times its true SD once in 10,000 (chi-square). The upper bound of
#: 10 runs is 1.65 times their SD, the largest of several some 2 times the true one.
HEADROOM = 1.25


def cell(estimate):
    if estimate is None:
        return "-"
    value, low, high = (float("nan") if estimate[key] is None else estimate[key] for key in ("value", "low", "high"))
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


document = json.loads(Path(sys.argv[1]).read_text())
studies = {(study["task"], study["name"]): study for study in document["studies"]}  # each once: tests share studies
environment = document["environment"]
print(", ".join(f"{key} {environment[key]}" for key in ("platform", "cpu_capability", "threads", "torch", "python")))
print(f"\n| task | varies | R | {' | '.join(MEASURES)} |\n|---|---|---{'|---' * len(MEASURES)}|")
for (task, name), study in studies.items():
    cells = " | ".join(cell(study["metrics"].get(measure)) for measure in MEASURES)
    print(f"| {task} | {name} | {study['runs']} | {cells} |")
for task in dict.fromkeys(task for task, _ in studies):
    found = [study["metrics"] for (of, _), study in studies.items() if of == task]
    highs = {name: max((m[name]["high"] or 0) for m in found if name in m) for name in MEASURES}
    print(f"\n{task}: " + ", ".join(f"{name}={HEADROOM * high:.2g}" for name, high in highs.items()))
