"""The key of a run: its ingredients, and the hash of them."""

from __future__ import annotations

import threading

from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.key import ingredients, key_of, protocol_ingredients


def test_keys_of_studies_without_an_onset_are_what_they_were():
    assert protocol_ingredients(NoiseProtocol("init", runs=2)) == {
        "vary": ["init"],
        "perturb": None,
        "seed": 0,
        "constants": {},
    }
    assert protocol_ingredients(NoiseProtocol("shuffle", runs=2, onset=3))["onset"] == 3


def test_the_number_of_runs_is_no_ingredient_and_the_protocol_content_and_environment_are(tmp_path):
    def key(protocol, content=1, environment="here"):
        made = ingredients(lambda: content, protocol, {"host": environment}, tmp_path, ())
        assert made.private == ""
        return key_of(made.about)

    first = key(NoiseProtocol("init", runs=2))
    assert first == key(NoiseProtocol("init", runs=30))
    others = [
        key(NoiseProtocol("shuffle", runs=2)),
        key(NoiseProtocol("init", runs=2, seed=1)),
        key(NoiseProtocol("init", runs=2), content=2),
        key(NoiseProtocol("init", runs=2), environment="there"),
    ]
    assert len({first, *others}) == 5


def test_content_that_cannot_be_hashed_makes_the_runs_private(tmp_path):
    made = ingredients(threading.Lock, NoiseProtocol("init"), {}, tmp_path, ())
    assert (made.about["fingerprint"], "lock" in made.private) == ("", True)
