"""A user's folder with a script, and the commands carried out in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple, TypeAlias

import pytest

from stabilitykit.__main__ import main

TRAIN = """
    import argparse, random, time
    from helper import SPREAD
    parser = argparse.ArgumentParser()
    for flag in ("--seed", "--init", "--data"):
        parser.add_argument(flag, type=int, default=0)
    parser.add_argument("--more", type=float, default=0.0)
    asked = parser.parse_args()
    open("ledger", "a").write(f"{asked.seed} {asked.init} {asked.data}\\n")
    noise = random.Random(f"{asked.seed} {asked.init} {asked.data}").gauss(0, SPREAD)
    print("epoch 1: loss=1.0")
    print(f"val_loss={0.5 + asked.more + noise:.6f}")
"""


class Done(NamedTuple):
    code: int
    out: str
    err: str


CarryOut: TypeAlias = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(dedent(TRAIN))
    (tmp_path / "helper.py").write_text("SPREAD = 0.01\n")
    return tmp_path


@pytest.fixture
def carry_out(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CarryOut:
    """Carry out a command in this process, which has loaded torch; the runs are in children, as ever."""
    monkeypatch.chdir(folder)

    def of_arguments(*arguments: str) -> Done:
        try:
            code = main(arguments)
        except SystemExit as ended:  # argparse's
            code = int(str(ended.code))
        return Done(code, *capsys.readouterr())

    return of_arguments


def trained(folder: Path) -> int:
    """How often the script ran; forgotten then."""
    ledger = folder / "ledger"
    count = len(ledger.read_text().splitlines()) if ledger.exists() else 0
    ledger.unlink(missing_ok=True)
    return count
