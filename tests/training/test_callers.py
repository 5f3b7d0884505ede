"""Whose code asked, by the file that it comes from."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit.training.callers import Caller, is_foreign, kind_of, responsible


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (os.__file__, Caller.PYTHON),
        ("<frozen os>", Caller.PYTHON),
        ("<frozen importlib._bootstrap_external>", Caller.IMPORTER),
        (stabilitykit.__file__, Caller.TOOL),
        (pytest.__file__, Caller.TOOL),
        (torch.__file__, Caller.LIBRARY),
        (np.__file__, Caller.LIBRARY),
        (__file__, Caller.USER),
        ("<string>", Caller.USER),
        ("<ipython-input-3>", Caller.USER),
        ("/venv/lib/python3.11/site-packages/decouple.py", Caller.INSTALLED),
        ("/venv/lib/python3.11/site-packages/numpy/lib/io.py", Caller.LIBRARY),
    ],
)
def test_whose_code_a_file_is(file, kind):
    assert kind_of(file) is kind


def test_the_standard_library_reads_for_its_caller():
    assert responsible(sys._getframe()) is Caller.USER
    assert responsible(None) is Caller.USER


def test_installed_files_are_foreign():
    assert is_foreign(os.__file__)
    assert is_foreign(torch.__file__)
    assert not is_foreign(__file__)
