"""The counts of an interception: in JSON's types, and in one line."""

from __future__ import annotations

from stabilitykit.isolation.intercepted import Intercepted, line_of


def test_nothing_is_said_of_what_there_was_none_of():
    assert Intercepted().to_json() == {}
    assert line_of({}) == ""
    assert line_of(Intercepted(items=1200).to_json()) == "isolated by interception: items 1,200"


def test_one_call_that_seeds_three_generators_is_one_reseeding():
    counts = Intercepted()
    for _ in range(2):
        for called in ("random.seed", "numpy.random.seed", "torch.manual_seed"):
            counts.note_reseeding(called, "lightning.seed_everything", "train.py:31")
    counts.note_reseeding("torch.manual_seed", "torch.manual_seed", "train.py:40")
    assert counts.to_json()["reseedings"] == [
        {"function": "lightning.seed_everything", "place": "train.py:31", "count": 2},
        {"function": "torch.manual_seed", "place": "train.py:40", "count": 1},
    ]
    assert line_of(counts.to_json()) == (
        "isolated by interception: re-seedings 3 (lightning.seed_everything, train.py:31; torch.manual_seed, "
        "train.py:40)"
    )


def test_a_line_names_few_places():
    counts = Intercepted()
    for line in range(5):
        counts.note_reseeding("random.seed", "random.seed", f"a.py:{line}")
    assert line_of(counts.to_json()).endswith(
        "re-seedings 5 (random.seed, a.py:0; random.seed, a.py:1; random.seed, a.py:2; and 2 more)"
    )


def test_splits_are_said_to_be_data():
    assert line_of({"splits": 1}) == "isolated by interception: random splits 1 (data: the same in every run)"
    assert line_of({"own_splits": 1}).endswith("random splits 1 by a generator of their own (left as they are)")
