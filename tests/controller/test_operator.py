"""The operator as a process, on a real API server, with fake engines and the real sync code."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.names import ADAPTER_PLURAL, FLEET_PLURAL
from lorafleet.kube import path
from tests.adapters import PREFIX, pair
from tests.harness.plane import Plane, until
from tests.harness.stage import Stage, stage


@pytest.fixture
async def world(plane: Plane, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(plane, namespace, tmp_path) as one:
        await plane.fleet(namespace)
        await one.engine("vllm-0")
        await one.engine("vllm-1")
        yield one


async def events_of(world: Stage, name: str) -> dict[str, str]:
    found = (await world.plane.kube.list(path("events.k8s.io/v1", "events", world.namespace)))["items"]
    notes = {event["reason"]: event["note"] for event in found if event["regarding"]["name"] == name}
    return notes if "Serving" in notes else {}


async def serve(world: Stage, *versions: str, name: str = "python", **spec: object) -> None:
    for version in versions:
        world.source(version)
    await world.plane.adapter(world.namespace, name, *versions, **spec)
    await world.plane.condition(world.namespace, name, "Ready", "Serving")


async def test_an_adapter_is_published_loaded_and_serves(world: Stage) -> None:
    await serve(world, "1.0.0")
    await world.loaded("1.0.0")
    status = (await world.plane.get_adapter(world.namespace, "python"))["status"]
    version = status["versions"][0]
    assert status["traffic"] == [{"version": "1.0.0", "servedName": version["servedName"], "weight": 100}]
    assert (world.serving / version["servedName"] / "lorafleet.json").exists()
    assert version["id"] == 1
    assert version["rank"] == 8
    assert status["loaded"] == "2/2"
    events = await until("events are posted", lambda: events_of(world, "python"))
    assert {"Publishing", "Loading", "Serving"} <= events.keys()


async def test_a_new_version_switches_and_the_old_one_is_unloaded(world: Stage) -> None:
    await serve(world, "1")
    world.source("2")
    await world.plane.adapter(world.namespace, "python", "1", "2")
    await world.loaded("2")
    status = (await world.plane.get_adapter(world.namespace, "python"))["status"]
    assert status["stableVersion"] == "2"
    assert [engine.double_loads for engine in world.engines.values()] == [0, 0]


async def test_an_engine_that_restarts_gets_its_adapters_back(world: Stage) -> None:
    await serve(world, "1")
    await world.restart("vllm-0")
    await world.loaded("1")
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")


async def test_a_new_engine_gets_all_adapters(world: Stage) -> None:
    await serve(world, "1")
    await world.engine("vllm-2")
    await world.loaded("1")
    status = (await world.plane.get_adapter(world.namespace, "python"))["status"]
    assert status["loaded"] in ("2/2", "2/3", "3/3")


async def test_deletion_unloads_and_removes_bytes(world: Stage) -> None:
    await serve(world, "1", "2")
    await world.delete(ADAPTER_PLURAL, "python")
    await world.gone(ADAPTER_PLURAL, "python")
    await world.loaded()
    assert not (world.serving / "python").exists()


async def test_deletion_of_a_fleet_unloads_and_lets_go(world: Stage) -> None:
    await serve(world, "1")
    await world.delete(FLEET_PLURAL, "fleet")
    await world.gone(FLEET_PLURAL, "fleet")
    await world.loaded()
    await until(
        "the adapter says that its fleet is gone",
        lambda: says(world, "python", "Ready", "WaitingForFleet"),
    )


async def says(world: Stage, name: str, kind: str, reason: str) -> bool:
    status = (await world.plane.get_adapter(world.namespace, name)).get("status") or {}
    return any(c["type"] == kind and c["reason"] == reason for c in status.get("conditions", ()))


async def test_a_hung_engine_hurts_only_itself(world: Stage) -> None:
    world.engines["vllm-1"].settings.hang.append("/v1/models")
    await world.restart("vllm-1")
    world.source("1")
    await world.plane.adapter(world.namespace, "python", "1")
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    await world.loaded("1", on=("vllm-0",))
    fleet = await until("the fleet says so", lambda: unhealthy(world, "vllm-1"), 30)
    assert "did not list its models" in fleet


async def unhealthy(world: Stage, engine: str) -> str:
    status = (await world.plane.get_fleet(world.namespace)).get("status") or {}
    return next((e.get("message", "") for e in status.get("engines", ()) if e["name"] == engine), "")


BAD = {
    "rank": ({"r": 32}, "RankTooHigh"),
    "base": ({"base_model_name_or_path": "other"}, "BaseModelMismatch"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_adapter_stalls_and_nothing_else_moves(world: Stage, case: str) -> None:
    await serve(world, "1", name="good")
    changes, reason = BAD[case]
    world.source("2", **changes)
    await world.plane.adapter(world.namespace, "bad", "2")
    message = await world.plane.condition(world.namespace, "bad", "Stalled", reason)
    assert "version 2" in message
    await world.loaded(adapter="bad")
    await world.loaded("1", adapter="good")
    assert not (world.serving / "bad").exists()


async def test_a_version_that_an_engine_rejects_stalls(world: Stage) -> None:
    await serve(world, "1")
    body = '{"error": {"message": "vLLM does not yet support DoRA.", "type": "x", "code": 500}}'
    world.engines["vllm-0"].settings.answers["/v1/load_lora_adapter"] = (500, body)
    world.source("2")
    await world.plane.adapter(world.namespace, "python", "1", "2")
    message = await world.plane.condition(world.namespace, "python", "Stalled", "FeatureNotSupported")
    assert "vllm-0" in message
    status = (await world.plane.get_adapter(world.namespace, "python"))["status"]
    assert [(t["version"], t["weight"]) for t in status["traffic"]] == [("1", 100)]


ILL: dict[str, tuple[dict[str, Any], tuple[str, ...], bool, str]] = {
    "too many API servers": ({}, ("--api-server-count", "2"), False, "--api-server-count 1"),
    "too old": ({"version": "0.25.0"}, (), True, "upgrade it to 0.27.1"),
    "no runtime updating": ({"runtime_updating": False}, (), True, "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
    "another base model": ({"model": "/models/x", "served_names": ["x"]}, (), True, "spec.baseModel.aliases"),
    "an API key": ({"api_key": "k"}, (), True, "spec.engines.apiKey"),
}


@pytest.mark.parametrize("case", ILL)
async def test_a_misconfigured_engine_is_diagnosed_and_left_alone(world: Stage, case: str) -> None:
    settings, args, ready, words = ILL[case]
    await serve(world, "1")
    engine = await world.engine("vllm-9", args=args, ready=ready, **settings)
    message = await until("diagnosis", lambda: unhealthy(world, "vllm-9"))
    assert words in message
    assert "vllm-9" in message
    assert not engine.adapters
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")


async def test_a_restart_of_the_operator_changes_nothing(world: Stage, tmp_path: Path) -> None:
    await serve(world, "1")
    before = (await world.plane.get_adapter(world.namespace, "python"))["status"]
    assert world.replica is not None
    world.replica.kill()
    from tests.harness.replica import replica

    settings = {"watch_namespaces": world.namespace, "lease_name": f"lease-{world.namespace}"}
    async with replica(world.plane.kubeconfig, tmp_path / "second.log", **settings) as second:
        await until("engines listed", lambda: listed(second), 20)
        counts = [engine.report()["counts"] for engine in world.engines.values()]
        assert all(count.get("/v1/load_lora_adapter") == 1 for count in counts), counts
        await until("the adapter was looked at", lambda: reconciled(second))
        assert (await world.plane.get_adapter(world.namespace, "python"))["status"] == before, "nothing flaps"
        world.source("2")
        await world.plane.adapter(world.namespace, "python", "1", "2")
        await world.loaded("2")
    assert [engine.double_loads for engine in world.engines.values()] == [0, 0]


async def listed(one: object) -> bool:
    metrics = await one.metrics()  # type: ignore[attr-defined]
    return sum(value for name, value in metrics.items() if name.startswith("lorafleet_engine_lists_total")) >= 2


async def reconciled(one: object) -> bool:
    metrics = await one.metrics()  # type: ignore[attr-defined]
    return float(metrics.get('lorafleet_reconciles_total{kind="adapter",result="ok"}', 0)) >= 2


async def test_ids_are_never_used_again(world: Stage) -> None:
    await serve(world, "1")
    await world.delete(ADAPTER_PLURAL, "python")
    await world.gone(ADAPTER_PLURAL, "python")
    await serve(world, "2")
    status = (await world.plane.get_adapter(world.namespace, "python"))["status"]
    assert status["versions"][0]["id"] == 2
    await asyncio.sleep(0)


@pytest.mark.parametrize("what", ["entry", "adapter"])
async def test_what_was_published_for_nobody_is_removed_again(world: Stage, what: str) -> None:
    await serve(world, "1", name="other")
    world.source("2")
    world.kubelet.paused.clear()
    await world.plane.adapter(world.namespace, "python", "2")
    await until("a sync job", lambda: sync_jobs(world))
    if what == "entry":
        await world.plane.adapter(world.namespace, "python", "1")
    else:
        await world.delete(ADAPTER_PLURAL, "python")
    world.kubelet.paused.set()
    if what == "entry":
        await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    else:
        await world.gone(ADAPTER_PLURAL, "python")

    def only_known() -> bool:
        folder = world.serving / "python"
        return sorted(path.name[:1] for path in folder.iterdir() if folder.exists()) == ["1"] * (what == "entry")

    await until("only what is known is left", lambda: not (world.serving / "python").exists() or only_known(), 20)
    assert world.engines["vllm-0"].report()["double_loads"] == 0


async def sync_jobs(world: Stage) -> list[object]:
    jobs = await world.plane.kube.list(path("batch/v1", "jobs", world.namespace))
    return [job for job in jobs["items"] if "2" in job["metadata"]["annotations"]["lorafleet.dev/items"]]


async def test_finished_jobs_are_deleted(world: Stage) -> None:
    await serve(world, "1")

    async def none() -> bool:
        return not (await world.plane.kube.list(path("batch/v1", "jobs", world.namespace)))["items"]

    await until("no job is left", none)


async def fleet_says(world: Stage, reason: str, name: str = "fleet") -> str:
    status = (await world.plane.get_fleet(world.namespace, name)).get("status") or {}
    found = [c["message"] for c in status.get("conditions", ()) if c["reason"] == reason]
    return found[0] if found else ""


async def test_a_second_fleet_on_the_same_engines_changes_nothing(world: Stage) -> None:
    await serve(world, "1")
    await world.plane.fleet(world.namespace, "second")
    await until("the diagnosis", lambda: fleet_says(world, "ClaimedByTwoFleets", "second"))
    world.source("2")
    await world.plane.adapter(world.namespace, "stranger", "2", fleet="second")
    await world.plane.adapter(world.namespace, "python", "1", "2")
    await world.loaded("2")
    await world.loaded(adapter="stranger")
    assert await fleet_says(world, "EnginesHealthy")


async def test_the_api_key_comes_from_its_secret_and_is_nowhere_else(
    plane: Plane, namespace: str, tmp_path: Path
) -> None:
    key = "sk-very-secret-indeed"
    async with stage(plane, namespace, tmp_path, log_level="DEBUG") as world:
        ref = {"secretKeyRef": {"name": "vllm", "key": "api-key"}}
        engines = {"selector": {"matchLabels": {"app": "vllm"}}, "port": 8000, "apiKey": ref}
        await plane.fleet(namespace, engines=engines)
        await world.engine("vllm-0", api_key=key)
        message = await until("the missing Secret is said", lambda: fleet_says(world, "ApiKeyMissing"))
        assert "create the Secret that spec.engines.apiKey names" in message
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vllm"}, "stringData": {"api-key": key}}
        await plane.kube.create(path("v1", "secrets", namespace), secret)
        await world.restart("vllm-0")
        await serve(world, "1")
        await world.loaded("1")
        world.engines["vllm-0"].settings.api_key = "sk-another-secret"
        await world.restart("vllm-0", 2)
        message = await until("the wrong key is said", lambda: fleet_says(world, "ApiKeyRejected"))
        assert key not in message
        objects = [await plane.get_fleet(namespace), await plane.get_adapter(namespace, "python")]
        objects.append(await plane.kube.list(path("events.k8s.io/v1", "events", namespace)))
        assert key not in json.dumps(objects)
        assert world.replica is not None
        assert key not in world.replica.log.read_text()


async def test_limits_of_the_spec_count_where_the_engines_do_not_show_them(
    plane: Plane, namespace: str, tmp_path: Path
) -> None:
    async with stage(plane, namespace, tmp_path):
        await plane.fleet(namespace, capacity={"maxLoras": 2, "maxCpuLoras": 8, "tensorParallelSize": 4})

        async def memory() -> dict[str, Any]:
            return ((await plane.get_fleet(namespace)).get("status") or {}).get("memory") or {}

        found = await until("the fleet's memory", memory)
        assert (found["maxLoras"], found["maxCpuLoras"], found["tensorParallelSize"]) == (2, 8, 4)


async def pending(world: Stage) -> list[str]:
    status = (await world.plane.get_fleet(world.namespace)).get("status") or {}
    return [one["servedName"] for one in status.get("pendingRemovals", ())]


async def test_bytes_of_an_adapter_that_came_back_are_not_removed(plane: Plane, namespace: str, tmp_path: Path) -> None:
    async with stage(plane, namespace, tmp_path) as world:
        await plane.fleet(namespace, deletionDeadline="1s", drainTime="100ms")
        await world.engine("vllm-0")
        await world.engine("vllm-1")
        await serve(world, "1")
        served = (await plane.get_adapter(namespace, "python"))["status"]["versions"][0]["servedName"]
        world.engines["vllm-1"].settings.hang += ["/v1/unload_lora_adapter", "/v1/models"]
        await world.delete(ADAPTER_PLURAL, "python")
        await world.gone(ADAPTER_PLURAL, "python")
        assert await pending(world) == [served], "left to the fleet, because an engine may read it"
        assert (world.serving / served).exists()
        await plane.adapter(namespace, "python", "1")
        await plane.condition(namespace, "python", "Ready", "Serving")
        world.engines["vllm-1"].settings.hang.clear()
        await world.restart("vllm-1")
        await world.loaded("1")

        async def nothing_pending() -> bool:
            return not await pending(world)

        await until("the removal is dropped", nothing_pending)
        assert (world.serving / served / "adapter_model.safetensors").exists()


async def test_a_version_that_a_client_had_loaded_is_unloaded_before_its_bytes_go(world: Stage) -> None:
    await serve(world, "1", "2")
    status = (await world.plane.get_adapter(world.namespace, "python"))["status"]
    lazy = status["versions"][0]["servedName"]
    engine = world.engines["vllm-0"]
    # As vLLM's resolver does on a request for the name, after the operator's last look.
    engine.adapters[lazy] = f"/adapters/{lazy}"
    world.source("3")
    await world.plane.adapter(world.namespace, "python", "2")
    await until("the bytes are gone", lambda: not (world.serving / lazy).exists(), 20)
    assert lazy not in engine.adapters, "no engine lists what is gone"
    assert await says(world, "python", "Ready", "Serving")


async def test_an_odd_job_does_not_end_the_operator(world: Stage) -> None:
    await serve(world, "1")
    labels = {
        "app.kubernetes.io/managed-by": "lorafleet",
        "lorafleet.dev/component": "sync",
        "lorafleet.dev/fleet": "fleet",
    }
    container = {"name": "x", "image": "x", "env": [{"name": "LORAFLEET_PLAN", "value": "{}"}]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "odd",
            "labels": labels,
            "annotations": {"lorafleet.dev/items": '[["a","b","c","d","e","f","g"]]'},
        },
        "spec": {"suspend": True, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    await world.plane.kube.create(path("batch/v1", "jobs", world.namespace), job)
    world.source("2")
    await world.plane.adapter(world.namespace, "python", "1", "2")
    await world.loaded("2")
    assert world.replica is not None and world.replica.process.poll() is None


async def test_an_engine_that_is_too_old_for_a_version_does_not_get_it(world: Stage) -> None:
    world.source(
        "1", rank_pattern={"q_proj": 4}, weights={**pair(f"{PREFIX}.q_proj", 4), **pair(f"{PREFIX}.v_proj", 8)}
    )
    await world.plane.adapter(world.namespace, "python", "1")
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    old = await world.engine("vllm-old", version="0.28.0")
    message = await world.plane.condition(world.namespace, "python", "Stalled", "FeatureNotSupported")
    assert "vllm-old runs vLLM 0.28.0" in message
    assert not old.adapters
    await world.loaded("1", on=("vllm-0", "vllm-1"))
