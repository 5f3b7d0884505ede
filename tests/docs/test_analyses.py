"""The examples of docs/analyses.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "analyses.md"


@pytest.mark.slow
def test_the_examples_are_one_script_that_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    script = tmp_path / "analyses.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for expected in (
        "cross_entropy of hidden [ulp], 5 runs, peak SD after epoch ",
        "holds about 63 % of further runs",
        "condition number of training for cross_entropy: at least ",
        "SD of cross_entropy of hidden by source, 6 seeds under 3 constants",
        " on the constant of shuffle",  # the SD depends, or is not shown to: either may be said
    ):
        assert expected in done.stdout
