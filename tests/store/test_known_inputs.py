"""What the runs of an experiment read is known to all processes that train them: two contents are no study."""

from __future__ import annotations

import pytest

from stabilitykit.store import known_inputs
from stabilitykit.store.known_inputs import KnownInputs
from stabilitykit.store.traced_inputs import Inputs, later_of, write_later

OLD, NEW = Inputs(files={"late": "1"}), Inputs(files={"late": "2"})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base").mkdir()
    return tmp_path


def test_another_content_is_named_whichever_process_or_session_read_the_first(folder):
    for _ in range(2):
        assert KnownInputs(Inputs(), folder).note(OLD) == ()
    ours = KnownInputs(Inputs(), folder)
    assert ours.note(NEW) == ("file late",)
    assert later_of(folder) == (OLD,), "a run that failed leaves nothing"
    assert ours.note(OLD) == ()


def test_what_another_process_keeps_meanwhile_is_known(folder):
    ours, theirs = (KnownInputs(Inputs(), folder) for _ in range(2))
    assert ours.note(Inputs()) == ()
    assert theirs.note(OLD) == ()
    assert ours.note(NEW) == ("file late",)


@pytest.mark.parametrize("names", [(OLD, NEW), (NEW, OLD)])
def test_of_two_runs_that_end_at_once_one_is_named(folder, monkeypatch, names):
    """Whichever of the two entries comes first by its name."""
    ours, theirs = names

    def write_at_once(place, inputs):
        write_later(place, theirs)
        return write_later(place, inputs)

    monkeypatch.setattr(known_inputs, "write_later", write_at_once)
    assert KnownInputs(Inputs(), folder).note(ours) == ("file late",)


def test_what_the_base_run_has_read_is_known(folder):
    write_later(folder / "base", OLD)
    assert KnownInputs(Inputs(), folder, [folder / "base"]).note(NEW) == ("file late",)


def test_a_file_that_a_run_writes_may_be_another_for_each(folder):
    written = Inputs(written=("late",))
    assert KnownInputs(Inputs(), folder).note(written) == ()
    assert KnownInputs(Inputs(), folder).note(OLD) == ()
    assert KnownInputs(Inputs(), folder).note(NEW) == ()
    (said,) = {sentence for one in later_of(folder) for sentence in one.untraced}
    assert said == "It reads late, which an earlier run has written: it is not traced."


def test_a_damaged_entry_tells_nothing(folder):
    write_later(folder, OLD)
    (file,) = (folder / "later").iterdir()
    file.write_text("{")
    assert KnownInputs(Inputs(), folder).note(NEW) == ()
