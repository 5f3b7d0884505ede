"""``onset=`` of a study: the same numbers in every way, the shared epochs trained once, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

RECIPE = """
    from stabilitykit import Recipe

    epochs = []

    def note(model):
        def forward(module, inputs):
            if module.training:
                with open("steps.txt", "a") as file:
                    file.write("step\\n")
        model.register_forward_pre_hook(forward)
        return model

    recipe = Recipe(
        model=lambda: note(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))),
        train=(X, Y), test=(X, Y), epochs=8, batch_size=64,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    )
"""
QUESTIONS = (
    RECIPE
    + """
    @pytest.mark.parametrize("onset", [2, 6])
    def test_onset(stability, onset):
        study = stability.measure(recipe, vary="stochastic", onset=onset, runs=4)
        assert len({record.fingerprint for record in study.records}) == 4

    def test_gate(stability):
        stability.check(recipe, vary="stochastic", onset=6, runs=4, budget=Budget(disagreement=100))

    def test_loop(stability):
        stability.measure(train, labels=Y, vary="shuffle", onset=1, runs=3)
"""
)


@pytest.mark.slow
def test_report_is_the_same_in_every_way(project: Project) -> None:
    project.tests(QUESTIONS)
    reports = {}
    for way in ("plain", "n2"):
        result, report = project.study(way=way)
        result.assert_outcomes(passed=4)
        result.stdout.fnmatch_lines(["*stochastic@6*"])
        reports[way] = project.timeless(report)
        project.forget()
    assert reports["plain"] == reports["n2"]
    studies = reports["plain"]["studies"]
    assert [(study["name"], study["onset"]) for study in studies] == [
        ("stochastic@2", 2),
        ("stochastic@6", 6),
        ("stochastic@6", 6),
        ("shuffle@1", 1),
    ]
    assert [study["vary"] for study in studies] == [["stochastic"]] * 3 + [["shuffle"]]
    assert all(study["certificate"]["proven"] for study in studies)


def test_the_shared_epochs_are_trained_once(project: Project) -> None:
    project.tests(QUESTIONS)
    project.run("-k", "test_onset or test_gate")
    # Of one step each. The base run and its repetition take 8 each, its first epoch and the source moved alone 1 each.
    # From 2 on: the look takes 4 and 2, four runs of 6. From 6 on: the look 4 more and 2, 2, four runs of 2. A step is
    # rehearsed three times.
    expected = 8 + 8 + 1 + 1 + (4 + 2 + 4 * 6) + (6 - 2 + 2 + 2 + 4 * 2) + 3
    assert len((project.path / "steps.txt").read_text().split()) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("onset=3", "*'init', which has happened before training. With onset=3 write vary='shuffle+augment+*"),
        ("vary='shuffle', onset=8", "*Expected onset= to be one of the 8 epochs, 0 to 7, but got onset=8*"),
        ("vary='shuffle', onset=-1", "*Expected onset >= 0 but got onset=-1*"),
    ],
)
def test_what_cannot_begin_late_is_refused_before_anything_trains(
    project: Project, arguments: str, message: str
) -> None:
    project.tests(RECIPE + f"\n    def test_it(stability):\n        stability.measure(recipe, {arguments})\n")
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([message])
    assert not (project.path / "steps.txt").exists()
    assert project.stored() == []


@pytest.mark.slow
def test_a_plan_names_it(project: Project) -> None:
    project.tests(QUESTIONS)
    _, report = project.study("--stability-plan")
    assert [plan["name"] for plan in report["plan"]] == ["stochastic@2", "stochastic@6", "stochastic@6", "shuffle@1"]
