"""The pages on frameworks: their examples, and a table whose every row a test makes."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Each page, and what its examples need.
PAGES = {"lightning": "lightning"}

#: Each framework of the table, and its tests, which compare the rows with what is drawn.
TESTED = {"Lightning": "lightning"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_examples_give_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(PAGES[page], reason="its examples need the extra of this page")
    monkeypatch.chdir(tmp_path)
    file = str(ROOT / "docs" / f"{page}.md")
    failed, tried = doctest.testfile(file, module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert tried >= 5
    assert failed == 0


def test_the_table_has_only_rows_that_tests_make() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\S*(?: \S+)*) \| (\d) \|", text, re.MULTILINE)
    assert rows == [(name, workers) for name in TESTED for workers in ("0", "2")]
    for name, module in TESTED.items():
        tests = (ROOT / "tests" / "adapters" / f"test_{module}.py").read_text(encoding="utf-8")
        assert f'row("{name}", workers,' in tests
