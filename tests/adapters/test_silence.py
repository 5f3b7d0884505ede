"""Silence around the trainings of a library, and only there."""

from __future__ import annotations

import logging
import warnings

import pytest

from stabilitykit.adapters.silence import silenced


class Hint(UserWarning):
    """A category of a library's own."""


def test_a_library_is_silent_in_the_block_alone(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("some_library.part")
    logging.getLogger("some_library").setLevel(logging.INFO)
    with silenced("some_library", categories=(Hint,)):
        logger.info("in the block")
        logger.error("an error")
        warnings.warn("a hint", Hint, stacklevel=1)
        warnings.warn_explicit("of the library", UserWarning, "file.py", 1, module="some_library.part")
        with pytest.warns(UserWarning, match="the user's"):
            warnings.warn("the user's", UserWarning, stacklevel=1)
        with pytest.raises(UserWarning):
            warnings.warn_explicit("of another", UserWarning, "file.py", 1, module="some_library_of_others")
    logger.info("after it")
    assert caplog.messages == ["an error", "after it"]
    with pytest.raises(Hint):
        warnings.warn("a hint", Hint, stacklevel=1)
