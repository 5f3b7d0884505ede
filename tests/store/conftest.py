"""What the tests of the store share."""

from __future__ import annotations

import pytest

from stabilitykit.store.run_store import RunStore
from tests.store_names import key_of, session_id


@pytest.fixture
def open_store(tmp_path):
    """The experiment "key" as a session by name sees it."""

    def open_store(session="one", cache="auto", key="key", worker="main", **options):
        return RunStore(tmp_path / "store", session_id(session), cache, worker).experiment(
            key_of(key), {"task": "a"}, **options
        )

    return open_store
