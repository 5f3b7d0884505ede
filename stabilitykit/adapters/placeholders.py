"""Placeholders in a command's arguments and variables, which each run fills in: ``{seed}``, ``{run_dir}``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from ..errors import TaskError
from ..protocol import Source

#: One seed that moves everything.
SEED = "seed"
#: A new folder of the run's own.
RUN_DIR = "run_dir"
#: The sources that may have a placeholder; how kernels sum has no seed that a script could take.
OF_SOURCES: Mapping[str, Source] = {
    source.value: source for source in Source if source is not Source.LOW_LEVEL
}  # fmt: skip

_NAMES = (SEED, *OF_SOURCES, RUN_DIR)
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def names_in(text: str) -> frozenset[str]:
    """Return the placeholders of a text; raise `TaskError` for an unknown one, and for a brace alone.

    >>> sorted(names_in("--seed={seed} --out={run_dir}/out --set={{x}}"))
    ['run_dir', 'seed']
    """
    found = [match for match in _PARTS.finditer(text) if match[0] not in ("{{", "}}")]
    for match in found:
        if match[1] not in _NAMES:
            close = difflib.get_close_matches(match[1] or "", _NAMES, n=1)
            guess = f" Did you mean {{{close[0]}}}?" if close else ""
            raise TaskError(
                f"Expected placeholders out of {', '.join(f'{{{name}}}' for name in _NAMES)} but got {match[0]!r} in "
                f"{text!r}.{guess} A brace that is meant as it is, is written twice: {{{{ or }}}}."
            )
    return frozenset(match[1] for match in found)


def filled(text: str, values: Mapping[str, object]) -> str:
    """Return a text with its placeholders filled in.

    >>> filled("--seed={seed} {{x}}", {"seed": 7})
    '--seed=7 {x}'
    """
    return _PARTS.sub(lambda match: match[0][0] if match[1] is None else str(values[match[1]]), text)
