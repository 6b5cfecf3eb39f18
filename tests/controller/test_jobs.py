"""The manifest of a sync Job, and what its pod says in the end."""

import json
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.controller import jobs
from lorafleet.controller.objects import parse_adapter, parse_fleet
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, SyncItem
from lorafleet.rollout.observed import Failed, Published
from lorafleet.rollout.versions import entry_hash
from lorafleet.store.plan import PLAN_ENV, SyncPlan

META = {"namespace": "ns", "resourceVersion": "1", "generation": 1}


@pytest.fixture
def state() -> FleetState:
    one = FleetState(("ns", "fleet"))
    one.fleet = parse_fleet(
        {
            "metadata": {**META, "name": "fleet", "uid": "f"},
            "spec": {
                "baseModel": {"name": "base", "aliases": ["/models/base"]},
                "engines": {"selector": {"matchLabels": {"app": "vllm"}}},
                "storage": {"claimName": "adapters", "mountPath": "/adapters"},
            },
            "status": {"engineModel": "/models/base", "highestId": 41},
        }
    )
    one.adapters["python"] = parse_adapter(
        {
            "metadata": {**META, "name": "python", "uid": "a"},
            "spec": {
                "fleet": "fleet",
                "versions": [
                    {"name": "1", "source": {"volume": {"path": "incoming/1"}}},
                    {"name": "2", "source": {"volume": {"path": "x", "claimName": "theirs"}}},
                ],
            },
        }
    )
    return one


def item(state: FleetState, version: str) -> SyncItem:
    spec = state.adapters["python"].spec
    assert spec
    entry = next(entry for entry in spec.versions if entry.name == version)
    return SyncItem("python", "a", version=version, entry=entry_hash(entry))


def made(state: FleetState, *items: SyncItem) -> dict[str, Any]:
    settings = Settings(sync_image="example/lorafleet:1")
    plan, taken, claims = jobs.plan_for(state, items, settings)
    assert state.fleet
    return jobs.manifest(state.fleet, "job", plan, taken, claims, settings)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def plan_of(job: dict[str, Any]) -> SyncPlan:
    (env,) = pod_of(job)["containers"][0]["env"]
    assert env["name"] == PLAN_ENV
    return SyncPlan.model_validate_json(env["value"].replace("$$", "$"))


def test_the_plan_says_what_to_check_against(state: FleetState) -> None:
    plan = plan_of(made(state, item(state, "1")))
    assert plan.model == "/models/base"
    assert plan.base_models == ("base", "/models/base")
    assert plan.min_id == 42


def test_other_claims_are_mounted_read_only(state: FleetState) -> None:
    job = made(state, item(state, "1"), item(state, "2"))
    mounts = {
        mount["mountPath"]: mount.get("readOnly", False) for mount in pod_of(job)["containers"][0]["volumeMounts"]
    }
    assert mounts == {"/volume": False, "/tmp": False, "/sources/theirs": True}


def test_the_job_may_do_nothing_but_its_work(state: FleetState) -> None:
    pod = pod_of(made(state, item(state, "1")))
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["restartPolicy"] == "Never"


def test_an_entry_that_is_gone_is_left_out(state: FleetState) -> None:
    gone = SyncItem("python", "a", version="1", entry="another")
    _, taken, _ = jobs.plan_for(state, [gone, item(state, "2")], Settings())
    assert taken == (item(state, "2"),)


def test_the_items_are_read_back_from_the_job(state: FleetState) -> None:
    items = (item(state, "1"), SyncItem("", "f", served="python/1-abc"))
    assert jobs.read_items(made(state, *items)) == items
    assert jobs.read_items({"metadata": {}}) == ()
    assert jobs.read_items({"metadata": {"annotations": {jobs.ITEMS_ANNOTATION: "{"}}}) == ()


def pod(phase: str, message: str | None = None, **terminated: Any) -> dict[str, Any]:
    state = {"terminated": {"message": message, **terminated}}
    return {"metadata": {"name": "pod"}, "status": {"phase": phase, "containerStatuses": [{"state": state}]}}


ITEMS = (SyncItem("python", "a", version="1"), SyncItem("python", "a", served="python/0-abc"))
REPORT = {
    "results": [
        {"i": 0, "id": 7, "digest": "sha256:" + "a" * 64, "rank": 8, "targetModules": ["q_proj"], "sizeBytes": 10},
        {"i": 1, "servedName": "python/0-abc"},
    ]
}


def test_a_running_pod_has_no_results() -> None:
    assert jobs.pod_results(pod("Running"), ITEMS) is None


def test_a_report_becomes_results() -> None:
    results = jobs.pod_results(pod("Succeeded", json.dumps(REPORT)), ITEMS)
    assert results == {ITEMS[0]: Published(7, "sha256:" + "a" * 64, 8, ("q_proj",), 10), ITEMS[1]: None}


def test_a_failure_keeps_its_reason_and_whether_to_try_again() -> None:
    report = {"results": [{"i": 0, "reason": "RankTooHigh", "message": "rank 64"}, {"i": 1}]}
    results = jobs.pod_results(pod("Succeeded", json.dumps(report)), ITEMS)
    assert results and results[ITEMS[0]] == Failed(Reason.RANK_TOO_HIGH, "rank 64", False)


@pytest.mark.parametrize("message", [None, "", "Traceback …", '{"results": []}'])
def test_a_pod_that_says_nothing_useful_is_tried_again(message: str | None) -> None:
    results = jobs.pod_results(pod("Failed", message, exitCode=137, reason="OOMKilled"), ITEMS)
    assert results and all(isinstance(result, Failed) and result.retry for result in results.values())


def test_a_pod_that_cannot_start_says_why() -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "message": 'persistentvolumeclaim "x" not found'}
    assert 'persistentvolumeclaim "x" not found' in jobs.pod_note({"status": {"conditions": [unscheduled]}})
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    assert "no such image" in jobs.pod_note({"status": {"containerStatuses": [waiting]}})
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert jobs.pod_note({"status": {"containerStatuses": [creating]}}) == ""


def test_names_fit_a_label() -> None:
    assert len(jobs.job_name("x" * 63)) <= 63
