"""Changes torch as soon as a process imports it, where no variable of its own can: for `tests/platforms.py`.

Python imports a module of this name at the start of each process, so that children and pytest's workers have it too.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.abc import Loader, MetaPathFinder

#: What is changed: "mkldnn=off", "threads=2".
_CHANGES = dict(word.split("=") for word in os.environ.get("STABILITYKIT_TEST_TORCH", "").split())


def change(torch):
    if _CHANGES.get("mkldnn") == "off":
        torch.backends.mkldnn.enabled = False
    if "threads" in _CHANGES:
        compute_with_more_threads(torch, int(_CHANGES["threads"]))


def compute_with_more_threads(torch, fewest):
    """Let sums be split as so many threads split them, and a caller be told the number that was set.

    A run sets one thread, writes down that it had one, and knows nothing of the machine. The functions are sent to
    its children, so that they find torch's own by its name.
    """
    told = torch.get_num_threads()

    def set_at_least(count):
        nonlocal told
        torch._C.set_num_threads(max(count, fewest))
        told = count

    torch.set_num_threads, torch.get_num_threads = set_at_least, lambda: told
    torch._C.set_num_threads(fewest)


class _Changing(Loader):
    """Torch's own loader, with our changes at its end."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        change(module)


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.loader = _Changing(spec.loader)
        return spec


if _CHANGES and "torch" not in sys.modules:
    sys.meta_path.insert(0, _Finder())
