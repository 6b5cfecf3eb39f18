"""How long a rollout may be without progress, and what is none."""

from lorafleet.api.model import timestamp
from tests.rollout.test_analysis import judged
from tests.rollout.test_steps import begun, rules
from tests.rollout.worlds import Cluster, spec


def stuck(on: str = "Abort") -> Cluster:
    """Version 2 is never loaded on engine e1."""
    cluster = Cluster(spec("1", rollout=rules(progressDeadline="1h", onDeadline=on)))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules(progressDeadline="1h", onDeadline=on))
    cluster.mute.add("2")
    cluster.settle()
    return cluster


def test_a_rollout_without_progress_is_aborted() -> None:
    cluster = stuck()
    plan = cluster.reconcile()
    assert plan.look_again is not None and (plan.look_again - cluster.now).total_seconds() == 3600
    cluster.wait(3599)
    cluster.reconcile()
    assert cluster.status.rollout is not None
    cluster.wait(1)
    cluster.reconcile()
    assert cluster.status.aborted[0].reason == "ProgressDeadlineExceeded"
    assert "no progress for 1h: version 2 answered its probe on 0 of 2" in cluster.message()


def test_or_paused_until_a_person_resumes_it() -> None:
    cluster = stuck("Pause")
    cluster.wait(3600)
    cluster.settle()
    assert (cluster.rollout.phase, cluster.rollout.held) == ("Paused", "ProgressDeadlineExceeded")
    assert cluster.condition("Reconciling") == ("True", "ProgressDeadlineExceeded")
    cluster.mute.clear()
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    cluster.act("resume")
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_waiting_for_a_person_is_no_lack_of_progress() -> None:
    cluster = begun([{"weight": 5, "pause": {}}], progressDeadline="1h")
    cluster.wait(7200)
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_a_pause_by_a_person_is_none_either() -> None:
    cluster = begun(progressDeadline="1h")
    cluster.act("pause")
    cluster.wait(7200)
    cluster.settle()
    cluster.act("resume")
    cluster.engines["e0"].clear()
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_a_step_that_takes_longer_than_the_deadline_is_none() -> None:
    cluster = begun([{"weight": 5, "pause": "10h"}], progressDeadline="1h")
    cluster.wait(9 * 3600)
    cluster.settle()
    cluster.engines["e0"].clear()
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}, "until now it went as planned"
    cluster.wait(3600)
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}


def test_waiting_for_a_turn_is_none() -> None:
    cluster = Cluster(spec("1", rollout=rules(progressDeadline="1h")))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules(progressDeadline="1h"))
    cluster.turn = "others come first"
    cluster.settle()
    cluster.wait(7200)
    cluster.settle()
    cluster.turn = ""
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_suspending_is_none() -> None:
    cluster = stuck()
    told = cluster.spec
    cluster.spec = told.model_copy(update={"suspend": True})
    cluster.reconcile()
    cluster.wait(7200)
    cluster.reconcile()
    cluster.spec = told
    cluster.reconcile()
    assert cluster.status.rollout is not None
    cluster.wait(3600)
    cluster.reconcile()
    assert cluster.status.rollout is None


def test_an_analysis_that_decides_nothing_for_too_long_is_a_lack_of_progress() -> None:
    cluster = Cluster(judged("1"))
    cluster.settle()
    told = judged("1", "2")
    assert told.rollout is not None
    cluster.spec = told.model_copy(update={"rollout": told.rollout.model_copy(update={"progress_deadline": "1h"})})
    cluster.settle()
    for _ in range(62):
        cluster.wait(60)
        cluster.reconcile()
    assert cluster.serving() == {"1": 90, "2": 10}
    cluster.wait(60)
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}


def test_a_judgement_that_passed_moves_the_deadline() -> None:
    cluster = Cluster(judged("1"))
    cluster.settle()
    cluster.spec = judged("1", "2", steps=[{"weight": 10, "pause": {}}])
    cluster.settle()
    before = cluster.rollout.progress_at
    cluster.requests("2", ok=100)
    cluster.wait(60)
    cluster.reconcile()
    assert cluster.rollout.progress_at == timestamp(cluster.now) > before
