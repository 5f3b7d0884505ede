"""Tables of data as estimators take them: arrays, sparse matrices, data frames, lists."""

from __future__ import annotations

from typing import Any

import numpy as np


def rows_of(table: Any) -> int:
    """Return the number of examples in a table.

    >>> rows_of(np.zeros((3, 2))), rows_of(["a text", "another"])
    (3, 2)
    """
    return int(table.shape[0]) if getattr(table, "shape", ()) else len(table)


def content_of(table: Any) -> object:
    """Return what a fit can see of a table, as arrays: a data frame keeps caches, and objects that have no content."""
    if not hasattr(table, "columns"):
        is_series = hasattr(table, "dtype") and hasattr(table, "__array__") and not isinstance(table, np.ndarray)
        return np.asarray(table) if is_series else table
    columns = [(name, table[name]) for name in table.columns]
    described = [(repr(name), *_column(column)) for name, column in columns]
    return [type(table).__qualname__, np.asarray(getattr(table, "index", ())), described]


def _column(column: Any) -> tuple[object, ...]:
    kind = getattr(column, "dtype", None)
    categories = getattr(kind, "categories", None)
    listed = () if categories is None or callable(categories) else np.asarray(categories)
    return str(kind), getattr(kind, "ordered", None), listed, np.asarray(column)
