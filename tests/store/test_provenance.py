"""What is the user's own code, what is installed, and what is neither."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit.store.distributions import Distribution
from stabilitykit.store.provenance import Kind, Provenance


def test_python_stabilitykit_and_installed_packages_are_told_apart(tmp_path):
    provenance = Provenance(tmp_path)
    assert provenance.of(json.__file__) is Kind.BASE
    assert provenance.of(pytest.__file__) is Kind.BASE
    assert provenance.of(stabilitykit.__file__) is Kind.BASE
    for module in (np, torch):
        origin = provenance.of(module.__file__)
        assert isinstance(origin, Distribution)
        assert origin.version == module.__version__.partition("+")[0] or origin.version == module.__version__


def test_stabilitykit_is_own_code_in_its_own_tree():
    file = Path(stabilitykit.__file__).resolve()
    assert Provenance(file.parents[1]).of(file) is Kind.OWN


def test_a_file_anywhere_else_is_the_users_own(tmp_path):
    (tmp_path / "lib").mkdir()
    file = tmp_path / "lib/model.py"
    file.touch()
    assert Provenance(tmp_path / "project").own_path(file) == file.resolve()
    assert Provenance(tmp_path / "project").own_path(tmp_path / "none.py") is not None
    assert Provenance(None).of(file) is Kind.BASE


def test_packages_whose_files_are_links_are_installed(tmp_path, monkeypatch):
    cache, site = tmp_path / "cache", tmp_path / "env/site-packages"
    for folder in (cache, site / "lib-1.0.dist-info"):
        folder.mkdir(parents=True)
    (cache / "lib.py").touch()
    (site / "lib.py").symlink_to(cache / "lib.py")
    (site / "lib-1.0.dist-info/RECORD").write_text("lib.py,sha256=x,0\n")
    assert Provenance(tmp_path / "project").of(site / "lib.py").name == "lib"


def test_a_name_is_as_seen_from_the_root_the_repository_or_the_path(tmp_path, monkeypatch):
    (tmp_path / "repo/.git").mkdir(parents=True)
    (tmp_path / "repo/tests").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "lib")])
    provenance = Provenance(tmp_path / "repo/tests")
    assert provenance.label(tmp_path / "repo/tests/test_a.py") == "test_a.py"
    assert provenance.label(tmp_path / "repo/src/pkg/a.py") == "src/pkg/a.py"
    assert provenance.label(tmp_path / "lib/pkg/a.py") == "pkg/a.py"
    assert provenance.label(tmp_path / "elsewhere/a.py") == "a.py"
    assert provenance.label(tmp_path / "repo/.venv/site-packages/a.py") == "a.py"
