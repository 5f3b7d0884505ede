"""Options, ini keys and markers as one frozen value; everything that is no value is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stabilitykit.errors import ConfigError
from stabilitykit.plugin.options import OPTIONS, MarkerConfig, StabilityConfig


def test_every_option_is_a_field_with_its_default():
    assert [option.name for option in OPTIONS] == [field.name for field in dataclasses.fields(StabilityConfig)]
    assert StabilityConfig.from_values({}) == StabilityConfig()
    assert StabilityConfig.from_values(dict.fromkeys((o.name for o in OPTIONS), None)) == StabilityConfig()


def test_an_option_has_one_name_in_three_spellings():
    assert [(option.flag, option.key) for option in OPTIONS[:2]] == [
        ("--stability-runs", "stability_runs"),
        ("--stability-seed", "stability_seed"),
    ]


def test_text_is_parsed_and_numbers_are_kept():
    text = {
        "runs": "30",
        "seed": "7",
        "device": "cpu",
        "threads": "2",
        "cache": "off",
        "undecided": "skip",
        "json": "x",
    }
    numbers = {**text, "runs": 30, "seed": 7, "threads": 2}
    config = StabilityConfig(30, 7, "cpu", 2, "off", "skip", json="x")
    assert StabilityConfig.from_values(text) == StabilityConfig.from_values(numbers) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runs": "1"}, "Expected --stability-runs >= 2 but got 1. A spread is between runs, so it needs two;"),
        ({"runs": "ten"}, "Expected stability_runs to be a whole number but got 'ten'."),
        ({"runs": "2.5"}, "Expected stability_runs to be a whole number but got '2.5'."),
        ({"seed": "-1"}, "Expected --stability-seed >= 0 but got -1."),
        ({"threads": "0"}, "Expected --stability-threads >= 1 but got 0."),
        ({"device": "tpu"}, "Expected --stability-device to be auto, cpu, cuda or cuda:N but got 'tpu'."),
        ({"device": "cuda:"}, "Expected --stability-device to be auto, cpu, cuda or cuda:N but got 'cuda:'."),
        ({"cache": "on"}, "Expected --stability-cache to be one of auto, refresh, off but got 'on'."),
        ({"undecided": "warn"}, "Expected --stability-undecided to be one of fail, pass, skip but got 'warn'."),
        ({"isolation": "fork"}, "Expected --stability-isolation to be one of none, process, spawn but got 'fork'."),
        ({"workers": "0"}, "Expected --stability-workers >= 1 but got 0."),
        (
            {"workers": "2", "isolation": "none"},
            "Expected --stability-isolation process with --stability-workers 2 but got none: one process trains one",
        ),
        ({"workers_per_device": "0"}, "Expected --stability-workers-per-device >= 1 but got 0."),
        ({"run_timeout": "soon"}, "Expected stability_run_timeout to be a number but got 'soon'."),
        ({"run_timeout": "0"}, "Expected --stability-run-timeout to be above 0 but got 0."),
        ({"budget_minutes": "nan"}, "Expected --stability-budget-minutes to be above 0 but got nan."),
        ({"plan": "maybe"}, "Expected stability_plan to be true or false but got 'maybe'."),
        ({"plan": "yes", "selftest": True}, "Expected --stability-plan alone: it trains nothing, so"),
        ({"update": "true"}, "Expected --stability-update beside --stability-calibrate or --stability-save."),
        (
            {"save": "../x"},
            "Expected --stability-save to be a name of letters, digits, '_', '-' and '.' but got '../x'.",
        ),
        ({"compare": ""}, "Expected --stability-compare to be a name of letters, digits, '_', '-' and '.' but got ''."),
        ({"json": "."}, "Expected --stability-json to name a file but '.' is a folder."),
    ],
)
def test_a_value_that_means_nothing_is_refused(values, message):
    with pytest.raises(ConfigError) as refusal:
        StabilityConfig.from_values(values)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(("text", "truth"), [("true", True), ("On", True), (True, True), ("no", False), ("0", False)])
def test_a_flag_is_true_or_false(text, truth):
    assert StabilityConfig.from_values({"plan": text}).plan is truth


def test_several_workers_of_one_process_are_children():
    assert StabilityConfig.from_values({"workers": "2"}).isolation == "process"
    assert StabilityConfig.from_values({"workers": "2", "isolation": "spawn"}).isolation == "spawn"
    assert StabilityConfig.from_values({"workers": "1"}).isolation == "none"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_every_device_that_may_be_there_is_taken(device):
    assert StabilityConfig(device=device).device == device


def test_a_home_is_found_where_the_shell_did_not_see_it():
    """As in ``--stability-store=~/runs``, which is one word."""
    config = StabilityConfig.from_values({"store": "~/runs", "json": "~/report.json"})
    assert (config.store, config.json) == (str(Path.home() / "runs"), str(Path.home() / "report.json"))


def test_a_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StabilityConfig().runs = 3


class TestMarker:
    def of(self, *args, **kwargs):
        return MarkerConfig.from_marker(args, kwargs, "test_a.py::test_b")

    def test_it_may_name_runs_and_what_varies(self):
        assert self.of() == MarkerConfig(None, None)
        assert self.of(runs=30, vary="init") == MarkerConfig(30, "init")
        assert self.of(vary=["init", "shuffle"]).vary == ["init", "shuffle"]

    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            (
                (30,),
                {},
                (
                    "Expected the stability marker of test_a.py::test_b to name its arguments but got (30,); write "
                    "@pytest.mark.stability(runs=30, vary='init')."
                ),
            ),
            ((), {"run": 3}, "test_a.py::test_b to have runs or vary but got 'run'. Did you mean 'runs'?"),
            (
                (),
                {"colour": 3},
                "Expected the stability marker of test_a.py::test_b to have runs or vary but got 'colour'.",
            ),
            ((), {"runs": 1}, "Expected runs >= 2 in the stability marker of test_a.py::test_b but got runs=1."),
            ((), {"runs": "30"}, "test_a.py::test_b but got runs='30'."),
            ((), {"runs": True}, "test_a.py::test_b but got runs=True."),
            ((), {"vary": "dropout"}, "In the stability marker of test_a.py::test_b: Expected vary= to name sources"),
        ],
    )
    def test_anything_else_is_refused_with_the_name_of_its_test(self, args, kwargs, message):
        with pytest.raises(ConfigError) as refusal:
            self.of(*args, **kwargs)
        assert message in str(refusal.value)
