"""Limits as they are written on a command line."""

from __future__ import annotations

import pytest

from stabilitykit.commands.limits import budget_of
from stabilitykit.errors import BudgetError


def test_a_limit_is_a_name_a_sign_and_a_number() -> None:
    budget = budget_of(["loss_sd<=1e-2", " f1_sd <= .5 "])
    assert budget is not None
    assert budget.limits == {"loss_sd": 0.01, "f1_sd": 0.5}
    assert budget_of([]) is None


@pytest.mark.parametrize(
    "text", ["loss_sd", "loss_sd<0.1", "loss_sd<=", "<=1", "loss_sd<=1.2.3", "loss_sd=1", "a b<=1"]
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match=r"Expected a limit such as 'val_loss_sd<=0\.01' but got"):
        budget_of([text])


def test_two_limits_of_one_measure_are_refused() -> None:
    with pytest.raises(BudgetError, match="one --budget for loss_sd but got two"):
        budget_of(["loss_sd<=1", "loss_sd<=2"])
