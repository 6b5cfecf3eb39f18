"""The functional gate: a version answers on every usable engine before it gets its first request."""

from dataclasses import replace

from lorafleet.rollout.decide import decide
from lorafleet.rollout.observed import Probed
from tests.rollout.test_steps import begun, rules, served
from tests.rollout.worlds import Cluster, spec


def rolling() -> Cluster:
    """Version 1 serves; 2 is published and loaded next."""
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules())
    return cluster


def test_a_version_that_has_not_answered_yet_gets_no_share() -> None:
    cluster = rolling()
    cluster.mute.add("2")
    plan = cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert plan.probe == (served("2"),)
    assert cluster.rollout.held == "Probing"
    assert cluster.condition("Reconciling") == ("True", "Probing")
    assert cluster.version("2").probed_engines == 0
    cluster.mute.clear()
    plan = cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}
    assert plan.probe == (), "with weight it is asked no more"
    assert cluster.version("2").probed_engines == 2


def test_an_engine_that_comes_before_the_first_weight_has_to_answer_too() -> None:
    cluster = rolling()
    cluster.act("pause")
    cluster.settle()
    cluster.act("resume")
    cluster.mute.add("2")
    cluster.settle()
    cluster.engines["e2"] = {}
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert "0 of 3 usable engines" in cluster.message()


def test_every_usable_engine_has_to_answer() -> None:
    cluster = rolling()
    cluster.mute.add("2")
    cluster.settle()
    observed = cluster.observe()
    half = decide(replace(observed, probes={served("2"): Probed(1)}))
    assert [share.version for share in half.status.traffic] == ["1"]
    both = decide(replace(observed, probes={served("2"): Probed(2)}))
    assert [share.version for share in both.status.traffic] == ["1", "2"]


def test_a_wrong_answer_aborts_a_rollout_before_its_first_request() -> None:
    cluster = rolling()
    cluster.wrong["2"] = True
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.aborted[0].reason == "ProbeFailed"
    assert cluster.condition("Stalled") == ("True", "RolloutAborted")
    assert "engine e0: said tabs" in cluster.message()


def test_an_answer_that_may_come_later_holds() -> None:
    cluster = rolling()
    cluster.wrong["2"] = False
    cluster.settle()
    assert cluster.rollout.held == "Probing"
    assert "engine e0: said tabs" in cluster.message()
    cluster.wrong.clear()
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_a_first_version_with_a_wrong_answer_is_stalled_and_gets_no_traffic() -> None:
    cluster = Cluster(spec("1"), wrong={"1": True})
    cluster.settle()
    assert cluster.serving() == {}
    assert cluster.condition("Stalled") == ("True", "ProbeFailed")
    assert cluster.status.aborted == ()
    cluster.wrong.clear()
    plan = cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert plan.probe == ()


def test_retry_has_engines_forget_their_answers_and_asks_again() -> None:
    cluster = Cluster(spec("1"), wrong={"1": True})
    plan = cluster.settle()
    assert plan.probe == (served("1"),)
    assert "asked again" in cluster.act("retry")
    assert cluster.last is not None and cluster.last.probe == (), "answers of a name that left the plan are forgotten"
    assert cluster.last.look_again == cluster.now
    assert cluster.reconcile().probe == (served("1"),)


def test_retry_of_an_aborted_version_is_not_answered_by_the_old_probe() -> None:
    cluster = rolling()
    cluster.wrong["2"] = True
    cluster.settle()
    cluster.act("retry")
    assert cluster.status.aborted == ()
    cluster.wrong.clear()
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_no_probe_where_it_is_switched_off() -> None:
    cluster = Cluster(spec("1", probe={"enabled": False}), mute={"1"}, wrong={"1": True})
    plan = cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert plan.probe == ()


def test_a_version_that_served_before_needs_no_probe() -> None:
    cluster = begun([{"weight": 5}])
    cluster.settle()
    cluster.wait(31)
    cluster.settle()
    cluster.wrong["1"] = True
    cluster.spec = spec("1", "2", active="1", rollout=rules())
    plan = cluster.settle()
    assert plan.probe == ()
    assert cluster.serving() == {"1": 100}


def test_a_version_with_weight_keeps_it_when_a_new_engine_answers_wrongly() -> None:
    cluster = begun()
    cluster.wrong["2"] = True
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}, "that is what the analysis is for"
