"""Commands as tasks: what a run is given and leaves, what counts for its key, and every way to write one wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from stabilitykit import Command, NoiseProtocol, Study, measure
from stabilitykit.errors import IsolationError, ProtocolError, RunsFailedError, TaskError
from stabilitykit.execution.session import Session
from stabilitykit.execution.where import Where
from stabilitykit.store.run_store import RunStore

#: Notes each run in a ledger outside of its folder, and prints a score of each of its flags.
SCRIPT = """
    import os, random, sys
    from helper import OFFSET
    flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    open("../ledger", "a").write(" ".join(sys.argv[1:]) + "\\n")
    score = OFFSET + sum(random.Random(int(seed)).random() for seed in flags.values() if seed.isdecimal())
    print(f"loss={score:.6f}")
"""
SCORES = {"loss": r"loss=([0-9.]+)"}

Make = Callable[..., Command]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text(dedent(SCRIPT))
    (folder / "helper.py").write_text("OFFSET = 1\n")
    return folder


@pytest.fixture
def make(project: Path) -> Make:
    """Make a command of the project's script, whatever else is given."""

    def command(*flags: str, **more: Any) -> Command:
        given: dict[str, Any] = {"scores": SCORES, "cwd": project, **more}
        return Command([sys.executable, "train.py", *(flags or ("--seed", "{seed}"))], **given)

    return command


@pytest.fixture
def ask(project: Path) -> Callable[..., Study]:
    """Measure a task as a session of its own does."""

    def answer(task: Command, vary: str = "all", runs: int = 3, **where: Any) -> Study:
        store = RunStore(project.parent / "store")
        session = Session(store, project, Where(**where))
        try:
            return measure(task, NoiseProtocol(vary, runs=runs), session=session)
        finally:
            store.end_session()

    return answer


def write(project: Path, script: str) -> None:
    (project / "train.py").write_text(dedent(script))


def ledger(project: Path) -> list[str]:
    """The arguments of the runs so far; they are forgotten."""
    file = project.parent / "ledger"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


# Runs


def test_a_script_is_measured_by_what_it_prints(make: Make, ask: Callable[..., Study], project: Path) -> None:
    study = ask(make())
    assert len(ledger(project)) == 3
    assert study["loss"].runs == 3
    assert study["loss_sd"].value > 0
    assert {*study.records[0].scores} == {"loss"}


def test_one_seed_is_another_in_each_run(make: Make, ask: Callable[..., Study], project: Path) -> None:
    study = ask(make())
    seeds = [int(line.split()[1]) for line in ledger(project)]
    assert seeds == [record.seeds["init"] for record in study.records]
    assert len({*seeds}) == 3


def test_a_source_varies_alone_and_the_control_proves_it(make: Make, ask: Callable[..., Study], project: Path) -> None:
    study = ask(make("--init", "{init}", "--data", "{shuffle}"), "init")
    lines = [line.split() for line in ledger(project)]
    assert len({line[1] for line in lines}) == 3
    assert len({line[3] for line in lines}) == 1
    assert study.certificate.proven
    assert study.certificate.alive == {"init": "in the first epoch"}
    assert len(lines) == 5, "three runs, the base run again, and the source that was moved alone"


def test_a_source_that_is_not_held_is_found_before_the_runs(
    make: Make, ask: Callable[..., Study], project: Path
) -> None:
    write(project, "import random; open('../ledger', 'a').write('run\\n'); print(f'loss={random.random():.6f}')")
    with pytest.raises(IsolationError, match=r"scores differ: loss is .*Something in it has no flag"):
        ask(make("--init", "{init}"), "init", runs=20)
    assert len(ledger(project)) == 2


def test_a_flag_that_moves_nothing_is_said(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, "print('loss=0.5')")
    assert any("init never reaches" in note for note in ask(make("--init", "{init}"), "init").notes)


def test_a_second_session_answers_from_the_store(make: Make, ask: Callable[..., Study], project: Path) -> None:
    first = ask(make())
    ledger(project)
    assert ask(make())["loss_sd"] == first["loss_sd"]
    assert ledger(project) == []
    ask(make(), runs=5)
    assert len(ledger(project)) == 2


def test_runs_in_child_processes_are_the_same_runs(make: Make, ask: Callable[..., Study], project: Path) -> None:
    """Their output is in the log of each."""
    there = ask(make(), isolation="process", workers=2)
    assert len(ledger(project)) == 3
    assert there["loss_sd"] == ask(make())["loss_sd"]
    assert ledger(project) == []
    logs = sorted(project.parent.glob("store/v*/*/logs/*.log"))
    assert ["loss=" in log.read_text() for log in logs] == [True] * 3


def test_a_run_finds_its_variables_and_the_threads_of_the_study(
    make: Make, ask: Callable[..., Study], project: Path
) -> None:
    write(project, "import os; print('loss=' + os.environ['SEED'] + '.' + os.environ['OMP_NUM_THREADS'])")
    study = ask(make("x", env={"SEED": "{seed}"}), threads=2)
    assert [record.scores["loss"] for record in study.records] == [
        record.seeds["init"] + 0.2 for record in study.records
    ]


def test_each_run_has_a_folder_of_its_own_which_is_removed(
    make: Make, ask: Callable[..., Study], project: Path
) -> None:
    write(
        project,
        """
        import json, os, sys
        assert os.listdir(sys.argv[2]) == []
        open("../ledger", "a").write(sys.argv[2] + "\\n")
        json.dump({"loss": int(sys.argv[1])}, open(sys.argv[2] + "/m.json", "w"))
        """,
    )
    ask(make("{seed}", "{run_dir}", scores={}, score_json="{run_dir}/m.json"))
    folders = ledger(project)
    assert len({*folders}) == 3
    assert not any(Path(folder).exists() for folder in folders)


def test_a_copied_folder_keeps_what_a_run_writes_from_the_others(
    make: Make, ask: Callable[..., Study], project: Path
) -> None:
    write(
        project,
        """
        import json, os, sys
        assert not os.path.exists("m.json")
        json.dump({"loss": int(sys.argv[1])}, open("m.json", "w"))
        """,
    )
    study = ask(make("{seed}", scores={}, score_json="m.json", copy=True), isolation="process", workers=2)
    assert [record.scores["loss"] for record in study.records] == [record.seeds["init"] for record in study.records]
    assert not (project / "m.json").exists()


TAKES_TURNS = """
    import os, sys, time
    assert not os.path.exists("busy"), "another run is in the folder"
    open("busy", "w").close()
    time.sleep(0.3)
    os.remove("busy")
    print(f"loss={sys.argv[1]}")
"""


def test_runs_in_one_folder_take_turns(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, TAKES_TURNS)
    assert len(ask(make("{seed}"), isolation="process", workers=3).trained) == 3


def test_runs_share_a_folder_at_once_where_that_is_asked(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, TAKES_TURNS)
    with pytest.raises(RunsFailedError, match="another run is in the folder"):
        ask(make("{seed}", copy=False), isolation="process", workers=3)


# What counts for the key


@pytest.mark.parametrize("name", ["train.py", "helper.py", "settings.yaml", "data/a.csv"])
def test_an_edited_file_is_trained_anew(make: Make, ask: Callable[..., Study], project: Path, name: str) -> None:
    """The script, a module that it imports, a file that an argument names, and one of the inputs."""
    (project / "data").mkdir()
    for text in ("settings.yaml", "data/a.csv"):
        (project / text).write_text("a: 1\n")
    command = make("--seed", "{seed}", "--config=settings.yaml", "-", inputs=["data/*.csv"])
    ask(command)
    ledger(project)
    (project / name).write_text((project / name).read_text() + "# edited\n")
    ask(replace(command))
    assert len(ledger(project)) == 3


def test_a_module_that_is_run_by_name_counts_with_its_package(ask: Callable[..., Study], project: Path) -> None:
    package = project / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "run.py").write_text(
        "import sys; from pkg.part import ONE; open('../ledger', 'a').write('x\\n'); print(f'loss={ONE}{sys.argv[1]}')"
    )
    (package / "part.py").write_text("ONE = 1\n")
    command = Command([sys.executable, "-m", "pkg.run", "{seed}"], scores=SCORES, cwd=project)
    assert command.name == "pkg.run"
    ask(command)
    assert len(ledger(project)) == 3
    for name, text in (("__init__.py", "A = 1\n"), ("part.py", "ONE = 2\n")):
        (package / name).write_text(text)
        ask(replace(command))
        assert len(ledger(project)) == 3, name


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"A": "1"}},
        {"copy": True},
        {"scores": {"loss": r"loss=([0-9.]+)$"}},
        {"pick": "last"},
    ],
)
def test_another_setting_is_another_key(make: Make, change: dict[str, Any]) -> None:
    assert make().content() != make(**change).content()
    assert make().content() == make().content()


def test_a_longer_time_is_no_other_key(make: Make) -> None:
    assert make().content() == make(timeout=5).content()


def test_what_is_not_traced_is_said(make: Make, ask: Callable[..., Study]) -> None:
    assert any("data and variables, is not traced" in note for note in ask(make()).notes)


def test_a_program_of_another_kind_says_that_its_code_does_not_count(project: Path) -> None:
    command = Command(["sh", "-c", "echo loss=$0", "{seed}"], scores=SCORES, cwd=project)
    assert any("its code does not count" in remark for remark in command.remarks)


def test_a_file_that_changes_while_it_is_measured_ends_the_study(
    make: Make, ask: Callable[..., Study], project: Path
) -> None:
    (project / "out.txt").write_text("")
    write(project, "import sys; open('out.txt', 'a').write('x'); print('loss=' + sys.argv[1])")
    with pytest.raises(RunsFailedError, match=r"out\.txt changed since .* name \{run_dir\}/out\.txt"):
        ask(make("{seed}", "out.txt"))


def test_a_script_that_is_edited_in_the_last_run_ends_the_study(
    make: Make, ask: Callable[..., Study], project: Path
) -> None:
    script = "ledger = open('../ledger', 'a+'); ledger.write('run\\n'); ledger.seek(0)\n"
    script += "if len(ledger.readlines()) == 2: open('train.py', 'a').write('# edited')\nprint('loss=0.5')\n"
    write(project, script)
    with pytest.raises(RunsFailedError, match=r"(?s)failed: run 1\. .*train\.py changed since"):
        ask(make(), runs=2)


# Runs that fail


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; print('hello'); sys.exit(3)", r"ended with exit code 3\. The end of its output:\n  hello"),
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os.abort()", "exit code -6"),
        ("print('loss=nan')", "the pattern .* matches nothing"),
        ("print('loss=1'); print('loss=2')", "matches 2 times"),
    ],
)
def test_a_run_that_fails_shows_the_end_of_its_output(
    make: Make, ask: Callable[..., Study], project: Path, script: str, said: str
) -> None:
    write(project, script)
    with pytest.raises(RunsFailedError, match=said):
        ask(make())


def test_after_a_run_that_fails_no_other_is_started(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, "open('../ledger', 'a').write('run\\n'); 1 / 0")
    with pytest.raises(RunsFailedError, match=r"failed: run 0\."):
        ask(make(), runs=10)
    assert len(ledger(project)) == 1


def test_a_child_shows_the_output_of_a_failed_run_once(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, "print('hel' + 'lo'); 1 / 0")
    with pytest.raises(RunsFailedError) as failed:
        ask(make(), isolation="process")
    assert str(failed.value).count("hello") == 1
    assert "ended with exit code 1" in str(failed.value)


def test_a_run_that_hangs_times_out(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, "import time; print('begun'); time.sleep(600)")
    with pytest.raises(
        RunsFailedError, match=r"(?s)\(timeout; .*had not ended after 1 s, which timeout= .*\n  begun"
    ) as failed:
        ask(make(timeout=1), runs=2)
    assert "failed: run 0." in str(failed.value), "the others are not tried"


def test_a_json_file_from_before_is_no_score(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, "")
    (project / "m.json").write_text('{"loss": 0.5}')
    with pytest.raises(RunsFailedError, match=r"did not write m\.json: the one that is there is from before"):
        ask(make("{seed}", scores={}, score_json="m.json"))


def test_scores_that_differ_in_their_names_are_refused(make: Make, ask: Callable[..., Study], project: Path) -> None:
    write(project, "import sys; print('{\"s%d\": 1}' % (int(sys.argv[1]) % 2))")
    with pytest.raises(TaskError, match="Expected all runs to return the same scores"):
        ask(make("{seed}", scores={}, last_line=True))


# Commands that are wrong


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"command": "python train.py {seed}"}, r"Expected a list of texts, program and arguments, but got 'python"),
        ({"command": []}, "Expected a list of texts"),
        ({"command": ["python", 3, "{seed}"]}, "Expected a list of texts"),
        ({"command": ["python", "train.py"]}, r"runs would all be equal\. Write \[.*, \"--seed\", \"\{seed\}\"\]"),
        ({"command": ["python", "{sed}"]}, r"Did you mean \{seed\}\?"),
        ({"command": ["python", "{seed}", "{init}"]}, r"\{seed\} beside \{init\} .*one seed moves every source"),
        ({"env": {"A": "{sed}"}}, r"Did you mean \{seed\}\?"),
        ({"scores": {}}, r"Expected a way to the scores of 'python \{seed\}' but got none"),
        ({"scores": {"loss": "loss=.*"}}, "to have one group"),
        ({"scores": {"loss": "loss=("}}, "to be a regular expression"),
        ({"scores": {"a b": "loss=(.)"}}, "got 'a b', which is no identifier"),
        ({"scores": {"accuracy": "acc=(.)"}}, "got 'accuracy', which is a measure of stabilitykit's own"),
        ({"pick": "first"}, "Expected pick='only' or pick='last' but got pick='first'"),
        ({"timeout": 0}, "Expected timeout > 0, in seconds, but got timeout=0"),
        ({"timeout": "1"}, "Expected timeout > 0, in seconds, but got timeout='1'"),
        ({"cwd": "none"}, r"Expected cwd= to be a folder but there is none at .*/none\."),
        ({"inputs": ["*.none"]}, r"nothing in .* matches '\*\.none'"),
        ({"score_json": "m.json", "copy": False}, r"Write \{run_dir\}/m\.json, or copy=True"),
    ],
)
def test_a_wrong_command_is_refused_when_it_is_made(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        Command(**{"command": ["python", "{seed}"], "scores": SCORES, **given})


@pytest.mark.parametrize(
    ("flags", "protocol", "said"),
    [
        (["{seed}"], NoiseProtocol("init"), r"Expected vary='all' for .* but got 'init': \{seed\} moves every source"),
        (["{init}"], NoiseProtocol("shuffle"), r"but got 'shuffle': .* has \{init\}"),
        (["{init}"], NoiseProtocol("init+low_level"), "but got 'low_level'"),
        (["{init}"], NoiseProtocol("none", perturb="ulp"), r"by its seeds but got perturb="),
        (["{init}"], NoiseProtocol("init", runs=3), ""),
        (["{shuffle}"], NoiseProtocol("shuffle", onset=2), r"by its seeds but got onset="),
    ],
)
def test_what_cannot_vary_is_refused_before_anything_runs(
    make: Make, project: Path, flags: list[str], protocol: NoiseProtocol, said: str
) -> None:
    session = Session(RunStore(project.parent / "store"), project)
    if said:
        with pytest.raises(ProtocolError, match=said):
            measure(make(*flags), protocol, session=session)
    else:
        measure(make(*flags), protocol, session=session)
    assert bool(ledger(project)) is not bool(said)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["none-such", "{seed}"], "there is no 'none-such' that can be run"),
        ([sys.executable, "trian.py", "{seed}"], r"Expected a script but there is no trian\.py in"),
    ],
)
def test_a_program_or_script_that_is_not_there_is_refused_before_anything_runs(
    ask: Callable[..., Study], project: Path, command: list[str], said: str
) -> None:
    with pytest.raises(TaskError, match=said):
        ask(Command(command, scores=SCORES, cwd=project))
