"""The seeded stand-in for low-level noise: each gradient element to a neighbouring float, by a coin of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stabilitykit.errors import IsolationError
from stabilitykit.execution.session import check
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.gradient_rounding import _nudge, rounded_gradients
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask, TrainingError
from stabilitykit.verdicts.budgets import Budget

pytestmark = pytest.mark.trains

X, Y = torch.ones(20, 4), torch.arange(20) % 3


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_a_nudge_is_one_ulp_and_zero_stays_zero(values):
    old = torch.tensor(values)
    new = old.clone()
    _nudge([new], torch.Generator().manual_seed(0))
    up, down = (torch.nextafter(old, torch.full_like(old, to)) for to in (torch.inf, -torch.inf))
    assert torch.equal(new == 0, (old == 0) | ((old.abs() == 2**-149) & (new == 0)))
    assert ((new == up) | (new == down) | (old == 0)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_nudge_is_a_fair_coin_in_every_float(dtype):
    old = torch.linspace(-3, 3, 2000, dtype=torch.float64).to(dtype)
    old = old[old != 0]
    new = old.clone()
    _nudge([new], torch.Generator().manual_seed(0))
    assert (new != old).all()
    assert ((new - old).abs().double() <= torch.finfo(dtype).eps * old.abs().double()).all()
    assert 0.45 < (new > old).double().mean() < 0.55
    assert 0.45 < (new.abs() > old.abs()).double().mean() < 0.55


def test_the_coins_of_a_step_are_independent_of_one_another():
    gradients = [torch.ones(64, 100), torch.ones(3, dtype=torch.float64), torch.ones(64, 100)]
    _nudge(gradients, torch.Generator().manual_seed(0))
    coins = [(gradients[i] > 1).double() for i in (0, 2)]
    assert (coins[0] != coins[1]).double().mean() == pytest.approx(0.5, abs=0.03)
    # A row of 64 is two words: neither a bit of them all nor a word of its own may stand still.
    flat = coins[0].view(-1)
    assert flat.view(-1, 32).mean(0) == pytest.approx([0.5] * 32, abs=0.2)
    for lag in (1, 2, 31, 32, 33):
        assert (flat[lag:] != flat[:-lag]).double().mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33])
def test_a_gradient_of_any_size_and_layout_is_rounded(count):
    new = torch.ones(count, 2, 3, 2).contiguous(memory_format=torch.channels_last)
    plain = torch.ones(count, 2, 3, 2)
    for gradient in (new, plain):
        _nudge([gradient], torch.Generator().manual_seed(0))
    assert torch.equal(new, plain)
    assert (new != 1).all()


def test_gradients_that_are_not_finite_stay_what_they_are():
    new = torch.tensor([torch.inf, -torch.inf, torch.nan] * 20)
    _nudge([new], torch.Generator().manual_seed(0))
    assert torch.equal(new.nan_to_num(7), torch.tensor([torch.inf, -torch.inf, torch.nan] * 20).nan_to_num(7))


def from_zero(model):
    """A model whose weights are all 0: after one step at a rate of 0.5 they are half the gradient, to its last bit.

    0 - 0.5 x gradient is exact, so that a gradient which is rounded must reach the weights. From any other weight
    the sum is rounded once more, and what the coin decided may be lost: with small rates nearly always.
    """
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def one_step_of(model, x):
    return Recipe(
        model=lambda: from_zero(model()),
        train=(x, Y[: len(x)]),
        test=(x, Y[: len(x)]),
        epochs=1,
        batch_size=len(x),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.5),
        keep_weights=True,
    )


def as_logits(weight):
    """180 of the 192 weights, in the shape of outputs for 20 examples."""
    return weight[:, :60].reshape(20, 9)


#: No number of it is 0, so that no element of the gradient is.
WIDE = torch.rand(20, 64, generator=torch.Generator().manual_seed(0)) + 0.5


def one_step_loop(seen):
    """The same by a loop of the user's own, whose weights are its outputs."""

    def train(run):
        model = from_zero(nn.Linear(64, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in run.epochs(1):
            nn.functional.cross_entropy(model(WIDE), Y).backward()
            seen.append(model.weight.grad.clone())  # before the step, which rounds it
            optimizer.step()
        return as_logits(model.weight.detach())

    return LoopTask(train, Y)


def assert_rounded(plain, rounded):
    """Each number is one of the two neighbours of what it is without the stand-in; 0 stays 0."""
    up, down = (torch.nextafter(plain, torch.full_like(plain, to)) for to in (torch.inf, -torch.inf))
    assert ((rounded == up) | (rounded == down) | ((plain == 0) & (rounded == 0))).all()


def test_a_rounded_gradient_reaches_the_weights_by_its_seed_alone(train):
    recipe = one_step_of(lambda: nn.Linear(64, 3), WIDE)
    plain, *rounded = (
        train(recipe, vary, index) for vary, index in [("none", 0), *(("low_level", i) for i in (0, 1, 0))]
    )
    for record in rounded:
        for name, weight in record.weights.items():
            assert_rounded(plain.weights[name], weight)
    # Two seeds toss 195 equal coins once in 2^195 times.
    prints = [record.fingerprint for record in rounded]
    assert prints[0] == prints[2] != prints[1]


def test_a_rounded_gradient_reaches_the_weights_in_a_loop_too(train):
    gradients = []
    outputs = [train(one_step_loop(gradients), "low_level", index).logits for index in (0, 1, 0)]
    assert torch.equal(gradients[0], gradients[1])
    for logits in outputs:
        assert_rounded(-0.5 * as_logits(gradients[0]), logits)
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1]), "two seeds toss 180 equal coins once in 2^180 times"


def test_sparse_gradients_are_rounded_too(train):
    recipe = one_step_of(lambda: nn.EmbeddingBag(40, 3, sparse=True), torch.arange(40).reshape(20, 2))
    plain, one, other = (
        train(recipe, vary, index) for vary, index in (("none", 0), ("low_level", 0), ("low_level", 1))
    )
    for record in (one, other):
        assert_rounded(plain.weights["weight"], record.weights["weight"])
    assert one.fingerprint != other.fingerprint, "two seeds toss 120 equal coins once in 2^120 times"


def test_a_row_that_occurs_twice_in_a_batch_is_rounded_once(train):
    tokens = torch.arange(10).repeat(4).reshape(20, 2)
    recipe = one_step_of(lambda: nn.EmbeddingBag(10, 3, sparse=True), tokens)
    plain, rounded = (train(recipe, vary) for vary in ("none", "low_level"))
    assert_rounded(plain.weights["weight"], rounded.weights["weight"])


class TestNoOptimizerOfTorch:
    """A loop whose steps are its own has no gradient to round: low_level moves nothing, as a dead source does."""

    @staticmethod
    def loop(run):
        with run.stream("init"):
            model = nn.Linear(4, 3)
        run.perturb(model)
        for _ in run.epochs(2):
            for x, y in run.batches((X, Y), 8):
                loss = nn.functional.cross_entropy(model(x), y)
                for p, gradient in zip(model.parameters(), torch.autograd.grad(loss, model.parameters()), strict=True):
                    p.data -= 0.1 * gradient
        with torch.no_grad():
            return model(X)

    def test_a_study_says_so(self, ask):
        study = ask(self.loop, "low_level", labels=Y)
        assert "low-level source: gradient rounding of no gradient" in study.notes
        (note,) = [note for note in study.notes if "low_level never reaches" in note]
        assert "all runs are bit-identical: low_level never reaches the weights of this task: does an optimizer" in note

    @pytest.mark.parametrize("vary", ["all", "init+low_level"])
    def test_other_sources_can_be_measured_beside_it(self, ask, vary):
        study = ask(self.loop, vary, labels=Y)
        assert not study.failed
        assert "low_level" in study.certificate.dead

    def test_a_verdict_on_it_alone_is_refused(self, make_session):
        with pytest.raises(IsolationError, match="low_level never reaches the weights of this task"):
            check(
                self.loop,
                NoiseProtocol("low_level", runs=3),
                labels=Y,
                budget=Budget(cross_entropy_sd=1.0),
                session=make_session(),
            )


# Where gradients are made, and where they are used


class Probe(torch.optim.SGD):
    """SGD that notes the gradients which its step uses."""

    def __init__(self, params, lr=0.5):
        super().__init__(params, lr=lr)
        self.used = []

    def step(self, closure=None):
        loss = closure() if closure is not None else None
        self.used += [p.grad.clone() for group in self.param_groups for p in group["params"] if p.grad is not None]
        super().step()
        return loss


class Wrapper(torch.optim.Optimizer):
    """An optimizer around another one of the same parameters, as Lookahead and SAM are."""

    def __init__(self, inner):
        self.inner = inner
        super().__init__(inner.param_groups, {})

    def step(self, closure=None):
        loss = closure() if closure is not None else None
        self.inner.step()
        return loss


GRADIENT = torch.linspace(-3, 3, 200)


def weight(dtype=torch.float32):
    return nn.Parameter(torch.zeros(200, dtype=dtype))


def backward(*parameters):
    for parameter in parameters:
        (parameter * GRADIENT).sum().backward()


def closure_of(*parameters, zero=True):
    def closure():
        for parameter in parameters:
            parameter.grad = None if zero else parameter.grad
        backward(*parameters)
        return torch.ones(())

    return closure


def assert_each_is_one_step_away(gradients, plain=GRADIENT):
    for gradient in gradients:
        assert_rounded(plain, gradient)
        assert not torch.equal(gradient, plain)


@pytest.mark.parametrize("by_name", [False, True])
def test_what_a_closure_makes_is_rounded_after_it(by_name):
    p = weight()
    optimizer = Probe([p])
    with rounded_gradients(0):
        for _ in range(3):
            optimizer.step(closure=closure_of(p)) if by_name else optimizer.step(closure_of(p))
    assert len(optimizer.used) == 3
    assert_each_is_one_step_away(optimizer.used)
    assert not torch.equal(optimizer.used[0], optimizer.used[1]), "each step tosses coins of its own"


def test_with_a_closure_and_without_one_the_coins_are_the_same():
    used = []
    for with_closure in (True, False):
        p = weight()
        optimizer = Probe([p])
        with rounded_gradients(7):
            for _ in range(2):
                if with_closure:
                    optimizer.step(closure_of(p))
                else:
                    closure_of(p)()
                    optimizer.step()
        used.append(optimizer.used)
    assert all(map(torch.equal, *used))


def test_each_evaluation_of_lbfgs_is_rounded():
    p, seen = weight(), []

    def closure():
        seen.append(None if p.grad is None else p.grad.clone())  # what the evaluation before has left to the optimizer
        p.grad = None
        loss = ((p - GRADIENT) ** 2).sum()
        loss.backward()
        seen.append(p.grad.clone())
        return loss

    with rounded_gradients(0):
        torch.optim.LBFGS([p], lr=0.3, max_iter=4, tolerance_grad=0, tolerance_change=0).step(closure)
    made, used = seen[1::2], seen[2::2]
    assert len(used) == 3
    for plain, rounded in zip(made[:-1], used, strict=True):
        assert_each_is_one_step_away([rounded], plain)


@pytest.mark.parametrize("with_closure", [False, True])
def test_an_optimizer_inside_another_one_does_not_round_again(with_closure):
    p = weight()
    inner = Probe([p])
    optimizer = Wrapper(inner)
    with rounded_gradients(0):
        for _ in range(2):
            if with_closure:
                optimizer.step(closure_of(p))
            else:
                closure_of(p)()
                optimizer.step()
    assert len(inner.used) == 2
    assert_each_is_one_step_away(inner.used)


def test_after_a_step_that_raised_the_next_one_is_rounded():
    p = weight()
    optimizer = Wrapper(Probe([p]))

    def broken():
        raise OSError("disk")

    with rounded_gradients(0):
        with pytest.raises(OSError, match="disk"):
            optimizer.step(broken)
        backward(p)
        optimizer.step()
    assert_each_is_one_step_away(optimizer.inner.used)


def test_a_step_that_calls_its_class_of_the_same_name_rounds_once():
    p = weight()
    torch.optim.SGD([weight()])  # from its first object on, a class of torch calls what was registered
    optimizer = Probe([p])
    with rounded_gradients(0):
        for _ in range(2):
            p.grad = GRADIENT.clone()
            optimizer.step()
            optimizer.used.append(p.grad.clone())  # as the step of SGD itself has left it
    assert_each_is_one_step_away(optimizer.used)


def test_a_gradient_written_behind_torchs_count_of_changes_is_rounded_in_each_step():
    p = weight()
    p.grad = torch.zeros(200)
    optimizer = Probe([p])
    with rounded_gradients(0):
        for _ in range(3):
            p.grad.data.copy_(GRADIENT)  # as code for master weights does
            optimizer.step()
    assert_each_is_one_step_away(optimizer.used)


@pytest.mark.parametrize("with_closure", [False, True])
def test_accumulated_gradients_are_rounded_once_where_they_are_used(with_closure):
    p = weight()
    optimizer = Probe([p])
    with rounded_gradients(0):
        backward(p)
        if with_closure:
            optimizer.step(closure_of(p, zero=False))
        else:
            backward(p)
            optimizer.step()
    assert_each_is_one_step_away(optimizer.used, 2 * GRADIENT)


def test_two_optimizers_round_their_own():
    p, q = weight(), weight()
    first, second = Probe([p]), Probe([q])
    with rounded_gradients(0):
        backward(p, q)
        first.step()
        second.step()
    assert_each_is_one_step_away([*first.used, *second.used])


def test_gradients_of_autograd_grad_are_rounded_also_where_they_share_their_memory():
    p, q = weight(), weight()
    optimizer = Probe([p, q])
    with rounded_gradients(0):
        for _ in range(2):
            p.grad, q.grad = torch.autograd.grad((p + q).sum(), (p, q))  # one tensor for both, of one number
            optimizer.step()
    assert_each_is_one_step_away(optimizer.used, torch.ones(200))


@pytest.mark.filterwarnings("ignore:Using backward")  # the cycle that it warns of ends with the test
def test_gradients_with_a_graph_of_their_own_are_rounded():
    p = weight()
    optimizer = Probe([p])
    with rounded_gradients(0):
        (p * GRADIENT).sum().backward(create_graph=True)
        optimizer.step()
    assert_each_is_one_step_away([optimizer.used[0].detach()])


def test_a_scaler_unscales_before_the_gradients_are_rounded():
    p = weight()
    optimizer = Probe([p])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with rounded_gradients(0):
        scaler.scale((p * GRADIENT).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
    assert_each_is_one_step_away(optimizer.used)


@pytest.mark.parametrize("conjugated", [False, True])
def test_both_parts_of_a_complex_gradient_are_rounded(conjugated):
    p = weight(torch.complex64)
    plain = torch.complex(GRADIENT, GRADIENT.flip(0))
    p.grad = plain.conj() if conjugated else plain.clone()
    expected = plain.conj().resolve_conj() if conjugated else plain
    optimizer = Probe([p])
    with rounded_gradients(0):
        optimizer.step()
    rounded = torch.view_as_real(optimizer.used[0])
    assert_each_is_one_step_away([rounded], torch.view_as_real(expected))
    moved = rounded != torch.view_as_real(expected)
    assert moved.all(), "no number here is 0"
    ups = rounded > torch.view_as_real(expected)
    assert (ups[:, 0] != ups[:, 1]).any(), "each part has a coin of its own"


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_the_values_of_a_sparse_gradient_are_rounded(layout):
    dense = GRADIENT.reshape(20, 10)
    p = nn.Parameter(torch.zeros(20, 10).to_sparse(layout=layout))
    p.grad = dense.to_sparse(layout=layout)
    used = []
    optimizer = torch.optim.SGD([p], lr=0.5)
    optimizer.register_step_pre_hook(lambda *_: used.append(p.grad.to_dense().clone()))  # called after those of all
    with rounded_gradients(0):
        optimizer.step()
    assert_each_is_one_step_away(used, dense)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int32])
def test_a_gradient_that_has_no_neighbours_is_named(dtype):
    p = nn.Parameter(torch.zeros(3).to(dtype), requires_grad=False)
    p.grad = torch.ones(3).to(dtype)
    with (
        pytest.raises(TrainingError, match=f"a gradient is {dtype}, torch.strided: only float16"),
        rounded_gradients(0),
    ):
        torch.optim.SGD([p], lr=0.1).step()


def test_steps_without_gradients_reach_nothing():
    with rounded_gradients(0) as reached:
        torch.optim.SGD([weight()], lr=0.1).step()
    assert reached == set()


def test_a_loop_with_a_closure_varies_by_its_seed_alone(train):
    def loop(run):
        model = from_zero(nn.Linear(64, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(WIDE), Y)
            loss.backward()
            return loss

        for _ in run.epochs(1):
            optimizer.step(closure)
        return as_logits(model.weight.detach())

    plain, one, other, again = (
        train(LoopTask(loop, Y), vary, index).logits
        for vary, index in (("none", 0), ("low_level", 0), ("low_level", 1), ("low_level", 0))
    )
    for logits in (one, other):
        assert_rounded(plain, logits)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
