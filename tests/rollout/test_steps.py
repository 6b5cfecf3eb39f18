"""The steps of a rollout: their shares, their clock, and what becomes of them when something changes on the way."""

from collections.abc import Mapping
from typing import Any

import pytest

from lorafleet.api.names import served_name
from tests.rollout.worlds import Cluster, digest_of, fleet_view, spec

STEPS: list[dict[str, Any]] = [{"weight": 5, "pause": "10m"}, {"weight": 25, "pause": "30m"}, {"weight": 50}]


def rules(steps: list[dict[str, Any]] | None = None, **more: object) -> Mapping[str, object]:
    return {"steps": STEPS if steps is None else steps, **more}


def served(version: str) -> str:
    return served_name("adapter", version, digest_of(version))


def begun(steps: list[dict[str, Any]] | None = None, **more: object) -> Cluster:
    """Version 1 serves, and 2 is at its first step."""
    cluster = Cluster(spec("1", rollout=rules(steps, **more)))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules(steps, **more))
    cluster.settle()
    return cluster


def test_the_first_version_skips_the_steps() -> None:
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.rollout is None
    assert cluster.history() == [("Served", "1")]


def test_a_new_version_takes_the_share_of_each_step_for_its_time_and_then_all() -> None:
    cluster = begun()
    assert cluster.serving() == {"1": 95, "2": 5}
    assert cluster.condition("Ready") == ("False", "RolloutProgressing")
    assert cluster.condition("Reconciling")[0] == "True"
    cluster.wait(599)
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.wait(1)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}
    cluster.wait(1800)
    cluster.reconcile()
    assert cluster.serving() == {"1": 50, "2": 50}
    cluster.reconcile()
    assert cluster.serving() == {"2": 100}
    assert cluster.status.stable_version == "2"
    assert cluster.status.rollout is None
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.history()[-2:] == [("Started", "2"), ("Promoted", "2")]


def test_each_look_is_at_the_time_that_something_is_due() -> None:
    cluster = begun()
    seen = []
    while cluster.status.stable_version == "1":
        plan = cluster.reconcile()
        assert plan.look_again is not None
        cluster.now = max(plan.look_again, cluster.now)
        seen.append(cluster.serving()["2"])
        assert len(seen) < 12
    assert seen[-2:] == [50, 100]


def test_a_status_does_not_change_between_what_is_due() -> None:
    cluster = begun()
    before = cluster.status
    for _ in range(5):
        cluster.wait(60)
        cluster.reconcile()
    assert cluster.status == before


def test_a_new_version_gets_no_share_before_it_is_loaded_on_every_usable_engine() -> None:
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.reconcile()
    cluster.sync()
    cluster.reconcile()
    cluster.load(only="e0")
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert (cluster.rollout.phase, cluster.rollout.held) == ("Waiting", "Loading")
    cluster.load()
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_a_step_counts_only_while_the_version_is_loaded_everywhere() -> None:
    cluster = begun()
    cluster.wait(300)
    cluster.engines["e0"].clear()
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}, "the share stays"
    assert cluster.rollout.held == "EngineRestarted"
    cluster.wait(3600)
    cluster.reconcile()
    cluster.load()
    cluster.reconcile()
    cluster.wait(299)
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.wait(1)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}


def test_changed_steps_restart_at_the_first() -> None:
    cluster = begun()
    cluster.wait(600)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}
    cluster.spec = spec("1", "2", rollout=rules([{"weight": 10, "pause": "1m"}, {"weight": 60, "pause": "1m"}]))
    cluster.reconcile()
    assert cluster.serving() == {"1": 90, "2": 10}
    assert (cluster.rollout.step, cluster.rollout.steps) == (1, 2)
    cluster.wait(60)
    cluster.reconcile()
    assert cluster.serving() == {"1": 40, "2": 60}


def test_steps_that_are_taken_away_give_all_traffic_at_once() -> None:
    cluster = begun()
    cluster.spec = spec("1", "2")
    cluster.reconcile()
    assert cluster.serving() == {"2": 100}


def test_going_back_to_the_stable_version_takes_the_share_away_at_once() -> None:
    cluster = begun()
    cluster.spec = spec("1", "2", active="1", rollout=rules())
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.rollout is None
    assert cluster.condition("Ready") == ("True", "Serving")
    assert served("2") in cluster.engines["e0"], "running requests end first"
    cluster.wait(31)
    cluster.settle()
    assert served("2") not in cluster.engines["e0"]


def test_a_third_version_supersedes_the_one_on_its_way_and_the_stable_one_stays() -> None:
    cluster = begun()
    cluster.spec = spec("1", "2", "3", rollout=rules())
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.stable_version == "1"
    assert ("Superseded", "2") in cluster.history()
    cluster.settle()
    assert cluster.serving() == {"1": 95, "3": 5}


def test_a_version_that_served_before_needs_no_steps() -> None:
    cluster = begun([{"weight": 5}])
    cluster.settle()
    assert cluster.serving() == {"2": 100}
    cluster.spec = spec("1", "2", active="1", rollout=rules())
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}, "still loaded: the GitOps rollback takes one decision"
    assert cluster.history()[-1] == ("RolledBack", "1")


def test_a_version_that_served_before_and_was_unloaded_gets_all_as_soon_as_it_is_loaded() -> None:
    cluster = begun([{"weight": 5}])
    cluster.settle()
    cluster.wait(31)
    cluster.settle()
    cluster.spec = spec("1", "2", active="1", rollout=rules())
    cluster.reconcile()
    assert cluster.serving() == {"2": 100}
    cluster.load()
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}


def test_what_the_routers_saw_and_what_a_version_proved_survive_publishing_again() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    since = cluster.version("1").proven_at
    assert since
    cluster.wait(60)
    cluster.fleet = fleet_view(claim_name="other")
    cluster.settle()
    assert cluster.version("1").proven_at == since
    assert cluster.serving() == {"1": 100}


@pytest.mark.parametrize("gap", [1, 3600])
def test_a_fleet_that_is_gone_for_a_while_holds_the_step(gap: int) -> None:
    cluster = begun()
    cluster.wait(300)
    cluster.fleet = None
    cluster.reconcile()
    assert cluster.serving() == {}
    for listing in cluster.engines.values():
        listing.clear()
    cluster.wait(gap)
    cluster.fleet = fleet_view()
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.wait(301)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}


def test_suspend_holds_the_share_and_the_clock() -> None:
    cluster = begun()
    cluster.wait(300)
    cluster.spec = spec("1", "2", rollout=rules(), suspend=True)
    cluster.reconcile()
    before = cluster.status
    cluster.wait(3600)
    cluster.reconcile()
    assert cluster.status == before
    assert cluster.serving() == {"1": 95, "2": 5}
    assert cluster.condition("Ready") == ("False", "Suspended")
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.reconcile()
    cluster.wait(299)
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.wait(2)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}


def test_a_step_of_no_weight_only_loads_and_waits() -> None:
    cluster = begun([{"weight": 0, "pause": "5m"}, {"weight": 100, "pause": "5m"}])
    assert cluster.serving() == {"1": 100}
    assert served("2") in cluster.engines["e0"]
    cluster.wait(300)
    cluster.reconcile()
    assert cluster.serving() == {"2": 100}
    assert cluster.status.stable_version == "1"
    assert served("1") in cluster.engines["e0"], "the stable version stays loaded until the rollout has ended"
    assert cluster.act("abort").startswith("version 2 is aborted")
    assert cluster.serving() == {"1": 100}


def test_another_claim_begins_the_rollout_anew() -> None:
    cluster = begun()
    cluster.wait(600)
    cluster.reconcile()
    cluster.fleet = fleet_view(claim_name="other")
    cluster.reconcile()
    assert cluster.rollout.step == 0
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}
