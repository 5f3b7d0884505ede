"""What a training returns is taken, or refused with what it seems to be and what to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stabilitykit import Recipe
from stabilitykit.errors import TaskError
from stabilitykit.estimates.meaning import Meaning
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.testing import fake_study
from stabilitykit.training.outputs import as_labels, check_outputs, fault_of_numbers, without_labels
from stabilitykit.training.task import as_task

LABELS = torch.arange(6) % 3
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
PIXELS = torch.arange(24).reshape(2, 3, 4) % 4


def refusal(outputs: object, labels: torch.Tensor, stated: str | None = None) -> str:
    with pytest.raises(TaskError) as found:
        check_outputs(outputs, labels, Meaning.of(labels, stated))
    return str(found.value)


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "said"),
        [
            (LABELS.masked_fill(LABELS == 2, 255), r"got 255\. If 255 marks .*labels == 255, -100"),
            (torch.tensor([0, 1, 2, 21, 2, 21]), r"got 21\. If 21 marks examples without a label"),
            (LABELS + 1, r"got 3\. They seem to start at 1: give labels - 1\."),
            (torch.tensor([1, -100, 2, 3, 1, 2]), r"They seem to start at 1"),
            (torch.tensor([0, 7, 5, 1, 2, 0]), r"Expected class labels below 3, the number of logits, but got 7\.$"),
        ],
    )
    def test_labels_that_name_no_class_are_refused_with_what_they_seem_to_be(self, labels, said):
        with pytest.raises(TaskError, match=said):
            check_outputs(LOGITS, labels, Meaning.of(labels))

    def test_labels_below_0_are_refused_with_the_label_that_is_left_out(self, ask):
        task = as_task(lambda run: None, torch.tensor([0, -1, 1]))
        with pytest.raises(TaskError, match=r"smallest is -1\. If -1 marks .* labels\.masked_fill\(labels == -1, -100"):
            task.check(NoiseProtocol("init", runs=2), torch.device("cpu"))

    def test_integers_that_are_targets_by_word_may_be_below_0(self):
        task = as_task(lambda run: None, torch.tensor([3, -100, -7]), "values")
        task.check(NoiseProtocol("init", runs=2), torch.device("cpu"))
        assert fake_study(torch.tensor([[3.0, -99.0, -7.0]] * 2), [3, -100, -7], outputs="values").rmse.value > 0

    def test_one_hot_labels_are_asked_about(self):
        assert "give labels.argmax(-1)" in refusal(LOGITS, torch.eye(3)[LABELS].long())
        with pytest.raises(TaskError, match=r"give labels\.argmax\(-1\)"):
            Meaning.of(torch.eye(3)[LABELS])

    def test_only_columns_of_truth_values_stay_truth_values(self):
        assert as_labels(torch.tensor([[True, False]])).dtype is torch.bool
        assert as_labels(torch.tensor([True, False])).dtype is torch.int64
        assert as_labels(torch.tensor([[[True], [False]]])).dtype is torch.int64


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "labels", "said"),
        [
            ((2, 5, 3, 4), PIXELS, "Classes come last: here axis 1 has 5. Return outputs.movedim(1, -1)"),
            ((6, 1), LABELS, "a single output a label tells classes 0 and 1 apart, and these labels go up to 2."),
            ((6, 3), LABELS[:, None], "labels.squeeze(-1)"),
            ((6, 4), torch.tensor([[0, 1, 1, 0]] * 6), "say outputs='multi_label' if an example has several labels"),
            ((6, 3), LABELS.float(), "If the labels are classes, give them as integers: labels.long()."),
            ((6, 2, 2), torch.tensor([[True, True]] * 6), "give classes as integers, labels.long()"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_what_it_seems_to_be(self, shape, labels, said):
        assert said in refusal(torch.zeros(shape), labels)

    @pytest.mark.parametrize("score", [0.5, [0.5], torch.tensor(0.5)])
    def test_a_score_alone_is_one_example_of_a_regression(self, score):
        assert check_outputs(score, torch.zeros(1), Meaning.of(torch.zeros(1))).tolist() == [0.5]


class Unwilling:
    def __array__(self, dtype: object = None, copy: object = None) -> object:
        raise OSError("no backend\nmore")


class TestConversion:
    @pytest.mark.parametrize(
        ("outputs", "said"),
        [
            ([*LOGITS.clone().requires_grad_()], "Tensor [3]). Give one tensor: torch.stack(...) of single examples"),
            ([LOGITS[:4], LOGITS[4:]], "torch.cat(...) of batches"),
            ((LOGITS, torch.tensor(0.3)), "but got a tuple of (Tensor [6, 3], Tensor []). Give one tensor: "),
            ((LOGITS, torch.zeros(6, 2)), "the outputs alone that are to be scored, without a loss, another head's"),
            ({"logits": LOGITS}, "but got a dict with 'logits'. Take the one entry that is wanted: outputs['logits']."),
            (Unwilling(), "but got Unwilling. It makes no array (OSError: no backend)."),
            (torch.zeros(6, 3, device="meta"), "but got Tensor [6, 3]. It makes no array (NotImplementedError: "),
            (LOGITS + 1j, "of real numbers but got complex64: no score takes an imaginary part"),
            (LOGITS.numpy() + 1j, "of real numbers but got complex64"),
        ],
    )
    def test_what_makes_no_array_of_real_numbers_is_refused_with_what_to_give(self, outputs, said):
        refused = refusal(outputs, LABELS)
        assert refused.startswith("Expected training to return a tensor or array of logits ")
        assert said in refused

    @pytest.mark.parametrize("of", [lambda array: array, lambda array: [*array]], ids=["array", "list of arrays"])
    def test_a_mask_is_refused_and_no_mask_is_none(self, of):
        masked = np.ma.masked_array(LOGITS.numpy(), mask=LOGITS.numpy() > 100)
        assert torch.equal(check_outputs(of(masked), LABELS, Meaning.of(LABELS)), LOGITS)
        masked[2:4] = np.ma.masked
        said = refusal(of(masked), LABELS)
        assert "without a mask but got a masked array, with 6 values masked" in said
        assert "outputs.filled(...)" in said

    def test_labels_have_neither_a_mask_nor_an_imaginary_part(self):
        with pytest.raises(TaskError, match=r"with 1 values masked: .* Give labels\.filled\(-100\) for classes\."):
            as_labels(np.ma.masked_array([0, 1, 2], mask=[0, 1, 0]))
        with pytest.raises(TaskError, match=r"^Expected labels= .* of real numbers but got complex128: "):
            as_labels(np.array([0, 1j]))
        with pytest.raises(TaskError, match=r"but got Unwilling\. It makes no array \(OSError: no backend\)\.$"):
            as_labels(Unwilling())

    def test_sparse_outputs_are_dense_ones(self):
        assert torch.equal(check_outputs(LOGITS.to_sparse(), LABELS, Meaning.of(LABELS)), LOGITS)

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
    def test_integers_keep_every_unit(self, dtype):
        outputs = torch.tensor([1_700_000_000, 1_700_000_001], dtype=dtype)
        assert check_outputs(outputs, torch.zeros(2), Meaning.of(torch.zeros(2))).diff().tolist() == [1.0]

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16])
    def test_what_a_float32_holds_becomes_one(self, dtype):
        outputs = torch.tensor([0, 1]).to(dtype)
        assert check_outputs(outputs, torch.zeros(2), Meaning.of(torch.zeros(2))).dtype is torch.float32


class TestStated:
    @pytest.mark.parametrize(
        ("outputs", "labels", "stated", "said"),
        [
            (
                LOGITS,
                LABELS,
                "probabilities",
                r"in \[0, 1\] and each row with the sum 1, since outputs='probabilities'",
            ),
            (LOGITS.softmax(-1) * 0.9, LABELS, "probabilities", "with sums from 0.9 to 0.9"),
            (LOGITS.softmax(-1), LABELS, "log_probabilities", "at most 0 and exponentials in each row with the sum 1"),
            (LOGITS - 9, LABELS, "log_probabilities", "since outputs='log_probabilities' says so"),
            (torch.tensor([-0.1, 0.5]), torch.tensor([0, 1]), "probabilities", r"in \[0, 1\], since"),
        ],
    )
    def test_outputs_that_contradict_the_word_are_refused(self, outputs, labels, stated, said):
        with pytest.raises(TaskError, match=said):
            check_outputs(outputs, labels, Meaning.of(labels, stated))

    def test_a_training_that_contradicts_the_word_is_an_error_before_any_number(self, ask):
        with pytest.raises(TaskError, match=r"since outputs='probabilities' says so, but got"):
            ask(lambda run: LOGITS, "init", runs=2, labels=LABELS, outputs="probabilities")

    def test_a_recipe_has_its_own_word(self, ask):
        with pytest.raises(TaskError, match=r"^Expected outputs= only beside a train function; a Recipe has its own"):
            as_task(a_recipe(), outputs="logits")


class TestNumbers:
    def fault(self, place: tuple[object, ...], value: float, labels: torch.Tensor = LABELS) -> str:
        outputs = LOGITS.clone()
        outputs[place] = value
        return fault_of_numbers(outputs, labels, Meaning.of(labels))

    @pytest.mark.parametrize(
        ("place", "value", "said"),
        [
            ((0, 1), math.nan, "1 of 18 test outputs are NaN, in class 1"),
            ((slice(2), slice(1, 3)), math.inf, "4 of 18 test outputs are +inf, in classes 1, 2"),
            ((3,), -math.inf, "1 of 6 test examples have the logit -inf for every class"),
            ((slice(None), 0), -math.inf, ""),
        ],
    )
    def test_what_cannot_be_scored_is_said_with_its_number_and_its_classes(self, place, value, said):
        assert self.fault(place, value) == said

    def test_an_example_that_is_left_out_may_have_no_possible_class(self):
        labels = LABELS.clone()
        labels[3] = -100
        assert self.fault((3,), -math.inf, labels) == ""

    def test_a_regression_has_no_legal_infinity(self):
        outputs = torch.tensor([0.5, -math.inf])
        said = fault_of_numbers(outputs, outputs, Meaning.of(torch.tensor([0.5, 2.0])))
        assert said == "1 of 2 test outputs are -inf"


class TestReturnedLabels:
    @pytest.mark.parametrize("returned", [(LOGITS, LABELS), {"outputs": LOGITS, "labels": LABELS.numpy()}])
    def test_labels_that_are_the_studys_are_taken_off(self, returned):
        assert without_labels(returned, LABELS, run=0) is LOGITS

    @pytest.mark.parametrize("returned", [LOGITS, [LOGITS, LABELS], (LOGITS, LABELS, LABELS), (1, 2), {"a": 1}])
    def test_anything_else_is_left_as_it_is(self, returned):
        assert without_labels(returned, LABELS, run=0) is returned

    def test_two_test_examples_are_no_pair(self):
        outputs = (torch.zeros(3), torch.ones(3))
        assert without_labels(outputs, torch.tensor([0, 1]), run=0) is outputs

    @pytest.mark.parametrize(
        "second",
        [torch.zeros(6, 2), np.zeros((6, 3)), torch.full((6,), 0.3), torch.full((6, 1), 0.3)],
        ids=["another head", "another head's logits", "values", "a column of values"],
    )
    def test_two_outputs_are_no_pair(self, second):
        outputs = (LOGITS, second)
        assert without_labels(outputs, LABELS, run=0) is outputs

    def test_labels_are_compared_as_they_are(self):
        """Targets of a regression are not cut to whole numbers first."""
        with pytest.raises(TaskError, match="6 of 6 labels that differ"):
            without_labels((LOGITS[:, 0], LABELS + 0.5), LABELS.float(), run=0)

    def test_another_test_set_is_an_error_that_names_the_run(self, ask):
        def train(run):
            return LOGITS, LABELS.roll(1) if run.index == 1 else LABELS

        with pytest.raises(TaskError, match=r"^Expected run 1 to return the test labels of the study .* 6 of 6 labels"):
            ask(train, "init", runs=3, labels=LABELS)
        with pytest.raises(TaskError, match=r"but got labels of shape \[5\], not \[6\]"):
            without_labels((LOGITS, LABELS[:5]), LABELS, run=0)


def a_recipe(labels: torch.Tensor | None = None, out: int = 3, **settings: object) -> Recipe:
    labels = torch.arange(12) % 3 if labels is None else labels
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    given: dict[str, object] = {
        "model": lambda: torch.nn.Linear(4, out),
        "train": (x, labels),
        "test": (x, labels),
        "epochs": 1,
        "batch_size": 4,
        "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    }
    return Recipe(**{**given, **settings})  # type: ignore[arg-type]  # settings of a recipe


TWO = torch.arange(12) % 2


class TestRecipes:
    def test_labels_of_0_and_1_that_choose_the_loss_are_asked_about(self, ask):
        for labels, out in ((TWO.float(), 1), (torch.stack([TWO, TWO], 1).float(), 2)):
            with pytest.raises(TaskError, match=r"give labels\.long\(\), .*; for a regression say outputs='values'"):
                ask(a_recipe(labels, out), "init", runs=2)

    @pytest.mark.parametrize(
        ("labels", "out", "settings", "main"),
        [
            (TWO, 1, {}, "accuracy"),
            (TWO.float(), 1, {"outputs": "logits"}, "accuracy"),
            (TWO.float(), 1, {"outputs": "values"}, "rmse"),
            (TWO, 1, {"outputs": "values"}, "rmse"),
            (torch.stack([TWO, 1 - TWO], 1), 2, {"outputs": "multi_label"}, "subset_accuracy"),
            (TWO.float(), 1, {"loss": lambda z, y: (z[:, 0] - y).square().mean()}, "accuracy"),
        ],
    )
    def test_every_kind_of_labels_trains_with_the_loss_that_is_chosen_by_them(self, ask, labels, out, settings, main):
        study = ask(a_recipe(labels, out, curve=True, **settings), "init", runs=2)
        assert next(iter(study.measures)) == main
        assert study.records[0].curve[-1][main] == pytest.approx(float(study.measures.of_runs(main)[0]))

    def test_the_loss_of_stated_probabilities_is_that_of_their_logits(self, ask):
        def model() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(-1))

        stated = ask(a_recipe(model=model, outputs="probabilities"), "init", runs=2)
        logits = ask(a_recipe(), "init", runs=2)
        assert torch.allclose(stated.outputs, logits.outputs.softmax(-1), atol=1e-6)

    def test_torchs_cross_entropy_and_level_axes_contradict_each_other(self, ask):
        x, labels = torch.rand(12, 1, 3, 3), torch.zeros(12, 3, 3).long()
        settings = {"model": lambda: torch.nn.Conv2d(1, 3, 1), "train": (x, labels), "test": (x, labels)}
        for loss in (torch.nn.functional.cross_entropy, torch.nn.CrossEntropyLoss()):
            with pytest.raises(TaskError, match=r"cross_entropy takes axis 1 of the outputs \[2, 3, 3, 3\] for it"):
                ask(a_recipe(loss=loss, **settings), "init", runs=2)

    def test_a_word_counts_for_the_key_and_none_does_not(self, ask):
        assert "outputs" not in a_recipe().content()
        assert a_recipe(outputs="logits").content()["outputs"] == "logits"
        function = lambda run: None  # noqa: E731  # one function for both
        assert len(as_task(function, LABELS).content()) + 1 == len(as_task(function, LABELS, "logits").content())

    def test_snapshots_of_probabilities_are_averaged_as_logits(self, ask):
        def model() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(-1))

        steep = {"epochs": 4, "optimizer": lambda model: torch.optim.SGD(model.parameters(), lr=2.0)}
        recipe = a_recipe(model=model, loss=lambda p, y: torch.nn.functional.nll_loss(p.log(), y), **steep)
        study = ask(recipe.with_snapshots(cycles=2), "init", runs=2)
        logits = ask(a_recipe(**steep).with_snapshots(cycles=2), "init", runs=2)
        assert study.measures.reading.scale == "probabilities"
        assert torch.allclose(study.outputs, logits.outputs.softmax(-1), atol=1e-4)
