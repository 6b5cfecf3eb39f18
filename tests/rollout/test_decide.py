"""The rules of a switch, a removal and a failure, each in one test."""

from dataclasses import replace

import pytest

from lorafleet.api.adapter import VersionStatus
from lorafleet.api.names import served_name
from lorafleet.api.reasons import Reason
from lorafleet.rollout.decide import decide
from lorafleet.rollout.observed import Failed, Observed, Published, Syncing
from tests.rollout.worlds import SOURCES, Cluster, digest_of, fleet_view, spec


def served(version: str) -> str:
    return served_name("adapter", version, digest_of(version))


def test_first_version_serves_once_loaded_on_every_usable_engine() -> None:
    cluster = Cluster(spec("1"))
    cluster.reconcile()
    cluster.sync()
    cluster.reconcile()
    cluster.load(only="e0")
    cluster.reconcile()
    assert cluster.serving() == {}
    assert cluster.condition("Ready") == ("False", "Loading")
    cluster.load()
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.stable_version == "1"
    assert cluster.condition("Ready") == ("True", "Serving")


def test_nothing_is_loaded_before_it_is_published() -> None:
    cluster = Cluster(spec("1"))
    cluster.reconcile()
    cluster.load()
    assert cluster.engines == {"e0": {}, "e1": {}}


def test_a_change_of_active_version_moves_traffic_only_when_the_new_one_is_loaded_everywhere() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.spec = spec("1", "2")
    cluster.reconcile()
    cluster.sync()
    cluster.reconcile()
    cluster.load(only="e1")
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Available") == ("True", "Serving")
    cluster.load()
    cluster.reconcile()
    assert cluster.serving() == {"2": 100}


def test_the_old_version_is_unloaded_only_after_the_drain_time() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.spec = spec("1", "2")
    cluster.settle()
    assert served("1") in cluster.engines["e0"]
    cluster.wait(29.9)
    cluster.settle()
    assert served("1") in cluster.engines["e0"]
    cluster.wait(0.2)
    cluster.settle()
    assert served("1") not in cluster.engines["e0"]
    assert served("1") in cluster.volume, "an entry of versions keeps its bytes"


def test_going_back_to_a_kept_version_needs_no_fetch() -> None:
    cluster = Cluster(spec("1", "2", active="1"))
    cluster.settle()
    cluster.spec = spec("1", "2", active="2")
    cluster.settle()
    cluster.spec = spec("1", "2", active="1")
    plan = cluster.reconcile()
    assert plan.publish == ()
    assert cluster.serving() == {"1": 100}, "it was still loaded, so it serves at once"


def test_a_bad_active_version_stalls_and_the_stable_one_goes_on_serving() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.bad["2"] = Failed(Reason.RANK_TOO_HIGH, "rank 64 is above 16", retry=False)
    cluster.spec = spec("1", "2")
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Stalled") == ("True", "RankTooHigh")
    assert cluster.condition("Available") == ("True", "Serving")
    assert cluster.last is not None and cluster.last.publish == (), "it is not tried again by itself"


def test_a_permanent_failure_is_tried_again_when_the_fleet_expects_something_else() -> None:
    cluster = Cluster(spec("1"), bad={"1": Failed(Reason.RANK_TOO_HIGH, "rank", retry=False)})
    cluster.settle()
    cluster.bad.clear()
    assert cluster.settle().publish == ()
    cluster.fleet = fleet_view(expectations="e2")
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_a_passing_failure_is_tried_again_with_backoff() -> None:
    cluster = Cluster(spec("1"), bad={"1": Failed(Reason.VOLUME_FULL, "no space", retry=True)})
    cluster.reconcile()
    cluster.sync()
    plan = cluster.reconcile()
    assert plan.publish == ()
    assert plan.look_again is not None
    assert cluster.condition("Reconciling") == ("True", "VolumeFull")
    cluster.now = plan.look_again
    assert cluster.reconcile().publish == ("1",)


def test_an_engine_restart_keeps_the_weight_and_is_not_ready_until_loaded_again() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.engines["e0"].clear()
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Ready") == ("False", "Loading")
    cluster.load()
    cluster.reconcile()
    assert cluster.condition("Ready") == ("True", "Serving")


def test_an_engine_that_is_down_holds_nobody_back() -> None:
    cluster = Cluster(spec("1"), down={"e1"})
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_without_a_usable_engine_nothing_gets_weight() -> None:
    cluster = Cluster(spec("1"), down={"e0", "e1"})
    cluster.settle()
    assert cluster.serving() == {}
    assert cluster.condition("Ready") == ("False", "WaitingForEngines")


def test_a_version_that_an_engine_rejects_stalls_without_weight() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.spec = spec("1", "2")
    cluster.refuses.add(served("2"))
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Stalled") == ("True", "LoadRejected")


def test_removing_an_entry_removes_its_bytes_after_the_drain_time() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.spec = spec("2")
    cluster.settle()
    assert served("1") in cluster.volume
    cluster.wait(31)
    cluster.settle()
    assert served("1") not in cluster.volume
    assert cluster.phase("1") is None


def test_bytes_stay_while_an_engine_that_is_down_lists_them() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.spec = spec("2")
    cluster.settle()
    cluster.down.add("e1")
    cluster.wait(31)
    cluster.settle()
    assert served("1") in cluster.volume
    assert cluster.phase("1") == "Removing"


def test_a_name_used_again_waits_until_the_old_bytes_are_gone() -> None:
    cluster = Cluster(spec("1", "2"))
    cluster.settle()
    first = cluster.spec.versions[0]
    cluster.spec = spec("2")
    cluster.reconcile()
    other = first.model_copy(update={"digest": "sha256:" + "f" * 64})
    cluster.spec = cluster.spec.model_copy(update={"versions": (other, *cluster.spec.versions)})
    plan = cluster.reconcile()
    assert plan.publish == ()
    assert cluster.phase("1") == "Removing"
    cluster.settle()
    assert cluster.phase("1") == "Published"


def test_deletion_takes_the_weight_drains_unloads_removes_and_releases() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.deleting_since = cluster.now
    cluster.reconcile()
    assert cluster.serving() == {}
    assert served("1") in cluster.engines["e0"]
    cluster.wait(31)
    cluster.settle()
    assert cluster.released
    assert cluster.engines == {"e0": {}, "e1": {}}
    assert not cluster.volume


def test_deletion_with_a_dead_engine_ends_at_the_deadline_and_leaves_bytes_to_the_fleet() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.down.add("e1")
    cluster.deleting_since = cluster.now
    cluster.reconcile()
    cluster.wait(599)
    cluster.settle()
    assert not cluster.released
    cluster.wait(1)
    plan = cluster.reconcile()
    assert plan.release
    assert plan.orphans == (served("1"),)
    assert served("1") in cluster.volume


@pytest.mark.parametrize("why", ["no fleet", "namespace"])
def test_deletion_does_not_wait_for_what_cannot_be_done(why: str) -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.deleting_since = cluster.now
    observed = cluster.observe()
    gone = {"fleet": None} if why == "no fleet" else {"namespace_terminating": True}
    assert decide(replace(observed, **gone)).release  # type: ignore[arg-type]


def test_another_claim_means_publishing_again() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.fleet = fleet_view(claim_name="other")
    assert cluster.reconcile().publish == ("1",)
    assert cluster.serving() == {}, "what is on the other claim is unproven"


def test_other_bytes_on_another_claim_have_proved_nothing() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.fleet = fleet_view(claim_name="other")
    cluster.digests["1"] = "sha256:" + "f" * 64
    cluster.mute.add("1")
    cluster.settle()
    assert cluster.serving() == {}, "they have to answer their probe first"
    assert cluster.version("1").proven_at is None
    cluster.mute.clear()
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.traffic[0].served_name == "adapter/1-ffffffffffff"


def test_the_same_bytes_on_another_claim_serve_as_they_did() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.fleet = fleet_view(claim_name="other")
    cluster.mute.add("1")
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_no_rollback_goes_to_other_bytes_than_those_that_served() -> None:
    cluster = Cluster(spec("1", "2", active="1"))
    cluster.settle()
    cluster.spec = spec("1", "2")
    cluster.settle()
    cluster.fleet = fleet_view(claim_name="other")
    cluster.digests["1"] = "sha256:" + "f" * 64
    cluster.settle()
    assert cluster.serving() == {"2": 100}
    assert "no other version of spec.versions has served" in cluster.act("rollback")


def test_a_suspended_adapter_changes_nothing_and_goes_on_serving() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.spec = spec("1", "2", suspend=True)
    plan = cluster.reconcile()
    assert plan.publish == ()
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Ready") == ("True", "Suspended")


@pytest.mark.parametrize("scheme", SOURCES)
def test_every_source_is_published_by_a_job(scheme: str) -> None:
    cluster = Cluster(spec("1", scheme=scheme))
    assert cluster.reconcile().publish == ("1",)


def version_of(cluster: Cluster, name: str = "1") -> VersionStatus:
    return next(version for version in cluster.status.versions if version.name == name)


def test_the_pin_of_a_failed_try_is_kept_for_the_next() -> None:
    failure = Failed(Reason.SOURCE_UNREACHABLE, "cut", retry=True, pin="3f2a")
    cluster = Cluster(spec("1"), bad={"1": failure})
    cluster.settle()
    assert version_of(cluster).pin == "3f2a"
    cluster.bad["1"] = Failed(Reason.SYNC_FAILED, "lost", retry=True)
    cluster.wait(60)
    cluster.settle()
    assert version_of(cluster).pin == "3f2a", "a try that learnt nothing takes nothing away"
    cluster.bad.clear()
    cluster.wait(600)
    cluster.settle()
    assert version_of(cluster).pin == "3f2a"


def test_a_pin_stays_when_the_fleets_claim_changes_and_goes_with_its_entry() -> None:
    cluster = Cluster(spec("1"), pins={"1": "3f2a"})
    cluster.settle()
    cluster.fleet = fleet_view(claim_name="another")
    cluster.reconcile()
    assert version_of(cluster).pin == "3f2a"
    failed = Cluster(spec("1"), bad={"1": Failed(Reason.SYNC_FAILED, "x", retry=True, pin="3f2a")})
    failed.settle()
    failed.spec = spec("1", scheme="oci")
    failed.reconcile()
    assert version_of(failed).pin is None, "another entry under the same name has another source"


def test_bytes_are_shown_while_they_are_fetched_and_not_after() -> None:
    cluster = Cluster(spec("1"))
    cluster.reconcile()
    cluster.syncing["1"] = Syncing(done=10, total=40)
    cluster.reconcile()
    assert (version_of(cluster).bytes_done, version_of(cluster).bytes_total) == (10, 40)
    assert "10 of 40 bytes" in next(c.message for c in cluster.status.conditions if c.type == "Ready")
    cluster.syncing.clear()
    cluster.published["1"] = Failed(Reason.SOURCE_UNREACHABLE, "cut", retry=True)
    cluster.reconcile()
    assert version_of(cluster).bytes_done is None


def test_what_the_checks_found_is_said_and_keeps_nothing_from_serving() -> None:
    cluster = Cluster(spec("1"))
    cluster.reconcile()
    notice = "HasNoEffect: all lora_B are zero"
    cluster.published["1"] = Published(1, digest_of("1"), 8, ("q_proj",), 100, notices=(notice,))
    cluster.volume.add(served("1"))
    cluster.reconcile()
    cluster.load()
    cluster.reconcile()
    assert cluster.condition("Checked") == ("False", "HasNoEffect")
    assert cluster.condition("Ready") == ("True", "Serving")


def test_checked_is_true_when_nothing_was_found_and_absent_before() -> None:
    cluster = Cluster(spec("1"))
    cluster.reconcile()
    assert "Checked" not in {c.type for c in cluster.status.conditions}
    cluster.settle()
    assert cluster.condition("Checked") == ("True", "Checked")


def test_damage_on_the_volume_is_said_and_what_serves_goes_on() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.damage[served("1")] = "files changed"
    cluster.settle()
    assert cluster.condition("Checked") == ("False", "FilesDamaged")
    assert cluster.serving() == {"1": 100}


def test_fields_that_are_not_acted_on_are_said() -> None:
    cluster = Cluster(spec("1", domains=["python"], rollout={"steps": [{"weight": 5, "pause": {}}]}))
    cluster.settle()
    assert cluster.condition("FieldsIgnored") == ("True", "FieldNotActedOn")
    assert cluster.condition("Ready") == ("True", "Serving")


def test_a_spec_that_cannot_be_read_stalls_and_changes_nothing() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    plan = decide(replace(cluster.observe(), spec=None, spec_error="spec.x: wrong"))
    assert plan.status.traffic == cluster.status.traffic
    stalled = next(c for c in plan.status.conditions if c.type == "Stalled")
    assert (stalled.status, stalled.reason) == ("True", "InvalidSpec")


def test_decisions_are_stable() -> None:
    cluster = Cluster(spec("1", "2"))
    cluster.settle()
    cluster.wait(31)
    cluster.settle()
    before = cluster.status
    cluster.wait(3600)
    cluster.reconcile()
    assert cluster.status == before


def test_observed_is_data() -> None:
    assert Observed.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_the_stable_version_comes_back_after_a_fleet_gap_while_the_active_one_is_bad() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.bad["2"] = Failed(Reason.RANK_TOO_HIGH, "rank", retry=False)
    cluster.spec = spec("1", "2")
    cluster.settle()
    cluster.fleet = None
    cluster.reconcile()
    assert cluster.serving() == {}
    for listing in cluster.engines.values():
        listing.clear()
    cluster.fleet = fleet_view()
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_a_failed_removal_of_a_deleted_adapter_is_tried_again_before_the_deadline() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.deleting_since = cluster.now
    cluster.reconcile()
    cluster.wait(31)
    cluster.reconcile()
    cluster.load()
    assert cluster.reconcile().remove == (served("1"),)
    cluster.removed[served("1")] = Failed(Reason.VOLUME_ERROR, "no", retry=True)
    plan = cluster.reconcile()
    assert plan.look_again is not None
    assert (plan.look_again - cluster.now).total_seconds() < 60


def test_what_is_overdue_and_waits_for_something_else_is_not_looked_at_again_and_again() -> None:
    cluster = Cluster(spec("1"), bad={"1": Failed(Reason.VOLUME_FULL, "no space", retry=True)})
    cluster.reconcile()
    cluster.sync()
    cluster.reconcile()
    cluster.fleet = None
    cluster.wait(60)
    assert cluster.reconcile().look_again is None


def test_a_failure_counts_for_what_it_was_checked_against() -> None:
    cluster = Cluster(spec("1"))
    cluster.reconcile()
    cluster.fleet = fleet_view(expectations="e2")
    cluster.published["1"] = Failed(Reason.BASE_MODEL_MISMATCH, "no alias", retry=False, expectations="e1")
    cluster.reconcile()
    assert cluster.reconcile().publish == ("1",), "the alias came while the Job ran"
