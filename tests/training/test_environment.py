"""Where a run was trained: what must match between the runs of a study, and what is only for the record."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit._version import __version__
from stabilitykit.errors import ConfigError
from stabilitykit.training.environment import current_environment, device_of, resolve_device


def test_a_place_is_described_in_full(tmp_path):
    environment = current_environment("cpu", 3, tmp_path)
    assert environment.torch == torch.__version__
    assert environment.stabilitykit == __version__
    assert (environment.device, environment.cuda, environment.threads) == ("cpu", None, 3)
    assert environment.commit is None
    assert json.loads(json.dumps(environment.to_json())) == environment.to_json()


def test_the_host_and_the_commit_are_only_for_the_record(tmp_path):
    environment = current_environment("cpu", 1, tmp_path)
    assert set(environment.to_json()) - set(environment.must_match) == {"commit", "host"}


def test_what_changes_bits_must_match(tmp_path):
    plain = current_environment("cpu", 1, tmp_path).must_match
    assert current_environment("cpu", 1, tmp_path).must_match == plain
    assert current_environment("cpu", 2, tmp_path).must_match != plain
    torch.set_default_dtype(torch.float64)
    try:
        assert current_environment("cpu", 1, tmp_path).must_match != plain
    finally:
        torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("high")
    try:
        assert current_environment("cpu", 1, tmp_path).must_match != plain
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_commit_is_that_of_the_repository_under_test(tmp_path):
    def git(*args):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
        command = ["git", "-C", str(tmp_path), *identity, *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    (tmp_path / "a.py").write_text("")
    git("add", ".")
    git("commit", "-m", "a")
    commit = current_environment("cpu", 1, tmp_path).commit
    assert git("rev-parse", "HEAD").startswith(commit)
    assert len(commit) == 12
    # Read once a process: the runs of one session name one commit.
    (tmp_path / "a.py").write_text("x = 1")
    assert current_environment("cpu", 1, tmp_path).commit == commit


def test_auto_is_the_device_that_is_there():
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["tpu", "meta", "gpu", "mps", ""])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ConfigError) as refusal:
        resolve_device(device)
    assert str(refusal.value) == f"Expected the device to be auto, cpu, cuda or cuda:N but got device={device!r}."


@pytest.mark.parametrize(
    ("device", "slot", "each", "expected"),
    [
        ("auto", 0, 1, "cuda:0"),
        ("auto", 1, 1, "cuda:1"),
        ("cuda", 3, 2, "cuda:1"),
        ("cuda:1", 1, 2, "cuda:1"),
        ("cpu", 9, 1, "cpu"),
    ],
)
def test_a_slot_has_its_device_among_the_gpus_that_are_seen(monkeypatch, device, slot, each, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device(device, slot, each) == expected


def test_more_workers_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="at most 2 workers, 1 for each of cuda:0, cuda:1, but this is number 3"):
        resolve_device("auto", slot=2)
    with pytest.raises(ConfigError, match="at most 1 workers, 1 for each of cuda:1"):
        resolve_device("cuda:1", slot=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused_with_what_there_is(device):
    with pytest.raises(ConfigError) as refusal:
        resolve_device(device)
    assert str(refusal.value).startswith(
        f"Expected a GPU for device={device!r} but torch {torch.__version__} sees none"
    )


@given(st.integers(1, 4), st.integers(1, 3))
def test_every_device_gets_as_many_workers_as_were_allowed(count: int, each: int) -> None:
    devices = [f"cuda:{index}" for index in range(count)]
    given_out = [device_of(slot, devices, each) for slot in range(count * each)]
    assert {device: given_out.count(device) for device in devices} == dict.fromkeys(devices, each)
    assert given_out[:count] == devices, "a second worker on a device only when each has one"


def test_one_worker_too_many_is_told_what_to_ask_for() -> None:
    with pytest.raises(ConfigError) as refusal:
        device_of(2, ["cuda:0", "cuda:1"])
    assert str(refusal.value) == (
        "Expected at most 2 workers, 1 for each of cuda:0, cuda:1, but this is number 3. Start no more than 2, or "
        "let more workers share a device, if its memory holds as many trainings. Set --stability-workers-per-device 2."
    )
