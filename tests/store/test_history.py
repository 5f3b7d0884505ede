"""Why runs were trained again, from what the store has of a study."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stabilitykit.errors import StoreError
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.catalog import Catalog
from stabilitykit.store.differences import UNEXPLAINED
from stabilitykit.store.history import UNKNOWN_INPUT, UNNAMED, History, difference_to_last
from stabilitykit.store.key import protocol_ingredients
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_store import RunStore
from stabilitykit.store.traced_inputs import Inputs, write
from tests.store_names import session_id


def about(vary: str = "init", asked_by: str = "test_a.py::test_net 0", session: str = "one", **parts: str):
    return {
        "task": "digits",
        "asked_by": asked_by,
        "session": session_id(session),
        "protocol": protocol_ingredients(NoiseProtocol(vary, runs=2)),
        "environment": {"threads": 1},
        "parts": parts,
    }


@pytest.fixture
def store(tmp_path: Path):
    """Keep an experiment for each ``about``, one after the other."""

    def keep(*abouts: dict) -> Catalog:
        for number, values in enumerate(abouts):
            store = RunStore(tmp_path / "store", values["session"])
            experiment = store.experiment(f"{number:x}a" * 16, values)
            claim = experiment.claim(0)
            experiment.publish(claim, RunRecord(0, {}, status="ok", seconds=1.0))
            experiment.release(claim)
            os.utime(experiment.folder / "experiment.json", (1_700_000_000 + number,) * 2)
        return Catalog(tmp_path / "store")

    return keep


def test_a_study_is_named_by_task_test_or_key_and_each_training_has_its_reason(store):
    catalog = store(about(lr="1"), about(lr="2", session="two"), about(lr="2", asked_by="test_a.py::test_other 0"))
    for name in ("test_a.py::test_net", "0a0a", "1a1a"):
        (history,) = History.of(catalog, name)
        assert (history.task, history.test, history.varies) == ("digits", "test_a.py::test_net", "init")
        assert [chapter.entry.key[:2] for chapter in history.chapters] == ["1a", "0a"]
        assert [chapter.reason for chapter in history.chapters] == [f"lr was 1 and is 2, {UNEXPLAINED}", ""]
    assert len(History.of(catalog, "digits")) == 2


def test_an_experiment_whose_difference_was_not_kept_says_so(store):
    catalog = store(about(), about(session="two"))
    (history,) = History.of(catalog, "digits")
    assert history.chapters[0].reason == UNNAMED


READ = [Inputs(), Inputs(files={"lr.json": "1"}), Inputs(files={"lr.json": "2"}), Inputs(variables={"LR": "2"})]


def test_what_trainings_read_is_named_for_each_of_them(store):
    read = [{"inputs": inputs.digest} for inputs in READ[1:]]
    catalog = store(about(), *(about(session=str(i)) | digest for i, digest in enumerate(read)))
    task = catalog.folder / "v2" / ("f" * 32)  # what a task reads lies in a folder that no study names
    task.mkdir()
    for inputs in READ[1:]:
        write(task, inputs)
    (history,) = History.of(catalog, "digits")
    assert [chapter.reason for chapter in history.chapters] == [
        "variable LR is read now, and was not before",
        "file lr.json, which it reads, was edited",
        "file lr.json is read now, and was not before",
        "",
    ]
    for file in task.glob("inputs/*"):
        file.write_text("{")  # torn
    (history,) = History.of(catalog, "digits")
    assert [chapter.reason for chapter in history.chapters] == [UNKNOWN_INPUT] * 3 + [""]


@pytest.mark.parametrize("name", ["nothing", "", "ff"])
def test_a_study_that_the_store_does_not_know_is_refused_with_those_that_it_knows(store, name):
    catalog = store(about())
    with pytest.raises(StoreError, match=r"It has the tasks digits and the tests test_a.py::test_net\.$"):
        History.of(catalog, name)
    with pytest.raises(StoreError, match="It has no experiments"):
        History.of(_empty(catalog), name)


def _empty(catalog: Catalog) -> Catalog:
    RunStore(catalog.folder.parent / "empty", session_id("one"))
    return Catalog(catalog.folder.parent / "empty")


def test_the_last_session_that_was_answered_the_same_study_is_compared(store):
    catalog = store(about(lr="1"), about(lr="2", session="two"), about("shuffle", lr="3", session="three"))
    assert difference_to_last(catalog, about(lr="4", session="four")) == f"lr was 2 and is 4, {UNEXPLAINED}"
    assert difference_to_last(catalog, about(lr="4", session="two")) == f"lr was 1 and is 4, {UNEXPLAINED}"
    assert difference_to_last(catalog, about(lr="4", session="four", asked_by="test_b.py::test_b 0")) == ""
    assert difference_to_last(catalog, about("all", lr="4", session="four")) == ""


def test_another_seed_is_a_difference_of_the_same_study(store):
    other = about(session="two")
    other["protocol"] = {**other["protocol"], "seed": 9}
    assert difference_to_last(store(about()), other) == "protocol: seed was 0 and is 9"
