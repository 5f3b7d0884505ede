"""The marker stability(runs=, vary=)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

WRONG = {
    "rums=3": "to have runs or vary but got 'rums'. Did you mean 'runs'?",
    "3": "to name its arguments but got (3,); write @pytest.mark.stability(runs=30, vary='init').",
    "runs=1": "Expected runs >= 2 in the stability marker of test_wrong.py::test_wrong but got runs=1.",
    "runs=True": "but got runs=True.",
    "runs='3'": "but got runs='3'.",
    "vary='initt'": "but got 'initt' in vary='initt'. Did you mean 'init'?",
}


def test_vary_and_runs_of_the_closest_marker_count_where_the_test_says_nothing(project: Project) -> None:
    project.tests("""
        pytestmark = pytest.mark.stability(runs=2)

        def show(study):
            print(study.protocol.name, len(study.records))

        @pytest.mark.stability(vary="shuffle+init")
        class TestClass:
            def test_class(self, stability):
                show(stability.measure(train, labels=Y, runs=3))

            @pytest.mark.stability(vary=["augment"], runs=4)
            def test_method(self, stability):
                show(stability.measure(train, labels=Y))
                show(stability.measure(train, labels=Y, vary="none"))

        def test_module(stability):
            show(stability.measure(train, labels=Y, vary="init"))
            show(stability.measure(train, labels=Y, perturb="ulp"))
    """)
    result = project.run("--strict-markers", "-rP")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["init+shuffle 3", "augment 4", "none 4", "init 2", "ulp 2"])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_marker_is_an_error_before_any_test_runs(project: Project, arguments: str, way: str) -> None:
    project.write(
        "test_wrong.py",
        f"""
        import pytest

        def test_right():
            open("ran", "w")

        @pytest.mark.stability({arguments})
        def test_wrong(stability):
            pass
        """,
    )
    result = project.run(way=way)
    assert result.ret in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.TESTS_FAILED)  # xdist has the latter
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ERROR collecting test_wrong.py*"])
    text = result.stdout.str()
    assert WRONG[arguments] in text
    assert "test_wrong.py::test_wrong" in text
    assert "Traceback" not in text
    assert not (project.path / "ran").exists()
