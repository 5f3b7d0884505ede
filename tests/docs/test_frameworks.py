"""The pages on frameworks: their examples, and a table whose every row a test makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Each page, and what its examples need.
PAGES = {"lightning": "lightning", "transformers": "accelerate", "skorch": "skorch"}

#: Each framework of the table, and its tests, which compare the rows with what is drawn.
TESTED = {"Lightning": "lightning", "transformers": "transformers", "skorch": "skorch"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_give_what_is_shown(page: str, tmp_path: Path) -> None:
    pytest.importorskip(PAGES[page], reason="its examples need the extra of this page")
    file = str(ROOT / "docs" / f"{page}.md")
    # In a process of its own, whose study session ends before the folder of its store does.
    text = f"import doctest; print(doctest.testfile({file!r}, False, optionflags=doctest.ELLIPSIS, encoding='utf-8'))"
    command = [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"TestResults\(failed=0, attempted=(\d+)\)\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= 7


def test_the_table_has_only_rows_that_tests_make() -> None:
    text = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| (\d) \|", text, re.MULTILINE)
    assert rows == [(name, workers) for name in TESTED for workers in ("0", "2")]
    for name, module in TESTED.items():
        tests = (ROOT / "tests" / "adapters" / f"test_{module}.py").read_text(encoding="utf-8")
        assert f'row("{name}", workers,' in tests
