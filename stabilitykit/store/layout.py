"""Every path in a run store: where a file is, and the names by which stabilitykit knows its own files.

::

    .stabilitykit/FORMAT                      the newest format that was written here
                  v2/<key>/experiment.json    what the key was made of, for people; touched on every use
                           runs/ old/         see `RunFiles`
                           claims.lock claims/  see `Claims`
                           certificate.json   what is proven of the task, where the base run lies
                           inputs/<id>.json   what a training read, see `Inputs`
                           later/<id>.json    what only later runs read, see `Inputs`
                           gates/             see `VerdictFiles`
                           prefix/            see `Prefixes`
                           logs/0007.log      the output of a child process that trains run 7
                  baselines/<name>/           see `BaselineFiles`
                  sessions/<id>/living.lock   locked while a process of the session lives
                                owners.lock, 3.begun, ...  see `Board`
                                <asker>.0.red  see `Reds`
                                private/<key>/  experiments that end with the session
                                tasks/        the output of child processes that train no run

Other formats live in folders of their own, and are left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

#: Name of a store's folder, unless the user chooses another.
STORE = ".stabilitykit"

#: Format of the files below ``v2/``.
FORMAT = "2"

SESSION_ID, KEY = "[0-9a-f]{16}", "[0-9a-f]{32}"

#: Names in a store's folder: the file by which it is known to be a store, and the folders in it.
FORMAT_FILE, EXPERIMENTS, SESSIONS, BASELINES = "FORMAT", f"v{FORMAT}", "sessions", "baselines"

#: The entry of experiment.json that says what its fingerprint was made of, by name: for people, and no part of a key.
PARTS = "parts"

#: The entry of experiment.json of what no study has asked for: a base run, or the folder of a task's inputs.
ROLE = "role"

#: Names in an experiment's folder: what its key was made of, the file whose bytes are locked for runs in training, and
#: what is proven of the task.
ABOUT, CLAIMS_LOCK, CERTIFICATE = "experiment.json", "claims.lock", "certificate.json"

#: Folder in an experiment's folder: the inputs that trainings of it had, one file for each content.
INPUTS = "inputs"

#: What stands for a gate's name in the folder of a task's verdicts, where a leak is remembered.
LEAK = "leak"

#: Folder in an experiment's folder: what runs of it have read that run 0 had not.
LATER = "later"

#: Names in a session's folder, which the head of this module describes.
LIVING_LOCK, OWNERS_LOCK, PRIVATE, TASKS = "living.lock", "owners.lock", "private", "tasks"


def file_of_test(
    session: Path,
    test: int,
    what: Literal["begun", "done", "studies", "disputed", "settled", "refuted"],
    call: int | None = None,
) -> Path:
    """Return a file by which workers tell each other of a test, or of its study number ``call``."""
    return session / (f"{test}.{what}" if call is None else f"{test}.{call}.{what}")


def file_of_red(session: Path, asker: str, call: int) -> Path:
    """Return the file that says how question number ``call`` of a test failed; ``asker`` are 16 hex digits for it."""
    return session / f"{asker}.{call}.red"


def task_log(tasks: Path, number: int) -> Path:
    """Return the file for the output of children of this process; ``number`` tells its tasks apart."""
    return tasks / f"{os.getpid()}-{number:x}.log"


@dataclass(frozen=True)
class Folder:
    """What stabilitykit writes into one kind of folder: a pattern of names, and what each is."""

    entries: Mapping[str, Entry]
    markers: tuple[str, ...] = ()  #: names of files; one of them shows that the whole folder is of this kind

    def find(self, name: str) -> Entry | None:
        """Return what an entry of this name is; None if stabilitykit writes no such name here."""
        of_draft = DRAFT.fullmatch(name)
        found = next((entry for form, entry in self.entries.items() if re.fullmatch(form, name, re.ASCII)), None)
        if found is None and of_draft:
            return FILE if self.find(of_draft[1]) is FILE else None
        return found


class File:
    """A regular file."""


FILE = File()
Entry: TypeAlias = "Folder | File"

#: The temporary name of a file that is being written (`Draft`): ``.NAME.PID.8hex.tmp``.
DRAFT = re.compile(r"\.(.+)\.\d+\.[0-9a-f]{8}\.tmp")


def _any_of(*names: str) -> str:
    return "|".join(map(re.escape, names))


_INDEX = r"\d{4,}"
_LEASES = Folder({r"\.clock": FILE, r"all|\d+": Folder({r"\d+": FILE})})  # earlier versions had them for locks
_ARRAYS = {rf"{_INDEX}(\.[0-9a-f]{{12}})?\.(npy|safetensors|npz)": FILE}  # format 1 had npz

_EXPERIMENT = Folder(
    {
        _any_of(ABOUT, CLAIMS_LOCK, CERTIFICATE, "control.json"): FILE,  # control.json: of earlier versions
        rf"{re.escape(CLAIMS_LOCK)}\.leases": _LEASES,
        "runs": Folder({rf"{_INDEX}\.json": FILE, **_ARRAYS}),
        "old": Folder({rf"{_INDEX}\.\d+\.json": FILE, **_ARRAYS}),
        "claims": Folder({rf"{_INDEX}\.json": FILE}),
        _any_of(INPUTS, LATER): Folder({r"[0-9a-f]{16}\.json": FILE}),
        # Earlier versions had one file a gate.
        "gates": Folder({rf"([0-9a-f]{{16}}|{LEAK})(\.\d{{4,}}|\.fail)?\.json": FILE}),
        "prefix": Folder({rf"({_INDEX}|proven)\.json": FILE, rf"{_INDEX}(\.[0-9a-f]{{12}})?\.safetensors": FILE}),
        "logs": Folder({rf"{_INDEX}\.log": FILE}),
    },
    markers=(CLAIMS_LOCK, ABOUT),
)

_SESSION = Folder(
    {
        _any_of(LIVING_LOCK, OWNERS_LOCK): FILE,
        rf"({_any_of(LIVING_LOCK, OWNERS_LOCK)})\.leases": _LEASES,
        r"\d+\.(begun|done|studies|disputed)|\d+\.\d+\.(settled|refuted)": FILE,
        r"[0-9a-f]{16}\.\d+\.red": FILE,
        PRIVATE: Folder({KEY: _EXPERIMENT}),
        TASKS: Folder({r"\d+-[0-9a-f]+\.(task|pt|log)": FILE}),  # .task and .pt: of earlier versions
    },
    markers=(LIVING_LOCK, OWNERS_LOCK),
)

#: Every path that stabilitykit writes below a store.
LAYOUT = Folder(
    {
        _any_of(FORMAT_FILE, ".gitignore"): FILE,
        r"v\d+": Folder({KEY: _EXPERIMENT, rf"\.pruned-{KEY}-[0-9a-f]{{8}}": _EXPERIMENT}),
        SESSIONS: Folder({SESSION_ID: _SESSION}),
        BASELINES: Folder(
            {r"\w[\w.-]*": Folder({r"[0-9a-f]{24}\.\d+\.json": FILE, r"[0-9a-f]{24}\.\d+(\.[0-9a-f]{12})?\.npy": FILE})}
        ),
    }
)
