"""The first difference between two experiments, named."""

from __future__ import annotations

import pytest

from stabilitykit.store.differences import UNEXPLAINED, first_difference, first_other_input
from stabilitykit.store.traced_inputs import ABSENT, Inputs

A, B = "0123456789ab", "ba9876543210"


def about(parts=None, **more):
    return {"protocol": {"seed": 0}, "environment": {"torch": "2.1", "threads": 1}, "parts": parts or {}} | more


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (about(), about(), ""),
        (about(), about(protocol={"seed": 7}), "protocol: seed was 0 and is 7"),
        (about(), about(environment={"torch": "2.2", "threads": 1}), "environment: torch was 2.1 and is 2.2"),
        (
            about(environment={"threads": 1}),
            about(environment={"threads": 1, "kernels": "ab"}),
            "environment: kernels was not there and is ab",
        ),
        (
            about(environment={"ambient": {}}),
            about(environment={"ambient": {"flush_denormal": True}}),
            "environment: ambient: flush_denormal was not there and is True",
        ),
        (
            about(environment={"kernels": A}),
            about(environment={"kernels": B}),
            "environment: the kernels give other bits (another CPU or library, or a variable such as MKL_CBWR)",
        ),
        (about({"package acme": f"1.0 {A}"}), about({"package acme": f"2.0 {A}"}), "package acme was 1.0 and is 2.0"),
        (
            about({"package acme": f"1.0 {A}"}),
            about({"package acme": f"1.0 {B}"}),
            "package acme 1.0 was installed anew",
        ),
        (about(), about({"package acme": f"1.0 {A}"}), "package acme is new among what the task reaches"),
        (about({"file a.py": A}), about({"file a.py": B}), "file a.py was edited"),
        (about({"file a.py": A}), about(), "file a.py is no longer among what the task reaches"),
        (about({"Recipe.epochs": "3"}), about({"Recipe.epochs": "4"}), f"Recipe.epochs was 3 and is 4, {UNEXPLAINED}"),
        (about({"file a.py": A, "x": A}), about({"file a.py": B, "x": B}), "file a.py was edited"),
        (about({"x": A, "package a": "1 x"}), about({"x": B, "package a": "2 x"}), "package a was 1 and is 2"),
    ],
)
def test_the_first_difference_is_named(old, new, words):
    assert first_difference(old, new) == words


def test_a_value_that_differs_where_no_file_does_is_made_without_a_seed_or_read():
    words = first_difference(about({"Recipe.train[0]": A}), about({"Recipe.train[0]": B}))
    assert words.startswith("Recipe.train differs, although no file does: is it made from a generator without a seed")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("LoopTask.function:train", "train"),
        ("LoopTask.function:test_a.<locals>.train", "train"),
        ("LoopTask.function:train.step:step.__wrapped__:step", "step"),
        ("LoopTask.function:train.Net:Net.forward:Net.forward", "Net.forward"),
    ],
)
def test_an_edited_function_that_lies_in_no_file_is_named(name, function):
    old, new = ({f"{name}.rate": end, f"{name}.__code__": end, name: end} for end in (A, B))
    assert first_difference(about(old), about(new)) == f"the code of {function} was edited"
    assert UNEXPLAINED in first_difference(about({f"{name}.rate": A}), about({f"{name}.rate": B}))
    files = ({"file a.py": end} for end in (A, B))
    old, new = (parts | file for parts, file in zip((old, new), files, strict=True))
    assert first_difference(about(old), about(new)) == "file a.py was edited"


def test_the_deepest_value_comes_first_and_places_of_functions_are_left_out():
    name = "LoopTask.function:test_a.<locals>.train"
    old, new = ({f"{name}.tmp_path": end, name: end} for end in (A, B))
    assert first_difference(about(old), about(new)).startswith("train.tmp_path differs")


@pytest.mark.parametrize("damaged", [{}, {"parts": 3, "protocol": [], "environment": None}])
def test_an_experiment_of_an_earlier_version_or_a_damaged_one_is_compared_as_far_as_it_goes(damaged):
    assert isinstance(first_difference(damaged, about({"x": A})), str)
    assert isinstance(first_difference(about({"x": A}), damaged), str)


def moved(place: str, digest: str) -> Inputs:
    return Inputs(files={place: digest}, relative={place: "lr.json"})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (Inputs(), Inputs(), ""),
        (Inputs(files={"a": "1"}), Inputs(files={"a": "1"}), ""),
        (Inputs(files={"a": "1"}), Inputs(files={"a": "2"}), "file a, which it reads, was edited"),
        (Inputs(files={"a": ABSENT}), Inputs(files={"a": "2"}), "file a, which it reads, is new"),
        (Inputs(files={"a": "1"}), Inputs(files={"a": ABSENT}), "file a, which it reads, is gone"),
        (Inputs(files={"a/": "1"}), Inputs(files={"a/": "2"}), "folder a/, which it reads, has other names in it"),
        (Inputs(variables={"A": "1"}), Inputs(variables={"A": "2"}), "variable A, which it reads, has another value"),
        (Inputs(variables={"A": ABSENT}), Inputs(variables={"A": "2"}), "variable A, which it reads, was set"),
        (Inputs(variables={"A": "1"}), Inputs(variables={"A": ABSENT}), "variable A, which it reads, was unset"),
        (Inputs(modules={"a": "1"}), Inputs(modules={"a": "2"}), "module a, which it reads, was edited"),
        (Inputs(), Inputs(modules={"a": "2"}), "module a is read now, and was not before"),
        (Inputs(files={"a": "1"}), Inputs(), "file a is no longer read"),
        (
            Inputs(files={"c": "1"}, variables={"A": "1"}),
            Inputs(files={"b": "1"}, variables={"A": "2"}),
            "variable A, which it reads, has another value",
        ),
        (moved("lr.json", "1"), moved("lr.json", "2"), "file lr.json, which it reads, was edited"),
        (
            moved("a/lr.json", "1"),
            moved("b/lr.json", "2"),
            "file lr.json, which it reads in the working folder, was a/lr.json and is b/lr.json",
        ),
        (
            Inputs(files={"in/a": "1", "./a": "1"}, relative={"./a": "a"}),
            Inputs(files={"in/a": "1", "./in/a": "1"}, relative={"./in/a": "in/a"}),
            "file in/a as seen from the working folder is read now, and was not before",
        ),
        (Inputs(files={"now ->": "1"}), Inputs(files={"now ->": "2"}), "link now, which it reads, leads elsewhere"),
    ],
)
def test_the_first_other_input_is_named(old, new, words):
    assert first_other_input(old, new) == words


@pytest.mark.parametrize(
    ("old", "new", "counts"), [({}, {"a.RATE": "1"}, "counts now"), ({"a.RATE": "1"}, {}, "no longer counts")]
)
def test_a_value_that_only_one_side_has_is_of_a_module_that_only_one_has_imported(old, new, counts):
    words = first_difference({"parts": old}, {"parts": new})
    assert words == f"a.RATE {counts}, although no file differs: has another test imported its module, or no longer?"
