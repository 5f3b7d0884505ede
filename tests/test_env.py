"""``stabilitykit env``: what the bits of a run depend on here, and what of it differs from a stored study."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stabilitykit.__main__ import main
from stabilitykit.store.run_store import RunStore
from stabilitykit.training.environment import current_environment
from tests.store.small_records import claimed
from tests.store.two_experiments import fill, record
from tests.store_names import key_of, session_id


@pytest.fixture
def say(capsys, tmp_path):
    """Carry out the command on the store of this test, and give its exit code, what it wrote and complained of."""

    def run(*arguments):
        try:
            code = main(["env", "--store", str(tmp_path / "store"), *arguments])
        except SystemExit as exit_:
            code = exit_.code
        written = capsys.readouterr()
        return code, written.out.splitlines(), written.err

    return run


@pytest.fixture
def keep(tmp_path):
    """Keep a study of an environment that differs from this one in some fields; give its key."""

    def write(**fields):
        store, key = RunStore(tmp_path / "store", session_id("one")), key_of("kept")
        about = current_environment("cpu", 1, tmp_path).must_match | fields
        experiment = store.experiment(key, {"task": "digits", "protocol": {}, "environment": about})
        with claimed(experiment, 0) as claim:
            experiment.publish(claim, record(0))
        return key

    return write


def test_it_prints_every_field(say, tmp_path):
    code, lines, _ = say("--device", "cpu")
    environment = current_environment("cpu", 1, tmp_path)
    assert code == 0
    assert f"kernels: {environment.kernels}" in lines
    assert f"torch: {environment.torch}" in lines
    assert "cuda: none" in lines
    shown = {line.partition(":")[0] for line in lines if not line.startswith("replaced.")}  # by libraries, if any
    assert shown == {name for name, value in environment.to_json().items() if not isinstance(value, dict)}


def test_a_study_of_the_same_environment(say, keep):
    key = keep()
    assert say(key[:6]) == (0, [f"A run here has the bits of study {key[:6]}: nothing differs."], "")


def test_a_study_of_another_says_what_differs(say, keep):
    key = keep(kernels="0" * 16, torch="2.8", mkldnn=False, ambient={"sdp math": False}, gone="x")
    code, lines, _ = say(key)
    here = dict(line.split(": ", 1) for line in say("--device", "cpu")[1])
    assert code == 1
    assert lines == [
        f"torch: 2.8 there, {here['torch']} here",
        "mkldnn: False there, True here",
        "ambient.sdp math: False there, none here",
        f"kernels: {'0' * 16} there, {here['kernels']} here",
        "gone: x there, none here",
    ]


def test_a_study_of_other_threads_is_compared_with_as_many_here(say, keep, tmp_path):
    key = keep(threads=2, kernels=current_environment("cpu", 2, tmp_path).kernels)
    assert say(key)[0] == 0
    code, lines, _ = say(key, "--threads", "1")
    assert (code, lines[0]) == (1, "threads: 2 there, 1 here")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["ffff"], "Expected the beginning of a key"),
        (["--threads", "0"], "Expected threads >= 1 but got threads=0"),
        (["--threads", "two"], "invalid int value"),
        (["--device", "tpu"], "Expected the device to be auto, cpu, cuda or cuda:N"),
    ],
)
def test_bad_input_is_2(say, keep, arguments, complaint):
    keep()
    code, lines, complained = say(*arguments)
    assert (code, lines) == (2, [])
    assert complaint in complained


def test_a_study_whose_description_is_torn_is_2(say, keep, tmp_path):
    key = keep()
    (tmp_path / "store" / "v2" / key / "experiment.json").write_text("{")
    assert say(key)[0] == 2


def test_no_store_is_2(say):
    assert say("ab")[0] == 2


@pytest.mark.slow
def test_the_command_finds_the_store_above(tmp_path):
    store = RunStore(tmp_path / ".stabilitykit", session_id("one"))
    fill(store, key_of("kept"), "digits", [record(0)])
    (tmp_path / "tests").mkdir()
    command = [sys.executable, "-m", "stabilitykit", "env", key_of("kept")]
    done = subprocess.run(
        command, cwd=tmp_path / "tests", env=os.environ | {"MKL_CBWR": "COMPATIBLE"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "torch: 2.9 there" in done.stdout
