"""Which line of the user's led to a call."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from stabilitykit.isolation.callers import caller


def test_the_users_line_is_found_through_torch() -> None:
    seen: list[tuple[str, str]] = []

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    net = Net()
    net.register_forward_hook(lambda *_: seen.append(caller("called")))
    net(torch.zeros(1))
    line = inspect.getsourcelines(test_the_users_line_is_found_through_torch)[1] + 8
    assert seen[0][0] == "called"
    assert seen[0][1].startswith("test_callers.py:")
    assert abs(int(seen[0][1].split(":")[1]) - line) <= 1


def test_a_function_of_a_library_has_its_name() -> None:
    library: dict[str, Any] = {"__name__": "somelib.seeding"}
    source = "def set_seed(note): return note('random.seed')"
    exec(compile(source, "/env/site-packages/somelib/seeding.py", "exec"), library)
    function, line = library["set_seed"](caller)
    assert function == "somelib.set_seed"
    assert line.startswith("test_callers.py:")
