"""What is proven of a task is found again, also where two studies prove at once."""

from __future__ import annotations

import pytest

from stabilitykit.execution.proofs import Proofs
from stabilitykit.store.run_store import RunStore
from stabilitykit.training.control import Control
from tests.store_names import session_id

KEY = "0" * 32
SHOWN, OPEN = Control(True, "first 2 epochs", trace=("a", "b")), Control(False, "not proven: it took too long")


@pytest.fixture
def base(tmp_path):
    def open_base(session="one", key=KEY):
        return RunStore(tmp_path / "store", session_id(session)).experiment(key, {})

    return open_base


def test_what_is_kept_is_found_by_the_next_session(base):
    proofs = Proofs(base())
    nothing = (None, "", (), {})
    assert (proofs.look("auto"), proofs.held("base run"), proofs.trained_by("base run"), proofs.alive) == nothing
    proofs.keep_look("auto", SHOWN)
    proofs.keep_held("base run", "the whole run", ["one gw0", "one gw1"])
    proofs.keep_alive("init", "in the first epoch")
    for found in (proofs, Proofs(base()), Proofs(base("two"))):
        assert found.look("auto") == SHOWN
        assert found.held("base run") == "the whole run"
        assert found.trained_by("base run") == ("one gw0", "one gw1")
        assert found.alive == {"init": "in the first epoch"}


def test_a_look_that_proved_nothing_is_taken_again_by_another_session(base):
    Proofs(base()).keep_look("auto", OPEN)
    assert Proofs(base()).look("auto") == OPEN
    assert Proofs(base("two")).look("auto") is None


def test_two_studies_that_prove_at_once_lose_nothing(base):
    one, other = Proofs(base()), Proofs(base())
    one.keep_alive("init", "in the first epoch")
    other.keep_alive("shuffle", "in a whole run")
    one.keep_held("base run", "the whole run", ["one gw0"])
    other.keep_held("all", "run 0", ["one gw1"])
    found = Proofs(base())
    assert found.alive == {"init": "in the first epoch", "shuffle": "in a whole run"}
    assert (found.held("base run"), found.held("all")) == ("the whole run", "run 0")


def test_a_copy_leaves_what_is_proven_there(base):
    there = base(key="1" * 32)
    Proofs(there).keep_alive("init", "in a whole run")
    proofs = Proofs(base())
    proofs.keep_alive("init", "")
    proofs.keep_look("auto", SHOWN)
    proofs.copy_to(there)
    assert Proofs(there).alive == {"init": "in a whole run"}
    assert Proofs(there).look("auto") == SHOWN
    assert Proofs(base()).alive == {"init": ""}
