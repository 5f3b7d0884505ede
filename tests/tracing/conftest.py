"""What the tests of tracing share."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with a package, whose files are older than what is read of them."""
    (tmp_path / "acme_traced").mkdir()
    (tmp_path / "acme_traced" / "__init__.py").write_text("")
    (tmp_path / "acme_traced" / "layers.py").write_text("WIDTH = 4\n")
    (tmp_path / "acme_traced" / "sizes.json").write_text("[4]")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("acme_traced")]:
        del sys.modules[name]
