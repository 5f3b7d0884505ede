"""What a study's key is made of."""

from __future__ import annotations

from stabilitykit.execution.identity import protocol_identity
from stabilitykit.protocol import NoiseProtocol


def test_keys_of_studies_without_an_onset_are_what_they_were():
    assert protocol_identity(NoiseProtocol("init", runs=2)) == {
        "vary": ["init"],
        "perturb": None,
        "seed": 0,
        "constants": {},
    }
    assert protocol_identity(NoiseProtocol("shuffle", runs=2, onset=3))["onset"] == 3
