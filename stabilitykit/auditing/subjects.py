"""What is audited: a train function, one in a file, a script, or a function of a `Run`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import re
import runpy
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import TaskError
from ..isolation.intercepted import Intercepted
from ..isolation.streams import seed_generators
from ..protocol import NoiseProtocol, Source, derive_seed
from ..training.run import Run
from ..training.task import LoopTask
from ..training.trainer import Trainer, process_state, traceback_of
from .digests import uses_cuda
from .knobs import Knob, Knobs, check_complete, knobs_of, name_of


class Subject(ABC):
    """One thing that trains, with its knobs."""

    name: str
    knobs: tuple[Knob, ...]
    is_intercepted: bool = False  #: whether what it draws is taken to its source
    intercepted: Intercepted | None = None  #: what the last training was seen to do by an interception

    @abstractmethod
    def train(self, values: Mapping[str, Any]) -> None:
        """Train once, each knob at its value."""

    @contextlib.contextmanager
    def prepared(self, state: int) -> Iterator[None]:
        """Run a block in a process whose generators are at ``state``; put back what a training changes."""
        device = torch.device("cuda" if uses_cuda() else "cpu")
        folder, arguments = Path.cwd(), list(sys.argv)
        with process_state(device, self):
            seed_generators(state, device)
            try:
                yield
            finally:
                sys.argv[:] = arguments
                os.chdir(folder)


@dataclass(eq=False)
class FunctionSubject(Subject):
    """A train function that knows nothing of us."""

    function: Callable[..., Any]
    knobs: tuple[Knob, ...]
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.name = name_of(self.function)

    def train(self, values: Mapping[str, Any]) -> None:
        self.function(**{**self.arguments, **values})


@dataclass(eq=False)
class RunSubject(Subject):
    """A train function of a `Run`, whose sources are knobs too, by the names that the library has for them."""

    function: Callable[..., Any]
    knobs: tuple[Knob, ...]
    arguments: Mapping[str, Any]

    is_intercepted = True

    def __post_init__(self) -> None:
        self.name = name_of(self.function)
        (self._plan,) = NoiseProtocol("none", runs=2).plans()[:1]
        taken = {knob.name for knob in self.knobs} | {Source.LOW_LEVEL.value}
        self._sources = [source.value for source in Source if source.value not in taken]
        self.knobs = (*self.knobs, *(Knob(name, 0, 1) for name in self._sources))
        self._trainer = Trainer(LoopTask(self.function, torch.zeros(1)), "cpu", torch.get_num_threads(), Path.cwd())

    def train(self, values: Mapping[str, Any]) -> None:
        own = {name: value for name, value in values.items() if name not in self._sources}
        seeds: dict[str, Any] = {name: derive_seed(name, values[name]) for name in self._sources}
        run = Run(replace(self._plan, **seeds), self._trainer.device)
        self.intercepted = run.interception.counts
        with self._trainer.under(run), run.interception.on():
            self.function(run, **{**self.arguments, **own})


class FileSubject(Subject):
    """A train function in a file, which is read anew for each training, as a new process would."""

    def __init__(self, path: Path, name: str, knobs: Knobs | None, arguments: Mapping[str, Any]) -> None:
        self._path, self._function, self.name = path.resolve(), name, f"{path}::{name}"
        self._root = self._path.parent
        while (self._root / "__init__.py").is_file() and self._root != self._root.parent:
            self._root = self._root.parent
        with self.prepared(0), _as_in_a_new_process(self._root):
            inner = subject_of(self._read(), knobs, arguments)
        self.knobs, self.is_intercepted = inner.knobs, inner.is_intercepted
        self._asked, self._arguments = knobs, arguments

    def train(self, values: Mapping[str, Any]) -> None:
        with _as_in_a_new_process(self._root):
            inner = subject_of(self._read(), self._asked, self._arguments)
            inner.train(values)
            self.intercepted = inner.intercepted

    def _read(self) -> Callable[..., Any]:
        name = ".".join(self._path.relative_to(self._root).with_suffix("").parts)
        spec = importlib.util.spec_from_file_location(name, self._path)
        assert spec is not None, "the path ends with .py"
        assert spec.loader is not None, "as above"
        try:
            if package := name.rpartition(".")[0]:
                importlib.import_module(package)
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # so that a loader process can unpickle what it defines
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise TaskError(f"Expected to import {self._path.name} but it raised:\n{traceback_of(error)}") from error
        found = getattr(module, self._function, None)
        if not callable(found):
            functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            own = [name for name in functions if getattr(module, name).__module__ == spec.name]
            raise TaskError(
                f"Expected a function {self._function!r} in {self._path.name} but it has none. "
                f"It has {', '.join(own) or 'no functions'}."
            )
        function: Callable[..., Any] = found
        return function


#: A knob among the arguments of a script.
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


class ScriptSubject(Subject):
    """A script with its command line, in which ``{seed}`` is a knob; it runs in this process, as ``__main__``."""

    def __init__(self, path: Path, arguments: Sequence[str], knobs: Knobs | None = None) -> None:
        self._path, self._arguments, self.name = path.resolve(), list(arguments), str(path)
        names = list(dict.fromkeys(name for argument in arguments for name in _PLACEHOLDER.findall(argument)))

        def function(**values: Any) -> None: ...

        asked = knobs if knobs is not None else names
        self.knobs = knobs_of(function, asked, {})
        named = {knob.name for knob in self.knobs}
        if not names or named != set(names):
            said = ", ".join(f"{{{name}}}" for name in sorted(named)) or "{seed}"
            raise TaskError(
                f"Expected {said} among the arguments of {path}, where a knob's value goes, but got "
                f"{' '.join(arguments) or 'no arguments'}. Write stabilitykit audit {path} -- --seed {{seed}}, or name "
                f"a function of it: {path}::main."
            )

    def train(self, values: Mapping[str, Any]) -> None:
        def fill(argument: str) -> str:
            return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), argument)

        with _as_in_a_new_process(self._path.parent):
            sys.argv[:] = [str(self._path), *map(fill, self._arguments)]
            try:
                runpy.run_path(str(self._path), run_name="__main__")
            except SystemExit as end:
                if end.code:
                    raise TaskError(f"{self._path.name} ended with exit code {end.code}.") from end


@contextlib.contextmanager
def _as_in_a_new_process(folder: Path) -> Iterator[None]:
    """Let imports from ``folder`` be found in a block; forget after it the modules there that were imported in it."""
    before, paths = dict(sys.modules), list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = paths
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if module is before.get(name) or file is None or "site-packages" in Path(file).parts:
                continue
            if folder in Path(file).parents:
                del sys.modules[name]
                sys.modules.update({name: before[name]} if name in before else {})


def subject_of(train: Any, knobs: Knobs | None, arguments: Mapping[str, Any]) -> Subject:
    """Return a train function as what can be audited: one of a `Run` by its first parameter, ``run``."""
    own = knobs_of(train, knobs, arguments)
    if next(iter(inspect.signature(train).parameters), "") == "run" and "run" not in arguments:
        check_complete(train, (*own, Knob("run", 0, 0)), arguments)
        return RunSubject(train, own, arguments)
    check_complete(train, own, arguments)
    return FunctionSubject(train, own, arguments)
