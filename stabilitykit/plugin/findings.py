"""The findings of a session's tests: they cross from its workers as JSON, and are shown and written at its end.

Modules that need torch are imported where they are used: the process that shows findings may have trained nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StabilityError, setting

if TYPE_CHECKING:
    from ..verdicts.calibration import Calibration
    from .budget_file import Written

#: Kinds of findings; each finding is an object that names its test.
KINDS = ("studies", "comparisons", "plans", "calibrations", "baselines")
STUDIES, COMPARISONS, PLANS, CALIBRATIONS, BASELINES = KINDS


class Findings:
    """The findings of all tests, in whichever order and from whichever worker they come.

    >>> findings = Findings()
    >>> findings.add(pack("test_a.py::test_b", 7, {STUDIES: [{"runs": 3}]}))
    >>> findings.of(STUDIES)
    [{'test': 'test_a.py::test_b', 'runs': 3}]
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[tuple[int, str, int], dict[str, Any]]] = {kind: {} for kind in KINDS}
        self._written: Written | None = None

    def add(self, packed: str) -> None:
        """Add the findings of one test, as `pack` wrote them; those of a retry replace the earlier ones."""
        test = json.loads(packed)
        for kind, found in test["found"].items():
            self._found[kind] |= {(test["position"], test["test"], call): one for call, one in enumerate(found)}

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return all findings of a kind, in the order in which their tests were collected."""
        found = self._found[kind]
        return [found[key] for key in sorted(found)]

    def nothing_compared(self) -> str:
        """Say that a baseline was asked for and no study has an entry in it; empty where one has, or none was asked."""
        asked = self.of(BASELINES)
        if not asked or any(one["found"] for one in asked):
            return ""
        tests = sorted({one["test"] for one in asked})
        shown = ", ".join(tests[:3]) + (", ..." if len(tests) > 3 else "")
        return (
            f"Expected to compare with the baseline {asked[0]['baseline']!r} but it has an entry for none of the "
            f"{len(asked)} studies of this session ({shown}), so nothing was compared. Were tests renamed? Keep these "
            f"studies of the earlier commit: {setting('save', asked[0]['baseline'])}."
        )

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Give the title and the lines of each table that the session ends with."""
        if self.of(PLANS):
            from ..render.forecast_table import plan_table

            yield "stability plan", plan_table(self.of(PLANS))
        if self.of(STUDIES):
            from ..render.comparison_words import conclusions
            from ..render.study_table import study_table

            yield "stability", study_table(self.of(STUDIES)) + conclusions(self.of(COMPARISONS))
        if self._written is not None:
            from ..render.calibration_table import calibration_table

            yield "proposed budgets", [*calibration_table(self._calibrations()), *self._written.lines()]

    def write_report(self, path: Path, *, is_plan: bool) -> None:
        """Write the file of ``--stability-json``."""
        from ..study.summary import document

        path.parent.mkdir(parents=True, exist_ok=True)
        content = document(self.of(STUDIES), self.of(COMPARISONS))
        content |= {"plan": self.of(PLANS)} if is_plan else {}
        content |= {"calibrations": self.of(CALIBRATIONS)} if self.of(CALIBRATIONS) else {}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def write_budgets(self, path: Path, *, update: bool) -> bool:
        """Write the calibrated budgets, and return whether all of them could be written."""
        if not self.of(CALIBRATIONS):
            return True
        from .budget_file import Written, write

        try:
            self._written = write(path, self._calibrations(), update=update, date=datetime.date.today())
        except StabilityError as error:  # the file was changed meanwhile, or cannot be written
            self._written = Written(0, 0, {path.name: str(error)})
        return not self._written.refused

    def _calibrations(self) -> list[Calibration]:
        from ..verdicts.calibration import Calibration

        return [Calibration.from_json(values) for values in self.of(CALIBRATIONS)]


def pack(test: str, position: int, found: dict[str, list[dict[str, Any]]]) -> str:
    """Write the findings of one test as text, the form in which they cross from a worker.

    ``test`` is its node id, ``position`` its place in the collection.
    """
    named = {kind: [{"test": test, **one} for one in ones] for kind, ones in found.items()}
    return json.dumps({"test": test, "position": position, "found": named})
