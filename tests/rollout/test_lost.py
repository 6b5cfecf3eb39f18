"""A status that was lost is rebuilt from what is published and loaded; nothing unproven gets weight by it."""

import pytest

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.rollout.wanted import Action, action, wanted
from tests.rollout.test_steps import begun, rules, served
from tests.rollout.worlds import MOUNT, Cluster, digest_of, spec


def lose(cluster: Cluster) -> None:
    cluster.status = LoRAAdapterStatus()


def test_what_serves_is_not_unloaded_and_serves_again_once_its_bytes_are_known() -> None:
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    lose(cluster)
    plan = cluster.reconcile()
    assert plan.publish == ("1",)
    assert cluster.status.stable_version == "1"
    assert served("1") in wanted(cluster.status, MOUNT).keep
    cluster.load()
    assert served("1") in cluster.engines["e0"]
    cluster.sync()
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}, "without another load or probe"
    assert cluster.last is not None and cluster.last.probe == ()


def test_a_rollout_begins_anew_and_the_new_version_never_gets_weight_by_the_loss() -> None:
    cluster = begun()
    cluster.wait(600)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}
    lose(cluster)
    cluster.reconcile()
    assert cluster.status.stable_version == "1"
    cluster.sync()
    cluster.reconcile()
    assert cluster.serving().get("2", 0) <= 5
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_of_several_the_latest_that_is_not_on_its_way_is_taken_for_stable() -> None:
    cluster = Cluster(spec("1", "2", "3", "4", active="1", rollout=rules([], keepLoaded=3)))
    for name in ("1", "2", "3", "4"):
        cluster.spec = spec("1", "2", "3", "4", active=name, rollout=rules([], keepLoaded=3))
        cluster.settle()
    assert cluster.noted == served("4")
    lose(cluster)
    cluster.reconcile()
    assert cluster.status.stable_version == "4", "what was noted"
    cluster.spec = spec("1", "2", "3", "4", active="4", rollout=rules([], keepLoaded=3))
    lose(cluster)
    cluster.noted = ""
    cluster.reconcile()
    assert cluster.status.stable_version == "3"


def test_a_canary_that_drains_is_not_taken_for_the_stable_version() -> None:
    cluster = begun()
    cluster.wait(600)
    cluster.reconcile()
    cluster.spec = spec("1", "2", "3", active="3", rollout=rules())
    cluster.reconcile()
    assert {*cluster.listed()} == {served("1"), served("2")}
    lose(cluster)
    for _ in range(3):
        cluster.reconcile()
        cluster.sync()
        cluster.load()
        assert cluster.status.stable_version == "1"
        assert "2" not in cluster.serving()


def test_what_was_noted_is_stable_even_where_engines_have_lost_it() -> None:
    cluster = begun()
    for listing in cluster.engines.values():
        del listing[served("1")]
    lose(cluster)
    cluster.reconcile()
    assert cluster.status.stable_version == "1"
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_nothing_listed_is_a_first_version() -> None:
    cluster = begun()
    lose(cluster)
    for listing in cluster.engines.values():
        listing.clear()
    cluster.settle()
    assert cluster.serving() == {"2": 100}


@pytest.mark.parametrize("noted", [True, False])
def test_other_bytes_than_those_that_engines_list_have_proved_nothing(noted: bool) -> None:
    cluster = Cluster(spec("1", "2", active="1", rollout=rules()))
    cluster.settle()
    lose(cluster)
    old = f"adapter/1-{'0' * 12}"
    cluster.noted = old if noted else ""
    for listing in cluster.engines.values():
        listing.clear()
        listing[old] = f"{MOUNT}/{old}"
    cluster.volume.add(old)
    cluster.mute.add("1")
    cluster.settle()
    assert cluster.serving() == {}, "the version that the entry stands for has to answer first"
    assert old not in cluster.engines["e0"]
    cluster.mute.clear()
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.traffic[0].served_name == served("1")
    assert digest_of("1")[7:19] in served("1")


def test_an_old_verb_is_not_acted_on_again() -> None:
    cluster = begun()
    cluster.act("abort")
    lose(cluster)
    cluster.settle()
    assert cluster.status.aborted == ()
    assert cluster.status.last_handled_action == cluster.action


@pytest.mark.parametrize("name", ["adapter/7-000000000000", "adapter/x"])
def test_what_no_entry_names_is_not_remembered(name: str) -> None:
    cluster = Cluster(spec("1"))
    for listing in cluster.engines.values():
        listing[name] = f"{MOUNT}/{name}"
    cluster.reconcile()
    assert cluster.status.stable_version is None
    assert {version.name for version in cluster.status.versions} == {"1"}


def test_a_remembered_name_is_left_alone_by_engines() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    lose(cluster)
    cluster.reconcile()
    want = wanted(cluster.status, MOUNT)
    name = served("1")
    assert action(name, want.load.get(name), name in want.keep, f"{MOUNT}/{name}") is Action.NOTHING
