"""``spec.traffic``: fixed shares for an A/B comparison."""

from typing import Any

from lorafleet.api.adapter import LoRAAdapterSpec, ServedTraffic, VersionPhase, VersionStatus
from lorafleet.rollout.draft import Draft
from lorafleet.rollout.split import in_force, serving
from tests.rollout.test_steps import begun, rules, served
from tests.rollout.worlds import Cluster, spec


def ab(*names: str, active: str | None = None, **shares: int) -> LoRAAdapterSpec:
    """Shares by version, as v1=50."""
    traffic: list[dict[str, Any]] = [{"version": name[1:], "weight": weight} for name, weight in shares.items()]
    return spec(*names, active=active, traffic=traffic, rollout=rules())


def test_fixed_shares_come_into_force_when_all_of_them_can() -> None:
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    cluster.spec = ab("1", "2", "3", v2=50, v3=50)
    cluster.mute.add("3")
    cluster.settle()
    assert cluster.serving() == {"1": 100}, "the former shares stay until then"
    assert cluster.condition("Reconciling") == ("True", "Probing")
    cluster.mute.clear()
    cluster.reconcile()
    assert cluster.serving() == {"2": 50, "3": 50}
    assert cluster.status.stable_version == "1", "a comparison proves nothing"
    assert cluster.condition("Ready") == ("True", "SplitServing")
    assert served("1") in cluster.engines["e0"]


def test_a_share_that_is_0_is_no_share() -> None:
    cluster = Cluster(ab("1", "2", v1=100, v2=0))
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert served("2") not in cluster.engines["e0"]


def test_a_change_of_fixed_shares_takes_force_at_once() -> None:
    cluster = Cluster(ab("1", "2", v1=50, v2=50))
    cluster.settle()
    cluster.spec = ab("1", "2", v1=10, v2=90)
    cluster.reconcile()
    assert cluster.serving() == {"1": 10, "2": 90}


def test_a_share_grows_only_while_its_version_is_loaded_everywhere() -> None:
    cluster = Cluster(ab("1", "2", v1=70, v2=30))
    cluster.settle()
    cluster.engines["e0"].clear()
    cluster.spec = ab("1", "2", v1=30, v2=70)
    cluster.reconcile()
    assert cluster.serving() == {"1": 70, "2": 30}
    cluster.load()
    cluster.reconcile()
    assert cluster.serving() == {"1": 30, "2": 70}


def test_fixed_shares_end_a_rollout() -> None:
    cluster = begun()
    cluster.spec = ab("1", "2", v1=50, v2=50)
    cluster.reconcile()
    assert cluster.status.rollout is None
    assert cluster.serving() == {"1": 50, "2": 50}
    assert cluster.history()[-1] == ("Superseded", "2")


def test_without_fixed_shares_the_rules_of_the_rollout_hold_again() -> None:
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    cluster.spec = ab("1", "2", v1=50, v2=50)
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_an_engine_restart_keeps_the_shares_and_is_not_ready() -> None:
    cluster = Cluster(ab("1", "2", v1=50, v2=50))
    cluster.settle()
    cluster.engines["e0"].clear()
    cluster.reconcile()
    assert cluster.serving() == {"1": 50, "2": 50}
    assert cluster.condition("Ready")[0] == "False"
    cluster.load()
    cluster.reconcile()
    assert cluster.condition("Ready") == ("True", "SplitServing")


def test_a_version_that_was_taken_back_gets_no_share_by_an_edit() -> None:
    cluster = begun()
    cluster.act("abort")
    cluster.spec = ab("1", "2", v1=50, v2=50)
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Stalled") == ("True", "RolloutAborted")
    cluster.spec = ab("1", "2", "3", v1=50, v3=50)
    cluster.settle()
    cluster.spec = ab("1", "2", "3", v1=50, v2=50)
    cluster.settle()
    assert cluster.serving() == {"1": 50, "3": 50}, "the former shares stay"
    cluster.act("retry")
    cluster.settle()
    assert cluster.serving() == {"1": 50, "2": 50}


def test_what_was_rolled_back_and_serves_until_another_is_loaded_does_not_stay_by_an_edit() -> None:
    cluster = Cluster(spec("1", "2", active="1", rollout=rules([])))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules([]))
    cluster.settle()
    cluster.wait(60)
    cluster.settle()
    cluster.act("rollback")
    assert cluster.serving() == {"2": 100}
    cluster.spec = ab("1", "2", v2=100)
    cluster.reconcile()
    assert cluster.condition("Stalled") == ("True", "RolledBack")
    cluster.spec = ab("1", "2", v1=50, v2=50)
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_verbs_of_rollouts_are_refused_and_name_the_field() -> None:
    cluster = Cluster(ab("1", "2", v1=50, v2=50))
    cluster.settle()
    for verb in ("promote", "pause", "resume", "abort", "rollback"):
        cluster.wait(1)
        assert "spec.traffic asks for fixed shares" in cluster.act(verb)


def test_a_version_that_lost_its_share_drains() -> None:
    cluster = Cluster(ab("1", "2", v1=50, v2=50))
    cluster.settle()
    cluster.spec = ab("1", "2", v1=100)
    cluster.settle()
    assert served("2") in cluster.engines["e0"]
    cluster.wait(31)
    cluster.settle()
    assert served("2") not in cluster.engines["e0"]


def test_weight_is_never_inherited_by_other_bytes_of_the_same_version() -> None:
    loaded = VersionStatus(name="1", phase=VersionPhase.LOADED, served_name="a/1-new")
    former = (ServedTraffic(version="1", served_name="a/1-old", weight=100),)
    draft = Draft(versions={"1": loaded}, stable=None, traffic=former)
    assert serving(draft) == frozenset()
    assert in_force(draft, {"1": 100}, frozenset()) == ()
    assert in_force(draft, {"1": 100}, frozenset({"1"}))[0].served_name == "a/1-new"
