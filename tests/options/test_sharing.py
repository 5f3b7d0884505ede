"""Under pytest-xdist both workers train the runs of one test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: Every place in which a study can stand.
PLACES = """
    def is_helping(request):
        bridge = request.config.pluginmanager.get_plugin("stabilitykit-xdist")
        return bridge is not None and bridge.is_helping

    @pytest.fixture(scope="session")
    def of_session(stability):
        return stability.measure(train, labels=Y, vary="init", runs=4)

    @pytest.fixture(scope="module")
    def of_module(stability):
        return stability.measure(train, labels=Y, vary="shuffle", runs=4)

    @pytest.fixture
    def not_for_helpers(request):
        if is_helping(request):
            raise RuntimeError("only the owner may come in here")

    @pytest.fixture
    def skips_helpers(request):
        if is_helping(request):
            pytest.skip("only the owner may come in here")

    def test_session_fixture(of_session):
        assert len(of_session.records) == 4

    def test_both_fixtures(of_session, of_module):
        assert of_session.records[0].fingerprint != of_module.records[1].fingerprint

    def test_shares_the_runs_of_the_session_fixture(stability, of_session):
        study = stability.measure(train, labels=Y, vary="init", runs=3)
        assert [r.fingerprint for r in study.records] == [r.fingerprint for r in of_session.records[:3]]

    def test_two_studies(stability):
        for vary in ("augment", "stochastic"):
            stability.measure(train, labels=Y, vary=vary, runs=4)

    @pytest.mark.parametrize("rate", [0.05, 0.2])
    def test_parametrised(stability, rate):
        def at_rate(run):
            return train(run, rate)

        stability.measure(at_rate, labels=Y, vary="init", runs=3)

    class TestClass:
        def test_method(self, stability):
            stability.check(train, labels=Y, perturb="ulp", runs=3, budget=Budget(disagreement=90))

        @pytest.mark.xfail(strict=True)
        def test_expected_to_fail(self, stability):
            assert_disagreement(stability.measure(train, labels=Y, vary="init", runs=4), at_most=0.1)

    def test_helper_fails(not_for_helpers, stability):
        stability.measure(train, labels=Y, vary="init+shuffle", runs=3)

    def test_helper_skips(skips_helpers, stability):
        stability.measure(train, labels=Y, vary="init+augment", runs=3)

    @pytest.mark.skip(reason="not today")
    def test_skipped(stability):
        raise AssertionError
"""


def test_both_workers_train_the_runs_of_one_test_at_the_same_time(project: Project) -> None:
    project.meet(2)
    project.sleep_in_runs(0.1)
    project.tests("""
        def test_one(stability):
            stability.measure(train, labels=Y, vary="init", runs=10)
    """)
    project.run(way="n2").assert_outcomes(passed=1)
    trainings = project.in_ledger()
    assert project.trained() == list(range(10)), "each run once"
    by_process = [[t for t in trainings if t.pid == pid] for pid in {training.pid for training in trainings}]
    assert len(by_process) == 2
    # What they gain by it in seconds is measured in benchmarks/, on a machine that does nothing else.
    firsts = [min(part, key=lambda training: training.started) for part in by_process]
    assert max(first.started for first in firsts) < min(first.ended for first in firsts)


@pytest.mark.slow
def test_any_distribution_trains_each_run_once_to_the_same_numbers(project: Project) -> None:
    project.tests(PLACES)
    result, alone = project.study()
    result.assert_outcomes(passed=9, xfailed=1, skipped=1)
    project.timeless(alone)
    trainings = sorted((training.index, training.seeds) for training in project.ledger() if training.index)
    project.meet(2)
    for dist in ("load", "loadscope", "loadfile", "loadgroup", "worksteal"):
        project.forget()
        result, shared = project.study("--dist", dist, way="n2")
        result.assert_outcomes(passed=9, xfailed=1, skipped=1)
        assert result.ret == pytest.ExitCode.OK
        workers, ledger = {training.pid for training in project.in_ledger()}, project.ledger()
        # Where both workers meet a new task at once, each trains its base run.
        assert sorted((training.index, training.seeds) for training in ledger if training.index) == trainings
        assert len(workers) == 2
        assert by_question(project.timeless(shared)) == by_question(alone)
        assert project.claims() == []
        assert not list((project.path / ".stabilitykit" / "sessions").iterdir())


@pytest.mark.slow
def test_workers_that_all_run_every_test_share_the_runs(project: Project) -> None:
    project.sleep_in_runs(0.3)
    project.tests("""
        @pytest.mark.xdist_group("gpu")
        @pytest.mark.parametrize("vary", ["init", "shuffle"])
        def test_study(stability, vary):
            stability.measure(train, labels=Y, vary=vary, runs=6)
    """)
    project.ini("""
        markers =
            xdist_group: of pytest-xdist
    """)
    _, alone = project.study()
    project.timeless(alone)
    project.ledger()
    for more, passed in (["--dist", "each"], 4), (["--dist", "loadgroup", "-n", "4", "--maxprocesses", "2"], 2):
        project.forget()
        result, shared = project.study(*more, way="n2")
        result.assert_outcomes(passed=passed)
        assert [index for index in project.trained() if index] == sorted([*range(1, 6)] * 2), "each run once"
        assert project.timeless(shared) == alone


def by_question(report: dict) -> dict:
    """The records of each study; which test is the first to ask a wider fixture depends on the worker."""
    return {(study["name"], study["runs"], study["task"]): study["records"] for study in report["studies"]}


def test_what_a_helper_prints_and_warns_is_not_seen(project: Project) -> None:
    project.meet(2)
    project.tests("""
        import warnings

        @pytest.mark.filterwarnings("default")
        def test_loud(stability):
            print("loud before")
            warnings.warn("loud before")
            stability.measure(train, labels=Y, vary="init", runs=8)
            print("loud after")
            assert False
    """)
    result = project.run(way="n2")
    result.assert_outcomes(failed=1, warnings=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert text.count("\nloud before\n") == text.count("\nloud after\n") == 1
    assert len(project.trained_by()) == 2


def test_nobody_waits_for_a_test_that_has_ended(project: Project) -> None:
    project.write("conftest.py", "import stabilitykit.plugin.xdist\n\nstabilitykit.plugin.xdist._GRACE = 3600\n")
    project.tests("""
        def test_fails_before_its_study(stability):
            assert False

        def test_has_its_study(stability):
            stability.measure(train, labels=Y, vary="init", runs=2)
    """)
    result = project.run(way="n2")
    result.assert_outcomes(failed=1, passed=1)
