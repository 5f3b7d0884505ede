"""How well the flip floor is known, and how often the excess test errs: the table of docs/statistics.md.

``python benchmarks/floor.py`` takes a minute. 500 test examples flip on their own, right with probabilities of a beta
distribution (0.5, 0.1), as those of a trained network look: most are always right, some always wrong, few between.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from stabilitykit.estimates.flip_floor import floor_estimate
from stabilitykit.estimates.metrics import churn, excess_of

STUDIES = 3000
EXAMPLES = 500


def main() -> None:
    for runs in (3, 5, 10, 20, 30):
        draw = np.random.default_rng(0)
        chances = draw.beta(0.5, 0.1, size=EXAMPLES)
        truth = 100 * math.sqrt((chances * (1 - chances)).sum()) / EXAMPLES
        floors, sds = [], []
        for _ in range(STUDIES):
            correct = draw.random((runs, EXAMPLES)) < chances
            floors.append(floor_estimate(churn(torch.from_numpy(correct)), EXAMPLES).value)
            sds.append(float(100 * correct.mean(axis=1).std(ddof=1)))
        errors = [100 * float(np.std(found)) / truth for found in (floors, sds)]
        alarms = np.mean([excess_of(sd, floor, runs) < 0.05 for sd, floor in zip(sds, floors, strict=True)])
        print(f"R = {runs}: floor {errors[0]:.1f} %, SD {errors[1]:.0f} %, excess found in {100 * alarms:.1f} %")


if __name__ == "__main__":
    main()
