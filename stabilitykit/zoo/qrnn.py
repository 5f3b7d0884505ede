"""A quasi-recurrent network as a language model: convolutions over time, and a recurrence without weights.

Bradbury et al., *Quasi-Recurrent Neural Networks* (2016), with the regularisation of Merity et al., *Regularizing and
Optimizing LSTM Language Models* (2017): the paper's model of text.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

#: For each layer its state ``[B, H]``, and the inputs ``[window - 1, B, I]`` that its next window begins with.
Hidden: TypeAlias = Sequence[tuple[Tensor, Tensor]]


class QRNN(nn.Module):
    """Embedding, quasi-recurrent layers, and a decoder with the weights of the embedding.

    Tokens ``[T, B]`` and the state after the text before in; logits ``[T, B, vocabulary]`` and the new state out. The
    defaults are the paper's sizes, and the dropouts of the AWD family's quasi-recurrent configuration.

    >>> model = QRNN(vocabulary=10, embedding=4, hidden=6)
    >>> logits, hidden = model(torch.tensor([[1, 2], [3, 4], [5, 6]]))
    >>> logits.shape, [tuple(of_layer.shape) for of_layer, _ in hidden]
    (torch.Size([3, 2, 10]), [(2, 6), (2, 6), (2, 4)])

    Source: Summers & Dinneen, section 3.3: 256 embedding dimensions, 3 layers of 512.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 256,
        hidden: int = 512,
        layers: int = 3,
        *,
        dropout_words: float = 0.1,  #: share of words that are dropped in a segment
        dropout_input: float = 0.4,  #: share of embeddings; like the next two, one mask for all times of a segment
        dropout_hidden: float = 0.3,  #: share between layers
        dropout_output: float = 0.4,
        dropout_weights: float = 0.1,  #: share of the weights of every layer
    ) -> None:
        super().__init__()
        sizes = [embedding, *[hidden] * (layers - 1), embedding]  # the embedding decodes as well
        self.dropout_words = dropout_words
        self.dropouts = [dropout_input, *[dropout_hidden] * (layers - 1), dropout_output]
        self.embedding = nn.Parameter(torch.empty(vocabulary, embedding).uniform_(-0.1, 0.1))
        self.layers = nn.ModuleList(
            QRNNLayer(inputs, outputs, window=2 if place == 0 else 1, dropout_weights=dropout_weights)
            for place, (inputs, outputs) in enumerate(itertools.pairwise(sizes))
        )
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens: Tensor, hidden: Hidden | None = None) -> tuple[Tensor, Hidden]:
        """Return logits of each next token, and the new state."""
        x = self._dropped(functional.embedding(tokens, self._words()), self.dropouts[0])
        remembered: list[tuple[Tensor, Tensor]] = []
        for place, layer in enumerate(self.layers):
            x, last = layer(x, None if hidden is None else hidden[place])
            x = self._dropped(x, self.dropouts[place + 1])
            remembered.append(last)
        return functional.linear(x, self.embedding, self.bias), tuple(remembered)

    def _words(self) -> Tensor:
        if not self.training or not self.dropout_words:
            return self.embedding
        kept = functional.dropout(self.embedding.new_ones(len(self.embedding), 1), self.dropout_words)
        return self.embedding * kept

    def _dropped(self, x: Tensor, share: float) -> Tensor:
        """Drop numbers by one mask for all times."""
        return x * functional.dropout(x.new_ones(x.shape[1:]), share) if self.training and share else x


class QRNNLayer(nn.Module):
    """Candidates, forget gates and output gates of all times at once, then ``fo``-pooling.

    Inputs ``[T, B, I]`` in, outputs ``[T, B, H]`` out. The window reaches back ``window - 1`` steps.
    """

    def __init__(self, inputs: int, outputs: int, window: int = 1, dropout_weights: float = 0.0) -> None:
        super().__init__()
        self.outputs, self.window, self.dropout_weights = outputs, window, dropout_weights
        self.gates = nn.Linear(window * inputs, 3 * outputs)

    def forward(self, x: Tensor, before: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the outputs, and the state for the next segment."""
        batch, inputs = x.shape[1:]
        if before is None:
            before = x.new_zeros(batch, self.outputs), x.new_zeros(self.window - 1, batch, inputs)
        remembered, earlier = before
        seen = torch.cat([earlier, x]) if self.window > 1 else x
        windows = torch.cat([seen[place : place + len(x)] for place in range(self.window)], dim=-1)
        weight = functional.dropout(self.gates.weight, self.dropout_weights, self.training)
        candidate, forget, output = functional.linear(windows, weight, self.gates.bias).chunk(3, dim=-1)
        state = f_pooling(candidate.tanh(), forget.sigmoid(), remembered)
        return output.sigmoid() * state, (state[-1], seen[len(seen) - self.window + 1 :])


def f_pooling(candidate: Tensor, forget: Tensor, first: Tensor) -> Tensor:
    r"""Mix the last state and the candidate by the forget gate: ``h_t = f_t h_{t-1} + (1 - f_t) z_t``.

    Candidates and forget gates ``[T, ...]`` and the state before ``[...]`` in, all states ``[T, ...]`` out.

    >>> f_pooling(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [0.5]]), torch.tensor([0.0]))
    tensor([[0.5000],
            [0.2500]])
    """
    states: Tensor = _Recurrence.apply(forget, candidate - forget * candidate, first)
    return states


class _Recurrence(torch.autograd.Function):
    """``h_t = f_t h_{t-1} + b_t``, one elementwise operation a time step each way.

    Autograd alone would record several nodes for every step, and take several times as long.
    """

    @staticmethod
    def forward(ctx: Any, forget: Tensor, added: Tensor, first: Tensor) -> Tensor:
        states = torch.empty_like(added)
        last = first
        for f, b, state in zip(forget.unbind(), added.unbind(), states.unbind(), strict=True):
            last = torch.addcmul(b, f, last, out=state)
        ctx.save_for_backward(forget, states, first)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        forget, states, first = ctx.saved_tensors
        of_states = torch.empty_like(gradient)
        later: Tensor = of_states[-1].copy_(gradient[-1])
        times = zip(forget[1:].unbind(), gradient[:-1].unbind(), of_states[:-1].unbind(), strict=True)
        for f, own, total in reversed(list(times)):
            later = torch.addcmul(own, f, later, out=total)
        of_forget = of_states * torch.cat([first[None], states[:-1]])
        return of_forget, of_states, of_states[0] * forget[0]
