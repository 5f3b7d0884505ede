"""Hashes of items of any type, and of the states of generators."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from stabilitykit.auditing.digests import digest, drawn, states


@dataclass
class Sample:
    image: Any
    label: int = 1


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


ITEMS = [
    torch.arange(3),
    torch.arange(3.0),
    torch.arange(3.0, dtype=torch.bfloat16),
    torch.zeros(0),
    np.arange(3),
    np.array(["a", None], dtype=object),
    {"x": torch.zeros(2), "y": 1},
    [1, [2, 3]],
    [[1, 2], 3],
    (1, 2, 3),
    "text",
    b"text",
    None,
    1.5,
    True,
    Sample(torch.zeros(2)),
    Sample(torch.ones(2)),
    Slotted(3),
    Slotted(4),
]


def test_equal_items_have_equal_hashes_and_others_others() -> None:
    hashes = [digest(item) for item in ITEMS]
    assert len(set(hashes)) == len(ITEMS)
    assert [digest(copy.deepcopy(item)) for item in ITEMS] == hashes


def test_an_image_counts_by_its_pixels() -> None:
    image = pytest.importorskip("PIL.Image")
    black, white = image.new("L", (2, 3)), image.new("L", (2, 3), 255)
    assert digest(black) == digest(image.new("L", (2, 3))) != digest(white)
    assert digest(black) != digest(image.new("L", (3, 2)))


def test_what_cannot_be_read_counts_by_its_type_and_a_circle_ends() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    assert digest(circle) == digest(circle)
    assert digest(lambda: 1) == digest(lambda: 2)


def test_each_generator_is_told_apart() -> None:
    for name, draw in {"python": random.random, "numpy": np.random.rand, "torch": lambda: torch.rand(1)}.items():
        before = states()
        draw()
        assert drawn(before, states()) == {name: before[name]}
    assert drawn(states(), states()) == {}
    before = states()
    random.gauss(0, 1)
    random.gauss(0, 1)
    assert set(drawn(before, states())) == {"python"}


def test_a_state_has_the_same_hash_in_another_process() -> None:
    script = (
        "import random, numpy, torch\n"
        "from stabilitykit.auditing.digests import states\n"
        "random.seed(1); numpy.random.seed(1); torch.manual_seed(1); print(states())"
    )
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
