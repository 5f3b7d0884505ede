"""Tables of data: how many examples they have, and what of them counts for a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from stabilitykit.adapters.tables import content_of, rows_of
from stabilitykit.store.fingerprint import fingerprint

pd = pytest.importorskip("pandas", reason="needs the extra `frameworks`")


def frame() -> Any:
    kinds = pd.Categorical(["u", "v", "u"], categories=["v", "u"])
    return pd.DataFrame({"number": [1.0, 2.0, 3.0], "text": ["x", "y", "z"], "kind": kinds})


def masked() -> np.ma.MaskedArray[Any, Any]:
    return np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])


def sparse() -> scipy.sparse.csr_matrix:
    return scipy.sparse.csr_matrix(np.eye(3))


MAKERS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.arange(6.0).reshape(3, 2),
    "masked": masked,
    "list": lambda: ["a text", "another", "a third"],
    "sparse": sparse,
    "frame": frame,
    "series": lambda: pd.Series(["a", "b", "c"]),
    "categories": lambda: frame()["kind"],
    "tensor": lambda: torch.arange(3),
}


def digest(table: Any) -> str:
    return fingerprint(content_of(table), Path.cwd())


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_equal_tables_have_equal_content(make: Callable[[], Any]) -> None:
    assert rows_of(make()) == 3
    assert digest(make()) == digest(make())


def test_what_a_frame_keeps_of_its_use_is_no_content() -> None:
    used = frame()
    assert used["number"].mean() == 2
    assert used.iloc[0]["text"] == "x"
    assert digest(used) == digest(frame())


@pytest.mark.parametrize(
    "changed",
    [
        frame().assign(number=[1.0, 2.0, 4.0]),
        frame().assign(text=["x", "y", "a"]),
        frame().assign(kind=["u", "v", "u"]),
        frame().assign(kind=pd.Categorical(["u", "v", "u"], categories=["u", "v"])),
        frame().assign(kind=pd.Categorical(["u", "v", "u"], categories=["v", "u"], ordered=True)),
        frame().assign(number=frame()["number"].astype("float32")),
        frame().rename(columns={"text": "word"}),
        frame()[["text", "number", "kind"]],
        frame().set_index(pd.Index([1, 2, 3])),
    ],
    ids=["number", "text", "no category", "categories", "ordered", "type", "name", "order", "index"],
)
def test_what_a_fit_can_see_of_a_frame_is_content(changed: pd.DataFrame) -> None:
    assert digest(changed) != digest(frame())


def test_a_mask_and_a_number_of_a_sparse_matrix_are_content() -> None:
    assert digest(np.ma.masked_array([1.0, 2.0, 3.0])) != digest(masked())
    other = sparse()
    other.data[0] = 2
    assert digest(other) != digest(sparse())
