"""The imports of the server of child processes: done before it forks the first one, so that no child repeats them."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import torch

from . import child_processes, session  # noqa: F401  # imported so that they are loaded

# Both import much on first use: reading tensors, and making an optimizer, torch's compiler.
with tempfile.TemporaryDirectory() as _folder:
    torch.save([torch.zeros(1)], Path(_folder) / "tensors.pt")
    torch.load(Path(_folder) / "tensors.pt", mmap=True, weights_only=True)
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)

# A child's first collection would otherwise write to, and so copy, every page of the heap that it shares.
gc.collect()
gc.freeze()
