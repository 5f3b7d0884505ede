"""Language models: the loop is ours, and a run keeps its weights, since its logits would not fit into memory."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from ..errors import ProtocolError, TaskError
from ..estimates.language_measures import LanguageMeasures
from ..estimates.measures import Measures, Metric
from ..estimates.metrics import Overlaps, TokenScores, sampled_places, token_scores
from ..isolation.streams import Stream
from ..protocol import NoiseProtocol, Source
from ..public import public
from ..store.record import RunRecord
from .corpus import Corpus
from .recipe import check_counts, check_makers, has_lazy_weights, make_lazy_weights, new_model, new_optimizer
from .run import Run, check_onset
from .schedule import CosineCycles, Schedule, check_schedule, makes_scheduler, set_rate
from .step import step_of, told
from .task import Task, TrainingError, content_digest

#: The state of a language model after a text: tensors, in tuples, lists or dicts; None at the beginning.
Hidden: TypeAlias = Any

#: Bytes of logits in memory at once, of one model and of all models together; twice that in float64.
_CHUNK_BYTES, _CHUNKS_BYTES = 16 * 2**20, 128 * 2**20

#: The fewest and the most tokens of a chunk.
_FEWEST, _MOST = 64, 1024

#: Bytes of scores that are kept for the next study of the same runs.
_SCORES_BYTES = 256 * 2**20


@public
@dataclass(frozen=True, eq=False, repr=False)
class LanguageRecipe(Task):
    """A language model, its text and its settings: trained on one long text in ``batch_size`` pieces side by side.

    ``model()`` makes a module that takes tokens ``[T, B]`` and its state (None at the beginning), and returns logits
    ``[T, B, vocabulary]`` and its new state. The sources are ``init`` and ``stochastic``: the dropouts of the model,
    and the length of each segment that is backpropagated through. The text has one order.

    Each run keeps its weights and no logits, which would be tokens x vocabulary numbers. A study predicts the test text
    again, chunk by chunk, for its measures: perplexity, cross-entropy and accuracy (percent of tokens), each
    with its SD, disagreement (percent of tokens), the correlation of a sample of logits, and the ensemble delta of
    perplexity and of cross-entropy.

    >>> from stabilitykit.zoo.qrnn import QRNN
    >>> text = "the cat sat on the mat\\n" * 50
    >>> recipe = LanguageRecipe(
    ...     model=lambda: QRNN(vocabulary=6, embedding=4, hidden=8),
    ...     corpus=Corpus.of_texts(train=text, valid=text, test=text),
    ...     epochs=2,
    ...     batch_size=4,
    ...     optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1.0),
    ... )
    >>> recipe
    LanguageRecipe('language model', epochs=2, batch_size=4, Corpus(train=350, valid=350, test=350, vocabulary=6))

    Source: Merity et al., *Regularizing and Optimizing LSTM Language Models*, 2017; Summers & Dinneen, section 3.3.
    """

    model: Callable[[], nn.Module]  #: makes a new model; its parameters come from the stream ``init``
    corpus: Corpus
    epochs: int
    batch_size: int  #: pieces of the training text that are read at once
    optimizer: Callable[[nn.Module], Optimizer]  #: makes the optimizer
    schedule: Schedule | None = None  #: factor on each group's learning rate, set before every step
    segment: int = 70  #: tokens that are backpropagated through at once; the state goes on to the next segment
    #: Whether the length of a segment is drawn: with SD 5 around ``segment``, or around half of it in one of 20 cases.
    #: The learning rate of a step is in proportion to its length. The draws come from the stream ``stochastic``.
    vary_segments: bool = True
    clip: float | None = 0.25  #: the largest norm of a step's gradient
    curve: bool = False  #: score the test text after every epoch
    sample: int = 1_000_000  #: logits of a model that are correlated: one drawn from each of ``sample`` stretches
    name: str = "language model"  #: in reports
    _scores: dict[object, TokenScores] = field(default_factory=dict)

    keep_weights = True
    leaves_outputs = False
    sources = frozenset(Source) - {Source.SHUFFLE, Source.AUGMENT}

    def __post_init__(self) -> None:
        check_makers(self.model, self.optimizer)
        check_counts(epochs=self.epochs, batch_size=self.batch_size, segment=self.segment, sample=self.sample)
        if not isinstance(self.corpus, Corpus):
            raise TaskError(
                f"Expected corpus= to be a Corpus but got {type(self.corpus).__name__}. Corpus.of_texts(train=..., "
                f"valid=..., test=...) makes one, and python_topics() is one."
            )
        if len(self.corpus.train) // self.batch_size < 2:
            raise TaskError(
                f"Expected a training text of two tokens a piece but got {len(self.corpus.train)} tokens and "
                f"batch_size={self.batch_size}. Take a smaller batch."
            )
        if self.clip is not None and not self.clip > 0:
            raise TaskError(f"Expected clip > 0, a norm, or None but got clip={self.clip!r}.")
        check_schedule(self.schedule)
        if makes_scheduler(self.schedule):
            raise TaskError(
                "Expected schedule= to be a function of (epoch, epochs) but got one of the optimizer: a step's rate is "
                "in proportion to the length of its segment, which a scheduler of torch's would take for its own "
                "doing. Write schedule=lambda epoch, epochs: ..., or train(run)."
            )
        if isinstance(self.schedule, CosineCycles):
            self.schedule.check(self.epochs)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the scores: a process that receives the recipe can compute them."""
        return vars(self) | {"_scores": {}}

    def __repr__(self) -> str:
        """Name the settings, without the text: test failures show it."""
        return f"LanguageRecipe({self.name!r}, epochs={self.epochs}, batch_size={self.batch_size}, {self.corpus!r})"

    @property
    def labels(self) -> Tensor:
        """The tokens to be predicted: the test text without its first token."""
        return self.corpus.test[1:]

    @property
    def remarks(self) -> tuple[str, ...]:  # type: ignore[override]  # read-only here
        """A note on how many logits are correlated, if not all are."""
        logits = self._logits
        return (f"correlation of {self.sample} of {logits} logits",) if self.sample < logits else ()

    def content(self) -> object:
        """Return every field by name that the bits of a run depend on."""
        left_out = ("_scores", "name", "sample")
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}

    def identity(self) -> dict[str, object]:
        text = content_digest((self.corpus.train, self.corpus.vocabulary))
        return {**super().identity(), "train": text, "epochs": self.epochs}

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Build the model once, move the weight, and read the first and the last word of the vocabulary."""
        super().check(protocol, device)
        absent = protocol.vary - self.sources
        if absent and protocol.vary != frozenset(Source):
            names = " and ".join(sorted(source.value for source in absent))
            raise ProtocolError(
                f"Expected a source that a language model has but got {names}: its text is read in one order and never "
                f"changed. What can vary is init, stochastic (dropout and the lengths of segments), low_level, or all "
                f"of them; or one weight, by perturb='ulp'."
            )
        check_onset(protocol.onset, self.epochs)
        run = Run(protocol.plans()[0], device)
        with Stream(run.acting.stochastic, device):
            with told("model() to make a model", "Mend model=."):
                model = self._build(run)
            with torch.no_grad():
                self._check_words(model.eval(), device)
            with told("optimizer(model) to make an optimizer", "Mend optimizer=."):
                optimizer = new_optimizer(self.optimizer, model)
            text = _side_by_side(self.corpus.train, self.batch_size).to(device)
            mend = "Mend model=, optimizer= or schedule=."
            with told("a segment of the text to be trained on", mend), contextlib.suppress(TrainingError):
                self._train_epoch(model, optimizer, text[: self.segment + 1], 0)
            if protocol.perturb is not None:
                run.perturb(self._build(run), gradients=lambda: self._first_gradients(run, text))

    def _build(self, run: Run) -> nn.Module:
        model = new_model(self.model, run).to(run.device)
        if has_lazy_weights(model):
            tokens = self.corpus.train[: self.batch_size].to(run.device)
            make_lazy_weights(model, run, lambda: model(tokens[None], None))
        return model

    def _first_gradients(self, run: Run, text: Tensor) -> Mapping[str, Tensor | None]:
        """Return the gradient of each parameter in the first segment, by name; nothing of the run changes."""
        own = Run(run.plan, run.device)
        with Stream(own.acting.stochastic, run.device):
            model = self._build(own).train()
            stop = min(self._length(), len(text) - 1)
            self._loss(model, text[: stop + 1], None)[0].backward()  # type: ignore[no-untyped-call]  # torch's own
        return {name: parameter.grad for name, parameter in model.named_parameters(remove_duplicate=False)}

    def _check_words(self, model: nn.Module, device: torch.device) -> None:
        ends = torch.tensor([[0], [len(self.corpus) - 1]])  # first and last word of the vocabulary
        try:
            returned = _read(model, ends.to(device), None)
        except IndexError as error:
            raise TaskError(
                f"Expected a model that takes each of the corpus's {len(self.corpus)} words but it raised "
                f"IndexError: {error}. Make its embedding for len(corpus) words."
            ) from error
        self._check_logits(returned)

    def _check_logits(self, returned: tuple[object, Hidden]) -> None:
        shape = tuple(getattr(returned[0], "shape", ()))
        if shape != (2, 1, len(self.corpus)):
            raise TaskError(
                f"Expected model(tokens, hidden) to return logits of shape [T, B, vocabulary], here "
                f"{[2, 1, len(self.corpus)]}, and what it remembers, but the first is "
                f"{list(shape) if shape else type(returned[0]).__name__}. The corpus has {len(self.corpus)} words."
            )

    def fit(self, run: Run) -> None:
        text = _side_by_side(self.corpus.train, self.batch_size).to(run.device)
        model = run.perturb(self._build(run), gradients=lambda: self._first_gradients(run, text))
        optimizer = new_optimizer(self.optimizer, model)
        scores: TokenScores | None = None
        for epoch in run.epochs(self.epochs, state=(model, optimizer)):
            self._train_epoch(model, optimizer, text, epoch)
            scores = self._score(model, run.device) if self.curve else None
            if scores is not None:
                run.curve.append({"perplexity": scores.perplexity, "cross_entropy": scores.cross_entropy})
        scores = scores or self._score(model, run.device)  # now, so that a model that cannot predict makes a failed run
        if not torch.isfinite(scores.log_probabilities).all():
            raise TrainingError("some logits of the test text are NaN or infinite")
        self._remember((run.final_digest(), torch.get_num_threads()), scores)

    def _train_epoch(self, model: nn.Module, optimizer: Optimizer, text: Tensor, epoch: int) -> None:
        model.train()
        steps = len(text) - 1
        hidden: Hidden = None
        total = torch.zeros((), device=text.device)
        make_step = step_of(optimizer)
        start = 0
        while start < steps:
            stop = min(start + self._length(), steps)
            factor = self.schedule(epoch + stop / steps, self.epochs) if self.schedule else 1.0
            set_rate(optimizer, factor * ((stop - start) / self.segment if self.vary_segments else 1.0))
            seen = [hidden]
            total += make_step(functools.partial(self._evaluate, model, optimizer, text[start : stop + 1], seen))
            hidden, start = seen[-1], stop
        if not torch.isfinite(total):
            raise TrainingError(f"the loss became {total.item()} in epoch {epoch} (from 0)")

    def _evaluate(self, model: nn.Module, optimizer: Optimizer, segment: Tensor, seen: list[Hidden]) -> Tensor:
        """Put the gradients of a segment into the model's parameters, and its new state last into ``seen``."""
        optimizer.zero_grad()
        loss, hidden = self._loss(model, segment, seen[0])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature has no types
        if self.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.clip)
        seen[1:] = [hidden]
        return loss

    def _loss(self, model: nn.Module, segment: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
        detached = torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, hidden)
        logits, hidden = _read(model, segment[:-1], detached)
        return functional.cross_entropy(logits.flatten(0, 1), segment[1:].flatten()), hidden

    def _length(self) -> int:
        """Draw the number of tokens of the next segment, as Merity et al. do."""
        if not self.vary_segments:
            return self.segment
        chance, jitter = torch.rand(()).item(), torch.randn(()).item()
        about = self.segment if chance < 0.95 else self.segment / 2
        return max(min(5, self.segment), int(about + 5 * jitter))

    def measure_names(self, metrics: Mapping[str, Metric] | None = None) -> tuple[str, ...]:
        """Return the names of the measures; raises `TaskError` for metrics, which need whole logits."""
        if metrics:
            raise TaskError(
                f"Expected no metrics= beside a language model but got {', '.join(metrics)}: a metric is a function of "
                f"all logits of a run, and here they are never there at once. Score record.weights of study.records."
            )
        return tuple(self.measures(()))

    def measures(self, runs: Sequence[RunRecord], metrics: Mapping[str, Metric] | None = None) -> Measures:
        """Return the measures of ``runs``, predicted from their weights when they are asked for."""
        if metrics:
            self.measure_names(metrics)
        return LanguageMeasures(self.labels, lambda: self._scores_of(runs), lambda: self._overlaps_of(runs))

    def _scores_of(self, runs: Sequence[RunRecord]) -> list[TokenScores]:
        """Score each run by itself, so that the scores of fewer runs serve for more."""
        found: list[TokenScores] = []
        for run in runs:
            key = run.fingerprint, run.environment["threads"]
            if key not in self._scores:
                with _as_trained(run) as device:
                    self._remember(key, self._score(self._stored(run, self._empty(device)), device))
            found.append(self._scores[key])
        return found

    def outputs_of(self, run: Run, returned: Any) -> Tensor:
        """Return the log-probability of each right token of the test text, ``[N]``."""
        return self._scores[run.final_digest(), torch.get_num_threads()].log_probabilities

    def _remember(self, key: object, scores: TokenScores) -> None:
        each = sum(part.nbytes for part in (scores.log_probabilities, scores.predicted, scores.sample))
        while self._scores and len(self._scores) >= _SCORES_BYTES // each:
            self._scores.pop(next(iter(self._scores)), None)
        self._scores[key] = scores

    def _overlaps_of(self, runs: Sequence[RunRecord]) -> Tensor:
        """Return `cross_entropy_ensemble_delta` of all pairs: each chunk of text is read by every model in turn."""
        overlaps = Overlaps(len(runs))
        hidden: list[Hidden] = [None] * len(runs)
        with _as_trained(runs[0]) as device:
            model = self._empty(device)
            for tokens in torch.split(self.corpus.test[:-1].to(device), self._tokens_a_chunk(len(runs))):
                chunk: list[Tensor] = []
                for i, run in enumerate(runs):  # reading the weights again is quick compared with predicting
                    logits, hidden[i] = _read(self._stored(run, model), tokens[:, None], hidden[i])
                    chunk.append(logits.squeeze(1))
                overlaps.add(chunk)
        return overlaps.cross_entropy_ensemble_delta().cpu()

    def _score(self, model: nn.Module, device: torch.device) -> TokenScores:
        places = sampled_places(self._logits, self.sample)
        # In a stream of its own, so that scoring more or fewer epochs never changes the training.
        with Stream(0, device), torch.no_grad():
            return token_scores(self._predict(model.eval(), device), self.labels, places)

    def _predict(self, model: nn.Module, device: torch.device) -> Iterator[Tensor]:
        hidden: Hidden = None
        for tokens in torch.split(self.corpus.test[:-1].to(device), self._tokens_a_chunk(1)):
            logits, hidden = _read(model, tokens[:, None], hidden)
            yield logits.squeeze(1)

    def _tokens_a_chunk(self, models: int) -> int:
        """Return the tokens of a chunk; for one model alone the number, and so the bits, depends on no other model."""
        room = _CHUNK_BYTES if models == 1 else _CHUNKS_BYTES
        return max(_FEWEST, min(_MOST, room // (4 * models * len(self.corpus))))

    @property
    def _logits(self) -> int:
        return len(self.labels) * len(self.corpus)

    def _empty(self, device: torch.device) -> nn.Module:
        with Stream(0, device):
            return self.model().to(device).eval()

    def _stored(self, run: RunRecord, model: nn.Module) -> nn.Module:
        """Load the weights of a run into ``model``, whose tensors have the memory layout of the trained ones."""
        if run.weights is None:
            raise TaskError(f"Expected run {run.index} of {self.name} to have its weights, but it has none.")
        model.load_state_dict(dict(run.weights))
        return model


def _read(model: nn.Module, tokens: Tensor, hidden: Hidden) -> tuple[Tensor, Hidden]:
    returned = model(tokens, hidden)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TaskError(
            f"Expected model(tokens, hidden) to return logits [T, B, vocabulary] and what it remembers, two things, "
            f"but got {type(returned).__name__}. A model that remembers nothing returns None beside its logits."
        )
    return returned


def _side_by_side(tokens: Tensor, pieces: int) -> Tensor:
    """Cut a text into pieces of one length, ``[length, pieces]``; the tokens left over are left out.

    >>> _side_by_side(torch.arange(7), 2)
    tensor([[0, 3],
            [1, 4],
            [2, 5]])
    """
    length = len(tokens) // pieces
    return tokens[: length * pieces].view(pieces, length).T.contiguous()


@contextlib.contextmanager
def _as_trained(run: RunRecord) -> Iterator[torch.device]:
    """Predict on the kind of device that ``run`` was trained on, and with its threads, which change bits."""
    threads = torch.get_num_threads()
    on_gpu = run.environment["device"] != "cpu" and torch.cuda.is_available()
    try:
        torch.set_num_threads(run.environment["threads"])
        with torch.no_grad():
            yield torch.device("cuda" if on_gpu else "cpu")
    finally:
        torch.set_num_threads(threads)
