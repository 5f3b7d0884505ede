"""Columns of text: as wide as their widest cell, two spaces apart, and no spaces at the end of a line."""

from __future__ import annotations

import pytest

from stabilitykit.render.columns import aligned


def test_each_column_is_as_wide_as_its_widest_cell():
    assert aligned([("a", "b", "c"), ("long", "1.25", "")], "<><") == ["a        b  c", "long  1.25"]


def test_no_rows_are_no_lines():
    assert aligned([], "") == []


@pytest.mark.parametrize("rows", [[("a",)], [("a", "b"), ("c",)]])
def test_a_row_of_another_length_is_an_error(rows):
    with pytest.raises(ValueError, match="zip"):
        aligned(rows, "<<")
