"""What a child process is given is for it alone: nothing executable and nothing secret lies in the store."""

from __future__ import annotations

import contextlib
import os
import pickletools
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.options.conftest import Project

TOKEN = "a-token-of-the-ci-4d1f"
TEST = """
    def look(run):
        import os
        assert os.environ["CI_TOKEN"], "the child has the environment"
        return train(run)

    def test_it(stability):
        stability.measure(look, labels=Y, vary="init", runs=3)
"""


@pytest.fixture
def secret(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project that knows a secret, and its folder of temporary files."""
    with tempfile.TemporaryDirectory() as temporary:  # a short path: multiprocessing puts a socket there
        monkeypatch.setenv("CI_TOKEN", TOKEN)
        monkeypatch.setenv("TMPDIR", temporary)
        project.tests(TEST)
        yield Path(temporary)


def contents(*folders: Path) -> dict[Path, bytes]:
    """What the files below some folders hold, while a session may still put one in its place."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found[path] = path.read_bytes()
    return found


def is_pickle(content: bytes) -> bool:
    try:
        return any(operation.name == "STOP" for operation, _, _ in pickletools.genops(content))
    except Exception:  # noqa: BLE001  # whatever a file that is none makes of it
        return False


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["process", "spawn"])
def test_while_children_train_no_file_holds_the_task_or_the_environment(
    project: Project, secret: Path, isolation: str, wait_for: Callable
) -> None:
    project.sleep_in_runs(2)
    session = project.start("--stability-isolation", isolation)
    store = project.path / ".stabilitykit"
    wait_for(lambda: project.in_ledger() or session.poll() is not None)
    found = contents(store, secret)
    assert session.poll() is None, "there are two runs left"
    assert [path for path, content in found.items() if TOKEN.encode() in content] == []
    assert [path for path, content in found.items() if is_pickle(content) or path.suffix in {".task", ".pt"}] == []
    assert session.wait(60) == 0


@pytest.mark.slow
def test_a_killed_session_leaves_neither(project: Project, secret: Path, wait_for: Callable) -> None:
    project.sleep_in_runs(60)
    session = project.start("--stability-isolation", "process")
    wait_for(lambda: list((project.path / ".stabilitykit").glob("**/claims/*.json")) or session.poll() is not None)
    assert session.poll() is None, "it is to be killed while a child trains"
    os.killpg(session.pid, signal.SIGKILL)
    session.wait(60)
    left = contents(project.path / ".stabilitykit", secret)
    assert left
    assert [path for path, content in left.items() if TOKEN.encode() in content or is_pickle(content)] == []
    assert tempfile.gettempdir() != str(secret), "this process has another, where the killed one wrote nothing"


@pytest.mark.slow
def test_what_another_user_put_into_the_store_is_not_run(project: Project, secret: Path) -> None:
    """The task lay in the store, where its owner could swap it before a child loaded it."""
    harm = f"cos\nsystem\n(S'touch {project.path / 'harmed'}'\ntR."
    project.write(
        "conftest.py",
        f"""
        import threading, time
        from pathlib import Path

        def swap():
            while True:
                for path in Path(".stabilitykit").rglob("*"):
                    if path.is_file() and path.suffix in {{".task", ".pt", ".pkl"}}:
                        path.write_bytes({harm.encode()!r})
                time.sleep(0.001)

        threading.Thread(target=swap, daemon=True).start()
        """,
    )
    project.run("--stability-isolation", "process").assert_outcomes(passed=1)
    assert not (project.path / "harmed").exists()


@pytest.mark.slow
def test_a_log_is_this_users_alone(project: Project, secret: Path) -> None:
    project.tests(TEST.replace("return train(run)", "print(run.index)\n        return train(run)"))
    project.run("--stability-isolation", "process").assert_outcomes(passed=1)
    logs = list((project.path / ".stabilitykit").rglob("*.log"))
    assert len(logs) == 3
    assert [log.stat().st_mode & 0o777 for log in logs] == [0o600] * 3
