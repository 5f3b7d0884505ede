"""A leak is found wherever and whenever it acts: "held" beside a number means that it is held.

After public threads on runs of one seed that differed, each with its link and its right outcome.
"""

from __future__ import annotations

import copy
import functools
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from stabilitykit import Recipe
from stabilitykit.errors import IsolationError
from tests.conftest import recipe_of

pytestmark = pytest.mark.trains

#: Drawn from by leaks; no key sees it, since it is unlike the generators that a task captures.
ENTROPY = random.SystemRandom()


def models(study) -> int:
    return len({record.fingerprint for record in study.records})


def loop(blobs, *, epochs: int = 5, noise=lambda epoch, x: x, stop=lambda epoch: False, at_test=lambda z: z):
    """A loop of one's own with a place for a leak: in the inputs, in the number of epochs, at test time."""
    x, y = blobs

    def train(run):
        with run.stream("init"):
            model = nn.Linear(6, 3)
        run.perturb(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for epoch in run.epochs(epochs):
            for inputs, labels in run.batches((x, y), batch_size=16):
                optimizer.zero_grad()
                functional.cross_entropy(model(noise(epoch, inputs)), labels).backward()
                optimizer.step()
            if stop(epoch):
                break
        return at_test(model(x))

    return train


def shaken(x: Tensor) -> Tensor:
    return x + torch.tensor([ENTROPY.gauss(0, 0.5) for _ in range(x.shape[-1])], dtype=x.dtype)


class TestLateLeaks:
    """What begins after the first epochs is found, since the base run is trained twice to its end.

    https://github.com/ultralytics/ultralytics/pull/26226 (phases that begin late),
    https://github.com/ultralytics/ultralytics/issues/15960 (unseeded state in augmentation).
    """

    @pytest.mark.parametrize("vary", ["none", "init", "shuffle"])
    def test_augmentation_of_the_last_epochs(self, ask, blobs, vary):
        leak = loop(blobs, noise=lambda epoch, x: shaken(x) if epoch >= 3 else x)
        with pytest.raises(IsolationError, match="not in the first 2 epochs: what differs begins later"):
            ask(leak, vary, labels=blobs[1])

    def test_without_the_whole_runs_the_study_says_what_is_open(self, ask, blobs):
        leak = loop(blobs, noise=lambda epoch, x: shaken(x) if epoch >= 3 else x)
        study = ask(leak, "init", labels=blobs[1], control="first")
        assert study.notes[0] == "isolation proven by only the first 2 epochs twice, bit-identical, of 5 epochs"
        with pytest.raises(IsolationError, match="Expected equal runs where nothing varies"):
            ask(leak, "none", labels=blobs[1], control="first")

    # Siblings

    def test_sampling_at_test_time(self, ask, blobs):
        with pytest.raises(IsolationError, match="in the test outputs"):
            ask(loop(blobs, at_test=shaken), "init", labels=blobs[1])

    def test_weights_that_are_averaged_over_an_unseeded_choice(self, ask, blobs):
        """As stochastic weight averaging that begins late and takes some of the epochs."""
        x, y = blobs

        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 3)
            run.perturb(model)
            mean = copy.deepcopy(model)
            for epoch in run.epochs(6):
                functional.cross_entropy(model(x), y).backward()
                with torch.no_grad():
                    for p, q in zip(model.parameters(), mean.parameters(), strict=True):
                        p -= 0.5 * p.grad
                        p.grad = None
                        if epoch >= 4:
                            q += ENTROPY.random() * (p - q)
            return mean(x)

        with pytest.raises(IsolationError, match="test outputs differ"):
            ask(train, "init", labels=y)

    def test_a_rate_that_follows_the_clock(self, ask, blobs):
        x, y = blobs
        ticks = iter(range(10**6))

        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 3)
            run.perturb(model)
            for epoch in run.epochs(5):
                rate = 0.5 if epoch < 4 else 0.5 / (1 + next(ticks))
                functional.cross_entropy(model(x), y).backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p -= rate * p.grad
                        p.grad = None
            return model(x)

        with pytest.raises(IsolationError, match="what differs begins later"):
            ask(train, "shuffle", labels=y)


class TestStateBetweenRuns:
    """What the runs share goes on from one to the next, and the control names that among the causes.

    https://github.com/shenyangHuang/TGB/issues/88 (one model for all runs),
    https://github.com/facebookresearch/pycls/pull/21 (augmentation in place).
    """

    @pytest.mark.parametrize("question", ["vary shuffle", "perturb ulp"])
    def test_a_factory_that_hands_out_one_model(self, ask, blobs, question):
        @functools.lru_cache
        def cached():
            return nn.Linear(6, 3)

        with pytest.raises(IsolationError, match="state kept between runs"):
            ask(recipe_of(cached, blobs, lr=0.1), **dict([question.split()]))

    @pytest.mark.parametrize("question", ["vary shuffle", "perturb ulp"])
    def test_a_frozen_backbone_whose_statistics_go_on(self, ask, blobs, question):
        backbone = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU()).requires_grad_(False)

        def sgd(model):
            return torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)

        plain = recipe_of(lambda: nn.Sequential(backbone, nn.Linear(8, 3)), blobs, lr=0.1)
        task = Recipe(**{**vars(plain), "optimizer": sgd, "_prepared": {}})
        with pytest.raises(IsolationError, match="state kept between runs"):
            ask(task, **dict([question.split()]))

    def test_augmentation_in_place(self, ask, blobs):
        class InPlace(Dataset):
            def __init__(self, noise):
                self.x, self.y, self.noise = blobs[0].clone().numpy(), blobs[1].numpy(), noise

            def __len__(self):
                return 48

            def __getitem__(self, i):
                image = self.x[i]
                image += self.noise * np.random.normal(size=6).astype(np.float32)  # as users do
                return image, int(self.y[i])

        data = InPlace(0.3)
        before = data.x.copy()
        plain = recipe_of(lambda: nn.Linear(6, 3), blobs, lr=0.1)
        task = Recipe(**{**vars(plain), "train": data, "test": InPlace(0.0), "_prepared": {}})
        _ = task.content()  # reads every item for the key
        assert np.array_equal(before, data.x)
        with pytest.raises(IsolationError, match="to be the same whenever it is read under one seed") as error:
            ask(task, "augment")
        assert "a state that is kept between runs" in str(error.value)

    # Siblings

    def test_an_optimizer_whose_defaults_are_shared(self, ask, blobs):
        settings = {"lr": 0.4}

        def sgd(model):
            settings["lr"] *= 0.9
            return torch.optim.SGD(model.parameters(), **settings)

        plain = recipe_of(lambda: nn.Linear(6, 3), blobs, lr=0.1)
        with pytest.raises(IsolationError, match="state kept between runs"):
            ask(Recipe(**{**vars(plain), "optimizer": sgd, "_prepared": {}}), "init")

    def test_a_queue_of_negatives_in_a_module(self, ask, blobs):
        memory = torch.zeros(6)

        class Contrast(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(6, 3)

            def forward(self, x):
                if self.training:
                    memory.mul_(0.9).add_(x.mean(0), alpha=0.1)
                return self.layer(x - memory)

        with pytest.raises(IsolationError, match="state kept between runs"):
            ask(recipe_of(Contrast, blobs, lr=0.1), "shuffle")

    def test_a_model_that_is_copied_for_each_run_is_held(self, ask, blobs):
        pretrained = nn.Linear(6, 3)
        study = ask(recipe_of(lambda: copy.deepcopy(pretrained), blobs, lr=0.1), "shuffle")
        assert study.certificate.scope == "the whole run twice, bit-identical"
        assert models(study) == 3


class TestTwoNetworks:
    """Every network that an optimizer steps is compared, and not only the one that run.perturb was given.

    https://github.com/POSTECH-CVLab/PyTorch-StudioGAN/issues/132, https://github.com/sdv-dev/CTGAN/issues/63: two
    networks and two optimizers.
    """

    @staticmethod
    def gan(blobs, *, leak: bool = False, names_both: bool = True):
        x, y = blobs

        def train(run):
            with run.stream("init"):
                g, d = nn.Linear(2, 6), nn.Linear(6, 4)
            run.perturb(nn.ModuleDict({"d": d, "g": g}) if names_both else g)
            optimizers = [torch.optim.Adam(net.parameters(), lr=0.01) for net in (g, d)]
            draws = torch.Generator()
            draws.manual_seed(ENTROPY.getrandbits(40) if leak else run.seeds["stochastic"])
            for _ in run.epochs(3):
                for inputs, labels in run.batches((x, y), batch_size=16):
                    fake = g(torch.randn(len(inputs), 2, generator=draws))
                    told = torch.full_like(labels, 3)
                    of_d = functional.cross_entropy(d(inputs), labels) + functional.cross_entropy(
                        d(fake.detach()), told
                    )
                    optimizers[1].zero_grad()
                    of_d.backward()
                    optimizers[1].step()
                    if not leak:
                        optimizers[0].zero_grad()
                        (-functional.cross_entropy(d(fake), told)).backward()
                        optimizers[0].step()
            return d(x)[:, :3]

        return train

    @pytest.mark.parametrize("vary", ["all", "stochastic"])
    def test_both_in_one_module(self, ask, blobs, vary):
        assert models(ask(self.gan(blobs), vary, labels=blobs[1])) == 3

    @pytest.mark.parametrize("vary", ["none", "init"])
    def test_a_leak_into_the_one_that_was_not_named(self, ask, blobs, vary):
        with pytest.raises(IsolationError):
            ask(self.gan(blobs, leak=True, names_both=False), vary, labels=blobs[1])

    # Sibling

    def test_none_is_held_without_a_leak_whatever_was_named(self, ask, blobs):
        study = ask(self.gan(blobs, names_both=False), "none", labels=blobs[1])
        assert all(torch.equal(study.outputs[0], other) for other in study.outputs)


class TestEarlyStopping:
    """Patience is part of the training; a coin or a clock that ends it is a leak.

    https://github.com/microsoft/FLAML/pull/1369: a time limit made results irreproducible.
    """

    @pytest.mark.parametrize(("vary", "count"), [("init", 3), ("none", 1)])
    def test_patience_on_held_out_loss(self, ask, blobs, vary, count):
        x, y = blobs

        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 3)
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            best, best_state, bad = float("inf"), {}, 0
            for _ in run.epochs(40):
                for inputs, labels in run.batches((x[:32], y[:32]), batch_size=8):
                    optimizer.zero_grad()
                    functional.cross_entropy(model(inputs), labels).backward()
                    optimizer.step()
                loss = functional.cross_entropy(model(x[32:]), y[32:]).item()
                bad = 0 if loss < best else bad + 1
                if loss < best:
                    best, best_state = loss, copy.deepcopy(model.state_dict())
                if bad >= 2:
                    break
            model.load_state_dict(best_state)
            return model(x)

        study = ask(train, vary, labels=y)
        assert models(study) == count
        assert study.accuracy.value > 60

    def test_a_coin_of_the_system_that_a_loop_captures(self, ask, blobs):
        """Its state cannot be read, so the runs are private; whichever epochs it gives, equal runs or an error."""
        coin = random.SystemRandom()
        for _ in range(4):
            try:
                study = ask(loop(blobs, stop=lambda epoch: coin.random() < 0.5), "none", labels=blobs[1], runs=6)
            except IsolationError as error:
                assert "epoch" in str(error) or "outputs" in str(error) or "weights" in str(error)  # noqa: PT017
            else:
                assert models(study) == 1

    # Siblings

    @pytest.mark.parametrize("lengths", [[3, 4, 3, 4, 3, 4], [4, 4, 4, 5, 4, 4], [5, 5, 3, 5, 5, 5]])
    def test_a_run_that_is_longer_than_the_other(self, ask, blobs, lengths):
        """Where the coin falls alike in the first epochs, whole runs or the runs of the study show it."""
        tosses = iter(lengths * 10)
        ends = [0]

        def stop(epoch):
            if epoch == 0:
                ends[0] = next(tosses)
            return epoch + 1 >= ends[0]

        with pytest.raises(IsolationError):
            ask(loop(blobs, stop=stop), "none", labels=blobs[1], runs=6)
