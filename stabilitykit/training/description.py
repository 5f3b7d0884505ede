"""A few words on what the user's code has given, or raised, for a message."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

#: Parts of a tuple or list that are described one by one.
_MOST_PARTS = 8


def described(value: object) -> str:
    """Describe a value of a batch in a few words.

    >>> import torch
    >>> described((torch.ones(2, 3), None)), described({"ids": 1})
    ('a tuple of (Tensor [2, 3], NoneType)', "a dict with 'ids'")
    """
    if isinstance(value, Tensor):
        kind = "" if value.is_floating_point() else f" of {value.dtype}"
        return f"Tensor {list(value.shape)}{kind}"
    name = type(value).__name__
    if isinstance(value, Mapping):
        return f"{_a(name)} with {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, (tuple, list)) and len(value) <= _MOST_PARTS:
        return f"{_a(name)} of ({', '.join(re.sub('^an? ', '', described(part)) for part in value)})"
    return name


def _a(name: str) -> str:
    return f"an {name}" if name[:1] in "AEIOUaeiou" else f"a {name}"


def first_line(error: Exception) -> str:
    """Return the class of an exception and the first line of its message, without a full stop.

    >>> first_line(ValueError("two.\\nlines"))
    'ValueError: two'
    """
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]]).rstrip(".")
