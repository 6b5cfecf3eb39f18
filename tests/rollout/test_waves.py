"""Whose turn it is to begin a rollout, and that only the begin takes one."""

from collections.abc import Mapping

import pytest

from lorafleet.api.fleet import Rollouts
from lorafleet.rollout.waves import Standing, line, standing, wave_of
from tests.rollout.test_steps import begun, rules, served
from tests.rollout.worlds import Cluster, spec

WAVES = Rollouts.model_validate(
    {"waves": [{"matchLabels": {"tier": "test"}}, {"matchLabels": {"tier": "prod", "zone": "a"}}]}
)
TEST, A, NONE = {"tier": "test"}, {"tier": "prod", "zone": "a"}, {"tier": "prod"}


def one(name: str, labels: Mapping[str, str], what: str = "") -> Standing:
    return Standing(name, labels, rolls=what == "rolls", waits=what == "waits")


@pytest.mark.parametrize(("labels", "wave"), [(TEST, 0), (A, 1), (NONE, 2), ({}, 2)])
def test_an_adapter_is_in_the_first_wave_that_its_labels_fit(labels: Mapping[str, str], wave: int) -> None:
    assert wave_of(labels, WAVES) == wave


@pytest.mark.parametrize(
    ("others", "labels", "why"),
    [
        ([], NONE, ""),
        ([one("t", TEST)], A, ""),
        ([one("t", TEST, "rolls")], A, "adapter t has a rollout to do"),
        ([one("t", TEST, "waits")], A, "adapter t has a rollout to do"),
        ([one("t", TEST, "waits")], TEST, ""),
        ([one("a", A, "rolls")], TEST, ""),
        ([one("a", A, "rolls")], NONE, "wave 2 of the fleet's spec.rollouts comes first"),
    ],
)
def test_a_wave_waits_for_those_before_it(others: list[Standing], labels: Mapping[str, str], why: str) -> None:
    turn = line(others, WAVES).turn(labels)
    assert why in turn
    assert bool(turn) == bool(why)


@pytest.mark.parametrize(("rolling", "may"), [(0, True), (1, True), (2, False), (9, False)])
def test_so_many_roll_out_at_once(rolling: int, may: bool) -> None:
    others = [one(f"a{number}", {}, "rolls") for number in range(rolling)] + [one("b", {}, "waits")]
    turn = line(others, Rollouts(max_concurrent=2)).turn({})
    assert (turn == "") is may
    assert may or "a0, a1" in turn


def test_without_rules_nobody_waits() -> None:
    assert line([one("a", {}, "rolls")], Rollouts()).turn({}) == ""


def waiting() -> Cluster:
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.turn = "2 adapters roll out at once"
    cluster.settle()
    return cluster


def test_a_rollout_waits_for_its_turn_before_it_takes_a_place_on_engines() -> None:
    cluster = waiting()
    assert cluster.serving() == {"1": 100}
    assert cluster.rollout.held == "WaitingForTurn"
    assert cluster.condition("Reconciling") == ("True", "WaitingForTurn")
    assert cluster.phase("2") == "Published"
    assert served("2") not in cluster.engines["e0"]
    assert cluster.last is not None and cluster.last.look_again is not None
    assert "2 adapters roll out at once" in cluster.act("promote")
    cluster.turn = ""
    plan = cluster.reconcile()
    assert plan.begins
    assert not cluster.reconcile().begins
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_a_rollout_that_has_begun_is_not_stopped_by_a_turn() -> None:
    cluster = begun()
    cluster.turn = "others come first"
    cluster.wait(600)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}


def test_a_switch_without_steps_needs_no_turn() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.turn = "others come first"
    cluster.spec = spec("1", "2")
    cluster.settle()
    assert cluster.serving() == {"2": 100}


def test_going_back_and_promote_full_need_no_turn() -> None:
    cluster = waiting()
    cluster.act("promote-full")
    cluster.settle()
    assert cluster.serving() == {"2": 100}
    cluster.spec = spec("1", "2", active="1", rollout=rules())
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def where(cluster: Cluster) -> str:
    found = standing("adapter", {}, cluster.spec, cluster.status)
    return "rolls" if found.rolls else "waits" if found.waits else ""


def test_where_an_adapter_stands_is_read_from_its_spec_and_status() -> None:
    cluster = Cluster(spec("1", rollout=rules()))
    assert where(cluster) == "", "a first version takes no turn"
    cluster.settle()
    assert where(cluster) == ""
    cluster.spec = spec("1", "2", rollout=rules())
    assert where(cluster) == "waits", "also before its own decision"
    cluster.settle()
    assert where(cluster) == "rolls"
    cluster.act("pause")
    assert where(cluster) == "rolls"
    cluster.act("abort")
    assert where(cluster) == ""
    cluster.spec = spec("1", "2", "3", rollout=rules(), suspend=True)
    assert where(cluster) == "", "one that is suspended keeps nobody waiting"
    cluster.spec = spec("1", "2", "3")
    assert where(cluster) == "", "nor one without steps"
