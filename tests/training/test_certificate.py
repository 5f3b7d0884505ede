"""The certificate as a value: what it says in a line, what moves nothing, and what a verdict then means."""

from __future__ import annotations

import json

import pytest

from stabilitykit.errors import IsolationError
from stabilitykit.protocol import NoiseProtocol, Perturbation, Source
from stabilitykit.training.certificate import Certificate, check_alive, named, why_dead

ALIVE, DEAD = "in the first epoch", ""


def certificate(**alive: str) -> Certificate:
    return Certificate(True, "the whole run twice, bit-identical", alive=alive)


def test_its_line_says_what_is_held_what_acts_and_what_is_read():
    shown = Certificate(
        True, "x twice", alive={"init": ALIVE, "augment": DEAD}, inputs={"files": {"a": "1"}, "modules": {}}
    )
    assert shown.line() == "held: x twice; alive: init; moves nothing: augment; traced: 1 files"
    assert Certificate(False, "not proven: because").line() == "not proven: because"
    assert json.loads(json.dumps(shown.to_json()))["line"] == shown.line()


@pytest.mark.parametrize("vary", ["init", "shuffle", "augment", "init+shuffle", ["stochastic", "low_level"]])
def test_a_verdict_on_what_moves_nothing_is_none(vary):
    protocol = NoiseProtocol(vary, runs=2)
    sources = [source.value for source in protocol.vary]
    check_alive(protocol, certificate(**dict.fromkeys(sources, ALIVE)))
    for dead in sources:
        with pytest.raises(IsolationError, match=f"{dead} never reaches the weights of this task"):
            check_alive(protocol, certificate(**{**dict.fromkeys(sources, ALIVE), dead: DEAD}))


@pytest.mark.parametrize(
    ("dead", "is_red"), [("init", True), ("shuffle", True), ("augment", False), ("stochastic", False)]
)
def test_all_asks_for_what_every_training_has(dead, is_red):
    protocol, shown = NoiseProtocol("all", runs=2), certificate(**{dead: DEAD}, low_level=ALIVE)
    if is_red:
        with pytest.raises(IsolationError, match=dead):
            check_alive(protocol, shown)
    else:
        check_alive(protocol, shown)
    assert shown.dead == (dead,)


def test_all_asks_for_something_that_moves():
    protocol = NoiseProtocol("all", runs=2)
    with pytest.raises(IsolationError, match=r"'all' names to move .* stochastic never reaches the weights"):
        check_alive(protocol, certificate(stochastic=DEAD))
    check_alive(protocol, certificate())  # a black box, of which nothing is asked


def test_each_name_moves_one_thing_away_from_the_base_run():
    protocol = NoiseProtocol("init+low_level", Perturbation("bit", bit=3), runs=5, constants={"shuffle": 4})
    base = protocol.base.plans()[0]
    plans = named(protocol)
    assert list(plans) == ["init", "low_level", repr(Perturbation("bit", bit=3))]
    assert [[plan.index for plan in alone] for alone in plans.values()] == [[0], [0], [0, 1, 2]]
    moved = [{name for name in base.seeds if plan.seeds[name] != base.seeds[name]} for (plan, *_) in plans.values()]
    assert moved == [{"init"}, {"low_level"}, set()]
    assert named(NoiseProtocol("all", runs=2), frozenset({Source.INIT})).keys() == {"init"}, "what a task has"
    assert "never reaches an output" in why_dead(repr(Perturbation("bit", bit=3)))
