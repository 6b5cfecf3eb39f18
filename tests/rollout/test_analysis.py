"""Judging on the way: when, on which requests, what holds, and what takes a version back."""

from datetime import timedelta
from typing import Any

from lorafleet.api.adapter import LoRAAdapterSpec
from lorafleet.rollout.analysis import GRACE
from lorafleet.rollout.observed import QueryResult
from tests.rollout.test_steps import served
from tests.rollout.worlds import Cluster, spec

STEPS: list[dict[str, Any]] = [{"weight": 10, "pause": "3m"}, {"weight": 50, "pause": "3m"}]


def judged(*names: str, steps: list[dict[str, Any]] | None = None, **analysis: object) -> LoRAAdapterSpec:
    rules = {"interval": "1m", "minRequests": 50, "maxErrorRate": 0.05, **analysis}
    return spec(*names, rollout={"steps": STEPS if steps is None else steps, "analysis": rules})


def begun(**analysis: Any) -> Cluster:
    cluster = Cluster(judged("1", **analysis))
    cluster.settle()
    cluster.spec = judged("1", "2", **analysis)
    cluster.settle()
    assert cluster.serving() == {"1": 90, "2": 10}
    return cluster


def minute(cluster: Cluster, ok: int = 100, errors: int = 0, refused: int = 0, ms: float = 100.0) -> None:
    cluster.requests("1", ok=1000)
    cluster.requests("2", ok, errors, refused, ms)
    cluster.wait(60)
    cluster.reconcile()


def test_a_good_version_goes_its_way() -> None:
    cluster = begun()
    for _ in range(3):
        minute(cluster)
        assert cluster.rollout.analysis is not None
    assert cluster.serving() == {"1": 50, "2": 50}
    for _ in range(3):
        minute(cluster)
    assert cluster.serving() == {"2": 100}


def test_it_is_judged_at_each_interval_and_the_status_is_the_same_between() -> None:
    cluster = begun()
    cluster.requests("2", ok=100)
    before = cluster.status
    cluster.wait(59)
    assert cluster.reconcile().look_again == cluster.now + timedelta(seconds=1)
    assert cluster.last is not None and cluster.last.statistics == 1.0
    assert cluster.status == before
    cluster.wait(1)
    cluster.reconcile()
    assert cluster.rollout.analysis is not None
    assert (cluster.rollout.analysis.verdict, cluster.rollout.analysis.requests) == ("Passed", 100)


def test_errors_beyond_chance_abort_at_once_with_weight_0_in_the_same_status() -> None:
    cluster = begun()
    minute(cluster, ok=50, errors=50)
    assert cluster.serving() == {"1": 100}
    assert cluster.status.aborted[0].reason == "AnalysisFailed"
    assert "50 of 100 requests failed" in cluster.message()
    assert cluster.condition("Stalled") == ("True", "RolloutAborted")
    cluster.wait(3600)
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_a_slow_version_is_aborted() -> None:
    cluster = begun(maxLatencyRatio=1.3)
    minute(cluster, ms=150)
    assert cluster.serving() == {"1": 100}
    assert "1.50 times as long" in cluster.message()


def test_failures_in_a_row_up_to_the_limit() -> None:
    cluster = begun(failureLimit=3)
    minute(cluster, ok=50, errors=50)
    minute(cluster, ok=50, errors=50)
    minute(cluster)
    assert cluster.rollout.analysis is not None and cluster.rollout.analysis.failures == 0
    minute(cluster, ok=50, errors=50)
    minute(cluster, ok=0)  # too few to judge: neither a failure nor the end of a row
    assert cluster.rollout.analysis.failures == 1
    minute(cluster, ok=50, errors=50)
    assert cluster.serving() == {"1": 50, "2": 50}
    minute(cluster, ok=50, errors=50)
    assert cluster.serving() == {"1": 100}


def test_failures_in_a_row_go_on_counting_at_the_next_step() -> None:
    cluster = begun(failureLimit=2)
    minute(cluster, ok=50, errors=50)
    cluster.act("promote")
    assert cluster.serving() == {"1": 50, "2": 50}
    minute(cluster, ok=50, errors=50)
    assert cluster.serving() == {"1": 100}


def test_too_few_requests_hold_and_never_pass_and_never_fail() -> None:
    cluster = begun()
    for _ in range(40):
        minute(cluster, ok=0, errors=1)
    assert cluster.serving() == {"1": 90, "2": 10}
    assert cluster.rollout.held == "AnalysisUndecided"
    assert "fewer than minRequests 50 decide nothing" in cluster.message()
    assert cluster.condition("Reconciling") == ("True", "AnalysisUndecided")


def test_undecided_judgements_add_up_until_there_are_enough_requests() -> None:
    cluster = begun()
    for _ in range(4):
        minute(cluster, ok=10)
        assert cluster.serving() == {"1": 90, "2": 10}
    minute(cluster, ok=10)
    assert cluster.serving() == {"1": 50, "2": 50}, "50 requests of five minutes"


def test_a_step_needs_a_judgement_of_its_own() -> None:
    cluster = begun()
    for _ in range(3):
        minute(cluster)
    assert cluster.serving() == {"1": 50, "2": 50}
    for _ in range(10):
        minute(cluster, ok=0)
    assert cluster.serving() == {"1": 50, "2": 50}, "what passed at 10 % says nothing of 50 %"


def test_a_judgement_that_passed_within_the_step_counts_though_the_last_one_decided_nothing() -> None:
    cluster = begun()
    minute(cluster)
    minute(cluster, ok=0)
    minute(cluster, ok=0)
    assert cluster.serving() == {"1": 50, "2": 50}


def test_client_mistakes_do_not_count() -> None:
    cluster = begun()
    for _ in range(3):
        minute(cluster, ok=60, refused=500)
    assert cluster.serving() == {"1": 50, "2": 50}


def test_a_person_may_go_on_without_a_verdict() -> None:
    cluster = begun()
    minute(cluster, ok=0)
    cluster.act("promote")
    assert cluster.serving() == {"1": 50, "2": 50}


def test_a_paused_version_is_still_judged() -> None:
    cluster = begun()
    cluster.act("pause")
    minute(cluster, ok=0, errors=100)
    assert cluster.serving() == {"1": 100}


def test_queries_are_asked_when_a_judgement_is_due_and_judged_by_their_answers() -> None:
    query = {"name": "wrong", "query": 'x{v="{{servedName}}",s="{{stableServedName}}",n="{{namespace}}"}', "max": 1}
    cluster = begun(maxErrorRate=None, queries=[query])
    assert cluster.last is not None and cluster.last.queries == ()
    cluster.wait(60)
    plan = cluster.reconcile()
    assert [asked.name for asked in plan.queries] == ["wrong"]
    assert plan.queries[0].promql == f'x{{v="{served("2")}",s="{served("1")}",n="tenant"}}'
    assert plan.look_again is not None and plan.look_again - cluster.now <= timedelta(seconds=1)
    assert cluster.rollout.analysis is not None and not cluster.rollout.analysis.measures, "it waits for the answers"
    cluster.values["wrong"] = QueryResult(cluster.now, 2.0)
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert "query wrong gave 2" in cluster.message()


def test_prometheus_that_does_not_answer_holds() -> None:
    cluster = begun(maxErrorRate=None, queries=[{"name": "q", "query": "x", "max": 1}])
    for _ in range(10):
        cluster.wait(60)
        cluster.reconcile()
        cluster.wait(GRACE)
        cluster.values["q"] = QueryResult(cluster.now, None, "connection refused")
        cluster.reconcile()
    assert cluster.serving() == {"1": 90, "2": 10}
    assert "query q: connection refused" in cluster.message()


def test_a_late_look_at_the_routers_is_waited_for() -> None:
    cluster = begun()
    cluster.requests("2", ok=100)
    cluster.wait(30)
    cluster.reconcile()
    cluster.counts.clear()  # the routers were last seen before the judgement is due
    cluster.wait(30)
    plan = cluster.reconcile()
    assert plan.statistics == 0.0
    assert cluster.rollout.analysis is not None and not cluster.rollout.analysis.measures
    cluster.wait(GRACE)
    cluster.reconcile()
    assert cluster.rollout.analysis.verdict == "Passed", "and then it is judged by what there is"


def test_without_a_router_nothing_is_decided() -> None:
    cluster = begun()
    cluster.routers = 0
    cluster.requests("2", ok=0, errors=100)
    cluster.wait(60)
    cluster.reconcile()
    assert cluster.rollout.analysis is not None and cluster.rollout.analysis.verdict == "Undecided"


def test_an_analysis_that_is_added_on_the_way_holds_from_then_on() -> None:
    cluster = Cluster(spec("1", rollout={"steps": STEPS}))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout={"steps": STEPS})
    cluster.settle()
    cluster.spec = judged("1", "2")
    minute(cluster, ok=0)
    minute(cluster, ok=0)
    minute(cluster, ok=0)
    assert cluster.serving() == {"1": 90, "2": 10}
    minute(cluster)
    assert cluster.serving() == {"1": 50, "2": 50}
