"""`measure` from end to end on small real models, and what a study answers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stabilitykit.errors import (
    BudgetError,
    BudgetExceededError,
    ConfigError,
    IsolationError,
    ProtocolError,
    RunsFailedError,
    StoreError,
    TaskError,
)
from stabilitykit.execution.session import measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.study.asserts import assert_alike, assert_reduction, assert_within
from stabilitykit.study.comparison import compare
from stabilitykit.study.likeness import alike
from stabilitykit.study.study import check_bits
from stabilitykit.testing import FakeTask, fake_study
from stabilitykit.training.certificate import Certificate
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask
from stabilitykit.verdicts.budgets import Budget
from stabilitykit.verdicts.judgement import Outcome
from tests.conftest import study_of
from tests.ledger import LEDGER, keep_ledger
from tests.seeds import BASE_SEED
from tests.store_names import session_id

LABELS = torch.arange(12) % 3
SOURCES = ["init", "shuffle", "augment", "stochastic", "low_level"]


def prints(study):
    return [record.fingerprint for record in study.records]


@pytest.mark.trains
class TestSources:
    @pytest.mark.parametrize("source", [*SOURCES, "init+shuffle", "all"])
    def test_runs_differ_where_something_varies(self, ask, source):
        assert len(set(prints(ask(FakeTask(), source)))) == 3

    def test_with_no_source_varying_all_runs_are_equal(self, ask, dropout_net, conv_net):
        for task in (FakeTask(), dropout_net, conv_net):
            study = ask(task, "none")
            assert len(set(prints(study))) == 1
            assert study.accuracy_sd.value == study.disagreement.value == study.cross_entropy_sd.value == 0
            assert study.correlation.value == 1

    def test_a_source_that_the_task_does_not_have_is_said_to_reach_nothing(self, ask, linear):
        study = ask(linear, "stochastic")
        assert len(set(prints(study))) == 1
        hint = "has the model dropout, or another draw in a step? Is anything subsampled?"
        assert study.notes == (
            f"all runs are bit-identical: stochastic never reaches the weights of this task: {hint}",
        )
        assert ask(linear, "none").notes == ()

    def test_one_ulp_moves_no_prediction_of_a_linear_model(self, ask, linear):
        # After 12 epochs the right class leads by 2.79 at least, give or take 0.06, in 100 trainings under five base
        # seeds; an ulp moves a logit by 10^-6 at most. By Chebyshev's inequality a lead is lost once in 2,000 times,
        # were it normal never.
        study = ask(dataclasses.replace(linear, epochs=12), perturb="ulp", runs=4)
        assert study.accuracy.value == 100
        assert study.accuracy_sd.value == 0
        assert study.disagreement.value == 0
        assert study.ensemble_delta.value == 0

    def test_one_ulp_grows_in_a_network_with_batch_normalisation(self, ask, conv_net, linear):
        metrics = {"size": lambda logits, labels: logits.double().square().mean().sqrt()}
        deep, flat = (
            ask(task, perturb="ulp", runs=6, metrics=metrics)["size_sd"]
            for task in (dataclasses.replace(conv_net, epochs=12), linear)
        )
        # Intervals of 95 % that lie apart, by a factor of 90 and more under five base seeds.
        assert deep.low > flat.high

    @pytest.mark.parametrize("kind", ["ulp", "bit"])
    def test_the_perturbation_of_each_run_is_on_record(self, ask, linear, kind):
        study = ask(linear, perturb=kind, runs=4)
        for record in study.records:
            assert record.perturbation["kind"] == kind
            assert record.perturbation["parameter"] == "weight"
            old, new = (np.float32(float.fromhex(record.perturbation[name])) for name in ("old", "new"))
            changed = int(old.view(np.uint32) ^ new.view(np.uint32))
            assert list(record.perturbation["bits"]) == [bit for bit in range(32) if changed >> bit & 1] != []
        moved = {tuple(record.perturbation["index"]) for record in study.records}
        assert len(moved) > 1, "four runs draw the same of 18 weights once in 5,832 times, on every machine alike"

    def test_a_constant_moves_what_is_held(self, ask, dropout_net):
        one, other = (ask(dropout_net, "init", constants={"shuffle": constant}) for constant in (0, 1))
        assert not set(prints(one)) & set(prints(other))
        assert prints(one) == prints(ask(dropout_net, "init"))

    def test_another_base_seed_is_another_study(self, ask):
        assert not set(prints(ask(FakeTask(), "all"))) & set(prints(ask(FakeTask(), "all", seed=BASE_SEED + 1)))

    def test_runs_do_not_depend_on_what_was_measured_before(self, make_session, dropout_net, linear):
        def study(folder, *before):
            session = make_session(folder=folder)
            for task in before:
                measure(task, NoiseProtocol("all", runs=2), session=session)
            return prints(measure(dropout_net, NoiseProtocol("init", runs=3), session=session))

        assert study("alone") == study("after", linear, dropout_net)

    def test_the_low_level_note_names_the_stand_in(self, ask):
        assert ask(FakeTask(), "low_level").notes == ("low-level source: gradient rounding",)
        assert ask(FakeTask(), "init").notes == ()


class TestLevels:
    def test_a_loop_measures_as_the_recipe_that_it_spells_out(self, ask, blobs):
        x, y = blobs
        recipe = Recipe(
            model=lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)),
            train=blobs,
            test=blobs,
            epochs=2,
            batch_size=16,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
            augment=lambda x: x + torch.randn_like(x),
        )

        def train(run):
            with run.stream("init"):
                model = recipe.model()
            run.perturb(model)
            optimizer = recipe.optimizer(model)
            for _ in run.epochs(2):
                for inputs, labels in run.batches((x, y), 16, augment=recipe.augment):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(inputs), labels).backward()
                    optimizer.step()
            return model.eval()(x)

        for vary in [*SOURCES, "all"]:
            assert prints(ask(recipe, vary)) == prints(ask(train, vary, labels=y))

    def test_a_black_box_varies_everything_and_says_that_nothing_is_proven(self, ask):
        study = ask(lambda seed: np.random.default_rng(seed).standard_normal((12, 3)), "all", labels=LABELS)
        assert len(set(prints(study))) == 3
        assert study.notes == (
            "isolation not proven: a black box varies everything; control='full' trains one seed twice",
        )

    def test_a_black_box_gets_the_seed_of_its_run(self, ask):
        study = ask(lambda seed: torch.full((12, 3), seed % 1000 / 7), "all", labels=LABELS)
        seeds = [plan.init for plan in NoiseProtocol("all", runs=3).plans()]
        assert [record.logits[0, 0].item() for record in study.records] == pytest.approx([s % 1000 / 7 for s in seeds])


class TestSharing:
    """Which studies share runs: those whose tasks are the same in all that training can see."""

    @pytest.fixture
    def count(self, make_session):
        trained = []

        def count(task, vary="all", session="one", **options):
            before = len(trained)
            protocol = NoiseProtocol(vary, options.pop("perturb", None), options.pop("runs", 2), options.pop("seed", 0))
            options.setdefault("labels", LABELS)
            measure(task, protocol, session=make_session(session), **options)
            return len(trained) - before

        count.trained = trained
        return count

    def counting(self, trained, rate):
        """The list must not count: it changes while the task trains."""

        def train(seed):
            LEDGER.info("%d", seed)
            return torch.randn(12, 3, generator=torch.Generator().manual_seed(seed)) * rate

        keep_ledger(trained)
        return train

    def test_the_same_task_is_trained_once_over_sessions(self, count):
        assert count(self.counting(count.trained, 1.0)) == 2
        assert count(self.counting(count.trained, 1.0), session="two") == 0

    def test_tasks_that_differ_in_a_captured_value_share_nothing(self, count):
        assert count(self.counting(count.trained, 1.0)) == 2
        assert count(self.counting(count.trained, 2.0)) == 2
        assert count(self.counting(count.trained, 1)) == 2

    def test_other_seeds_and_labels_share_nothing(self, count):
        train = self.counting(count.trained, 1.0)
        assert count(train) == 2
        assert count(train, seed=1) == 2
        assert count(train, labels=LABELS.flip(0)) == 2
        assert count(train) == 0

    def test_a_fuller_control_is_proven_beside_the_same_runs(self, count):
        train = self.counting(count.trained, 1.0)
        assert count(train) == 2
        assert count(train, control="full") == 2  # one seed twice, and no run again
        assert count(train, control="full") == 0
        assert count(train) == 0

    def test_more_runs_train_only_the_new_ones_and_fewer_train_none(self, count):
        train = self.counting(count.trained, 1.0)
        assert [count(train, runs=runs, session=f"{runs}") for runs in (3, 6, 2)] == [3, 3, 0]

    def test_other_threads_and_default_dtypes_share_nothing(self, make_session, count):
        train = self.counting(count.trained, 1.0)
        protocol = NoiseProtocol("all", runs=2)
        for threads in (1, 2, 1):
            measure(train, protocol, labels=LABELS, session=make_session(threads=threads))
        torch.set_default_dtype(torch.float64)
        try:
            measure(train, protocol, labels=LABELS, session=make_session())
        finally:
            torch.set_default_dtype(torch.float32)
        assert len(count.trained) == 6

    def test_metrics_and_budgets_do_not_retrain(self, count):
        train = self.counting(count.trained, 1.0)
        assert count(train) == 2
        assert count(train, metrics={"mine": lambda logits, labels: 1.0}, budget=Budget(mine_sd=1.0)) == 0

    def test_a_task_that_cannot_be_read_is_kept_to_its_study_and_says_so(self, count, make_session):
        def training(handle):
            def train(seed):
                LEDGER.info("%d", seed)
                return torch.randn(12, 3, generator=torch.Generator().manual_seed(seed)) + (handle is None)

            return train

        keep_ledger(count.trained)
        with Path(__file__).open() as handle:
            train = training(handle)
            session = make_session()
            for study_number in range(1, 4):
                study = measure(train, NoiseProtocol("all", runs=2), labels=LABELS, session=session)
                assert len(count.trained) == 2 * study_number
        assert "train.handle is a TextIOWrapper: " in study.private  # and Python's own words, which change
        assert f"runs not kept, nor verdicts: {study.private}" in study.notes


class TestFailures:
    def failing(self, *bad):
        def train(seed):
            if seed in bad:
                raise ValueError(f"no luck with {seed}")
            return torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))

        return train

    def test_a_study_with_a_failed_run_fails_by_index_seeds_and_traceback(self, ask):
        plans = NoiseProtocol("all", runs=4).plans()
        with pytest.raises(RunsFailedError) as failure:
            ask(self.failing(plans[1].init, plans[3].init), "all", runs=4, labels=LABELS)
        message = str(failure.value)
        assert message.startswith(
            "Expected 4 trained models but 2 of train [all] failed: run 1, 3. A study is never computed without them"
        )
        assert f"Run 1 (failed; seeds {plans[1].seeds}) said:" in message
        assert "Traceback (most recent call last)" in message
        assert f"ValueError: no luck with {plans[1].init}" in message

    @pytest.mark.parametrize(
        ("train", "said"),
        [
            (lambda run: sys.exit(3), "SystemExit: 3"),
            (lambda run: 1 / 0, "ZeroDivisionError"),
            (lambda run: torch.full((12, 3), torch.inf), "36 of 36 test outputs are +inf, in every class"),
        ],
    )
    @pytest.mark.parametrize("vary", ["init", "low_level", "none"])
    def test_a_loop_that_fails_fails_its_study_and_not_its_control(self, ask, train, said, vary):
        with pytest.raises(RunsFailedError) as failure:
            ask(train, vary, runs=2, labels=LABELS)
        assert "but 2 of <lambda>" in str(failure.value)
        assert said in str(failure.value)

    def test_a_wrong_shape_is_found_by_the_control_before_the_runs(self, ask):
        trained = []

        def train(run):
            trained.append(run.index)
            return torch.zeros(11, 3)

        with pytest.raises(TaskError, match=r"^Expected logits of shape \[12, C\] .* but got \[11, 3\]"):
            ask(train, "init", labels=LABELS)
        assert trained == [0]

    def test_a_wrong_shape_in_a_later_run_fails_the_study_by_its_index(self, ask):
        def train(run):
            return torch.zeros(12 - run.index // 2, 3)

        with pytest.raises(RunsFailedError, match=r"but 1 of train \[init\] failed: run 2\.") as failure:
            ask(train, "init", labels=LABELS)
        assert "Expected logits of shape [12, C]" in str(failure.value)

    def test_a_diverging_recipe_fails_its_study(self, ask, linear):
        diverging = dataclasses.replace(linear, loss=lambda logits, labels: logits.sum() * torch.nan)
        with pytest.raises(RunsFailedError, match=r"the loss became nan in epoch 0 \(from 0\)"):
            ask(diverging, "init", runs=2)

    def test_a_failed_run_is_reported_and_never_dropped(self, make_session):
        protocol = NoiseProtocol("all", runs=3)
        train = self.failing(protocol.plans()[0].init)
        with pytest.raises(RunsFailedError):
            measure(train, protocol, labels=LABELS, session=make_session())
        study = study_of(make_session(), train, protocol, labels=LABELS)
        assert [record.status for record in study.records] == ["failed", "ok", "ok"]
        assert [record.index for record in study.failed] == [0]
        for number in (lambda: study.accuracy_sd, lambda: study.outputs, lambda: study.judge(Budget(accuracy_sd=1))):
            with pytest.raises(RunsFailedError):
                number()

    def test_a_run_that_failed_is_tried_again_in_the_next_session(self, make_session, tmp_path):
        flag = tmp_path / "broken"
        flag.touch()

        def train(run):
            if flag.exists():
                raise OSError("disk")
            return torch.randn(12, 3)

        for _ in range(2):
            with pytest.raises(RunsFailedError, match="OSError: disk"):
                measure(train, NoiseProtocol("init", runs=2), labels=LABELS, session=make_session())
        flag.unlink()
        with pytest.raises(RunsFailedError):
            measure(train, NoiseProtocol("init", runs=2), labels=LABELS, session=make_session())
        study = measure(train, NoiseProtocol("init", runs=2), labels=LABELS, session=make_session("two"))
        assert study.control.proven
        assert not study.failed

    def test_a_metric_that_raises_does_so_before_the_study_is_reported(self, make_session):
        def metric(logits, labels):
            raise ZeroDivisionError("no positives")

        with pytest.raises(ZeroDivisionError, match="no positives"):
            study_of(make_session(), FakeTask(), NoiseProtocol("init", runs=2), metrics={"f1": metric})

    def test_interrupting_keeps_what_is_finished(self, make_session):
        seeds = []

        class Interrupt:
            at = 2

        def train(seed):
            if len(seeds) == Interrupt.at:
                raise KeyboardInterrupt
            seeds.append(seed)
            return torch.zeros(12, 3)

        with pytest.raises(KeyboardInterrupt):
            measure(_Named(train), NoiseProtocol("all", runs=4), session=make_session())
        Interrupt.at = None
        study = measure(_Named(train), NoiseProtocol("all", runs=4), session=make_session("two"))
        assert len(seeds) == 4
        sessions = [session_id(word) for word in ("one", "one", "two", "two")]
        assert [record.trained_by["session"] for record in study.records] == sessions


class _Named(LoopTask):
    """A black box whose content is a name."""

    isolates = False

    def __init__(self, function):
        super().__init__(function, LABELS)

    def content(self):
        return "named"

    def fit(self, run):
        return self.function(run.plan.init)


class TestRefusals:
    """Before anything trains."""

    @pytest.fixture
    def refuse(self, ask):
        trained = []

        def train(run):
            trained.append(run.index)
            return torch.zeros(12, 3)

        def refuse(*args, **options):
            with pytest.raises(Exception) as refusal:  # noqa: PT011  # each test says which
                ask(options.pop("task", train), *args, **({"labels": LABELS} | options))
            assert trained == []
            return refusal

        return refuse

    @pytest.mark.parametrize(
        ("question", "error", "message"),
        [
            ({"vary": "dropout"}, ProtocolError, "but got 'dropout' in vary='dropout'"),
            ({"runs": 1}, ProtocolError, "Expected runs >= 2 but got runs=1"),
            ({"labels": None, "metrics": {"f1": len}}, TaskError, "Expected labels= beside metrics="),
            ({"labels": LABELS - 1}, TaskError, "but the smallest is -1"),
            ({"metrics": {"accuracy": len}}, TaskError, "but got 'accuracy'"),
            (
                {"metrics": [len]},
                TaskError,
                "Expected metrics= to name each metric, as in metrics={'f1': f1}, but got [<",
            ),
            ({"control": "maybe"}, ProtocolError, "control='auto', 'first' or 'full' but got control='maybe'"),
            ({"budget": {"accuracy_sd": 1}}, BudgetError, "Expected a Budget but got {'accuracy_sd': 1}. Name what"),
            ({"budget": Budget(rmse_sd=1)}, BudgetError, "but got Budget(rmse_sd=...), which would never be judged"),
            ({"budget": Budget(acuracy_sd=1)}, BudgetError, "Did you mean accuracy_sd? The task has accuracy, acc"),
            ({"labels": None, "budget": Budget(accuracy_sd=1)}, BudgetError, "Its runs return scores alone"),
            (
                {"labels": LABELS.float(), "budget": Budget(disagreement=1)},
                BudgetError,
                "but got Budget(disagreement=...)",
            ),
        ],
    )
    def test_a_wrong_question_is_refused(self, refuse, question, error, message):
        refusal = refuse(**question)
        assert refusal.type is error
        assert message in str(refusal.value)

    @pytest.mark.parametrize("labels", [None, LABELS])
    def test_a_limit_on_a_score_that_no_run_returns_is_refused_after_the_first_run(self, ask, labels):
        trained = set()

        def train(run):
            trained.add(run.index)
            scores = {"reward": 3.0}
            return scores if labels is None else (torch.zeros(12, 3), scores)

        with pytest.raises(BudgetError, match=r"Budget\(f1_sd=...\), which would never be judged\..*reward_sd"):
            ask(train, "init", runs=6, labels=labels, budget=Budget(f1_sd=1))
        assert trained == {0}

    def test_a_device_that_is_not_there_is_refused(self, make_session):
        session = make_session(device="tpu")
        with pytest.raises(ConfigError, match="but got device='tpu'"):
            measure(FakeTask(), NoiseProtocol("init"), session=session)

    def test_a_store_that_cannot_be_written_is_refused(self, make_session, tmp_path):
        (tmp_path / "store").write_text("")
        with pytest.raises(StoreError, match="Expected to write the run store"):
            make_session()

    def test_a_budget_on_a_metric_of_ones_own_is_known_before_training(self, ask):
        study = ask(FakeTask(), "init", metrics={"f1": lambda logits, labels: 0.5}, budget=Budget(f1_sd=0.1))
        assert study.judge(Budget(f1_sd=0.1)).outcome is Outcome.PASS


class TestNumbers:
    LOGITS = torch.randn(6, 12, 3, generator=torch.Generator().manual_seed(0)) + nn.functional.one_hot(LABELS, 3)

    def test_every_measure_has_its_name(self):
        study = fake_study(self.LOGITS, LABELS, metrics={"mine": lambda logits, labels: logits.max()})
        for name in ("accuracy", "accuracy_sd", "cross_entropy", "cross_entropy_sd", "disagreement", "correlation"):
            assert getattr(study, name) is study[name]
        assert study.ensemble_delta is study["ensemble_delta"]
        assert study["mine_sd"].value > 0
        assert study["pearson"].runs == 6

    def test_a_measure_that_the_task_does_not_have_is_refused_with_those_it_has(self):
        study = fake_study(self.LOGITS, LABELS)
        with pytest.raises(TaskError, match=r"^Expected a measure of this study but got 'rmse'\. It has accuracy, "):
            study.rmse  # noqa: B018
        regression = fake_study(self.LOGITS[..., 0], LABELS.float())
        with pytest.raises(TaskError, match="but got 'accuracy_sd'"):
            regression.accuracy_sd  # noqa: B018
        assert regression.rmse_sd.value > 0
        assert regression.rmse.value > 0
        assert regression.ensemble_delta.value <= 0

    def test_judging_needs_no_pytest(self):
        study = fake_study(self.LOGITS, LABELS)
        spread = study.disagreement.value
        assert study.judge(Budget(disagreement=min(100, 2 * spread))).outcome is Outcome.PASS
        assert study.judge(Budget(disagreement=0)).outcome is Outcome.FAIL


class TestEnsembles:
    LOGITS = TestNumbers.LOGITS

    def test_members_are_disjoint_consecutive_runs_and_their_logits_are_averaged(self):
        study = fake_study(self.LOGITS, LABELS)
        pairs = study.ensembles(2)
        assert len(pairs.records) == 3
        for i, record in enumerate(pairs.records):
            assert record.index == i
            torch.testing.assert_close(record.logits, self.LOGITS[2 * i : 2 * i + 2].double().mean(0))
        assert pairs.task == "fake, ensembles of 2"
        assert len(set(prints(pairs)) | set(prints(study))) == 9
        assert pairs.accuracy_sd.runs == 3

    def test_ensembles_of_one_are_the_runs(self):
        study = fake_study(self.LOGITS, LABELS)
        assert study.ensembles(1).accuracy_sd == study.accuracy_sd

    @pytest.mark.parametrize(("size", "made"), [(4, 1), (6, 1), (7, 0)])
    def test_too_few_ensembles_are_refused(self, size, made):
        with pytest.raises(TaskError) as refusal:
            fake_study(self.LOGITS, LABELS).ensembles(size)
        assert str(refusal.value) == (
            f"Expected at least two ensembles but 6 runs make {made} of size={size}. Train {2 * size} runs or more, or "
            "ask for smaller ensembles."
        )

    def test_a_judgement_of_ensembles_is_seen_where_the_study_is_reported(self):
        study = fake_study(self.LOGITS, LABELS)
        with pytest.raises(BudgetExceededError):
            assert_within(study.ensembles(2), Budget(disagreement=0))
        assert [verdict.outcome for verdict in study.verdicts] == [Outcome.FAIL]


def test_a_snapshot_study_is_measured_like_any_other(ask, dropout_net):
    recipe = dataclasses.replace(dropout_net, epochs=4)
    plain, mitigated = ask(recipe, "all", runs=4), ask(recipe.with_snapshots(2), "all", runs=4)
    assert not set(prints(plain)) & set(prints(mitigated))
    assert mitigated.outputs.shape == (4, 48, 3)


SCRIPT = """
from stabilitykit import NoiseProtocol, measure
from stabilitykit.testing import FakeTask
study = measure(FakeTask(), NoiseProtocol("init", runs=3))
print(*[record.fingerprint for record in study.records], study.records[0].trained_by["session"])
"""


@pytest.mark.slow
def test_a_script_measures_without_pytest_and_keeps_its_runs_where_it_stands(tmp_path, ask):
    (tmp_path / "script.py").write_text(SCRIPT)

    def run():
        done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first, second = run(), run()
    assert first == second
    assert len(list((tmp_path / ".stabilitykit").rglob("v2/*/runs/000?.json"))) == 3 + 1  # with the base run
    assert not list((tmp_path / ".stabilitykit" / "sessions").iterdir())
    if not torch.cuda.is_available():  # `auto` is where this test asks
        assert first[:3] == prints(ask(FakeTask(), "init"))


class TestSharedOutputs:
    SAID = "gave the same outputs bit for bit, though they trained other weights: "

    def test_a_model_that_a_train_function_keeps_for_later_runs_is_asked_about(self, ask, blobs):
        kept = []

        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 3)
            run.perturb(model)
            kept.append(model(blobs[0]).detach())
            return kept[0]

        assert [
            note for note in ask(train, "init", labels=blobs[1]).notes if note.startswith(f"all 3 runs {self.SAID}")
        ]

    @pytest.mark.parametrize(
        ("protocol", "prints", "said"),
        [
            (NoiseProtocol("init", runs=3), "abc", True),
            (NoiseProtocol("init+low_level", "ulp", runs=3), "abc", True),
            (NoiseProtocol("init", runs=3), "aaa", False),
            (NoiseProtocol("low_level", runs=3), "abc", False),
            (NoiseProtocol("none", "ulp", runs=3), "abc", False),
        ],
    )
    def test_it_takes_a_seeded_source_and_other_weights(self, protocol, prints, said):
        study = fake_study([[[2.0, 0.1], [0.3, 1.0]]] * 3, [0, 1])
        records = [
            dataclasses.replace(run, fingerprint=print_) for run, print_ in zip(study.records, prints, strict=True)
        ]
        study = dataclasses.replace(study, protocol=protocol, records=tuple(records))
        study.note_meaning()
        assert any(self.SAID in note for note in study.notes) is said


class TestRunsThatDidNotTrain:
    def study(self, *records, **fields):
        study = fake_study(torch.randn(len(records), 6, 3), torch.arange(6) % 3, vary="init")
        changed = [dataclasses.replace(r, **of) for r, of in zip(study.records, records, strict=True)]
        return dataclasses.replace(study, records=tuple(changed), **fields)

    def test_they_are_refused_beside_runs_that_did(self):
        idle, trained = {"idle": True}, {"trace": ("a", "b")}
        with pytest.raises(IsolationError, match="but run 0, 2 completed no epoch and no step of an optimizer, and"):
            check_bits(self.study(idle, trained, idle))

    @pytest.mark.parametrize(
        "records",
        [
            [{"idle": True}] * 3,  # an optimizer of its own
            [{"idle": True, "trace": ("a",)}, {"trace": ("b", "c")}],
            [{}, {"trace": ("a",)}],  # left in the first epoch, or trained by an earlier version
        ],
    )
    def test_others_may_stop_when_they_like(self, records):
        check_bits(self.study(*records))

    def test_run_0_has_as_many_epochs_as_the_base_run(self):
        certificate = Certificate(True, "whole", ("a", "b"), base="f")
        run = {"trace": ("a", "b"), "fingerprint": "f"}
        check_bits(self.study(run, run, certificate=certificate))
        with pytest.raises(IsolationError, match="one completed 2 of the first 2 epochs, the other 1"):
            check_bits(self.study({**run, "trace": ("a",)}, run, certificate=certificate))


class TestWhatMovesNothing:
    """A judgement or a comparison that rests on it is red, whichever way it is asked for."""

    @pytest.fixture
    def alive(self):
        study = fake_study(torch.randn(4, 12, 3), torch.arange(12) % 3, vary="init")
        return dataclasses.replace(study, certificate=Certificate(True, "whole", alive={"init": "in the first epoch"}))

    @pytest.fixture
    def dead(self, alive):
        return dataclasses.replace(alive, certificate=Certificate(True, "whole", alive={"init": ""}))

    @pytest.mark.parametrize(
        "ask",
        [
            lambda one, other: compare(one, other).is_better,
            lambda one, other: alike([one, other]),
            lambda one, other: assert_alike([one, other], within=1e6),
            lambda one, other: one.reduction_against(other),
            lambda one, other: assert_reduction(one, other, at_least=-1e6),
            lambda one, other: [study.judge(Budget(disagreement=100)) for study in (one, other)],
        ],
    )
    def test_it_is_red(self, alive, dead, ask):
        for pair in ((alive, dead), (dead, alive)):
            with pytest.raises(IsolationError, match="init never reaches the weights"):
                ask(*pair)

    def test_equal_runs_of_a_source_that_acts_are_said(self, alive):
        records = tuple(dataclasses.replace(record, fingerprint="f") for record in alive.records)
        same = dataclasses.replace(alive, records=records)
        assert any(n.startswith("all runs are bit-identical, though init moved a training") for n in same.notes)
        assert not any("bit-identical" in note for note in alive.notes)
