"""Nothing is removed that stabilitykit did not make, wherever a store is pointed to and whatever lies in it."""

from __future__ import annotations

import ast
import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stabilitykit.errors import StoreError
from stabilitykit.store import byte_locks, ownership, pruning
from stabilitykit.store.catalog import Catalog
from stabilitykit.store.ownership import NotOurs, check_form, move, remove
from stabilitykit.store.pruning import Pruning, Removal
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_store import Experiment, RunStore
from tests.store.small_records import claimed
from tests.store_names import key_of, session_id

KEY, DEAD = key_of("key"), session_id("dead")
LONG_AGO = 1.0  #: seconds since the epoch


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """A store with a good and a failed run, a retired one, and the folder of a session that was killed long ago."""
    store = RunStore(tmp_path / "store", session_id("one"))
    experiment = store.experiment(KEY, {"task": "digits"})
    for index, status in enumerate(("ok", "failed", "failed")):
        logits = torch.zeros(4, 2) if status == "ok" else None
        with claimed(experiment, index) as claim:
            experiment.publish(claim, RunRecord(index, {"init": index}, status, 1.0, logits))
    experiment._files.retire(2)
    dead = store.folder / "sessions" / DEAD
    dead.mkdir()
    (dead / "owners.lock").touch()
    store.end_session()
    make_old(store.folder)
    return store


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of the user's, with all that a folder of ours would have."""
    folder = tmp_path / "elsewhere"
    for name in ("living.lock", "owners.lock", "claims.lock", "experiment.json", "0000.json", "0001.json", "mine.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    make_old(folder)
    return folder


def make_old(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def clear_up_everything(store: Path) -> list[Removal]:
    """Remove in every way that there is: the end of a session, what killed ones left, and each kind of pruning."""
    session = RunStore(store)
    session.end_session()
    pruning = Pruning(Catalog(store))
    entries = Catalog(store).entries()
    removed = [*pruning.leftovers(), *pruning.failed_runs(entries), *pruning.old(entries), *pruning.other_formats()]
    return [*removed, *pruning.experiments(Catalog(store).entries())]


def test_everything_goes_where_everything_is_ours(store: RunStore) -> None:
    assert not [removal.kept for removal in clear_up_everything(store.folder) if removal.kept]
    assert set(contents(store.folder)) == {"FORMAT", ".gitignore"}


#: What a user may have put into a store, or linked, before everything is cleared up.
PLACES = ["sessions", f"sessions/{DEAD}", "v2", f"v2/{KEY}", f"v2/{KEY}/runs", f"v2/{KEY}/old", f"v2/{KEY}/claims"]


@pytest.mark.parametrize("place", [*PLACES, "v1", f"v1/{KEY}"])
def test_a_link_to_a_folder_is_not_followed(store: RunStore, elsewhere: Path, place: str) -> None:
    link = store.folder / place
    link.parent.mkdir(exist_ok=True)
    if link.exists():
        link.rename(store.folder.parent / "moved")
    link.symlink_to(elsewhere)
    before = contents(elsewhere)
    with contextlib.suppress(NotOurs):  # where a new session cannot begin in such a store
        clear_up_everything(store.folder)
    assert contents(elsewhere) == before
    assert link.is_symlink()


def test_a_link_to_a_file_is_neither_followed_nor_removed(store: RunStore, elsewhere: Path) -> None:
    link = store.folder / f"v2/{KEY}/runs/0001.json"
    link.unlink()
    link.symlink_to(elsewhere / "0001.json")
    before = contents(elsewhere)
    kept = [removal.kept for removal in clear_up_everything(store.folder)]
    assert f"{link} is a symbolic link" in kept
    assert contents(elsewhere) == before
    assert (store.folder / f"v2/{KEY}/experiment.json").exists(), "the experiment stays whole"


@pytest.mark.parametrize("place", [f"sessions/{DEAD}", f"v2/{KEY}", f"v2/{KEY}/runs", f"v2/{KEY}/old", f"v1/{KEY}"])
@pytest.mark.parametrize("name", ["notes.txt", "sub/notes.txt", "0007.json.bak", ".0001.json.mine.tmp"])
def test_a_folder_of_ours_stays_where_it_holds_a_file_of_the_users(store: RunStore, place: str, name: str) -> None:
    mine = store.folder / place / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    (store.folder / place / "claims.lock").touch() if place.startswith("v1") else None
    mine.write_text("mine")
    make_old(store.folder)
    clear_up_everything(store.folder)
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("place", ["sessions/0123456789abcdef", f"v2/{'0' * 32}", f"v1/{'0' * 32}", "sessions/results"])
def test_a_name_of_our_form_without_our_marker_proves_nothing(store: RunStore, place: str) -> None:
    mine = store.folder / place / "runs" / "0001.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    make_old(store.folder)
    clear_up_everything(store.folder)
    assert mine.read_text() == "{}"


def test_a_marker_that_is_a_folder_or_a_link_proves_nothing(store: RunStore, elsewhere: Path) -> None:
    for name, make in {"a": Path.mkdir, "b": lambda path: path.symlink_to(elsewhere / "living.lock")}.items():
        folder = store.folder / "sessions" / session_id(name)
        folder.mkdir()
        make(folder / "living.lock")
        with pytest.raises(NotOurs, match="has none of the files by which stabilitykit knows a folder of its own"):
            remove(folder)


def test_a_special_file_is_left_alone(store: RunStore) -> None:
    fifo = store.folder / "sessions" / DEAD / "3.done"
    os.mkfifo(fifo)
    with pytest.raises(NotOurs, match=f"{fifo} is no regular file"):
        remove(fifo.parent)
    assert fifo.exists()


def test_a_hard_link_loses_a_name_and_no_content(store: RunStore, elsewhere: Path) -> None:
    os.link(elsewhere / "mine.txt", store.folder / "sessions" / DEAD / "3.done")
    make_old(store.folder)
    clear_up_everything(store.folder)
    assert not (store.folder / "sessions" / DEAD).exists()
    assert (elsewhere / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("place", [f"sessions/{DEAD}", f"sessions/{DEAD}/private", f"v2/{KEY}/runs", "v2"])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_what_is_mounted_below_a_store_is_left_alone(store: RunStore, elsewhere: Path, place: str, kind: str) -> None:
    point = store.folder / place
    point.mkdir(exist_ok=True)
    source = ["--bind", str(elsewhere)] if kind == "bind" else ["-t", "tmpfs", "tmpfs"]
    if os.geteuid() != 0 or subprocess.run(["mount", *source, str(point)], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        (point / "owners.lock").write_text("mine")
        make_old(point)
        before = contents(point)
        clear_up_everything(store.folder)
        with pytest.raises(NotOurs, match=r"is a mount point|does not write there"):
            remove(point if place != "v2" else point / KEY)
        assert contents(point) == before
    finally:
        subprocess.run(["umount", str(point)], check=True)


def test_a_folder_that_becomes_a_link_while_it_is_removed_is_not_followed(
    store: RunStore, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are taken relative to open folders: a link that is put there after the proof leads nowhere."""
    check_below = ownership._check_below
    private = store.folder / "sessions" / DEAD / "private"
    private.mkdir()

    def swap(folder: int, rule: ownership.Folder, path: Path) -> None:
        check_below(folder, rule, path)
        if path.name == DEAD:
            private.rmdir()
            private.symlink_to(elsewhere)

    monkeypatch.setattr(ownership, "_check_below", swap)
    before = contents(elsewhere)
    with pytest.raises(OSError, match="private"):
        remove(store.folder / "sessions" / DEAD)
    assert contents(elsewhere) == before


def test_what_lies_in_no_store_is_left_alone(elsewhere: Path) -> None:
    with pytest.raises(NotOurs, match="lies in no run store: no folder above it has a file FORMAT"):
        remove(elsewhere / "0000.json")
    assert (elsewhere / "0000.json").exists()


NO_FORMATS: dict[str, Callable[[Path], object]] = {
    "words": lambda path: path.write_text("csv"),
    "empty": lambda path: path.write_text(""),
    "bytes that are no text": lambda path: path.write_bytes(b"\xff\xfe"),
    "a long number": lambda path: path.write_text("1" * 5_000),
    "link": lambda path: path.symlink_to(path.parent.parent / "two"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", NO_FORMATS)
def test_a_folder_whose_file_format_is_not_ours_is_no_store(tmp_path: Path, kind: str) -> None:
    """Its name alone proved one: an ordinary session removed folders beside a data set's own file FORMAT."""
    (tmp_path / "two").write_text("2")
    living = tmp_path / "mine" / "sessions" / session_id("mine") / "living.lock"
    living.parent.mkdir(parents=True)
    living.write_text("mine")
    NO_FORMATS[kind](tmp_path / "mine" / "FORMAT")
    make_old(tmp_path / "mine")
    with pytest.raises(NotOurs, match="lies in no run store"):
        remove(living.parent)
    for take in (RunStore, Catalog):
        with pytest.raises(StoreError):
            take(tmp_path / "mine")
    assert living.read_text() == "mine"
    assert not list((tmp_path / "mine").rglob(".gitignore"))
    assert [path.name for path in (tmp_path / "mine" / "sessions").iterdir()] == [session_id("mine")]


@pytest.mark.parametrize("lock", [f"v2/{KEY}/claims.lock", f"sessions/{DEAD}/owners.lock"])
def test_the_leases_of_an_earlier_version_go_too(store: RunStore, lock: str) -> None:
    leases = store.folder / f"{lock}.leases"
    for name in ("7/1", "all/2", ".clock"):
        (leases / name).parent.mkdir(parents=True, exist_ok=True)
        (leases / name).write_text("{}")
    make_old(store.folder)
    assert not [removal.kept for removal in clear_up_everything(store.folder) if removal.kept]
    assert set(contents(store.folder)) == {"FORMAT", ".gitignore"}


def test_a_format_file_further_down_makes_no_store_of_what_lies_there(store: RunStore) -> None:
    runs = store.folder / f"v2/{KEY}/runs"
    (runs / "FORMAT").write_text("2")
    with pytest.raises(NotOurs, match="has a name that stabilitykit does not write there"):
        remove(runs / "0001.json")


def test_moving_asks_for_the_same_proof(store: RunStore, elsewhere: Path) -> None:
    runs, old = store.folder / f"v2/{KEY}/runs", store.folder / f"v2/{KEY}/old"
    with pytest.raises(NotOurs):
        move(elsewhere / "0000.json", old / "0000.1.json")
    with pytest.raises(NotOurs):
        move(runs / "0000.json", elsewhere / "0000.json")
    move(runs / "0009.json", old / "0009.1.json")  # which is not there
    assert (runs / "0000.json").exists()


@pytest.mark.parametrize("place", ["sessions", "v2", f"v2/{KEY}", f"v2/{KEY}/runs"])
def test_nothing_is_written_through_a_link(store: RunStore, elsewhere: Path, place: str) -> None:
    link = store.folder / place
    link.rename(store.folder.parent / "moved")
    link.symlink_to(elsewhere)
    before = contents(elsewhere)
    with pytest.raises(StoreError, match=f"{link} is a symbolic link"):
        RunStore(store.folder).experiment(KEY, {}).claim(5)
    assert contents(elsewhere) == before


class TestAdoption:
    """A folder becomes a store only where nothing of others is in it."""

    @pytest.mark.parametrize("name", ["thesis.tex", "sessions/a/b.txt", "v2/c.txt", ".hidden", ".gitignore"])
    def test_a_folder_with_files_of_others_is_refused_and_stays_as_it_was(self, tmp_path: Path, name: str) -> None:
        mine = tmp_path / "results" / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        with pytest.raises(StoreError) as refusal:
            RunStore(tmp_path / "results")
        first = Path(name).parts[0]
        assert str(refusal.value).startswith(
            f"Expected the run store {tmp_path / 'results'} to be a new or an empty folder, or a store, but it holds "
            f"{first!r} and no file FORMAT."
        )
        assert str(refusal.value).endswith(f"such as {tmp_path / 'results' / 'stability'}.")
        assert contents(tmp_path / "results") == {name: b"mine"}

    @pytest.mark.parametrize("found", [None, "lost+found", ".FORMAT.4711.00aa00ab.tmp"])
    def test_an_empty_one_is_taken(self, tmp_path: Path, found: str | None) -> None:
        (tmp_path / "new").mkdir()
        if found:
            (tmp_path / "new" / found).mkdir()
        assert isinstance(RunStore(tmp_path / "new").experiment(KEY, {}), Experiment)

    def test_a_store_may_be_reached_through_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "large disk").mkdir()
        (tmp_path / "store").symlink_to(tmp_path / "large disk")
        store = RunStore(tmp_path / "store")
        assert store.experiment(KEY, {}).claim(0)
        store.end_session()
        assert not list((tmp_path / "large disk" / "sessions").iterdir())


def test_every_path_that_is_written_has_a_known_form(store: RunStore) -> None:
    paths = [path for path in store.folder.rglob("*") if path.is_file()]
    assert len(paths) > 8
    for path in paths:
        check_form(path)
    with pytest.raises(NotOurs):
        check_form(store.folder / "else.txt")


#: Methods and functions that delete, move or empty a file. `Path.replace` has one argument, `str.replace` two.
REMOVES: dict[str, Callable[[ast.Call], bool]] = {
    **dict.fromkeys(("unlink", "rmtree", "rmdir", "removedirs", "rename", "renames", "truncate"), lambda call: True),
    "remove": lambda call: ast.unparse(call.func) == "os.remove",
    "move": lambda call: ast.unparse(call.func) == "shutil.move",
    "replace": lambda call: isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not call.keywords,
}


def removals_in(source: str) -> list[int]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func).rpartition(".")[2], call) for call in calls]
    return [call.lineno for name, call in named if name in REMOVES and REMOVES[name](call)]


def test_no_removal_goes_past_the_proof() -> None:
    package = Path(ownership.__file__).parents[1]
    found = {str(path.relative_to(package)): len(removals_in(path.read_text())) for path in package.rglob("*.py")}
    publishing = {"store/atomic_files.py": 2}  # puts a file that is whole into its place: its own name, in one step
    assert {name: count for name, count in found.items() if count and name != "store/ownership.py"} == publishing


@pytest.mark.parametrize(
    "line", ["p.unlink()", "shutil.rmtree(p)", "os.remove(p)", "a.rename(b)", "a.replace(b)", "shutil.move(a, b)"]
)
def test_a_removal_is_seen(line: str) -> None:
    assert removals_in(f"x = 1\n{line}\n") == [2]
    assert removals_in("replace(run, seeds=1)\nwords.replace('a', 'b')\nnames.remove('a')\nremove(path)\n") == []


def test_what_the_system_refuses_is_kept_and_the_others_go(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared store the folder of another user's session kept those behind it, and a whole prune from going."""
    theirs, also_dead = store.folder / "sessions" / ("0" * 16), store.folder / "sessions" / ("f" * 16)
    for folder in (theirs, also_dead):
        folder.mkdir()
        (folder / "living.lock").touch()
    make_old(store.folder)
    at = pruning.ByteLocks.at

    def at_unless_theirs(path: Path) -> byte_locks.ByteLocks:
        if theirs in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return at(path)

    monkeypatch.setattr(pruning.ByteLocks, "at", at_unless_theirs)
    removed = Pruning(Catalog(store.folder)).leftovers()
    assert {removal.what.split()[-1]: removal.kept for removal in removed} == {
        "0" * 16: f"[Errno 13] Permission denied: '{theirs / 'living.lock'}'",
        DEAD: "",
        "f" * 16: "",
    }
    assert list((store.folder / "sessions").iterdir()) == [theirs]
