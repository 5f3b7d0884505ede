"""What torch and Python note on functions, set apart from what is the user's."""

from __future__ import annotations

import torch

from stabilitykit.store.function_state import (
    attributes_of,
    closure_of,
    is_profiled_inheritance,
    settings_of,
    without_profile,
)


def plain(x):
    return x


def test_the_notes_of_torchs_compiler_are_no_attributes_of_a_function():
    def noted():
        return 1

    noted.rate = 0.1
    vars(noted).update(_torchdynamo_wrapper_id=id(noted), __dynamo_disable=plain)
    assert attributes_of(noted) == {"rate": 0.1}


def test_a_variable_without_a_value_has_a_place_in_a_closure():
    def outer():
        def inner():
            return later

        yield inner
        later = 1

    assert dict(closure_of(next(outer()))) == {"later": "<empty cell>"}


def test_the_wrapper_that_torch_puts_around_step_is_seen_through_and_no_other():
    profiled = torch.optim.Optimizer.profile_hook_step(plain)
    assert without_profile(profiled) is plain
    assert without_profile(torch.optim.Optimizer.profile_hook_step(profiled)) is plain
    guarded = torch.no_grad()(plain)
    assert without_profile(guarded) is guarded
    assert without_profile(3) == 3


def test_a_step_that_a_class_only_inherits_is_none_of_its_members():
    kind = type("Own", (torch.optim.SGD,), {"step": torch.optim.Optimizer.profile_hook_step(torch.optim.SGD.step)})
    assert is_profiled_inheritance(kind, "step")
    kind.step = torch.optim.Optimizer.profile_hook_step(plain)
    assert not is_profiled_inheritance(kind, "step")
    kind.step = plain
    assert not is_profiled_inheritance(kind, "step")


def test_what_a_context_found_when_it_was_entered_is_no_setting():
    for context in (torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode()):
        before = settings_of(context)
        with context:
            pass
        assert settings_of(context) == before
    assert settings_of(torch.inference_mode(mode=False)) != settings_of(torch.inference_mode())
    assert settings_of(plain) is None
