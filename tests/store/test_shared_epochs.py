"""The epochs before an onset: a run that went on from them has the bits of one from the start, whatever happened."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import subprocess
import sys
from subprocess import PIPE

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from stabilitykit.cli import main as stability_cache
from stabilitykit.errors import IsolationError, ProtocolError, StoreError, TaskError
from stabilitykit.execution.executor import InProcess
from stabilitykit.execution.session import check, measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.byte_locks import ByteLocks
from stabilitykit.store.catalog import Catalog
from stabilitykit.store.pruning import Pruning
from stabilitykit.store.shared_epochs import _WRITING, Prefixes
from stabilitykit.study.asserts import assert_disagreement
from stabilitykit.study.comparison import compare
from stabilitykit.training.control import Control, prove_isolation
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.run import TRACED_EPOCHS, Run
from stabilitykit.training.schedule import warmup_cosine
from stabilitykit.training.task import as_task
from stabilitykit.training.trainer import Trainer
from stabilitykit.verdicts.budgets import Budget
from tests.seeds import BASE_SEED
from tests.store_names import session_id

pytestmark = pytest.mark.trains

EPOCHS = 5
IMAGES = torch.randn(26, 2, 6, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(26) % 3
LATE = "shuffle+augment+stochastic+low_level"


class Drawing(nn.Module):
    """Has batch normalisation and dropout, and draws from all three generators in training."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(64, 3)

    def forward(self, x):
        hidden = self.body(x)
        noise = np.random.standard_normal() + torch.randn(1).item() if self.training else 0.0
        return self.head(hidden) * (1 + 0.01 * noise)


def noisy(x):
    return x + 0.1 * torch.randn_like(x) + 0.1 * np.random.standard_normal()


def shifted(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


class NoisyItems(Dataset):
    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return IMAGES[index] + 0.1 * torch.randn(()), LABELS[index]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)


def adam(model):
    groups = [{"params": model.body.parameters()}, {"params": model.head.parameters(), "lr": 0.02}]
    return torch.optim.Adam(groups, lr=0.01)


def recipe_of(**options):
    settings = {"model": Drawing, "train": (IMAGES, LABELS), "optimizer": sgd, "augment": noisy} | options
    return Recipe(test=(IMAGES, LABELS), epochs=EPOCHS, batch_size=8, **settings)


RECIPES = {
    "momentum": recipe_of(schedule=warmup_cosine(1)),
    "adam, curve, channels last": recipe_of(
        optimizer=adam, curve=True, memory_format=torch.channels_last, augment=shifted
    ),
    "snapshots": dataclasses.replace(recipe_of(curve=True), epochs=6).with_snapshots(cycles=3),
    "a dataset": recipe_of(train=NoisyItems(), augment=None, drop_last=True),
    "double": recipe_of(dtype=torch.float64),
}


def left(record):
    assert record.status == "ok", record.error
    return record.fingerprint, record.trace, record.curve, record.logits.numpy().tobytes()


def plans_of(vary, onset, runs=2):
    return NoiseProtocol(vary, runs=runs, seed=BASE_SEED, onset=onset).plans()


@pytest.fixture
def trainer(tmp_path):
    """Make a trainer with a place for the epochs before an onset, the same one each time."""

    def make(task, place="prefixes"):
        made = Trainer(as_task(task, None if isinstance(task, Recipe) else LABELS), "cpu", 1, tmp_path)
        made.prefixes = None if place is None else Prefixes(tmp_path / place, {"task": "toy"})
        return made

    return make


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_branched_run_has_the_bits_of_one_from_the_start(trainer, recipe):
    for onset in range(1, recipe.epochs):
        plans = plans_of(LATE, onset)
        straight = [left(trainer(recipe, None).train_once(plan)) for plan in plans]
        branching = trainer(recipe, f"prefixes {onset}")
        assert [left(branching.train_once(plan)) for plan in plans] == straight, "the first writes it"
        assert branching.prefixes.epochs() == [onset]
        assert [left(branching.train_once(plan)) for plan in plans] == straight
        assert straight[0] != straight[1]


@pytest.mark.slow
@pytest.mark.parametrize("source", LATE.split("+"))
@pytest.mark.parametrize("onset", [1, 3])
def test_each_source_by_itself_goes_on_from_the_same_state(trainer, source, onset):
    recipe = RECIPES["momentum"]
    straight = [left(trainer(recipe, None).train_once(plan)) for plan in plans_of(source, onset)]
    branching = trainer(recipe)
    branching.train_once(plans_of("shuffle", onset)[0])
    assert [left(branching.train_once(plan)) for plan in plans_of(source, onset)] == straight
    assert straight[0] != straight[1]


def test_a_later_onset_goes_on_from_the_latest_state_before_it(trainer, monkeypatch):
    recipe, branching = RECIPES["momentum"], trainer(RECIPES["momentum"])
    trained = []
    train_epoch = Recipe._train_epoch

    def noted(self, *args):
        trained.append(args[-1])
        train_epoch(self, *args)

    monkeypatch.setattr(Recipe, "_train_epoch", noted)
    seen = {}
    for onset in (2, 1, 4, 4, 3):
        branching.train_once(plans_of("shuffle", onset)[0])
        seen.setdefault(onset, []).append(trained[:])
        trained.clear()
    assert seen == {2: [[0, 1, 2, 3, 4]], 1: [[0, 1, 2, 3, 4]], 4: [[2, 3, 4], [4]], 3: [[2, 3, 4]]}
    assert branching.prefixes.epochs() == [1, 2, 3, 4]
    straight = [left(trainer(recipe, None).train_once(plans_of("shuffle", onset)[1])) for onset in range(1, 5)]
    assert [left(branching.train_once(plans_of("shuffle", onset)[1])) for onset in range(1, 5)] == straight


def damage_header(place):
    place.write_text(place.read_text()[:-20])


def damage_a_number(place):
    header = json.loads(place.read_text())
    header["state"]["dict"][0][1]["dict"] = header["state"]["dict"][0][1]["dict"][:-1]
    place.write_text(json.dumps(header))


def damage_tensors(place):
    (file,) = place.parent.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut_tensors(place):
    (file,) = place.parent.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])


def lose_tensors(place):
    next(place.parent.glob("*.safetensors")).unlink()


def lead_elsewhere(place):
    header = json.loads(place.read_text())
    place.write_text(json.dumps(header | {"sha256": "../../../etc/passwd"}))


@pytest.mark.parametrize(
    "damage", [damage_header, damage_a_number, damage_tensors, cut_tensors, lose_tensors, lead_elsewhere]
)
def test_what_is_torn_is_trained_again(trainer, damage):
    branching, plan = trainer(RECIPES["momentum"]), plans_of("shuffle", 3)[0]
    before = left(branching.train_once(plan))
    prefixes = branching.prefixes
    assert prefixes.problem(3) == ""
    damage(prefixes.place(3))
    assert prefixes.problem(3)
    assert prefixes.latest(4) == (0, None)
    assert left(branching.train_once(plan)) == before
    assert prefixes.problem(3) == ""
    assert prefixes.latest(4)[0] == 3
    assert prefixes.latest(2) == (0, None)


def test_the_first_that_is_whole_stays(tmp_path):
    prefixes = Prefixes(tmp_path / "a", {})
    prefixes.keep(2, {"x": torch.ones(1)})
    prefixes.keep(2, {"x": torch.zeros(1)})
    assert prefixes.latest(2)[1] == {"x": torch.ones(1)}


def test_who_cannot_lock_writes_nothing_and_goes_on(trainer):
    branching, plan = trainer(RECIPES["momentum"]), plans_of("shuffle", 3)[0]
    branching.prefixes.folder.mkdir(parents=True)
    locks = ByteLocks.at(branching.prefixes.experiment / "claims.lock")
    assert locks.acquire(_WRITING)
    try:
        first = left(branching.train_once(plan))
        assert branching.prefixes.epochs() == []
    finally:
        locks.release(_WRITING)
    assert left(branching.train_once(plan)) == first
    assert branching.prefixes.epochs() == [3]


KEEP_WHEN_TOLD = """
import sys, pathlib, torch
from stabilitykit.store.shared_epochs import Prefixes
print("ready", flush=True)
sys.stdin.readline()
Prefixes(pathlib.Path(sys.argv[1]), {"task": "toy"}).keep(2, {"x": torch.arange(100_000)})
"""


@pytest.mark.slow
def test_processes_that_write_at_once_leave_whole_states(tmp_path):
    command, pipes = [sys.executable, "-c", KEEP_WHEN_TOLD, str(tmp_path / "a")], {"stdin": PIPE, "stdout": PIPE}
    children = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0] * 4
    assert Prefixes(tmp_path / "a", {}).problem(2) == ""
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_store_that_cannot_be_written_says_so(trainer, tmp_path):
    branching = trainer(RECIPES["momentum"])
    (tmp_path / "prefixes").write_text("in the way")
    with pytest.raises(StoreError, match="Expected to write"):
        branching.train_once(plans_of("shuffle", 3)[0])


def test_what_cannot_be_kept_is_trained_from_the_start(trainer):
    class Special(Drawing):
        def get_extra_state(self):
            return 1

        def set_extra_state(self, state):
            pass

    recipe = recipe_of(model=Special)
    branching, plan = trainer(recipe), plans_of("shuffle", 2)[0]
    assert left(branching.train_once(plan)) == left(trainer(recipe, None).train_once(plan))
    assert branching.prefixes.epochs() == []


def prove(branching: Trainer, protocol: NoiseProtocol, epochs: int | None = TRACED_EPOCHS) -> Control:
    return prove_isolation(InProcess(branching).call, branching, protocol.plans()[0], epochs)


class TestControl:
    """The control repeats the epochs that vary, and shows once a task that branching changes no bit."""

    def test_the_first_rehearsal_of_a_task_is_from_the_start_and_the_second_branched(self, trainer, monkeypatch):
        branching = trainer(RECIPES["momentum"])
        began = []
        rehearse = Trainer.rehearse

        def noted(self, *args, **options):
            run = rehearse(self, *args, **options)
            began.append((run.resumed_at, run.trained_epochs))
            return run

        monkeypatch.setattr(Trainer, "rehearse", noted)
        protocols = [NoiseProtocol(vary, runs=2, onset=onset) for vary, onset in (("shuffle", 2), ("augment", 3))]
        controls = [prove(branching, protocol) for protocol in protocols]
        assert began == [(0, 4), (2, 4), (2, 5), (3, 5)]
        assert [control.scope for control in controls] == [
            "the first 2 epochs from epoch 2 on twice, bit-identical",
            "the first 2 epochs from epoch 3 on twice, bit-identical",
        ]
        for control, protocol in zip(controls, protocols, strict=True):
            straight = trainer(RECIPES["momentum"], None).train_once(protocol.plans()[0])
            assert control.trace == straight.trace
            assert len(control.trace) == TRACED_EPOCHS

    def test_one_epoch_may_be_left(self, trainer):
        control = prove(trainer(RECIPES["momentum"]), NoiseProtocol("shuffle", runs=2, onset=4))
        assert control.scope == "the first 1 epoch from epoch 4 on twice, bit-identical"

    @pytest.mark.parametrize("epochs", [TRACED_EPOCHS, None])
    def test_a_state_outside_the_tensors_is_caught(self, trainer, epochs):
        def counting(model):
            optimizer, steps = sgd(model), itertools.count(1)
            optimizer.register_step_pre_hook(lambda *_: optimizer.param_groups[0].update(lr=0.1 / next(steps)))
            return optimizer

        for _ in range(2):  # another try is no proof either
            with pytest.raises(IsolationError) as leak:
                prove(trainer(recipe_of(optimizer=counting)), NoiseProtocol("shuffle", runs=2, onset=2), epochs)
            assert "after epoch 2 (from 0)" in str(leak.value)
            assert "goes on from its stored first epochs" in str(leak.value)
            assert "write train(run), whose runs are all trained from the start" in str(leak.value)

    def test_a_leak_is_placed_in_the_epochs_that_vary(self, trainer):
        def leaky(run):
            model = nn.Linear(3, 3)
            run.perturb(model)
            for epoch in run.epochs(4):
                with torch.no_grad():
                    model.weight.fill_(float(next(leaks)) if epoch == 3 else 1.0)
            return torch.zeros(26, 3)

        leaks = itertools.count()
        with pytest.raises(IsolationError, match=r"differ in 'weight' after epoch 3 \(from 0\)"):
            prove(trainer(leaky), NoiseProtocol("shuffle", runs=2, onset=2))


class TestStudy:
    """Through `measure`, with a store."""

    def ask(self, session, vary="shuffle", onset=3, task=None, runs=3, **options):
        return measure(
            task or RECIPES["momentum"],
            NoiseProtocol(vary, runs=runs, seed=BASE_SEED, onset=onset),
            session=session,
            **options,
        )

    def prefixes(self, tmp_path):
        return sorted(tmp_path.glob("store/**/prefix/0*.json"))

    def test_sources_and_onsets_share_the_states_under_the_key_of_a_study_of_nothing(self, make_session, tmp_path):
        session = make_session()
        studies = [self.ask(session, vary, onset) for vary, onset in (("shuffle", 3), ("augment", 3), ("shuffle", 1))]
        names = {study.protocol.name for study in studies}
        assert names == {"shuffle@3", "augment@3", "shuffle@1"}
        assert all(study.control.proven for study in studies)
        assert all(len({record.fingerprint for record in study.records}) == 3 for study in studies)
        paths = self.prefixes(tmp_path)
        assert [path.stem for path in paths] == ["0001", "0003"]
        held = self.ask(session, "none", 0)
        assert len({record.fingerprint for record in held.records}) == 1
        assert (paths[0].parents[1] / "runs").is_dir(), "the study in which nothing varies is there too"

    def test_stored_runs_answer(self, make_session):
        first, again = (self.ask(make_session(name)) for name in ("one", "two"))
        assert [r.fingerprint for r in first.records] == [r.fingerprint for r in again.records]
        assert {r.trained_by["session"] for r in again.records} == {session_id("one")}

    @pytest.mark.slow
    @pytest.mark.parametrize("cache", ["off", "refresh"])
    def test_what_is_not_to_be_kept_ends_with_the_session(self, make_session, tmp_path, cache):
        expected = [r.fingerprint for r in self.ask(make_session("zero", folder="other")).records]
        session = make_session("one", cache=cache)
        assert [r.fingerprint for r in self.ask(session).records] == expected
        (path,) = self.prefixes(tmp_path)
        assert session.store.session_folder in path.parents
        session.store.end_session()
        assert self.prefixes(tmp_path) == []

    def test_refresh_does_not_go_on_from_what_an_earlier_session_kept(self, make_session, tmp_path):
        self.ask(make_session("one"))
        (kept,) = self.prefixes(tmp_path)
        kept.write_text("torn")
        self.ask(make_session("two", cache="refresh"))
        assert kept.read_text() == "torn"

    def test_a_task_without_a_fingerprint_has_its_own(self, make_session, tmp_path):
        import threading

        lock = threading.Lock()

        def locked(model):
            with lock:
                return sgd(model)

        session = make_session()
        studies = [self.ask(session, task=recipe_of(optimizer=locked)) for _ in range(2)]
        assert all(study.private for study in studies)
        assert len(self.prefixes(tmp_path)) == 2
        session.store.end_session()
        assert self.prefixes(tmp_path) == []

    @pytest.mark.slow
    def test_children_go_on_from_the_same_state(self, make_session, tmp_path):
        expected = [r.fingerprint for r in self.ask(make_session("one", folder="other")).records]
        study = self.ask(make_session("one", isolation="process", workers=2))
        assert [r.fingerprint for r in study.records] == expected
        assert len(self.prefixes(tmp_path)) == 1
        assert study.control.proven

    def test_a_loop_of_ones_own_is_trained_from_the_start(self, make_session, tmp_path):
        study = self.ask(make_session(), task=loop, labels=LABELS)
        assert study.control.scope == "the whole run twice, bit-identical"
        assert len({record.fingerprint for record in study.records}) == 3
        assert self.prefixes(tmp_path) == []

    def test_a_loop_that_tells_its_state_is_branched(self, make_session, tmp_path):
        straight = self.ask(make_session(folder="other"), task=loop, labels=LABELS)
        branched = self.ask(make_session(), task=loop_with_state, labels=LABELS)
        assert [r.fingerprint for r in branched.records] == [r.fingerprint for r in straight.records]
        assert len(self.prefixes(tmp_path)) == 1

    def test_an_onset_counts_the_epochs_of_all_loops(self, make_session, tmp_path):
        one, two = in_two_loops(None), in_two_loops(True)
        for onset in (1, 3, 4):  # the first is stored in the first loop, and the others go on from there
            straight = self.ask(make_session(folder="other"), onset=onset, task=one, labels=LABELS)
            branched = self.ask(make_session(), onset=onset, task=two, labels=LABELS)
            assert [r.fingerprint for r in branched.records] == [r.fingerprint for r in straight.records]
            assert [r.trace for r in branched.records] == [r.trace for r in straight.records]
            assert len({r.trace[0] for r in straight.records}) == 3
            assert len(straight.records[0].trace) == min(2, 5 - onset)
        assert [path.name for path in self.prefixes(tmp_path)] == ["0001.json"]
        with pytest.raises(ProtocolError, match="Expected onset= to be one of the 5 epochs, 0 to 4, but got onset=5"):
            self.ask(make_session(), onset=5, task=one, labels=LABELS)

    @pytest.mark.parametrize("onset", [EPOCHS, EPOCHS + 1])
    def test_an_onset_beyond_the_last_epoch_is_refused(self, make_session, onset):
        expected = rf"Expected onset= to be one of the 5 epochs, 0 to 4, but got onset={onset}"
        with pytest.raises(ProtocolError, match=expected):
            self.ask(make_session(), onset=onset)
        with pytest.raises(ProtocolError, match=expected):
            self.ask(make_session(), onset=onset, task=loop, labels=LABELS)

    def test_a_loop_that_never_comes_to_it_is_refused(self, make_session):
        def without_epochs(run):
            return torch.zeros(26, 3)

        def stops_early(run):
            for epoch in run.epochs(5):
                if epoch == 1:
                    break
            return torch.zeros(26, 3)

        for task in (without_epochs, stops_early):
            with pytest.raises(TaskError, match="the training ended before that epoch: nothing varied"):
                self.ask(make_session(), task=task, labels=LABELS)

    def test_a_black_box_is_refused(self, make_session):
        def box(seed):
            raise AssertionError("trained")

        with pytest.raises(ProtocolError, match=r"Expected box\(seed\) without an onset but got onset=3"):
            self.ask(make_session(), task=box, labels=LABELS)


def loop(run):
    return body(run, tells=False)


def loop_with_state(run):
    return body(run, tells=True)


def train_epoch(run, model, optimizer):
    model.train()
    for x, y in run.batches((IMAGES, LABELS), 8, augment=noisy):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def in_two_loops(tells):
    def train(run):
        with run.stream("init"):
            model = Drawing()
        run.perturb(model)
        for count in (2, 3):
            optimizer = sgd(model)
            for _ in run.epochs(count, state=(model, optimizer) if tells else None):
                train_epoch(run, model, optimizer)
        with torch.no_grad():
            return model.eval()(IMAGES)

    return train


def body(run, tells):
    with run.stream("init"):
        model = Drawing()
    run.perturb(model)
    optimizer = sgd(model)
    for _ in run.epochs(5, state=(model, optimizer) if tells else None):
        train_epoch(run, model, optimizer)
    with torch.no_grad():
        return model.eval()(IMAGES)


class TestStore:
    """Seen from outside: `stability-cache`."""

    @pytest.fixture
    def store(self, make_session, tmp_path):
        session = make_session()
        for onset in (1, 3):
            measure(RECIPES["momentum"], NoiseProtocol("shuffle", runs=2, onset=onset), session=session)
        session.store.end_session()
        return tmp_path / "store"

    def test_states_are_part_of_an_experiment_and_of_its_size(self, store, capsys):
        names = {entry.varies: entry for entry in Catalog(store).entries()}
        assert names.keys() == {"none", "shuffle@1", "shuffle@3"}
        held = names["none"]
        assert held.bytes > sum(path.stat().st_size for path in held.folder.glob("prefix/*.safetensors")) > 0
        assert stability_cache(["--store", str(store), "list"]) == 0
        assert "states before epochs 1, 3" in capsys.readouterr().out

    def test_they_are_verified(self, store, capsys):
        assert stability_cache(["--store", str(store), "verify"]) == 0
        (file,) = store.rglob("prefix/0003.*.safetensors")
        file.write_bytes(b"torn")
        assert stability_cache(["--store", str(store), "verify"]) == 1
        assert "the state before epoch 3 is bad" in capsys.readouterr().out

    def test_they_are_pruned_with_their_experiment_and_trained_again(self, store, make_session):
        catalog = Catalog(store)
        (held,) = (entry for entry in catalog.entries() if entry.varies == "none")
        (removal,) = Pruning(catalog).experiments([held])
        assert not removal.kept
        assert not held.folder.exists()
        session = make_session("two")
        study = measure(RECIPES["momentum"], NoiseProtocol("shuffle", runs=3, onset=3), session=session)
        assert len({record.fingerprint for record in study.records}) == 3
        assert held.folder.exists()

    def test_they_are_not_pruned_while_somebody_writes(self, store):
        catalog = Catalog(store)
        (held,) = (entry for entry in catalog.entries() if entry.varies == "none")
        locks = ByteLocks.at(held.folder / "claims.lock")
        assert locks.acquire(_WRITING)
        try:
            (removal,) = Pruning(catalog).experiments([held])
        finally:
            locks.release(_WRITING)
        assert removal.kept == "it is in use"


def test_a_half_removed_place_is_made_anew(trainer):
    branching, plan = trainer(RECIPES["momentum"]), plans_of("shuffle", 3)[0]
    first = left(branching.train_once(plan))
    shutil.rmtree(branching.prefixes.experiment)
    assert left(branching.train_once(plan)) == first
    branching.prefixes.note_proof()
    assert branching.prefixes.is_proven
    shutil.rmtree(branching.prefixes.experiment)
    branching.prefixes.note_proof()
    assert not branching.prefixes.is_proven


def test_a_run_begins_with_what_is_held_and_its_own_seeds_come_with_the_onset():
    plans = NoiseProtocol("shuffle+stochastic", runs=3, onset=2).plans()
    held = NoiseProtocol("none", runs=2).plans()[0]
    orders = []
    for plan in (*plans, held):
        run = Run(plan, torch.device("cpu"))
        seen = []
        for epoch in run.epochs(4):
            assert run.varies == (plan is held or epoch >= 2)
            seen.append(torch.cat([y for _, y in run.batches((IMAGES, torch.arange(26)), 8)]).tolist())
        orders.append(seen)
    assert len({str(seen[:2]) for seen in orders}) == 1
    assert len({str(seen[2:]) for seen in orders}) == 4
    own = Run(NoiseProtocol("shuffle", runs=3).plans()[1], torch.device("cpu"))
    fresh = [torch.cat([y for _, y in own.batches((IMAGES, torch.arange(26)), 8)]).tolist() for _ in range(2)]
    assert orders[1][2:] == fresh, "a new generator with the run's seed"


class TestDeadFromTheOnset:
    """A source that acts in the first epoch may move nothing from the onset on: the runs show it."""

    def task(self, last):
        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 3)
            run.perturb(model)
            optimizer = sgd(model)
            for epoch in run.epochs(5):
                optimizer.param_groups[0]["lr"] = 0.1 * (epoch <= last)
                for x, y in run.batches(FLAT, 8):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(x), y).backward()
                    optimizer.step()
            with torch.no_grad():
                return model(FLAT[0])

        return train

    def test_a_study_notes_it_and_a_verdict_is_red(self, make_session):
        protocol = NoiseProtocol("shuffle", runs=3, onset=3)
        study = measure(self.task(2), protocol, session=make_session(), labels=FLAT[1])
        said = "shuffle moves nothing from epoch 3 on: is it drawn in earlier epochs only, or is the learning rate 0"
        assert f"all runs are bit-identical: {said} by then?" in study.notes
        assert "moves nothing: shuffle" in study.certificate.line()
        with pytest.raises(IsolationError, match="shuffle moves nothing from epoch 3 on"):
            assert_disagreement(study, at_most=50)
        with pytest.raises(IsolationError, match="shuffle moves nothing from epoch 3 on"):
            check(self.task(2), protocol, session=make_session(), labels=FLAT[1], budget=Budget(disagreement=50))
        with pytest.raises(IsolationError, match="shuffle moves nothing from epoch 3 on"):
            compare(study, study)

    def test_one_that_moves_a_late_epoch_is_alive(self, make_session):
        protocol = NoiseProtocol("shuffle", runs=3, onset=3)
        study = measure(self.task(4), protocol, session=make_session(), labels=FLAT[1])
        assert study.certificate.dead == ()
        assert_disagreement(study, at_most=100)
        compare(study, study)


FLAT = torch.randn(24, 6, generator=torch.Generator().manual_seed(1)), torch.arange(24) % 3
