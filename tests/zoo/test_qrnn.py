"""The quasi-recurrent network against its formulas, written out a second time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from stabilitykit.zoo.qrnn import QRNN, QRNNLayer, f_pooling


def without_dropout(**sizes: int) -> QRNN:
    none = dict.fromkeys(("words", "input", "hidden", "output", "weights"), 0.0)
    return QRNN(**sizes, **{f"dropout_{name}": share for name, share in none.items()})  # type: ignore[arg-type]


def naive_layer(layer: QRNNLayer, x: Tensor) -> Tensor:
    """Bradbury et al., section 2, time by time."""
    times, batch, inputs = x.shape
    weight, bias = layer.gates.weight, layer.gates.bias
    state, outputs = torch.zeros(batch, layer.outputs), []
    for t in range(times):
        window = [x[t - back] if t >= back else torch.zeros(batch, inputs) for back in reversed(range(layer.window))]
        z, f, o = (torch.cat(window, -1) @ weight.T + bias).split(layer.outputs, dim=-1)
        state = torch.sigmoid(f) * state + (1 - torch.sigmoid(f)) * torch.tanh(z)
        outputs.append(torch.sigmoid(o) * state)
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ("vocabulary", "embedding", "hidden", "layers"), [(10_000, 256, 512, 3), (50, 8, 12, 2), (7, 4, 5, 1)]
)
def test_parameter_count(vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
    model = QRNN(vocabulary, embedding, hidden, layers)
    widths = [embedding] + [hidden] * (layers - 1) + [embedding]
    expected = vocabulary * embedding + vocabulary  # the embedding is the decoder, which has a bias of its own
    expected += 2 * embedding * 3 * widths[1] + 3 * widths[1]  # the first layer sees two words
    expected += sum(3 * out * (into + 1) for into, out in itertools.pairwise(widths[1:]))
    assert sum(p.numel() for p in model.parameters()) == expected


def test_the_papers_model_has_four_and_a_half_million_parameters() -> None:
    assert sum(p.numel() for p in QRNN(10_000).parameters()) == 4_539_920


def test_initialisation_is_uniform_within_a_tenth() -> None:
    torch.manual_seed(0)
    weight = QRNN(5000, 64, 8).embedding
    assert weight.abs().max() <= 0.1
    assert abs(weight.std().item() - 0.2 / 12**0.5) < 1e-3
    assert not QRNN(50, 8, 8).bias.any()


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_layer_is_its_formula(window: int) -> None:
    torch.manual_seed(0)
    layer, x = QRNNLayer(4, 6, window), torch.randn(9, 2, 4)
    torch.testing.assert_close(layer(x)[0], naive_layer(layer, x))


def test_gradients_of_the_pooling() -> None:
    torch.manual_seed(0)
    z, f = torch.randn(2, 5, 3, 2, dtype=torch.double).unbind()
    arguments = [x.requires_grad_() for x in (z, f.sigmoid().detach(), torch.randn(3, 2, dtype=torch.double))]
    assert torch.autograd.gradcheck(f_pooling, arguments)


@pytest.mark.parametrize("cuts", [[4, 5], [1, 1, 7], [9]])
def test_text_in_pieces_is_read_as_in_one(cuts: list[int]) -> None:
    torch.manual_seed(0)
    model = QRNN(vocabulary=20, embedding=8, hidden=6).eval()
    tokens = torch.randint(20, (9, 3))
    whole, _ = model(tokens)
    hidden, pieces = None, []
    for piece in torch.split(tokens, cuts):
        logits, hidden = model(piece, hidden)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces), whole)


def test_a_word_sees_what_came_before_it_and_nothing_after() -> None:
    torch.manual_seed(0)
    model = QRNN(vocabulary=20, embedding=8, hidden=6).eval()
    tokens = torch.randint(19, (9, 1))
    other = tokens.clone()
    other[5] = 19
    same = (model(tokens)[0] == model(other)[0]).all(-1).flatten()
    assert same.tolist() == [True] * 5 + [False] * 4


def test_the_decoder_is_the_embedding() -> None:
    torch.manual_seed(0)
    model = without_dropout(vocabulary=20, embedding=8, hidden=6)
    names = [name for name, _ in model.named_parameters()]
    assert [name for name in names if model.get_parameter(name).shape == (20, 8)] == ["embedding"]
    logits, _ = model(torch.tensor([[3]]))
    nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor([4])).backward()
    assert model.embedding.grad is not None
    assert model.embedding.grad.any(dim=1).all()  # a mere embedding would have a gradient in row 3 alone


@pytest.mark.parametrize("name", ["words", "input", "hidden", "output", "weights"])
def test_each_dropout_acts_in_training_alone(name: str) -> None:
    torch.manual_seed(0)
    shares = {f"dropout_{other}": 0.5 if other == name else 0.0 for other in ("words", "input", "hidden", "output")}
    model = QRNN(20, 8, 6, dropout_weights=0.5 if name == "weights" else 0.0, **shares)
    tokens = torch.randint(20, (9, 1))
    assert not torch.equal(model(tokens)[0], model(tokens)[0])
    model.eval()
    assert torch.equal(model(tokens)[0], model(tokens)[0])


def test_dropout_between_layers_has_one_mask_for_all_times() -> None:
    torch.manual_seed(0)
    model = QRNN(20, 8, 6)
    dropped = model._dropped(torch.ones(50, 2, 100), 0.5)
    assert torch.equal(dropped[0].expand_as(dropped), dropped)
    assert not torch.equal(dropped[0, 0], dropped[0, 1])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_word_dropout_leaves_out_whole_words() -> None:
    torch.manual_seed(0)
    model = QRNN(200, 8, 6, dropout_words=0.5)
    kept = model._words() / model.embedding
    assert torch.equal(kept[:, :1].expand_as(kept), kept)
    assert 60 < int((kept[:, 0] == 0).sum()) < 140
