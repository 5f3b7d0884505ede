"""One training as its code sees it: isolated streams, batches and epochs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import MissingModuleError, ProtocolError, TaskError, check_count
from ..isolation.interception import Interception
from ..isolation.streams import GeneratorStates, Stream, seed_generators
from ..protocol import RunPlan, Source, derive_seed, parse_sources
from ..public import public
from ..store.fingerprint import tensor_digest
from ..store.plain_values import CannotKeep
from ..store.shared_epochs import Prefixes
from .checkpoint import fits, state_of, take_state
from .data import Batch, Converted, Data, Examples, Layout, check_data, examples_of, split_indices, takes_generator
from .perturb import PerturbationRecord, check_complete, perturb_model

#: The first epochs in which sources vary: their weights are hashed in every run, and the control trains them twice.
TRACED_EPOCHS = 2

#: Calls of `Run.epochs` that are given nothing after a rehearsal was cut: more are a loop that waits for an epoch.
_EMPTY_CALLS = 1000

#: Hash of each tensor of a model's state, by name.
StateDigest = dict[str, str]

#: The model and its optimizer: the state that goes on from one epoch to the next, beside that of the run.
TrainingState: TypeAlias = tuple[nn.Module, Optimizer]


@public
class Run:
    """The source of all random draws in a train function of your own.

    ::

        def train(run):
            with run.stream("init"):
                model = Net().to(run.device)
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in run.epochs(10):
                for x, y in run.batches((inputs, labels), batch_size=128):
                    optimizer.zero_grad()
                    cross_entropy(model(x), y).backward()
                    optimizer.step()
            return model.eval()(test_inputs)

    Outside every ``with run.stream(...)`` the code runs in the stream ``stochastic``, so dropout needs no block. A
    DataLoader of your own may take the place of ``run.batches``: its order and items are drawn from their sources.
    Do not go on to another epoch inside a block.
    """

    def __init__(
        self,
        plan: RunPlan,
        device: torch.device,
        *,
        stop_after: int | None = None,
        prefixes: Prefixes | None = None,
        from_start: bool = False,
    ) -> None:
        self.plan = plan
        self.acting = plan.at_start  #: the plan of the present seeds: before the onset it is not ``plan``
        self.device = device
        self.model: nn.Module | None = None  #: as given to `perturb`
        self.perturbation: PerturbationRecord | None = None
        self.trace: list[StateDigest] = []  #: digests of the model after each of the first epochs
        self.curve: list[dict[str, float]] = []  #: test metrics after each epoch, if the task was asked for them
        self.snapshots: list[Tensor] = []  #: test outputs of the models that a snapshot ensemble is made of
        self.trained_epochs = 0  #: epochs completed in all calls of `epochs`; 0 in a training that cannot be stopped
        self.planned_epochs = 0  #: epochs that all calls of `epochs` asked for; 0 before the first
        self.is_cut = False  #: whether an epoch was refused, since only the first were wanted
        self.variables: Collection[str] = ()  #: environment variables that a rehearsal has set, once it is over
        self.is_idle = False  #: whether no optimizer of torch's made a step, once a rehearsal has ended
        self.rounded: set[int] = set()  #: ids of the parameters whose gradients were rounded, as ``low_level`` does it
        self.is_rehearsed = False  #: whether only its bits are wanted, to compare them: no result is kept
        self.resumed_at = 0  #: the epoch of the stored state that it went on from; 0 if trained from the start
        self._stop_after, self._prefixes, self._from_start = stop_after, prefixes, from_start
        self._at_onset: list[Callable[[], object]] = []
        self._streams: dict[Source, Stream] = {
            source: Stream(self.acting.seed(source) or 0, device, source)
            for source in Source
            if source is not Source.LOW_LEVEL
        }
        this = weakref.proxy(self)  # a cycle would keep the model in memory
        self.interception = Interception(lambda source: this.acting.seed(source) or 0, device)
        self._shuffle = torch.Generator().manual_seed(self.acting.shuffle)
        self._augment = torch.Generator().manual_seed(self.acting.augment)
        self._passes = 0
        self._begun = 0  #: epochs that `epochs` has given, those left by a break too
        self._calls, self._empty_calls = 0, 0
        self._converted: Converted = {}

    @property
    def index(self) -> int:
        """Position of this run in its study, from 0."""
        return self.plan.index

    @property
    def seeds(self) -> dict[str, int | None]:
        """The seed of every source, by name."""
        return self.plan.seeds

    def stream(self, source: str | Source) -> AbstractContextManager[Stream]:
        """Return the generators of one source as a block: python's, numpy's, torch's, and CUDA's on a GPU.

        The generators go on where the last block of that source left them. ``low_level`` has none to enter.
        """
        return self._streams[_only_seeded("run.stream(source)", source)]

    def key(self, source: str | Source) -> Any:
        """Return a key of JAX's made of the seed of one source, the same at each call: split it, or fold numbers in.

        Code in JAX hands its keys on, so that nothing need be intercepted. ``low_level`` has no seed that it takes.
        """
        source = _only_seeded("run.key(source)", source)
        try:
            import jax
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                "Expected JAX for run.key(source) but it is not installed: pip install jax."
            ) from error
        return jax.random.key(self.acting.seed(source) or 0)

    def perturb(
        self, model: nn.Module, *, gradients: Callable[[], Mapping[str, Tensor | None]] | None = None
    ) -> nn.Module:
        """Note the model that is trained, move its weight if the plan asks for that, and return the model.

        Call it once, when the model is complete and on its device: the control and the fingerprint read this model.
        A weight whose gradient is known to be 0 is not chosen, since a step of it may never be felt: a row of an
        embedding that no example uses. Known are the gradients that the parameters have, by a backward pass before,
        or those that ``gradients()`` returns by the parameters' names.
        """
        if self.model is not None:
            raise TaskError(
                "Expected run.perturb(model) once a run but it was called again; it names the one model. If several "
                "are trained, give one of them, or all as nn.ModuleList([...]), before the first trains."
            )
        check_complete(model)
        self.model = model
        if self.plan.perturbation is not None:
            seed = self.plan.perturbation_seed or 0
            known = None if gradients is None or self.plan.perturbation.index is not None else gradients()
            self.perturbation = perturb_model(model, self.plan.perturbation, seed, self.plan.index, known)
        return model

    def final_digest(self) -> str:
        """Return the sha256 of the present state of the model."""
        if self.model is None:
            raise TaskError("Expected run.perturb(model) before the state of the model is asked for.")
        return combined_digest(state_digest(self.model))

    @property
    def varies(self) -> bool:
        """Whether the sources have this run's own seeds; False before the onset."""
        return self.acting is self.plan

    def at_onset(self, begin: Callable[[], object]) -> None:
        """Call ``begin`` when the sources begin to vary: now, or at the onset if that is still to come."""
        if self.varies:
            begin()
        else:
            self._at_onset.append(begin)

    def epochs(self, count: int, *, state: TrainingState | None = None) -> Iterator[int]:
        """Yield 0 to ``count`` - 1; the control stops here after the first epochs that vary.

        A training may call it again, for each member of an ensemble or each phase: the control and an onset count the
        epochs of all calls. With an onset, the sources that vary get the run's own seeds as that epoch begins. Give
        ``state``, the model and its optimizer, if the loop needs nothing else from one epoch to the next: the epochs
        before the onset, which all runs share, are then trained once and stored, and the runs go on from there. An
        onset in a later call stores nothing.
        """
        check_count(TaskError, "count", count, 1, "It is the number of epochs that run.epochs(count) counts.")
        _check_state(state)
        self.planned_epochs += count
        self._calls += 1
        state = state if self._calls == 1 else None  # a later loop began with more than one model and its optimizer
        self._check_ends()
        if not self.varies:
            self._resume(state)
        for epoch in range(self._begun if self._calls == 1 else 0, count):
            place = self._begun  # in the whole training
            if self._stop_after is not None and place >= self._stop_after:
                self.is_cut = True
                return
            if not self.varies and place == self.plan.first_varied_epoch:
                self._keep(place, state)
                self._begin_to_vary()
            self._begun += 1
            yield epoch
            self.trained_epochs += 1
            if 0 <= place - self.plan.first_varied_epoch < TRACED_EPOCHS and self.model is not None:
                self.trace.append(state_digest(self.model))

    def _check_ends(self) -> None:
        """Raise `TaskError` where a loop around run.epochs(count) goes on without end after a rehearsal was cut."""
        self._empty_calls += self.is_cut
        if self._empty_calls > _EMPTY_CALLS:
            raise TaskError(
                f"Expected the calls of run.epochs(count) to end, but {_EMPTY_CALLS} of them came after a rehearsal "
                f"had all of its {self.trained_epochs} epochs: a loop around them waits for a result that only more "
                f"training gives. Write for epoch in run.epochs(most), and leave it by a break."
            )

    def check_began(self) -> None:
        """Raise `ProtocolError` if the training has no epoch of the onset, `TaskError` if it did not come to it."""
        if not self.varies:
            if self.planned_epochs:
                check_onset(self.plan.first_varied_epoch, self.planned_epochs)
            raise TaskError(
                f"Expected a loop over run.epochs(n), in which sources vary from epoch {self.plan.first_varied_epoch} "
                f"on, but the training ended before that epoch: nothing varied. Take the epochs from run.epochs(n), or "
                f"choose an earlier onset."
            )

    def _begin_to_vary(self) -> None:
        """Seed the generators of each source that varies anew, with the run's own seed."""
        onset, self.acting = self.plan.onset, self.plan
        assert onset is not None, "called only if the plan has one"
        for source in onset.vary - {Source.LOW_LEVEL}:
            self._streams[source].reseed(self.plan.seed(source) or 0)
        if Source.SHUFFLE in onset.vary:
            self._shuffle.manual_seed(self.plan.shuffle)
        if Source.AUGMENT in onset.vary:
            self._augment.manual_seed(self.plan.augment)
        if Source.STOCHASTIC in onset.vary:
            seed_generators(self.plan.stochastic, self.device)  # the stream that the loop runs in
        while self._at_onset:  # emptied, so that no callback keeps this run and its model alive
            self._at_onset.pop(0)()

    def _keep(self, epoch: int, state: TrainingState | None) -> None:
        if state is None or self._prefixes is None or self.resumed_at == epoch:
            return
        if self.interception.counts.passes:  # those of the user's loaders have no state to store
            return
        with contextlib.suppress(CannotKeep):  # then each run trains these epochs itself
            self._prefixes.keep(epoch, {**state_of(*state), "run": self._state()})

    def _resume(self, state: TrainingState | None) -> None:
        """Go on from the latest stored state up to the onset, if one fits."""
        if state is None or self._prefixes is None or self._from_start:
            return
        epoch, found = self._prefixes.latest(self.plan.first_varied_epoch, self.device)
        if found is not None and fits(*state, found):
            take_state(*state, found)
            self._take_state(found["run"])
            self.trained_epochs = self.resumed_at = self._begun = epoch

    def _state(self) -> dict[str, Any]:
        """Return the state of this run itself, with the generators of this process."""
        return {
            "loop": GeneratorStates.now(self.device).to_plain(),
            "streams": {source.value: stream.state for source, stream in self._streams.items()},
            "shuffle": self._shuffle.get_state(),
            "augment": self._augment.get_state(),
            "passes": self._passes,
            "curve": self.curve,
            "snapshots": self.snapshots,
        }

    def _take_state(self, state: dict[str, Any]) -> None:
        GeneratorStates.from_plain(state["loop"]).put_back(self.device)
        for source, stream in self._streams.items():
            stream.state = state["streams"][source.value]
        self._shuffle.set_state(state["shuffle"])
        self._augment.set_state(state["augment"])
        self._passes, self.curve, self.snapshots = state["passes"], state["curve"], state["snapshots"]

    def batches(
        self,
        data: Data | Examples,
        batch_size: int,
        *,
        augment: Callable[..., Tensor] | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
    ) -> Iterator[Batch]:
        """Yield one pass over ``data`` in the order of the shuffle stream, on the run's device.

        A Dataset's own random draws, and ``augment`` on each batch of inputs, come from the augment stream. A Dataset's
        item depends on the seed, the pass and the item alone: the same for any ``num_workers``.
        """
        check_count(TaskError, "batch_size", batch_size, 1)
        if not isinstance(data, Examples):
            check_data("data", data)
            data = examples_of(data, Layout(self.device), num_workers, self._converted)
        order = torch.randperm(len(data), generator=self._shuffle)
        item_seed = derive_seed(self.acting.augment, self._passes)
        self._passes += 1
        change = self._under_stream(augment) if augment is not None else lambda x: x
        for x, y in data.batches(split_indices(order, batch_size, drop_last=drop_last), item_seed):
            yield change(x), y

    def _under_stream(self, augment: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        if takes_generator(augment):
            return functools.partial(augment, generator=self._augment)

        def swapped(x: Tensor) -> Tensor:
            with self._streams[Source.AUGMENT]:
                return augment(x)

        return swapped


def _only_seeded(asking: str, source: str | Source) -> Source:
    """Return the one source that ``source`` names; raise `TaskError` for several, and for one without a seed here."""
    sources = parse_sources(source)
    if len(sources) != 1:
        raise TaskError(f"Expected {asking} to name one source but got {source!r}; ask once for each.")
    (only,) = sources
    if only is Source.LOW_LEVEL:
        raise TaskError("Expected a source with generators, but 'low_level' acts inside the kernels of every step.")
    return only


def check_onset(onset: int, epochs: int) -> None:
    """Raise `ProtocolError` if training ends before the sources begin to vary."""
    if onset >= epochs:
        raise ProtocolError(
            f"Expected onset= to be one of the {epochs} epochs, 0 to {epochs - 1}, but got onset={onset}: training is "
            f"over before anything would vary. Choose an earlier one, or train longer."
        )


def _check_state(state: object) -> None:
    """Raise `TaskError` unless ``state`` is None, or a model and its optimizer."""
    if state is None:
        return
    kinds = [type(part) for part in state] if isinstance(state, tuple | list) else [type(state)]
    if len(kinds) != 2 or not all(map(issubclass, kinds, (nn.Module, Optimizer))):
        got = ", ".join(kind.__name__ for kind in kinds)
        raise TaskError(
            f"Expected run.epochs(count, state=(model, optimizer)) but got {got or 'nothing'} as its state: "
            f"they are stored where an onset has epochs that all runs share."
        )


def state_digest(model: nn.Module) -> StateDigest:
    """Return the hash of each tensor in the model's state dict, by name."""
    state = model.state_dict(keep_vars=True)
    return {name: tensor_digest(value).hex() for name, value in state.items() if isinstance(value, Tensor)}


def combined_digest(digest: StateDigest) -> str:
    """Return one sha256 over the names and hashes of a whole state.

    >>> combined_digest({"weight": "00"}) != combined_digest({"bias": "00"})
    True
    """
    lines = (f"{name} {content}\n" for name, content in digest.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
