"""Each sentence in a box of docs/trust.md is one that the package says, word for word."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from stabilitykit.errors import IsolationError
from tests.conftest import recipe_of
from tests.test_rooms import modules, tree_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "trust.md"

#: The share of a sentence that must be literal text of one place in the code; the rest are names and figures.
_LITERAL = 0.6


def sentences() -> list[str]:
    boxes = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [line for box in boxes for line in box.splitlines()]


def templates() -> Iterator[list[str]]:
    """The literal parts of each text in the code, in order, without what is filled in."""
    for module in modules():
        for node in ast.walk(tree_of(module)):
            if isinstance(node, ast.JoinedStr):
                yield [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.split(r"\{\w*\}", node.value)


def covered(sentence: str, parts: list[str]) -> int:
    """How many characters of a sentence are those of the parts, one after the other, up to one that is missing."""
    found, place = 0, 0
    for part in parts:
        start = sentence.find(part, place)
        if start < 0:  # the rest of the sentence may be the beginning of this part
            rest = sentence[place:].rstrip("…").strip()
            at = next((i for i in range(len(rest)) if part.startswith(rest[i:])), len(rest))
            return found + len(rest) - at
        found, place = found + len(part), start + len(part)
    return found


def is_said(sentence: str, code: list[list[str]]) -> bool:
    words = len(sentence.replace("…", "").strip())
    return any(covered(sentence, parts) >= _LITERAL * words for parts in code)


@pytest.fixture(scope="module")
def code() -> list[list[str]]:
    return [parts for parts in templates() if len("".join(parts)) > 15]


#: The sentences whose text the code puts together from several places, and which are therefore triggered.
TRIGGERED = ("held: ", "isolation ", "init never reaches", "Expected two trainings", "Expected the base run")


@pytest.mark.parametrize("sentence", [line for line in sentences() if not line.startswith(TRIGGERED)])
def test_the_code_says_it(sentence, code):
    assert is_said(sentence, code)


def test_a_word_that_the_code_does_not_say_is_found(code):
    said = "no stored run read what is there now: …"
    assert is_said(said, code)
    assert not is_said(said.replace("stored", "kept"), code)


def test_what_studies_say_is_on_the_page(ask, blobs, tmp_path):
    def model():
        return nn.Linear(6, 3 + 0 * len((tmp_path / "config").read_text()))

    (tmp_path / "config").touch()
    study = ask(recipe_of(model, blobs, lr=0.1), "init+shuffle")
    said = [study.certificate.line()]

    def seeded():
        torch.manual_seed(1)
        return nn.Linear(6, 3)

    said += [
        note.removeprefix("all runs are bit-identical: ")
        for note in ask(recipe_of(seeded, blobs, lr=0.1), "init").notes
    ]
    long = type(study.recipe)(**{**vars(recipe_of(model, blobs, lr=0.1)), "epochs": 90, "_prepared": {}})
    said += ask(long, "init", control="first", runs=2).notes[:1]
    said += ask(lambda seed: blobs[0][:, :3].numpy() + seed % 7, "all", labels=blobs[1]).notes[:1]
    for task in (leaking(blobs, 0), leaking(blobs, 2), caching(blobs)):
        with pytest.raises(IsolationError) as leak:
            ask(task, "init", labels=blobs[1])
        said += [str(leak.value)]
    wanted = [line.rstrip("…").strip() for line in sentences() if line.startswith(TRIGGERED)]
    assert not [line for line in wanted if not any(one.startswith(line) for one in said)], said


def leaking(blobs, begins):
    """A loop whose weights move by a number of the system's, from an epoch on."""

    def train(run):
        with run.stream("init"):
            model = nn.Linear(6, 3)
        run.perturb(model)
        for epoch in run.epochs(4):
            if epoch >= begins:
                for parameter in model.parameters():
                    parameter.data += random.SystemRandom().random()
        return model(blobs[0])

    return train


def caching(blobs):
    """A loop of its own that trains once, and returns what is there from then on."""
    kept = []

    def train(run):
        if not kept:
            model = nn.Linear(6, 3)
            nn.functional.cross_entropy(model(blobs[0]), blobs[1]).backward()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
            kept.append(model)
        return run.perturb(kept[0])(blobs[0])

    return train
