"""The first ingredient in which two experiments differ, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .layout import PARTS
from .traced_inputs import ABSENT, VARIABLE, Inputs, in_words

#: Said of a value that differs where no code does.
UNEXPLAINED = (
    "although no file does: is it made from a generator without a seed, left by an earlier test, or read "
    "from elsewhere?"
)

#: How the path of a function's code ends.
_CODE = ".__code__"


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say in which ingredient ``new`` differs from ``old``: first its files, then what is around it, then its values.

    Both are what experiments keep of their keys. Empty if no difference can be named.

    >>> first_difference({"environment": {"threads": 1}}, {"environment": {"threads": 2}})
    'environment: threads was 1 and is 2'
    >>> first_difference({"parts": {"file a.py": "d1"}}, {"parts": {"file a.py": "b2"}})
    'file a.py was edited'
    """
    return next(_differences(old, new), "")


def first_other_input(old: Inputs, new: Inputs) -> str:
    """Say in which input the training that read ``new`` differs from the one that read ``old``; empty if in none.

    What both of them read comes first: another input may have been read because of it.

    >>> first_other_input(Inputs(files={"lr.json": "d1"}), Inputs(files={"lr.json": "b2"}))
    'file lr.json, which it reads, was edited'
    """
    before, now = _by_name(old), _by_name(new)
    unequal = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    unequal.sort(key=lambda name: name not in before or name not in now)
    return next((_input(name, before.get(name), now.get(name)) for name in unequal), "")


def _by_name(inputs: Inputs) -> dict[str, tuple[str, str]]:
    """Return digest and place of each input; a file asked for in the working folder has the name it had there."""
    found = {f"{VARIABLE}{name}": (digest, "") for name, digest in inputs.variables.items()}
    found |= {f"module {name}": (digest, "") for name, digest in inputs.modules.items()}
    for place, digest in inputs.files.items():
        asked_for = inputs.relative.get(place) or place
        is_one_more = place == f"./{asked_for}"  # the way in which a file was asked for beside another way
        name = in_words(asked_for) + (" as seen from the working folder" if is_one_more else "")
        found[name] = digest, "" if asked_for == place else place
    return found


def _input(name: str, old: tuple[str, str] | None, new: tuple[str, str] | None) -> str:
    if old is None or new is None:
        return f"{name} is {'read now, and was not before' if old is None else 'no longer read'}"
    (before, was), (after, is_) = old, new
    if was != is_:
        return f"{name}, which it reads in the working folder, was {was or name} and is {is_ or name}"
    kind = name.partition(" ")[0]
    there, gone = ("was set", "was unset") if kind == "variable" else ("is new", "is gone")
    ways = {"variable": "has another value", "folder": "has other names in it", "link": "leads elsewhere"}
    changed = ways.get(kind, "was edited")
    return f"{name}, which it reads, {there if before == ABSENT else gone if after == ABSENT else changed}"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    parts = [*_unequal(old.get(PARTS), new.get(PARTS))]
    packages, files = ([part for part in parts if part[0].startswith(kind)] for kind in ("package ", "file "))
    yield from (_package(*part) for part in packages)
    yield from (_file(*part) for part in files)
    for name in ("protocol", "environment"):
        yield from (f"{name}: {_setting(*part)}" for part in _unequal(old.get(name), new.get(name)))
    values = [part for part in parts if part not in packages and part not in files]
    if not packages and not files:  # of a notebook's cell, or of what `exec` has run
        yield from (
            _code(name) for name, before, now in values if name.endswith(_CODE) and _Absent not in (before, now)
        )
    yield from (_value(*part, code_differs=bool(packages or files)) for part in values)


def _unequal(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    old, new = (side if isinstance(side, Mapping) else {} for side in (old, new))
    for name in [*new, *(name for name in old if name not in new)]:
        if old.get(name, _Absent) != new.get(name, _Absent):
            yield str(name), old.get(name, _Absent), new.get(name, _Absent)


def _setting(name: str, old: Any, new: Any) -> str:
    inner = [*_unequal(old, new)]  # of the flags of torch, the constants of a protocol
    if inner and not {type(old), type(new)} - {dict, type(_Absent)}:
        return f"{name}: {_setting(*inner[0])}"
    if name == "kernels" and _Absent not in (old, new):
        return "the kernels give other bits (another CPU or library, or a variable such as MKL_CBWR)"
    return f"{name} was {_short(old)} and is {_short(new)}"


class _Absent:
    """Stands for an ingredient that one side does not have."""


def _package(name: str, old: Any, new: Any) -> str:
    if _Absent in (old, new):
        return f"{name} is {'new' if old is _Absent else 'no longer'} among what the task reaches"
    before, after = (str(side).partition(" ")[0] for side in (old, new))
    return f"{name} was {before} and is {after}" if before != after else f"{name} {after} was installed anew"


def _file(name: str, old: Any, new: Any) -> str:
    if _Absent in (old, new):
        return f"{name} is {'new' if old is _Absent else 'no longer'} among what the task reaches"
    return f"{name} was edited"


def _value(name: str, old: Any, new: Any, *, code_differs: bool) -> str:
    name = _readable(name)
    is_short = not (_Absent in (old, new) or _is_hash(old) or _is_hash(new) or name.endswith("]"))
    whole = re.sub(r"(\[\d+\])+$", "", name)  # which item of a container it is says little
    if _Absent in (old, new) and not code_differs:
        counts = "counts now" if old is _Absent else "no longer counts"
        return f"{whole} {counts}, although no file differs: has another test imported its module, or no longer?"
    words = f"{name} was {old} and is {new}" if is_short else f"{whole} differs"
    return words if code_differs else f"{words}, {UNEXPLAINED}"


def _code(name: str) -> str:
    """Say that a function was edited, from the path of its code.

    >>> _code("LoopTask.function:train.Net:Net.forward:Net.forward.__code__")
    'the code of Net.forward was edited'
    """
    return f"the code of {_readable(name.removesuffix(_CODE)).rpartition(':')[2]} was edited"


def _readable(name: str) -> str:
    """Return the path of a value without what only says where a function was defined.

    >>> _readable("LoopTask.function:test_a.<locals>.train.tmp_path")
    'train.tmp_path'
    """
    return re.sub(r"[\w.]*<locals>\.", "", name).removeprefix("LoopTask.function:")


def _is_hash(text: Any) -> bool:
    return re.fullmatch(r"[0-9a-f]{12}", str(text)) is not None


def _short(value: Any) -> str:
    text = "not there" if value is _Absent else str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
