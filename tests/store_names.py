"""Names of the form that the run store writes, and removes: made from words, so that tests can be read."""

import hashlib


def session_id(word: str) -> str:
    """Return the id of a session, 16 hex digits."""
    return hashlib.sha256(word.encode()).hexdigest()[:16]


def key_of(word: str) -> str:
    """Return the key of an experiment, 32 hex digits."""
    return hashlib.sha256(word.encode()).hexdigest()[:32]
