"""The reds of a session: questions that were answered by a failure, which no retry turns to green.

::

    .stabilitykit/sessions/<id>/<asker>.0.red   how the first question of a test, or of a fixture, failed

A question is known by what asks it and by its number there, and not by its key: a retry may come with other data, since
they have no seed, or with another task, since the first try has left something behind. The files are read by all
workers of the session, so that a test whose worker crashed after its failure fails in the next worker as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import errors
from ..errors import StabilityError, TaskError
from ..store.atomic_files import write_json
from ..store.layout import file_of_red
from ..store.reading import read_json, typed
from .askers import Place

#: Failures that answer a question. The others say that it was asked wrongly, or could not be answered: a retry may.
ANSWERS = (
    errors.IsolationError,
    errors.RunsFailedError,
    errors.BudgetExceededError,
    errors.SelfTestError,
)
_ANSWERS = {kind.__name__: kind for kind in ANSWERS}


@dataclass(frozen=True)
class Red:
    """How a question was answered."""

    key: str  #: of the runs that it asked for
    kind: str = ""  #: name of the error's class; empty where its test failed for another reason
    message: str = ""


class Reds:
    """The reds of one session, in the session's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, place: Place, key: str, error: StabilityError | None = None) -> None:
        """Note that a question was answered by ``error``, or, without one, that its test failed for another reason.

        ``key`` is the key of the runs that it asked for. The first answer stays.
        """
        earlier = typed(read_json(self._file(place)), Red)
        if earlier is None or (error is not None and not earlier.kind):
            red = Red(key) if error is None else Red(key, type(error).__name__, str(error))
            write_json(self._file(place), asdict(red), durable=False)

    def check(self, place: Place, key: str) -> None:
        """Raise the error that answered a question; `TaskError` where its test failed and asks for other runs now."""
        earlier = typed(read_json(self._file(place)), Red)
        if earlier is None:
            return
        if earlier.kind in _ANSWERS:
            raise _ANSWERS[earlier.kind](earlier.message)
        if earlier.key != key:
            raise TaskError(
                f"Expected a retry of {place.asker} to ask for the same runs but the task of its question "
                f"{place.call + 1} has another content than in the try that failed: the key of its runs was "
                f"{earlier.key[:12]} and is {key[:12]}. A retry with other data or another model is a new throw of "
                f"the dice, and no answer to the question that failed. Give data and models that are made in the test "
                f"a seed, or leave out the retries."
            )

    def _file(self, place: Place) -> Path:
        return file_of_red(self.folder, hashlib.sha256(place.asker.encode()).hexdigest()[:16], place.call)
