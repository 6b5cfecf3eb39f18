"""Which Jobs are made of what is asked for: fair, bounded, and none held up by another's trouble."""

import asyncio
import hashlib
import json
import math
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.controller import jobs, manifests, sync
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, Scrubbed, SyncItem, SyncJob
from lorafleet.controller.sync import SyncReconciler
from lorafleet.controller.world import World
from lorafleet.rollout.observed import Failed, Published
from lorafleet.store.plan import MAX_ITEMS, PLAN_ENV, PublishItem, SyncPlan
from lorafleet.store.termination import SURE_ITEMS
from tests.controller.fakes import FakeKube, world_of
from tests.controller.fleets import SOURCES, add_adapter, beside, engine, hash_of, item_of, state_of

KEY = World.sync_key(("ns", "fleet"))
OBJECTS = {"objectStore": {"url": "s3://models/adapters/one/", "endpoint": "https://s3", "secretName": "keys"}}
OWN = [version for version in SOURCES if version != "2"]


@pytest.fixture
def state() -> FleetState:
    return state_of()


def reconciler(state: FleetState, limit: int = 2) -> tuple[SyncReconciler, FakeKube]:
    kube = FakeKube()
    world, _ = world_of(state)
    one = SyncReconciler(world, kube, Settings(sync_jobs_per_fleet=limit))
    one._ready = {"jobs", "pods"}
    return one, kube


def ask(state: FleetState, *versions: str) -> None:
    state.sync.requests["python"] = tuple(item_of(state, version) for version in versions)


def versions_of(job: dict[str, Any]) -> list[str]:
    return [item.version for item in jobs.read_items(job)]


async def test_versions_that_need_the_same_go_into_one_job(state: FleetState) -> None:
    one, kube = reconciler(state)
    ask(state, *OWN)
    await one(KEY)
    assert [versions_of(job) for job in kube.created] == [OWN]


async def test_the_claim_of_a_job_is_known_to_whoever_made_it_and_to_the_next_leader(state: FleetState) -> None:
    one, kube = reconciler(state)
    ask(state, "1")
    await one(KEY)
    (made,) = state.sync.jobs.values()
    next_one, _ = reconciler(state_of())
    (next_state,) = next_one._world.fleets.values()
    next_one._job(next_state, "ADDED", kube.created[0])
    (found,) = next_state.sync.jobs.values()
    assert (made.claim, found.claim) == ("adapters", "adapters")


async def test_a_claim_of_others_gets_a_job_of_its_own(state: FleetState) -> None:
    one, kube = reconciler(state)
    ask(state, "1", "2", "hub")
    await one(KEY)
    assert [versions_of(job) for job in kube.created] == [["1", "hub"], ["2"]]


async def test_a_job_has_no_more_items_than_its_environment_holds() -> None:
    files = [{"path": f"{number:02}" + "x" * 250, "sha256": "0" * 64} for number in range(64)]
    many = {f"v{number}": {"http": {"url": f"https://h/{number}", "files": files}} for number in range(9)}
    state = state_of()
    add_adapter(state, "python", sources=many)
    one, kube = reconciler(state, limit=16)
    ask(state, *many)
    await one(KEY)
    assert sorted(name for job in kube.created for name in versions_of(job)) == sorted(many), "none is left out"
    for job in kube.created:
        (env,) = job["spec"]["template"]["spec"]["containers"][0]["env"]
        assert len(env["value"]) < jobs.MAX_PLAN_BYTES


def many_wait(count: int) -> FleetState:
    """A fleet of which so many versions are to be published, each of an adapter of its own."""
    state = state_of()
    for number in range(count):
        name, uid = f"a{number}", f"u{number}"
        add_adapter(state, name, uid=uid, sources={"1": OBJECTS})
        state.sync.requests[name] = (SyncItem(name, uid, version="1", entry=hash_of(state, "1", name)),)
    return state


async def test_many_versions_are_shared_out_to_the_jobs_that_may_be_made() -> None:
    one, kube = reconciler(many_wait(2 * MAX_ITEMS + 100), limit=2)
    await one(KEY)
    assert [len(jobs.read_items(job)) for job in kube.created] == [MAX_ITEMS, MAX_ITEMS]
    for job in kube.created:
        (env,) = job["spec"]["template"]["spec"]["containers"][0]["env"]
        plan = SyncPlan.model_validate_json(env["value"].replace("$$", "$"))
        assert [(item.adapter, item.version) for item in plan.items if isinstance(item, PublishItem)] == [
            (item.adapter, item.version) for item in jobs.read_items(job)
        ]
        assert len(env["value"]) < jobs.MAX_PLAN_BYTES
        assert len(json.dumps(job["metadata"]["annotations"])) < 256 * 1024, "Kubernetes' limit"


@pytest.mark.parametrize(("count", "sizes"), [(40, [40]), (41, [40, 1]), (120, [60, 60]), (121, [61, 60])])
async def test_few_versions_are_not_shared_out(count: int, sizes: list[int]) -> None:
    one, kube = reconciler(many_wait(count), limit=2)
    await one(KEY)
    assert [len(jobs.read_items(job)) for job in kube.created] == sizes


def pod_ended(job: str, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{job}-x", "labels": {sync.JOB_LABEL: job}},
        "status": {
            "phase": "Succeeded",
            "containerStatuses": [{"state": {"terminated": {"message": json.dumps(report)}}}],
        },
    }


async def test_what_a_job_leaves_goes_into_another_at_once(state: FleetState) -> None:
    one, kube = reconciler(state, limit=1)
    ask(state, "1", "hub")
    await one(KEY)
    (name,) = state.sync.jobs
    one._pod(state, "MODIFIED", pod_ended(name, {"results": [{"i": 0, "id": 7}], "left": 1}))
    job = state.sync.jobs[name]
    assert job.results is not None
    assert [item.version for item in job.results] == ["1"]
    assert [item.version for item in job.open] == ["1"]
    await one(KEY)
    assert [versions_of(job) for job in kube.created] == [["1", "hub"], ["hub"]]


async def test_jobs_are_small_where_their_pods_cannot_be_asked() -> None:
    state = many_wait(300)
    one, kube = reconciler(state, limit=1)
    await one(KEY)
    (name,) = state.sync.jobs
    report = {"results": [{"i": 0, "id": 7}], "left": 299, "full": "0" * 64}
    one._pod(state, "MODIFIED", pod_ended(name, report))
    await one(KEY)
    assert [len(jobs.read_items(job)) for job in kube.created] == [300, SURE_ITEMS]


async def test_a_whole_report_counts_with_kubernetes_word_for_it(state: FleetState) -> None:
    one, _ = reconciler(state)
    ask(state, "1", "hub")
    await one(KEY)
    (job,) = state.sync.jobs.values()
    job.report = json.dumps({"results": [{"i": 0, "id": 7}, {"i": 1, "id": 8}]}).encode()
    full = hashlib.sha256(job.report).hexdigest()
    one._pod(state, "MODIFIED", pod_ended(job.name, {"results": [], "left": 2, "full": full}))
    assert job.results is not None
    assert [result.id for result in job.results.values() if isinstance(result, Published)] == [7, 8]
    assert job.report == b""
    assert not state.sync.unheard


async def test_jobs_of_a_fleet_are_bounded(state: FleetState) -> None:
    one, kube = reconciler(state, limit=1)
    ask(state, "1", "2")
    await one(KEY)
    await one(KEY)
    assert [versions_of(job) for job in kube.created] == [["1"]]


async def test_adapters_take_turns(state: FleetState) -> None:
    one, kube = reconciler(state, limit=1)
    add_adapter(state, "sql", uid="s")
    ask(state, *OWN)
    state.sync.requests["sql"] = (SyncItem("sql", "s", version="1", entry=hash_of(state, "1")),)
    await one(KEY)
    assert [item.adapter for item in jobs.read_items(kube.created[0])][:3] == ["python", "sql", "python"]


SERVED = f"python/1-{'a' * 12}"


async def test_nothing_is_removed_that_an_engine_of_another_fleet_on_the_claim_reads(state: FleetState) -> None:
    one, kube = reconciler(state)
    other = beside()
    other.engines["o"] = engine("o", listing={SERVED: f"/adapters/{SERVED}"})
    other.engines["o"].listed_at = math.inf
    one._world.fleets[other.ref] = other
    state.sync.requests["python"] = (SyncItem("python", "a", served=SERVED),)
    await one(KEY)
    assert kube.created == []
    other.engines["o"].listing = {}
    await one(KEY)
    assert [item.served for item in jobs.read_items(kube.created[0])] == [SERVED]


async def test_what_an_adapter_left_behind_is_not_removed_once_it_came_back(state: FleetState) -> None:
    """The fleet asked before; publishing may find these very bytes and leave them as they are."""
    one, kube = reconciler(state)
    state.sync.requests[""] = (SyncItem("", "f", served=SERVED),)
    ask(state, "1")
    await one(KEY)
    assert [(item.version, item.served) for job in kube.created for item in jobs.read_items(job)] == [("1", "")]


def pod_waiting(job: str, claim: str) -> dict[str, Any]:
    message = f'0/1 nodes are available: persistentvolumeclaim "{claim}" not found'
    return {
        "metadata": {"name": f"{job}-x", "labels": {sync.JOB_LABEL: job}},
        "status": {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "message": message}],
        },
    }


async def test_a_claim_that_does_not_exist_holds_nobody_else_up(
    state: FleetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "CLAIM_GRACE", 0.01)
    one, kube = reconciler(state, limit=1)
    ask(state, "2")
    await one(KEY)
    (name,) = state.sync.jobs
    one._pod(state, "ADDED", pod_waiting(name, "theirs"))
    ask(state, "2", "1")
    await one(KEY)
    assert [versions_of(job) for job in kube.created] == [["2"], ["1"]], "the place of the one that waits is free"
    await asyncio.sleep(0.05)
    results = state.sync.jobs[name].results
    assert results is not None
    (failure,) = results.values()
    assert isinstance(failure, Failed)
    assert (failure.reason, failure.retry) == (Reason.SOURCE_NOT_FOUND, True)
    assert "claim theirs does not exist in namespace ns" in failure.message


async def test_a_claim_that_comes_in_time_is_used(state: FleetState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "CLAIM_GRACE", 0.01)
    one, _ = reconciler(state)
    ask(state, "2")
    await one(KEY)
    (name,) = state.sync.jobs
    one._pod(state, "ADDED", pod_waiting(name, "theirs"))
    pod = pod_waiting(name, "theirs") | {"status": {"phase": "Running", "podIP": "127.0.0.1"}}
    one._pod(state, "MODIFIED", pod)
    await asyncio.sleep(0.05)
    assert state.sync.jobs[name].results is None
    assert state.sync.jobs[name].ip == "127.0.0.1"


async def test_the_fleets_own_claim_is_waited_for(state: FleetState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "CLAIM_GRACE", 0.01)
    one, _ = reconciler(state)
    ask(state, "1")
    await one(KEY)
    (name,) = state.sync.jobs
    one._pod(state, "ADDED", pod_waiting(name, "adapters"))
    await asyncio.sleep(0.05)
    assert state.sync.jobs[name].results is None
    assert "adapters" in state.sync.jobs[name].note


async def test_stuck_jobs_are_bounded_too(state: FleetState) -> None:
    one, kube = reconciler(state, limit=1)
    for number in range(4):
        stuck = SyncJob(f"stuck-{number}", (item_of(state, "2"),), stuck=True)
        state.sync.jobs[stuck.name] = stuck
    ask(state, "1")
    await one(KEY)
    assert kube.created == []


def cron_job(state: FleetState, owner: str = "lorafleet-scrub-fleet", kind: str = "CronJob") -> dict[str, Any]:
    assert state.fleet
    plan, items, _ = jobs.plan_for(state, [SyncItem("", "f")], Settings())
    template = manifests.scrub(state.fleet, "@daily", plan, items, Settings())["spec"]["jobTemplate"]
    metadata = {
        **template["metadata"],
        "name": "scrub-1",
        "ownerReferences": [{"kind": kind, "name": owner, "uid": "c"}],
    }
    return {"metadata": metadata, "spec": template["spec"], "status": {}}


REPORT = {"results": [{"i": 0, "scrubbed": 2}], "volume": {"usedBytes": 1}}


def scrub_pod() -> dict[str, Any]:
    ended = {"terminated": {"message": json.dumps(REPORT), "finishedAt": "2026-01-01T00:00:00Z"}}
    return {
        "metadata": {"name": "scrub-1-x", "labels": {sync.JOB_LABEL: "scrub-1"}},
        "status": {"phase": "Succeeded", "containerStatuses": [{"state": ended}]},
    }


async def test_a_job_of_the_scrub_is_taken_and_takes_no_place(state: FleetState) -> None:
    one, kube = reconciler(state, limit=1)
    one._job(state, "ADDED", cron_job(state))
    ask(state, "1")
    await one(KEY)
    assert len(kube.created) == 1
    one._pod(state, "ADDED", scrub_pod())
    results = state.sync.jobs["scrub-1"].results
    assert results == {SyncItem("", "f"): Scrubbed(2, (), "2026-01-01T00:00:00Z")}
    assert state.sync.volume is not None
    assert state.sync.volume.used_bytes == 1


async def test_a_job_of_the_scrub_stays_for_the_person_who_waits_for_it(state: FleetState) -> None:
    one, kube = reconciler(state)
    one._job(state, "ADDED", cron_job(state))
    one._pod(state, "ADDED", scrub_pod())
    state.sync.jobs["scrub-1"].open.clear()
    await one(KEY)
    assert kube.deleted == []
    assert state.sync.jobs == {}
    one._job(state, "MODIFIED", cron_job(state))
    assert state.sync.jobs == {}, "its results count once"


@pytest.mark.parametrize("wrong", [{"owner": "lorafleet-scrub-other"}, {"kind": "ReplicaSet"}])
async def test_a_job_of_somebody_else_is_left_alone(state: FleetState, wrong: dict[str, str]) -> None:
    one, _ = reconciler(state)
    one._job(state, "ADDED", cron_job(state, **wrong))
    assert state.sync.jobs == {}


SECRET = "hunter2-do-not-show"


async def test_no_value_of_a_secret_can_reach_a_job(state: FleetState) -> None:
    """The operator has no way to read a source's Secret: it never asks for one, and a Job only names it."""
    one, kube = reconciler(state)
    asked: list[str] = []

    async def get(where: str) -> dict[str, Any]:
        asked.append(where)
        return {"data": {"token": SECRET}}

    kube.get = get  # type: ignore[method-assign]
    ask(state, *SOURCES)
    await one(KEY)
    assert asked == []
    text = json.dumps(kube.created)
    assert SECRET not in text
    plans = [entry for job in kube.created for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert {entry["name"] for entry in plans} == {PLAN_ENV}
