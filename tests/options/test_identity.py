"""Which studies are one and the same: in another session, in another worker, and where a test asks by text."""

from __future__ import annotations

import os

import pytest

#: A task that keeps its checkpoints where pytest teaches to.
WITH_CHECKPOINTS = """
    import tempfile

    @pytest.mark.parametrize("kind", [str, type(Path())])
    def test_it(stability, tmp_path, kind):
        place = kind(tmp_path)

        def other(run):
            outputs = train(run)
            torch.save(outputs, os.path.join(place, f"{run.index}.pt"))
            return outputs

        stability.measure(other, vary="init", runs=4, labels=Y)
"""


@pytest.mark.slow
@pytest.mark.parametrize("base", [True, False])
def test_a_temporary_folder_is_the_same_task_in_each_session_and_worker(project, base):
    project.tests(WITH_CHECKPOINTS)
    where = ["-p", "xdist"] if base else ["--basetemp", project.path / "base"]
    project.meet(2)
    _, report = project.study(*where, way="n2")
    assert len(project.trained_by()) == 2  # both workers
    assert not [note for study in report["studies"] for note in study["notes"] if "another worker" in note]
    project.meet(1)
    project.study(*where)
    assert project.trained() == []


def test_a_temporary_folder_in_a_variable_is_the_same_in_each_session_and_study(project):
    project.tests(
        """
        def test_it(stability, tmp_path, monkeypatch):
            monkeypatch.setenv("ACME_CACHE", str(tmp_path))

            def other(run):
                torch.save(outputs := train(run), os.path.join(os.environ["ACME_CACHE"], f"{run.index}.pt"))
                return outputs

            stability.measure(other, vary="init", runs=2, labels=Y)
            stability.measure(other, vary="shuffle", runs=2, labels=Y)
        """
    )
    for trained in ([0, 1, 1], []):
        _, report = project.study()
        assert project.trained() == trained
        assert not [note for study in report["studies"] for note in study["notes"] if "no stored run" in note]


@pytest.mark.slow
def test_two_workers_name_the_value_in_which_their_tasks_differ(project):
    project.tests(
        """
        def test_it(stability):
            Z = torch.tensor(list(os.urandom(4)))

            def other(run):
                return train(run) + 0 * Z.sum()

            stability.measure(other, vary="init", runs=4, labels=Y)
        """
    )
    project.sleep_in_runs(0.5)
    _, report = project.study(way="n2")
    (note,) = [note for note in report["studies"][0]["notes"] if "another worker" in note]
    assert "could not help: other.Z differs, although no file does" in note


BY_TEXT = """
    def test_itself(request):
        request.getfixturevalue("stability").measure(train, vary="init", runs=4, labels=Y)

    @pytest.fixture
    def measured(request):
        return request.getfixturevalue("stability").measure(train, vary="shuffle", runs=4, labels=Y)

    def test_through_a_fixture(measured):
        pass

    def test_of_something_else(request):
        request.getfixturevalue("tmp_path")
"""


def test_tests_that_ask_by_text_are_planned(project):
    project.tests(BY_TEXT)
    result, report = project.study("--stability-plan")
    result.assert_outcomes(skipped=2, deselected=1)
    assert [row["test"] for row in report["plan"]] == [
        "test_toy.py::test_itself",
        "test_toy.py::test_through_a_fixture",
    ]


def test_tests_that_ask_by_text_are_shared(project):
    project.tests(BY_TEXT)
    project.meet(2)
    result = project.run("-k", "itself", way="n2")
    result.assert_outcomes(passed=1)
    assert len(project.trained_by()) == 2


def test_a_black_box_whose_seed_does_nothing_is_not_said_to_have_weights(project):
    project.tests(
        """
        def test_it(stability):
            def box(seed):
                return torch.stack([1.0 - Y, 1.0 * Y], 1)

            stability.measure(box, runs=3, labels=Y)
        """
    )
    _, report = project.study()
    assert "all runs are bit-identical: the seed does nothing" in report["studies"][0]["notes"]


#: A task whose model lies beside the tests, in a file that is edited while the session runs.
EDITED = """
    import importlib, sys
    import lazy

    @pytest.mark.parametrize("turn", [0, 1])
    def test_it(stability, turn):
        if turn:
            file = Path("lazy.py")
            file.write_text("RATE = 0.2  # edited")

        def other(run):
            return train(run, lazy.RATE)

        stability.measure(other, vary="init", runs=2, labels=Y)
"""


def test_a_file_that_is_edited_while_a_session_runs_makes_its_studies_private(project):
    project.write("lazy.py", "RATE = 0.1\n")
    project.tests(EDITED)
    _, report = project.study("-p", "no:randomly")
    notes = [[note for note in study["notes"] if "not kept" in note] for study in report["studies"]]
    assert notes == [[], ["runs not kept, nor verdicts: lazy.py was edited after it had been imported"]]
    project.ledger()
    project.write("test_toy.py", (project.path / "test_toy.py").read_text().replace("if turn", "if False"))
    _, report = project.study()
    assert project.trained() != []  # the text is another one now


def test_an_edit_that_python_overlooks_keeps_nothing_under_the_new_text(project, monkeypatch):
    """A text of equal size, written in the same second: Python runs what it has compiled of the old one."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    project.write("rates.py", "RATE = 0.1\n")
    project.tests(
        """
        def other(run):
            from rates import RATE
            return train(run, RATE)

        def test_it(stability):
            stability.measure(other, vary="init", runs=2, labels=Y)
        """
    )
    rates = project.path / "rates.py"
    said = []
    for text in ("RATE = 0.1\n", "RATE = 0.2\n"):
        before = rates.stat()
        rates.write_text(text)
        os.utime(rates, ns=(before.st_mtime_ns, before.st_mtime_ns))
        _, report = project.study()
        said.append([note for study in report["studies"] for note in study["notes"] if "not kept" in note])
    assert (said[0], len(said[1])) == ([], 1)
    assert "Python runs an older text of rates.py" in said[1][0]


def test_a_file_that_is_edited_before_training_imports_it_fails_the_run(project):
    project.write("lazy.py", "RATE = 0.1\n")
    project.tests(
        """
        def test_it(stability):
            def other(run):
                Path("lazy.py").write_text("RATE = 0.2  # edited")
                import lazy
                return train(run, lazy.RATE)

            stability.measure(other, vary="init", runs=2, labels=Y, control="full")
        """
    )
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*lazy.py was edited between the question and its import while training*"])
