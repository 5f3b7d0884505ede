"""Limits as they are written on a command line."""

from __future__ import annotations

import pytest

from stabilitykit import Budget, at_least, at_most
from stabilitykit.commands.limits import budget_of
from stabilitykit.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("loss_sd<=1e-2", {"loss_sd": 0.01}),
        (" loss_sd <= .5 ", {"loss_sd": 0.5}),
        ("loss<=3.28", {"loss": at_most(3.28)}),
        ("loss<=-1 alpha=0.01", {"loss": at_most(-1, alpha=0.01)}),
        ("reward >= 450 share=0.9  alpha=0.1", {"reward": at_least(450, share=0.9, alpha=0.1)}),
        ("loss<=3.28 mean", {"loss": at_most(3.28, mean=True)}),
    ],
)
def test_a_limit_is_what_the_library_makes_of_it(text: str, limit: dict[str, float]) -> None:
    assert budget_of([text]) == Budget(**limit)  # type: ignore[arg-type]  # names of scores


def test_several_limits_are_one_budget() -> None:
    assert budget_of([]) is None
    budget = budget_of(["loss_sd<=1", "loss<=2"])
    assert budget is not None
    assert budget.names == ("loss_sd", "loss")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("loss_sd", "is no name, sign and number"),
        ("loss_sd<0.1", "is no name, sign and number"),
        ("<=1", "is no name, sign and number"),
        ("a b<=1", "is no name, sign and number"),
        ("loss_sd<=1.2.3", "has '1.2.3' for a number"),
        ("loss_sd>=1", "is no upper limit on a spread"),
        ("loss_sd<=1 mean", "is no upper limit on a spread"),
        ("loss<=1 all", "ends with 'all', which is not mean, share= or alpha="),
        ("loss<=1 share=most", "has 'most' for a number"),
    ],
)
def test_another_text_is_refused_with_its_fault(text: str, why: str) -> None:
    with pytest.raises(BudgetError, match=r"Expected a limit such as .* but got .*, which") as refused:
        budget_of([text])
    assert why in str(refused.value)


@pytest.mark.parametrize("text", ["loss<=nan", "loss<=1 share=2", "loss<=1 mean share=0.9", "loss_sd<=-1"])
def test_what_the_library_refuses_is_refused(text: str) -> None:
    with pytest.raises(BudgetError):
        budget_of([text])


def test_two_limits_of_one_measure_are_refused() -> None:
    with pytest.raises(BudgetError, match="one --budget for loss_sd but got two"):
        budget_of(["loss_sd<=1", "loss_sd<=2"])
