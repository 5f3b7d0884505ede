"""The properties of a test in JUnit's XML."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from .conftest import Project


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_each_metric_is_a_property_of_its_test(project: Project, way: str) -> None:
    project.tests("""
        def test_one(stability):
            stability.check(train, labels=Y, vary="init", runs=3, budget=Budget(disagreement=90))

        def test_two(stability):
            stability.measure(train, labels=Y, vary="init", runs=3)
            stability.measure(train, labels=Y, vary="none", runs=2)

        def test_none(stability):
            pass
    """)
    result, report = project.study("--junitxml=junit.xml", way=way)
    result.assert_outcomes(passed=3)
    cases = ElementTree.parse(project.path / "junit.xml").iter("testcase")
    properties = {case.get("name"): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases}
    init = report["studies"][0]["metrics"]
    assert properties["test_one"]["stability_runs"] == "3"
    assert properties["test_one"]["stability_verdict"] == "pass"
    assert float(properties["test_one"]["stability_disagreement"]) == init["disagreement"]["value"]
    assert float(properties["test_two"]["stability_1_accuracy_sd"]) == init["accuracy_sd"]["value"]
    assert properties["test_two"]["stability_2_verdict"] == "none"
    assert properties["test_none"] == {}
