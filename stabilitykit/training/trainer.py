"""Train a task once under one plan, and put the state of the process back after."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import time
import traceback
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..errors import StoreError, TaskError, UsageError, is_ours
from ..isolation.streams import GeneratorStates, Stream
from ..protocol import RunPlan, Source
from ..store.fingerprint import tensor_digest
from ..store.loaded_files import Stamp, imported_otherwise
from ..store.record import RunRecord
from ..store.shared_epochs import Prefixes
from ..tracing.trace import Trace
from ..tracing.tracing import traced
from ..tracing.variables import put_back
from .environment import Environment, current_environment
from .gradient_rounding import rounded_gradients
from .outputs import check_outputs, fault_of_numbers, without_labels
from .run import Run, combined_digest
from .scores import fault_of_scores, results_digest
from .task import LoopTask, Task, TrainingError, TrainingTimeout

#: Name of the outputs in the trace of a rehearsal.
OUTPUTS = "outputs"

#: Ways in which low-level operations vary without a seed: those of the kernels, and those of a black box.
UNSEEDED = frozenset({"native", "not isolated"})

#: The seeded way.
_ROUNDING = "gradient rounding"


class RunTimeout(BaseException):
    """A training took longer than it may. Not an Exception, so that ``except Exception`` in user code lets it pass."""


class Trainer:
    """Trains the plans of one task in this process, on one device, with one count of threads."""

    def __init__(self, task: Task, device: str, threads: int, rootdir: Path) -> None:
        self.task = task
        self.rootdir = rootdir
        self.device = torch.device(device)
        self.threads = threads
        self.environment: Environment = current_environment(device, threads, rootdir)
        self.prefixes: Prefixes | None = None  #: the stored states before an onset
        self.stamps: Mapping[str, Stamp] = {}  #: the state of each source file that the key of the runs was made of

    def train_once(self, plan: RunPlan) -> RunRecord:
        """Train one run; an exception in the user's code becomes a record of status "failed"."""
        record, model = self._train(plan)
        _release(model)
        return record

    def _train(self, plan: RunPlan) -> tuple[RunRecord, weakref.ref[nn.Module] | None]:
        run = Run(plan, self.device, prefixes=self.prefixes)
        started = time.perf_counter()
        outcome: dict[str, Any] = {"status": "ok"}
        store = None if self.prefixes is None else self.prefixes.experiment
        try:
            with traced(self.rootdir, store) as trace, self.under(run), stepped_optimizers() as optimizers:
                outcome |= self._results(run)
                outcome |= {"further_weights": _further_weights(run, optimizers), "idle": not optimizers}
            outcome["inputs"] = _inputs(trace)
        except (UsageError, StoreError, KeyboardInterrupt, RunTimeout):
            raise
        except BaseException as error:  # noqa: BLE001  # a train function may raise anything, pytest.skip() as well
            status = "timeout" if isinstance(error, TrainingTimeout) else "failed"
            outcome = {"status": status, "error": traceback_of(error)}
        record = RunRecord(
            index=plan.index,
            seeds=plan.seeds,
            seconds=time.perf_counter() - started,
            fingerprint=_fingerprint(run, outcome),
            trace=tuple(combined_digest(digest) for digest in run.trace),
            curve=tuple(run.curve),
            perturbation=run.perturbation.to_json() if run.perturbation else None,
            low_level=self._how_low_level(run),
            intercepted=run.interception.counts.to_json(),
            environment=self.environment.to_json(),
            **outcome,
        )
        return record, None if run.model is None else weakref.ref(run.model)

    def rehearse(self, plan: RunPlan, epochs: int | None, *, from_start: bool = False) -> Run:
        """Train ``plan`` for the first ``epochs`` that vary: all if None, or if the loop cannot be stopped.

        The run that is returned has no model, and the hash of its outputs as the last entry of its trace. With
        ``from_start`` the epochs before an onset are trained too, even if stored.
        """
        stop_after = None if epochs is None else plan.first_varied_epoch + epochs
        run = Run(plan, self.device, stop_after=stop_after, prefixes=self.prefixes, from_start=from_start)
        run.is_rehearsed = True
        with self.under(run) as run.variables, stepped_optimizers() as optimizers:
            returned = self._fit(run)
            run.check_began()
            run.is_idle = not optimizers
            optimizers.clear()  # so that they keep no weights in memory
            outputs, scores = self.task.split(returned)
            run.trace.append({OUTPUTS: results_digest(self.task.outputs_of(run, outputs), scores)})
        if run.model is not None:
            model = weakref.ref(run.model)
            run.model = None
            _release(model)
        return run

    def low_level(self, plan: RunPlan) -> str:
        """Return how the source ``low_level`` acts under ``plan`` on this device."""
        if not self.task.isolates:
            return "not isolated"
        if plan.low_level is None or Source.LOW_LEVEL not in self.task.sources:
            return "deterministic"
        return "native" if self.device.type == "cuda" else _ROUNDING

    def _how_low_level(self, run: Run) -> str:
        how = self.low_level(run.plan)
        return how + _rounded_part(run) if how == _ROUNDING else how

    @contextlib.contextmanager
    def under(self, run: Run) -> Iterator[Collection[str]]:
        """Run a block with the stochastic stream, threads and deterministic flags of ``run``; put everything back.

        Yields the names of environment variables that the block sets, all once it is over.
        """
        kind = self.low_level(run.plan)
        with contextlib.ExitStack() as stack:
            owner = self.task.function if isinstance(self.task, LoopTask) else self.task  # the same in each measurement
            variables = stack.enter_context(process_state(self.device, owner))
            if self.device.type == "cuda":  # so that "cuda" in the user's code means this GPU
                stack.enter_context(torch.cuda.device(self.device))
            torch.set_num_threads(self.threads)
            _set_deterministic(kind not in UNSEEDED or not run.varies, self.device)
            stack.enter_context(torch.enable_grad())
            stack.enter_context(Stream(run.acting.stochastic, self.device, Source.STOCHASTIC))
            if kind == _ROUNDING:

                def round_gradients() -> None:
                    run.rounded = stack.enter_context(rounded_gradients(run.plan.low_level or 0))

                run.at_onset(round_gradients)
            elif kind in UNSEEDED and not run.varies:
                run.at_onset(lambda: _set_deterministic(False, self.device))
            yield variables

    def _fit(self, run: Run) -> Any:
        """Train, with all that the user's code draws taken to its source."""
        with run.interception.on() if self.task.intercepts else contextlib.nullcontext():
            return self.task.fit(run)

    def _results(self, run: Run) -> dict[str, Any]:
        """Train, and return the results of the run: its outputs, its weights, or both."""
        returned = self._fit(run)
        run.check_began()
        if edited := imported_otherwise(self.stamps):
            raise TrainingError(
                f"{', '.join(Path(file).name for file in edited)} was edited between the question and its import while "
                f"training, so this run is not of the code that its key names. Run the test again."
            )
        if run.plan.perturbation is not None and run.perturbation is None:
            raise TrainingError(
                "the protocol perturbs a weight, but the train function never called run.perturb(model)"
            )
        outputs, scores = self.task.split(returned)
        results: dict[str, Any] = {"scores": scores} if scores else {}
        if fault := fault_of_scores(scores):
            raise TrainingError(fault)
        if self.task.leaves_outputs and self.task.labels is not None:
            results["logits"] = self._outputs(outputs, self.task.labels, run.index)
        if self.task.keep_weights:
            results["weights"] = _weights(run, self.task)
        return results

    def _outputs(self, returned: Any, labels: Tensor, run: int) -> Tensor:
        meaning = self.task.meaning
        returned = without_labels(returned, labels, run)  # another test set is no failed run, but an error
        try:
            outputs = check_outputs(returned, labels, meaning)
        except TaskError as error:
            raise TrainingError(str(error)) from None
        fault = fault_of_numbers(outputs, labels, meaning)
        if fault:
            raise TrainingError(fault)
        return outputs


@contextlib.contextmanager
def stepped_optimizers() -> Iterator[list[Optimizer]]:
    """Yield a list that gets each torch optimizer that makes a step in the block, in the order of the first steps."""
    found: list[Optimizer] = []

    def note(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if not any(optimizer is known for known in found):
            found.append(optimizer)

    handle = register_optimizer_step_post_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def _inputs(trace: Trace) -> dict[str, Any]:
    """Return what a training read, as JSON's types; raise `TrainingError` if a module changed meanwhile."""
    if trace.edited_modules:
        raise TrainingError(
            f"module {', '.join(trace.edited_modules)} changed while the run read it: which content it was trained on "
            f"is not known"
        )
    return trace.inputs().to_json()


def _rounded_part(run: Run) -> str:
    """Return of how many of the model's parameters gradients were rounded, if not of all that can be trained."""
    if not run.rounded:
        return " of no gradient"
    trainable = [] if run.model is None else [id(p) for p in run.model.parameters() if p.requires_grad]
    reached = run.rounded.intersection(trainable)
    return "" if len(reached) == len(trainable) else f" of {len(reached)} of {len(trainable)} parameters"


def _further_weights(run: Run, optimizers: Iterable[Optimizer]) -> str:
    """Return one hash of the weights that optimizers stepped and that are not the model's; empty without any."""
    known = set() if run.model is None else {id(parameter) for parameter in run.model.parameters()}
    stepped = (p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"])
    digests = [tensor_digest(parameter) for parameter in stepped if id(parameter) not in known]
    return hashlib.sha256(b"".join(digests)).hexdigest() if digests else ""


@contextlib.contextmanager
def process_state(device: torch.device, owner: object) -> Iterator[Collection[str]]:
    """Put back, after a block, every state of the process that a training may change; yield names of variables."""
    generators = GeneratorStates.now(device)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    deterministic = torch.get_deterministic_debug_mode()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # made by a metaclass
    try:
        with put_back(owner) as variables:
            yield variables
    finally:
        generators.put_back(device)
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(deterministic)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]  # as above


def _set_deterministic(on: bool, device: torch.device) -> None:
    # An operation without a deterministic kernel warns and runs: the control finds whether its bits are held.
    # (Not use_deterministic_algorithms, which sets the same flag, but imports the compiler: a second and more.)
    torch.set_deterministic_debug_mode("warn" if on else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made by a metaclass
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = on
        torch.backends.cudnn.benchmark = not on
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _release(model: weakref.ref[nn.Module] | None) -> None:
    """Free the finished run's model now, so that two models are never in memory at once."""
    # Only a model in a reference cycle needs the collector, which takes 50 to 100 ms once torch is loaded.
    if model is not None and model() is not None:
        gc.collect()


def _weights(run: Run, task: Task) -> dict[str, Tensor]:
    if run.model is None:
        raise TrainingError("the task keeps weights, but it never called run.perturb(model), which names the model")
    state = task.weights_of(run.model)
    weights = {name: value.detach().cpu().clone() for name, value in state.items() if isinstance(value, Tensor)}
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise TrainingError(f"the weights {name} are NaN or infinite")
    return weights


def _fingerprint(run: Run, outcome: Mapping[str, Any]) -> str:
    if outcome["status"] != "ok":
        return ""
    if run.model is not None:
        return run.final_digest()
    logits, scores = outcome.get("logits"), outcome.get("scores", {})
    if not scores:
        return "" if logits is None else hashlib.sha256(tensor_digest(logits)).hexdigest()
    return results_digest(logits, scores)


def traceback_of(error: BaseException) -> str:
    """Format the traceback of a failed run: the user's frames, or all frames if none is the user's."""
    if isinstance(error, TrainingError):
        return str(error)  # it describes the result of a training, and needs no place in the code
    formatted = traceback.TracebackException.from_exception(error)
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    # Not strict: with sys.tracebacklimit only the first frames have a line.
    theirs = [line for line, frame in zip(formatted.stack, frames, strict=False) if not is_ours(frame)]
    if theirs:
        formatted.stack = traceback.StackSummary.from_list(theirs)
    return "".join(formatted.format()).strip()
