"""What is noted about a study beside its value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..verdicts.budgets import Verdict

if TYPE_CHECKING:
    from .layer_similarity import Similarity


@dataclass
class Journal:
    """What a session notes about a study: it lies beside the study's value, and grows while a test asserts on it."""

    remarks: list[str] = field(default_factory=list)  #: what was seen while its runs were gathered, and since
    anew: list[str] = field(default_factory=list)  #: why its runs were trained again, which is no news of the study
    verdicts: list[Verdict] = field(default_factory=list)  #: every judgement that was asserted on the study
    selftests: list[str] = field(default_factory=list)  #: what its gates have proved, in a sentence each
    similarities: list[Similarity] = field(default_factory=list)  #: what `Study.cka` gave

    def remark(self, remark: str) -> None:
        """Note a sentence once."""
        if remark not in self.remarks:
            self.remarks.append(remark)
