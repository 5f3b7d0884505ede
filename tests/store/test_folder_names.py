"""Names that a training makes are known by their shape: other trainings make others of it."""

from __future__ import annotations

import os
import uuid

import pytest

from stabilitykit.store.folder_names import NUMBER, names_digest, names_in, shape_of


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cache.npy", "cache.npy"),
        ("latest", "latest"),
        ("version_3", "version_#"),
        ("ckpt12.pt", "ckpt#.pt"),
        ("2026-11-30_12-00-01", "#-#-#_#-#-#"),
        ("Nov30_12-00-01_host", "Nov#_#-#-#_host"),
        ("1764503758", "#"),
        ("ab12", "#"),
        ("facade", "facade"),
        ("größe_2", "größe_#"),
        ("", ""),
    ],
)
def test_a_number_stands_for_any(name, shape):
    assert shape_of(name) == shape


def test_ids_have_one_shape():
    ids = [uuid.UUID(bytes=os.urandom(16), version=4) for _ in range(300)]
    assert {shape_of(str(one)) for one in ids} == {shape_of(one.hex) for one in ids} == {NUMBER}


def test_names_of_other_shapes_count_and_those_of_tools_do_not(tmp_path):
    for name in ("exp1", "exp2", "data", "__pycache__", ".stabilitykit"):
        (tmp_path / name).mkdir()
    assert names_in(tmp_path) == ["data", "exp1", "exp2"]
    assert (
        names_digest(["data", "exp1"], ["exp#"]) == names_digest(["data", "exp2"], ["exp#"]) == names_digest(["data"])
    )
    assert names_digest(["data"], ["exp#"]) != names_digest(["data", "more"], ["exp#"])
    assert names_in(tmp_path / "none") is None
