"""What the cases share with the tests of the options: a project of a user, and the processes that run its tests."""

from __future__ import annotations

from tests.options.conftest import project, python, way

__all__ = ["project", "python", "way"]
