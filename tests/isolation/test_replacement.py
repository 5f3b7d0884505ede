"""Replaced attributes: all are put back, also where one of them could not be replaced."""

from __future__ import annotations

import types

import pytest

from stabilitykit.isolation.replacement import Replacement, Replacements


def test_what_is_replaced_twice_is_put_back_to_the_first():
    module = types.SimpleNamespace(name=1)
    both = Replacements(
        [Replacement(module, "name", lambda old: old + 1), Replacement(module, "name", lambda o: o * 5)]
    )
    both.put()
    assert module.name == 10
    both.put_back()
    assert module.name == 1


def test_what_was_replaced_before_a_failure_can_be_put_back():
    module = types.SimpleNamespace(name=1)
    both = Replacements([Replacement(module, "name", lambda old: 2), Replacement(module, "missing", lambda old: 2)])
    with pytest.raises(KeyError):
        both.put()
    both.put_back()
    assert module.name == 1
