"""The base seed of the tests that train: another one draws each training anew, and what they assert must still hold."""

from __future__ import annotations

import os

#: Named in a variable and not in an option, so that processes which a test starts have it too.
BASE_SEED = int(os.environ.get("STABILITYKIT_TEST_SEED", "0"))
