"""A source that is named moves the training, and so does a moved weight; or the study says that it does not.

After public threads on seeds that were set and did nothing, each with its link and its right outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from stabilitykit import Budget, Perturbation, Recipe
from stabilitykit.errors import IsolationError
from stabilitykit.execution.session import check
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.study.study import Study
from tests.conftest import recipe_of
from tests.seeds import BASE_SEED

pytestmark = pytest.mark.trains

LOOSE = Budget(disagreement=99.9)


def models(study: Study) -> int:
    """How many different models the runs ended with."""
    return len({record.fingerprint for record in study.records})


def is_felt(study: Study) -> bool:
    """Whether a moved weight reached the outputs of a run."""
    return not all(torch.equal(study.outputs[0], other) for other in study.outputs[1:])


def moved(study: Study) -> set[str]:
    """The parameters of which a weight was moved."""
    return {record.perturbation["parameter"] for record in study.records}


class TestLazyLayers:
    """A lazy layer's weights are drawn in the first forward pass; they are initial parameters all the same.

    https://github.com/pytorch/pytorch/issues/94132: three models for `init`, one for `stochastic`, an ulp moves one.
    """

    @staticmethod
    def lazy() -> nn.Module:
        return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))

    @pytest.mark.parametrize(("vary", "count"), [("init", 3), ("stochastic", 1)])
    def test_their_weights_are_initial_parameters(self, ask, blobs, vary, count):
        study = ask(recipe_of(self.lazy, blobs, lr=0.1), vary)
        assert models(study) == count
        assert study.certificate.dead == (("stochastic",) if count == 1 else ())

    def test_one_of_them_moves(self, ask, blobs):
        study = ask(recipe_of(self.lazy, blobs, lr=0.1), perturb="bit")
        assert moved(study) == {"0.weight"}
        assert is_felt(study)

    # Siblings

    def test_convolutions_and_normalisation_too(self, ask, conv_net):
        def lazy():
            return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))

        study = ask(recipe_of(lazy, conv_net.train, lr=0.1), "init")
        assert models(study) == 3
        assert models(ask(recipe_of(lazy, conv_net.train, lr=0.1), "shuffle")) == 3

    def test_in_a_loop_of_ones_own(self, ask, blobs):
        """Whoever makes the first pass inside the stream has initial parameters."""
        x, y = blobs

        def train(run):
            with run.stream("init"):
                model = self.lazy()
                model(x[:2])
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in run.epochs(2):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            return model(x)

        assert models(ask(train, "init", labels=y)) == 3
        assert models(ask(train, "stochastic", labels=y)) == 1


class Bag(nn.Module):
    """A vocabulary of which the data uses 30 words."""

    def __init__(self, words: int = 5_000, table: type[nn.Module] = nn.Embedding) -> None:
        super().__init__()
        self.embed = table(words, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embed(tokens)
        return self.head(embedded.mean(1) if embedded.dim() == 3 else embedded)


class WithClassToken(nn.Module):
    """A transformer whose first parameter is a class token of zeros, and whose second a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos = nn.Parameter(torch.randn(1, 5, 8) * 0.02)
        self.patch = nn.Conv2d(1, 8, 3, stride=3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), tokens], 1) + self.pos
        return self.head((tokens + self.attention(tokens, tokens, tokens)[0])[:, 0])


class Tied(nn.Module):
    """One tensor by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.lm_head = nn.Linear(8, 12, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.embed(tokens).mean(1))


def pruned() -> nn.Module:
    first = nn.Linear(6, 8)
    prune.random_unstructured(first, "weight", amount=0.9)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(8, 3))


class TestWhichWeightMoves:
    """The moved weight is one that the outputs read; "SD 0" after the step of a weight that none reads is no answer.

    https://github.com/NVIDIA/Megatron-LM/issues/2994 (unused rows), https://github.com/fudan-zvg/SETR/issues/51 (class
    token), https://github.com/huggingface/transformers/issues/36598 (tied and reparametrised weights).
    """

    words = torch.randint(1, 31, (48, 6), generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize("table", [nn.Embedding, nn.EmbeddingBag])
    def test_a_row_that_the_data_uses(self, ask, blobs, table):
        task = recipe_of(lambda: Bag(table=table), (self.words, blobs[1]), lr=1.0)
        study = ask(task, perturb="ulp")
        assert moved(study) == {"embed.weight"}
        assert {record.perturbation["index"][0] for record in study.records} <= set(range(1, 31))
        assert is_felt(ask(task, perturb="bit"))

    def test_a_layer_and_no_token_of_zeros(self, ask, conv_net):
        study = ask(recipe_of(WithClassToken, conv_net.train, lr=0.1), perturb="ulp")
        assert moved(study) == {"patch.weight"}
        assert all(record.perturbation["old"] != 0 for record in study.records)

    @pytest.mark.parametrize(("norm", "part"), [(weight_norm, "original1"), (spectral_norm, "original")])
    def test_a_direction_and_no_magnitude(self, ask, blobs, norm, part):
        model = lambda: nn.Sequential(norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
        assert moved(ask(recipe_of(model, blobs, lr=0.1), perturb="ulp")) == {f"0.parametrizations.weight.{part}"}

    def test_a_weight_that_the_mask_keeps(self, ask, blobs):
        study = ask(recipe_of(pruned, blobs, lr=0.1), perturb="bit")
        assert moved(study) == {"0.weight_orig"}
        for record in study.records:
            with torch.random.fork_rng():
                torch.manual_seed(record.seeds["init"])
                kept = pruned()[0].weight_mask
            assert kept[tuple(record.perturbation["index"])] == 1 or is_felt(study)

    @pytest.mark.parametrize("name", ["embed.weight", "lm_head.weight"])
    def test_a_tied_weight_has_two_names(self, ask, name):
        tokens = torch.randint(0, 12, (48, 4), generator=torch.Generator().manual_seed(2))
        study = ask(recipe_of(Tied, (tokens, tokens[:, 0]), lr=0.1), perturb=Perturbation("bit", parameter=name))
        assert moved(study) <= {"embed.weight", "lm_head.weight"}
        assert is_felt(study)

    # Siblings

    def test_no_layer_that_is_frozen(self, ask, blobs):
        def model():
            frozen = nn.Linear(6, 8).requires_grad_(False)
            return nn.Sequential(frozen, nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

        assert moved(ask(recipe_of(model, blobs, lr=0.1), perturb="ulp")) == {"2.weight"}

    def test_no_layer_that_starts_at_zero(self, ask, blobs):
        class Residual(nn.Module):
            """As many do, the branch begins with zeros: its first weights have neither size nor a gradient."""

            def __init__(self):
                super().__init__()
                self.gate = nn.Linear(6, 6, bias=False)
                nn.init.zeros_(self.gate.weight)
                self.head = nn.Linear(6, 3)

            def forward(self, x):
                return self.head(x + self.gate(x))

        study = ask(recipe_of(Residual, blobs, lr=0.1), perturb="ulp")
        assert moved(study) == {"head.weight"}

    def test_no_weight_of_a_normalisation(self, ask, blobs):
        def model():
            return nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

        assert moved(ask(recipe_of(model, blobs, lr=0.1), perturb="ulp")) == {"1.weight"}

    def test_a_named_weight_that_no_output_reads_is_said(self, ask, blobs):
        class Spare(nn.Module):
            def __init__(self):
                super().__init__()
                self.used, self.spare = nn.Linear(6, 3), nn.Linear(6, 3)

            def forward(self, x):
                return self.used(x)

        study = ask(
            recipe_of(Spare, blobs, lr=0.1), perturb=Perturbation("ulp", parameter="spare.weight", index=(0, 0))
        )
        assert not is_felt(study)
        assert any("never reaches an output of this task" in note for note in study.notes), study.notes


class Reseeding(nn.Linear):
    """A library's layer whose constructor was left with a seed in it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        torch.manual_seed(23)
        super().__init__(inputs, outputs)


class TestFrozenSources:
    """A source that is asked for and cannot act is named, alone and among others, and no gate passes without it.

    https://github.com/HazyResearch/flash-fft-conv/issues/26: a constructor that calls torch.manual_seed.
    """

    @staticmethod
    def reseeded(blobs) -> Recipe:
        return recipe_of(lambda: nn.Sequential(Reseeding(6, 8), nn.ReLU(), nn.Linear(8, 3)), blobs, lr=0.1)

    @pytest.mark.parametrize("vary", ["init", "all", "init+shuffle"])
    def test_a_constructor_that_seeds_freezes_init(self, ask, make_session, blobs, vary):
        before = torch.get_rng_state()
        study = ask(self.reseeded(blobs), vary)
        assert torch.equal(before, torch.get_rng_state())
        assert any("init never reaches the weights of this task: does a constructor" in note for note in study.notes)
        with pytest.raises(IsolationError, match="init never reaches"):
            check(
                self.reseeded(blobs), NoiseProtocol(vary, runs=10, seed=BASE_SEED), budget=LOOSE, session=make_session()
            )

    # Siblings

    def test_a_forward_pass_that_seeds_freezes_dropout(self, ask, blobs):
        class Seeded(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(6, 3)

            def forward(self, x):
                torch.manual_seed(0)
                return self.layer(nn.functional.dropout(x, 0.5, self.training))

        study = ask(recipe_of(Seeded, blobs, lr=0.1), "init+stochastic")
        assert study.certificate.alive["init"] == "in the first epoch"
        assert study.certificate.dead == ("stochastic",)

    def test_one_batch_has_no_order(self, ask, blobs):
        whole = recipe_of(lambda: nn.Linear(6, 3), blobs, lr=0.1)
        one_batch = Recipe(**{**vars(whole), "batch_size": 48, "_prepared": {}})
        study = ask(one_batch, "shuffle")
        if models(study) == 1:  # sums over another order may round otherwise
            assert any("is all data one batch" in note for note in study.notes)

    def test_a_constructor_that_seeds_another_generator_freezes_nothing(self, ask, blobs):
        def model():
            np.random.seed(5)  # what the library did
            return nn.Linear(6, 3)

        study = ask(recipe_of(model, blobs, lr=0.1), "init")
        assert models(study) == 3
        assert study.certificate.dead == ()


class TestSamplers:
    """A sampler acts with the source that seeds it.

    https://github.com/pytorch/pytorch/issues/40274: WeightedRandomSampler had no seed of its own.
    """

    @staticmethod
    def weighted(blobs: tuple[Tensor, Tensor], *, seeded: bool) -> Callable[[Any], Tensor]:
        x, y = blobs
        weights = torch.where(y == 1, 5.0, 1.0)

        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 3)
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
            generator = torch.Generator().manual_seed(run.seeds["shuffle"]) if seeded else None
            sampler = WeightedRandomSampler(weights.tolist(), len(y), generator=generator)
            for _ in run.epochs(2):
                for inputs, labels in DataLoader(TensorDataset(x, y), batch_size=16, sampler=sampler):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(inputs), labels).backward()
                    optimizer.step()
            return model(x)

        return train

    @pytest.mark.parametrize(("vary", "count"), [("shuffle", 3), ("stochastic", 1), ("none", 1)])
    def test_seeded_from_the_run_it_is_the_order(self, ask, blobs, vary, count):
        assert models(ask(self.weighted(blobs, seeded=True), vary, labels=blobs[1])) == count

    def test_unseeded_it_draws_in_the_step(self, ask, blobs):
        study = ask(self.weighted(blobs, seeded=False), "shuffle", labels=blobs[1], intercept=False)
        assert models(study) == 1
        assert any("shuffle never reaches the weights" in note for note in study.notes)
        moved = ask(self.weighted(blobs, seeded=False), "stochastic", labels=blobs[1], intercept=False)
        assert models(moved) == 3

    def test_unseeded_it_is_the_order_all_the_same(self, ask, blobs):
        for vary, count in (("shuffle", 3), ("stochastic", 1)):
            assert models(ask(self.weighted(blobs, seeded=False), vary, labels=blobs[1])) == count


def test_a_black_box_that_ignores_its_seed_is_said_to(ask, make_session):
    """https://github.com/lxuechen/private-transformers/issues/10: "another seed won't change the result"."""
    labels = torch.arange(48) % 3

    def train(seed):
        return np.eye(3)[labels] + 0.1

    study = ask(train, "all", labels=labels)
    assert "all runs are bit-identical: the seed does nothing" in study.notes
    protocol = NoiseProtocol("all", runs=10, seed=BASE_SEED)
    judged = check(train, protocol, labels=labels, budget=LOOSE, session=make_session())
    assert judged.verdicts[-1].outcome.name == "PASS"
    assert "all runs are bit-identical: the seed does nothing" in judged.notes


class TestPrecision:
    """Every source and every step acts on weights of each floating-point type.

    https://github.com/neuraloperator/neuraloperator/issues/289: an operation that one of the types lacks.
    """

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("question", ["vary low_level", "vary all", "perturb ulp", "perturb bit"])
    def test_low_level_and_steps(self, ask, blobs, dtype, question):
        whole = recipe_of(lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), blobs, lr=0.1)
        study = ask(Recipe(**{**vars(whole), "dtype": dtype, "_prepared": {}}), **dict([question.split()]))
        assert models(study) == 3
        assert study.accuracy.value > 50

    def test_outputs_of_autocast_are_scored(self, ask, blobs):
        class Net(nn.Linear):
            def forward(self, x):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    return super().forward(x)

        study = ask(recipe_of(lambda: Net(6, 3), blobs, lr=0.1), "init")
        assert models(study) == 3
        assert study.accuracy.value > 50

    # Siblings: whatever makes the gradients, and whenever, they are rounded

    def test_gradients_that_a_closure_makes(self, ask, blobs):
        x, y = blobs

        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 3)
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

            def closure():
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                return loss

            for _ in run.epochs(4):
                optimizer.step(closure)
            return model(x)

        assert models(ask(train, "low_level", labels=y)) == 3

    def test_weights_that_are_complex(self, ask, blobs):
        x, y = blobs

        class Spectral(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))

            def forward(self, x):
                return (torch.fft.rfft(x) @ self.weight).real

        for question in ({"vary": "low_level"}, {"perturb": "bit"}):
            assert models(ask(recipe_of(Spectral, (x, y), lr=0.1), **question)) == 3

    def test_gradients_that_are_sparse(self, ask):
        tokens = torch.randint(0, 12, (48, 4), generator=torch.Generator().manual_seed(3))

        def model():
            return nn.Sequential(nn.EmbeddingBag(12, 3, sparse=True))

        def sgd(model):
            return torch.optim.SGD(model.parameters(), lr=0.5)

        task = Recipe(model, (tokens, tokens[:, 0] % 3), (tokens, tokens[:, 0] % 3), 3, 16, sgd)
        assert models(ask(task, "low_level")) == 3
