"""Versions that stay loaded for a rollback: how many, which, and that they never cost anyone a place."""

from lorafleet.rollout.kept import places_wanted
from lorafleet.rollout.room import Room
from lorafleet.rollout.wanted import wanted
from tests.rollout.test_room import others
from tests.rollout.test_steps import rules, served
from tests.rollout.worlds import MOUNT, Cluster, fleet_view, spec


def served_all(*names: str, keep: int, room: Room | None = None) -> Cluster:
    """Each version served once, one after another."""
    cluster = Cluster(spec(names[0], rollout=rules([], keepLoaded=keep)), room=room)
    for number in range(len(names)):
        cluster.spec = spec(*names[: number + 1], rollout=rules([], keepLoaded=keep))
        cluster.settle()
        cluster.wait(60)
    cluster.settle()
    assert cluster.serving() == {names[-1]: 100}
    return cluster


def on_engines(cluster: Cluster) -> set[str]:
    return {name.partition("/")[2].rpartition("-")[0] for name in cluster.engines["e0"]}


def test_the_last_versions_that_served_stay_loaded() -> None:
    cluster = served_all("1", "2", "3", "4", keep=2)
    assert on_engines(cluster) == {"2", "3", "4"}
    assert [v.name for v in cluster.status.versions if v.kept] == ["2", "3"]
    assert cluster.condition("Ready") == ("True", "Serving")


def test_a_version_that_never_served_all_is_not_kept() -> None:
    cluster = served_all("1", keep=2)
    cluster.spec = spec("1", "2", rollout=rules(keepLoaded=2))
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.act("abort")
    cluster.wait(31)
    cluster.settle()
    assert on_engines(cluster) == {"1"}


def test_going_back_to_a_kept_version_takes_one_decision() -> None:
    cluster = served_all("1", "2", "3", keep=2)
    cluster.spec = spec("1", "2", "3", active="1", rollout=rules(keepLoaded=2))
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert cluster.version("1").kept is None
    assert cluster.version("3").kept is True


def test_kept_versions_go_when_their_adapters_own_version_waits_for_a_place() -> None:
    cluster = served_all("1", "2", "3", keep=2)
    held = frozenset(map(served, ("1", "2", "3")))
    cluster.room = Room(3, held)
    cluster.spec = spec("1", "2", "3", "4", rollout=rules([], keepLoaded=2))
    cluster.settle()
    assert cluster.phase("1") == "Draining", "the one that served longest ago; running requests end first"
    assert cluster.version("2").kept
    cluster.wait(31)
    cluster.settle()
    cluster.room = Room(3, held - {served("1")})
    cluster.settle()
    assert cluster.serving() == {"4": 100}


def test_kept_versions_go_when_versions_of_others_wait() -> None:
    cluster = served_all("1", "2", "3", keep=2)
    held = frozenset(map(served, ("1", "2", "3"))) | others(5)
    cluster.room = Room(8, held, waiting=2, wanted_back=1)
    cluster.reconcile()
    assert cluster.phase("1") == "Draining"
    assert cluster.version("2").kept
    cluster.room = Room(8, held, waiting=2)
    cluster.settle()
    assert cluster.phase("1") == "Draining", "it does not come back while others wait"
    cluster.wait(31)
    cluster.settle()
    assert wanted(cluster.status, MOUNT).waits == frozenset(), "a kept version waits for nothing"


def test_a_dropped_version_comes_back_to_a_place_that_nobody_wants() -> None:
    cluster = served_all("1", "2", keep=1)
    held = frozenset({served("2")}) | others(6)
    cluster.fleet = None
    cluster.reconcile()
    for listing in cluster.engines.values():
        listing.clear()
    cluster.fleet = fleet_view()
    cluster.room = Room(8, held, waiting=3)
    cluster.settle()
    assert on_engines(cluster) == {"2"}, "others wait for the place that is free"
    cluster.room = Room(8, held, waiting=1)
    plan = cluster.reconcile()
    assert plan.places == (served("1"),)
    cluster.load()
    assert on_engines(cluster) == {"1", "2"}


def test_an_engine_that_restarts_gets_kept_versions_back() -> None:
    cluster = served_all("1", "2", keep=1)
    cluster.engines["e0"].clear()
    cluster.settle()
    assert on_engines(cluster) == {"1", "2"}
    assert cluster.version("1").kept


def test_fewer_versions_to_keep_drops_the_oldest() -> None:
    cluster = served_all("1", "2", "3", keep=2)
    cluster.spec = spec("1", "2", "3", rollout=rules([], keepLoaded=1))
    cluster.settle()
    cluster.wait(31)
    cluster.settle()
    assert on_engines(cluster) == {"2", "3"}


def test_a_retired_version_is_not_kept() -> None:
    cluster = served_all("1", "2", keep=1)
    cluster.spec = spec("2", rollout=rules([], keepLoaded=1))
    cluster.settle()
    cluster.wait(31)
    cluster.settle()
    assert on_engines(cluster) == {"2"}


def test_the_places_that_an_adapter_may_want_are_counted() -> None:
    cluster = served_all("1", "2", "3", keep=1)
    assert places_wanted(cluster.spec, cluster.status) == {"1", "2", "3"}
    assert places_wanted(spec("1", "2", "3"), cluster.status) == {"3"}
