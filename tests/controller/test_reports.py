"""What a sync pod says in the end, and why it does not run."""

import json
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.controller import reports
from lorafleet.controller.state import Result, Scrubbed, SyncItem
from lorafleet.rollout.observed import Failed, Published

ITEMS = (SyncItem("python", "a", version="1"), SyncItem("python", "a", served="python/0-abc"), SyncItem("", "f"))
DIGEST = "sha256:" + "a" * 64
REPORT = {
    "results": [
        {
            "i": 0,
            "id": 7,
            "digest": DIGEST,
            "rank": 8,
            "targetModules": ["q_proj"],
            "sizeBytes": 10,
            "pin": "3f2a",
            "dtype": "bfloat16",
            "slotBytes": 99,
            "verifiedBy": "a key",
            "notices": [{"reason": "HasNoEffect", "message": "all zero"}],
        },
        {"i": 1, "servedName": "python/0-abc"},
        {"i": 2, "scrubbed": 3, "damaged": ["python/0-abc"]},
    ],
    "volume": {"usedBytes": 5, "freeBytes": 6, "sharing": "copy"},
}


def pod(phase: str, message: str | None = None, **terminated: Any) -> dict[str, Any]:
    state = {"terminated": {"message": message, **terminated}}
    return {"metadata": {"name": "pod"}, "status": {"phase": phase, "containerStatuses": [{"state": state}]}}


def results(message: object, **terminated: Any) -> dict[SyncItem, Result]:
    text = message if isinstance(message, str) or message is None else json.dumps(message)
    outcome = reports.pod_outcome(pod("Succeeded", text, **terminated), ITEMS)
    assert outcome is not None
    return outcome.results


def test_a_running_pod_has_no_results() -> None:
    assert reports.pod_outcome(pod("Running"), ITEMS) is None


def test_a_report_becomes_results() -> None:
    found = results(REPORT, finishedAt="2026-01-01T00:00:00Z")
    assert found[ITEMS[0]] == Published(
        7,
        DIGEST,
        8,
        ("q_proj",),
        10,
        pin="3f2a",
        dtype="bfloat16",
        slot_bytes=99,
        verified_by="a key",
        notices=("HasNoEffect: all zero",),
    )
    assert found[ITEMS[1]] is None
    assert found[ITEMS[2]] == Scrubbed(3, ("python/0-abc",), "2026-01-01T00:00:00Z")


def test_what_was_left_for_another_job_is_no_failure() -> None:
    few = {**REPORT, "results": REPORT["results"][:1]}
    assert len(results({**few, "left": len(ITEMS) - 1})) == 1
    assert len(results(few)) == len(ITEMS), "without that word it was lost with its pod"


@pytest.mark.parametrize("whole", [b"", b"{}", b'{"results": [{"i": 0, "id": 666}]}'])
def test_a_whole_report_that_kubernetes_does_not_vouch_for_is_not_believed(whole: bytes) -> None:
    part = {"results": [], "left": len(ITEMS), "full": "0" * 64}
    assert reports.pod_outcome(pod("Succeeded", json.dumps(part)), ITEMS, whole) == reports.Outcome({}, partial=True)


def test_what_was_seen_of_the_volume_is_kept() -> None:
    outcome = reports.pod_outcome(pod("Succeeded", json.dumps(REPORT)), ITEMS)
    assert outcome and outcome.volume
    assert (outcome.volume.used_bytes, outcome.volume.free_bytes, outcome.volume.sharing) == (5, 6, "copy")


def test_a_failure_keeps_its_reason_its_pin_and_whether_to_try_again() -> None:
    found = results({"results": [{"i": 0, "reason": "RankTooHigh", "message": "rank 64", "pin": "3f2a"}]})
    assert found[ITEMS[0]] == Failed(Reason.RANK_TOO_HIGH, "rank 64", False, pin="3f2a")


@pytest.mark.parametrize("message", [None, "", "Traceback …", '{"results": []}'])
def test_a_pod_that_says_nothing_useful_is_tried_again(message: str | None) -> None:
    found = results(message, exitCode=137, reason="OOMKilled")
    assert all(isinstance(result, Failed) and result.retry for result in found.values())
    assert found.keys() == set(ITEMS)


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    return {"status": {"conditions": [condition]}}


def test_a_pod_that_cannot_start_says_why() -> None:
    assert 'persistentvolumeclaim "x" not found' in reports.pod_note(unscheduled('persistentvolumeclaim "x" not found'))
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    assert "no such image" in reports.pod_note({"status": {"containerStatuses": [waiting]}})
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert reports.pod_note({"status": {"containerStatuses": [creating]}}) == ""


def test_a_claim_that_does_not_exist_is_told_from_other_troubles() -> None:
    text = '0/1 nodes are available: persistentvolumeclaim "theirs" not found. not found'
    assert reports.missing_claim(unscheduled(text), ["theirs"]) == "theirs"
    assert reports.missing_claim(unscheduled(text), ["others"]) is None, "the fleet's own claim is waited for"
    assert reports.missing_claim(unscheduled("0/1 nodes are available: insufficient memory"), ["theirs"]) is None
    assert reports.missing_claim({}, ["theirs"]) is None


def test_only_a_pod_that_runs_is_asked() -> None:
    assert reports.running_at({"status": {"phase": "Running", "podIP": "10.0.0.1"}}) == "10.0.0.1"
    assert reports.running_at({"status": {"phase": "Pending", "podIP": "10.0.0.1"}}) == ""
    assert reports.running_at({}) == ""
