"""A variable that an import has set counts as it was before, for what would set it in a new process as well."""

from __future__ import annotations

import sys

import pytest

from stabilitykit.store import imported_variables
from stabilitykit.store.imported_variables import SINCE, before_import, is_as_before_import, set_by_import


@pytest.fixture(autouse=True)
def nothing_imported(monkeypatch):
    monkeypatch.setattr(imported_variables, "_by_name", {})


def test_it_counts_as_before_while_it_has_the_value_that_the_import_gave():
    set_by_import("ACME_RATE", None, "1", frozenset({"acme.settings"}))
    before = [before_import(name, value, {"acme.settings"}) for name in ("ACME_RATE", "ACME_WIDTH") for value in "12"]
    assert before == [(None, ""), ("2", ""), ("1", ""), ("2", "")]


def test_only_a_training_that_asks_for_the_module_would_set_it_again():
    set_by_import("ACME_RATE", "0", "1", frozenset({"acme", "acme.settings"}))
    assert before_import("ACME_RATE", "1", {"acme": True}) == ("0", "")
    assert before_import("ACME_RATE", "1", {"os": True}) == ("1", "")


def test_two_imports_after_one_another_lead_back_to_the_first():
    set_by_import("ACME_RATE", None, "1", frozenset({"a"}))
    set_by_import("ACME_RATE", "1", "2", frozenset({"b"}))
    assert before_import("ACME_RATE", "2", {"b"}) == (None, "")
    set_by_import("ACME_RATE", "5", "6", frozenset({"b"}))  # the user has set it to 5
    assert before_import("ACME_RATE", "6", {"b"}) == ("5", "")


@pytest.mark.parametrize("value", [None, "2"])
def test_what_was_set_or_removed_since_counts_otherwise_while_the_module_stays_loaded(monkeypatch, value):
    monkeypatch.setitem(sys.modules, "acme.settings", sys)
    set_by_import("ACME_RATE", None, "1", frozenset({"acme.settings"}))
    assert before_import("ACME_RATE", value, {"acme.settings"}) == (value, SINCE)
    assert is_as_before_import("ACME_RATE", value) == (value is None)
    monkeypatch.delitem(sys.modules, "acme.settings")
    assert before_import("ACME_RATE", value, {"acme.settings"}) == (value, "")
    assert not is_as_before_import("ACME_RATE", value)


@pytest.mark.parametrize(("name", "value"), [("ACME_RATE", "1"), ("ACME_WIDTH", None)])
def test_what_the_import_gave_and_what_none_has_set_is_not_put_back(name, value):
    set_by_import("ACME_RATE", None, "1", frozenset({"os"}))
    assert not is_as_before_import(name, value)
