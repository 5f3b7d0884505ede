"""A command line as a task: a script of any framework, run unchanged, that leaves its scores in what it prints."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import parent_process
from pathlib import Path

import torch

from ..errors import ProtocolError, TaskError, number_of
from ..estimates.measure_kinds import check_score_name
from ..protocol import NoiseProtocol, Source
from ..public import public
from ..store.layout import STORE
from ..store.loaded_files import stamp_of
from ..training.run import Run
from ..training.task import Task, TrainingError, TrainingTimeout
from .command_files import CommandFiles, FilesRead
from .placeholders import OF_SOURCES, RUN_DIR, SEED, filled, names_in
from .printed_scores import JsonFile, Pattern, Pick, end_of, last_line, plain
from .supervised import NotStarted, TimeIsUp, run_supervised

#: Variables by which libraries take their number of threads.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
#: Folders that are not copied for a run.
_NOT_COPIED = shutil.ignore_patterns(".git", STORE, "__pycache__", ".venv", "venv", ".tox", "node_modules")


@public
@dataclass(frozen=True, eq=False)
class Command(Task):
    """A command line that trains: a script of any framework and language, unchanged, measured by its scores.

    ::

        Command(["python", "train.py", "--seed", "{seed}"], scores={"val_loss": r"val_loss=([0-9.]+)"})

    Each run fills in the placeholders. ``{seed}`` is one seed that moves everything. A script that has a flag for each
    source names the sources instead, ``{init}``, ``{shuffle}``, ``{augment}`` or ``{stochastic}``: then they can vary
    one by one. ``{run_dir}`` is a new folder of the run's own, which is removed after it. ``{{`` is a brace.

    Runs that use one folder take turns, since each could overwrite what another writes there. They run at once if the
    command names ``{run_dir}`` for what it writes, with ``copy=True``, or with ``copy=False`` where it writes nothing.

    What counts for the stored runs: the arguments, ``env``, the files that are named in them, the code that a Python
    file among these imports, and ``inputs``. What else the command reads is not traced.

    >>> Command(["python", "train.py"], last_line=True)
    Traceback (most recent call last):
    stabilitykit.errors.TaskError: Expected a placeholder such as {seed} but got the command 'python train.py', whose \
runs would all be equal. Write ["python", "train.py", "--seed", "{seed}"], or env={"SEED": "{seed}"}.
    """

    command: Sequence[str]  #: program and arguments, with placeholders
    scores: Mapping[str, str] = field(
        default_factory=dict
    )  #: a regular expression with one group, by name of the score
    score_json: str | None = None  #: a JSON file that a run writes, ``metrics.json``, or ``metrics.json:loss,eval.f1``
    last_line: bool = False  #: whether the last line of the output is a number, or a JSON object of numbers
    pick: Pick = "only"  #: "last" takes the last match of a pattern that matches several times
    cwd: str | Path | None = None  #: the folder in which it runs; None for the present one
    env: Mapping[str, str] = field(default_factory=dict)  #: further environment variables, with placeholders
    inputs: Sequence[str] = ()  #: files and folders that count beside the code, as patterns: ``data/*.csv``
    copy: bool | None = None  #: whether each run gets a copy of the folder; False says that runs may share it
    timeout: float | None = None  #: seconds that one run may take

    has_epochs = False
    leak = (
        "It was run twice with equal seeds. Something in it has no flag: a seed that is not set, the time, a file that "
        "it goes on from, threads, or kernels that vary on a GPU. Give every source a flag, or use {seed}, one for all."
    )

    @property
    def labels(self) -> None:
        """There are none: a command leaves scores alone."""
        return

    def __post_init__(self) -> None:
        command = self.command
        if isinstance(command, str | bytes) or not command or not all(isinstance(text, str) for text in command):
            raise TaskError(
                f"Expected a list of texts, program and arguments, but got {command!r}. Write "
                f'Command(["python", "train.py", "--seed", "{{seed}}"], ...).'
            )
        self._check_scores()
        self._check_placeholders()
        self._check_place()

    def _check_scores(self) -> None:
        if not (self.scores or self.score_json or self.last_line):
            raise TaskError(
                f"Expected a way to the scores of {self._line!r} but got none. Give scores={{'val_loss': "
                f"r'val_loss=([0-9.]+)'}}, score_json='metrics.json' or last_line=True."
            )
        for pattern in self._patterns:
            pattern.check()
        for name in self.score_names or ():
            check_score_name(name)
        if self.pick not in ("only", "last"):
            raise TaskError(f"Expected pick='only' or pick='last' but got pick={self.pick!r}.")
        if self.copy is False and self.score_json is not None and RUN_DIR not in names_in(self.score_json):
            raise TaskError(
                f"Expected each run to write its own JSON file but got score_json={self.score_json!r} in a folder that "
                f"runs share at once, as copy=False says. Write {{run_dir}}/{self.score_json}, or copy=True."
            )

    def _check_placeholders(self) -> None:
        sources = [name for name in OF_SOURCES if name in self._names]
        if SEED in self._names and sources:
            raise TaskError(
                f"Expected {{seed}}, or the sources one by one, but got {{seed}} beside {{{sources[0]}}} in "
                f"{self._line!r}: one seed moves every source. Leave one of them out."
            )
        if SEED not in self._names and not sources:
            shown = ", ".join(f'"{text}"' for text in self.command)
            raise TaskError(
                f"Expected a placeholder such as {{seed}} but got the command {self._line!r}, whose runs would all be "
                f'equal. Write [{shown}, "--seed", "{{seed}}"], or env={{"SEED": "{{seed}}"}}.'
            )

    def _check_place(self) -> None:
        if not self._cwd.is_dir():
            raise TaskError(f"Expected cwd= to be a folder but there is none at {self._cwd}.")
        if self.timeout is not None and not 0 < number_of(self.timeout) < math.inf:
            raise TaskError(f"Expected timeout > 0, in seconds, but got timeout={self.timeout!r}.")
        if unmatched := self._files.unmatched():
            raise TaskError(f"Expected inputs= to name files but nothing in {self._cwd} matches {unmatched[0]!r}.")

    @property
    def folder(self) -> Path:
        """The folder in which it runs."""
        return self._cwd

    @property
    def takes_turns(self) -> bool:
        """Whether its runs wait for each other, since all use one folder."""
        return self.copy is None and RUN_DIR not in self._names

    @property
    def _line(self) -> str:
        return " ".join(self.command)

    @cached_property
    def _cwd(self) -> Path:
        return Path(self.cwd or ".").absolute()

    @cached_property
    def _patterns(self) -> tuple[Pattern, ...]:
        return tuple(Pattern(name, regex, self.pick) for name, regex in self.scores.items())

    @cached_property
    def _names(self) -> frozenset[str]:
        """The placeholders that it has."""
        texts = (*self.command, *self.env.values(), *([self.score_json] if self.score_json else []))
        return frozenset().union(*map(names_in, texts))

    @cached_property
    def _files(self) -> CommandFiles:
        return CommandFiles(self.command, self._cwd, self.env, self.inputs)

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here, a field in Recipe
        """The first file that it names, else the program: ``train.py``."""
        words = [text for text in self.command[1:] if not names_in(text)]
        module = [after for before, after in itertools.pairwise(words) if before == "-m"]
        files = [Path(word).name for word in words if (self._cwd / word).is_file()]
        return (module + files + [Path(self.command[0]).name])[0]

    @property
    def isolates(self) -> bool:  # type: ignore[override]  # as above
        """Whether it has a seed for each source that it names, and not one for all."""
        return SEED not in self._names

    @property
    def sources(self) -> frozenset[Source]:  # type: ignore[override]  # as above
        """The sources that it has a seed for."""
        return frozenset(OF_SOURCES[name] for name in OF_SOURCES if name in self._names or not self.isolates)

    @property
    def score_names(self) -> tuple[str, ...] | None:  # type: ignore[override]  # as above
        """The names of its scores; None where a file or a line without named keys tells them."""
        from_json = () if self.score_json is None else JsonFile.of(self.score_json).names
        return None if from_json is None or self.last_line else (*self.scores, *from_json)

    @property
    def remarks(self) -> tuple[str, ...]:  # type: ignore[override]  # as above
        """What of it is not known, for the reader of its studies."""
        reads = "what it reads beside its code and inputs= (--input), data and variables, is not traced"
        said = [f"{self.name} is another program: {reads}"]
        if not self._files.has_code:
            said.append(f"no Python file is named by {self._line!r}: its code does not count for the stored runs")
        elif not self._files.is_this_python:
            said.append(
                f"it is run by {self._files.program}, and not by the Python that measures: the versions of the "
                f"packages there do not count for the stored runs"
            )
        return tuple(said)

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` for what can be known before it is run: its program, and what cannot vary in it."""
        if self._files.program is None:
            raise TaskError(
                f"Expected a program but there is no {self.command[0]!r} that can be run. Give its path, or set PATH."
            )
        if missing := self._files.missing_script():
            raise TaskError(f"Expected a script but there is no {missing} in {self._cwd}. Set cwd= (--cwd).")
        if protocol.perturb is not None or protocol.onset:
            what = "perturb=" if protocol.perturb is not None else "onset="
            raise ProtocolError(
                f"Expected a command to be varied by its seeds but got {what}: its weights and epochs are its own."
            )
        everything = frozenset(Source)
        if not self.isolates and protocol.vary != everything:
            raise ProtocolError(
                f"Expected vary='all' for {self._line!r} but got {protocol.name!r}: {{seed}} moves every source at "
                f"once. Give each source a flag of its own, such as --init-seed {{init}} --data-seed {{shuffle}}."
            )
        absent = protocol.vary - self.sources
        if self.isolates and protocol.vary != everything and absent:
            names = "+".join(sorted(source.value for source in absent))
            has = ", ".join(f"{{{name}}}" for name in OF_SOURCES if name in self._names)
            raise ProtocolError(
                f"Expected vary= to name sources that the command has a seed for but got {names!r}: "
                f"{self._line!r} has {has}."
            )

    def content(self) -> object:
        """Return what counts for the stored runs: the command, and the content of the files that it names."""
        vars(self)["_known"] = known = self._files.read()  # a run is refused where they are edited meanwhile
        files, here = self._files, self._cwd
        outside = not files.has_code or not files.is_this_python
        return {
            "kind": type(self).__name__,
            "command": tuple(self.command),
            "cwd": here.relative_to(files.root).as_posix() if files.root in (here, *here.parents) else f"at {here}",
            "env": dict(self.env),
            "scores": (dict(self.scores), self.score_json, self.last_line, self.pick),
            "copy": bool(self.copy),
            "files": dict(known.parts),
            "program": f"at {files.program}" if outside else "",
        }

    def fit(self, run: Run) -> dict[str, float]:
        """Run the command once, and return its scores."""
        known: FilesRead = vars(self).get("_known") or self._files.read()
        with tempfile.TemporaryDirectory(prefix="stabilitykit-run-") as name, self._turn():
            self._check_unchanged(known)
            folder = Path(name)
            here = self._cwd if not self.copy else self._copied(folder / "copy")
            (folder / RUN_DIR).mkdir()
            values = {SEED: run.plan.init, RUN_DIR: folder / RUN_DIR}
            values |= {name: run.plan.seed(source) for name, source in OF_SOURCES.items()}
            json_file = None if self.score_json is None else here / filled(JsonFile.of(self.score_json).path, values)
            before = None if json_file is None else stamp_of(json_file)
            output = self._run(here, folder / "output", values)
            self._check_unchanged(known)
            if json_file is not None and before is not None and stamp_of(json_file) == before:
                raise TrainingError(f"the run did not write {json_file.name}: the one that is there is from before it.")
            return self._scores_of(output, json_file)

    def _run(self, here: Path, log: Path, values: Mapping[str, object]) -> str:
        """Run the command to its end and return its output; raise `TrainingError` where it fails."""
        program = self._files.program
        command = [str(program), *(filled(text, values) for text in self.command[1:])]
        threads = dict.fromkeys(_THREADS, str(torch.get_num_threads()))
        more = {name: filled(text, values) for name, text in self.env.items()}
        variables = {**os.environ, **threads, "PYTHONUNBUFFERED": "1", **more}
        failed = ""
        kind: type[TrainingError] = TrainingError
        try:
            code = run_supervised(command, cwd=here, env=variables, log=log, timeout=self.timeout)
            if code:
                failed = f"{self._line} ended with exit code {code}"
        except TimeIsUp:
            kind = TrainingTimeout
            failed = f"{self._line} had not ended after {self.timeout:g} s, which timeout= (--timeout) allows"
        except NotStarted as error:
            raise TrainingError(f"{self._line} could not be started: {error}") from None
        output = plain(log.read_bytes()) if log.exists() else ""
        is_child = parent_process() is not None  # whose own output is the log of the run
        if is_child or not failed:
            sys.stdout.write(output)
        if failed:
            raise kind(failed if is_child else f"{failed}. The end of its output:\n{end_of(output.splitlines())}")
        return output

    def _scores_of(self, output: str, json_file: Path | None) -> dict[str, float]:
        found = [(pattern.name, pattern.read(output)) for pattern in self._patterns]
        if json_file is not None and self.score_json is not None:
            found += JsonFile.of(self.score_json).read(json_file).items()
        if self.last_line:
            found += last_line(output).items()
        names = [name for name, _ in found]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise TrainingError(
                f"the score {twice[0]!r} was found twice: in the output, and in a file or the last line."
            )
        return dict(found)

    def _check_unchanged(self, known: FilesRead) -> None:
        if changed := known.changed():
            raise TrainingError(
                f"{', '.join(changed)} changed since the question was asked, so that runs would be of two versions. If "
                f"the command writes it, name {{run_dir}}/{changed[0]}; if it was edited, measure again."
            )

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other run uses the folder, where runs could be in each other's way."""
        if not self.takes_turns:
            yield
            return
        place = os.open(self._cwd, os.O_RDONLY)
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)

    def _copied(self, folder: Path) -> Path:
        shutil.copytree(self._cwd, folder, symlinks=True, ignore=_NOT_COPIED)
        return folder
