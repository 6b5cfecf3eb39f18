"""Rollouts on a real API server: fake engines answer probes, fake routers count, the operator is a process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.names import ADAPTER_PLURAL, API_VERSION, STABLE_ANNOTATION
from lorafleet.kube import path
from tests.harness.plane import Plane, until
from tests.harness.replica import replica
from tests.harness.router import FakeRouter
from tests.harness.stage import Stage, stage

ANALYSIS = {"interval": "1s", "minRequests": 10, "maxErrorRate": 0.1}
TWO_STEPS = {"steps": [{"weight": 20, "pause": "1s"}, {"weight": 50, "pause": "1s"}], "analysis": ANALYSIS}
WAITS = {"steps": [{"weight": 20, "pause": {}}, {"weight": 50, "pause": {}}]}


@pytest.fixture
async def world(plane: Plane, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(plane, namespace, tmp_path) as one:
        await plane.fleet(namespace)
        await one.engine("vllm-0")
        await one.engine("vllm-1")
        yield one


async def status(world: Stage, name: str = "python") -> dict[str, Any]:
    return (await world.plane.get_adapter(world.namespace, name)).get("status") or {}


async def weights(world: Stage, name: str = "python") -> dict[str, int]:
    return {one["version"]: one["weight"] for one in (await status(world, name)).get("traffic", ())}


async def reaches(world: Stage, shares: dict[str, int], name: str = "python", deadline: float = 30.0) -> None:
    async def holds() -> bool:
        return await weights(world, name) == shares

    try:
        await until(f"{name} has {shares}", holds, deadline)
    except AssertionError as error:
        log = world.replica.log.read_text()[-3000:] if world.replica else ""
        raise AssertionError(f"{error}; status {await status(world, name)}\n{log}") from None


async def put(world: Stage, *versions: str, name: str = "python", **spec: Any) -> None:
    for version in versions:
        world.source(version)
    await world.plane.adapter(world.namespace, name, *versions, **spec)


async def serve(world: Stage, version: str, name: str = "python", **spec: Any) -> None:
    await put(world, version, name=name, **spec)
    await reaches(world, {version: 100}, name)


class Traffic:
    """Requests as shares say, counted by a router: 100 a round; ``bad`` are versions that fail."""

    def __init__(self, world: Stage, router: FakeRouter) -> None:
        self.world, self.router = world, router
        self.bad: set[str] = set()
        self.seen: list[dict[str, int]] = []

    async def _run(self) -> None:
        while True:
            traffic = (await status(self.world)).get("traffic", ())
            shares = {one["version"]: one["weight"] for one in traffic}
            if shares and (not self.seen or self.seen[-1] != shares):
                self.seen.append(shares)
            for one in traffic:
                what = "server" if one["version"] in self.bad else "ok"
                self.router.count(one["servedName"], **{what: one["weight"]})
            await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Traffic"]:
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()


async def events(world: Stage, name: str = "python") -> set[str]:
    found = (await world.plane.kube.list(path("events.k8s.io/v1", "events", world.namespace)))["items"]
    return {event["reason"] for event in found if event["regarding"]["name"] == name}


async def test_a_canary_goes_by_its_steps_to_all_traffic_and_statuses_say_what_was_counted(world: Stage) -> None:
    await serve(world, "1")
    async with Traffic(world, await world.router("router-0")).running() as traffic:
        await until("the router is known", lambda: routers(world))
        await put(world, "1", "2", rollout=TWO_STEPS)
        await reaches(world, {"2": 100})
        assert traffic.seen[:3] == [{"1": 100}, {"1": 80, "2": 20}, {"1": 50, "2": 50}]
        found = await status(world)
        assert found["stableVersion"] == "2"
        assert [entry["what"] for entry in found["history"]][-2:] == ["Started", "Promoted"]
        version = next(one for one in found["versions"] if one["name"] == "2")
        assert version["statistics"]["successRate"] == 1.0
        assert version["statistics"]["requestCount"] > 10
        assert version["statistics"]["averageLatencyMs"] == 10.0

    async def posted() -> bool:
        return {"RolloutProgressing", "Promoted"} <= await events(world)

    await until("events of the rollout", posted)
    assert world.replica is not None
    metrics = await world.replica.metrics()
    label = f'{{fleet="fleet",namespace="{world.namespace}"}}'
    assert metrics[f"lorafleet_rollout_promotions_total{label}"] == 1.0
    assert not any("version_weight" in name for name in metrics), "only while there is a rollout"


async def routers(world: Stage) -> bool:
    return bool(((await world.plane.get_fleet(world.namespace)).get("status") or {}).get("routers"))


async def test_a_bad_canary_is_taken_back_and_does_not_return(world: Stage) -> None:
    await serve(world, "1")
    async with Traffic(world, await world.router("router-0")).running() as traffic:
        await until("the router is known", lambda: routers(world))
        traffic.bad.add("2")
        await put(world, "1", "2", rollout=TWO_STEPS)
        await reaches(world, {"1": 80, "2": 20})
        await reaches(world, {"1": 100})
        found = await status(world)
        assert [(one["version"], one["reason"]) for one in found["aborted"]] == [("2", "AnalysisFailed")]
        assert found["stableVersion"] == "1"

        async def posted() -> bool:
            return "RolloutAborted" in await events(world)

        await until("the event", posted)
        assert world.replica is not None
        label = f'{{fleet="fleet",namespace="{world.namespace}",reason="AnalysisFailed"}}'
        assert (await world.replica.metrics())[f"lorafleet_rollout_aborts_total{label}"] == 1.0
        await world.act("python", "retry@1")
        await reaches(world, {"1": 80, "2": 20})


async def test_a_version_that_answers_wrongly_never_gets_a_request(world: Stage) -> None:
    probe = {"prompts": [{"prompt": "How are you?", "expect": "fine"}]}
    for engine in world.engines.values():
        engine.settings.replies = {"python": {"text": "I am fine"}}
    await serve(world, "1", probe=probe)
    world.engines["vllm-1"].settings.replies["python/2"] = {"text": "I am not"}
    async with Traffic(world, await world.router("router-0")).running() as traffic:
        await put(world, "1", "2", rollout=TWO_STEPS, probe=probe)
        message = await world.plane.condition(world.namespace, "python", "Stalled", "RolloutAborted")
        assert "engine vllm-1 answers 'How are you?'" in message and "I am not" in message
        assert traffic.seen == [{"1": 100}]
    asked = [event.model for event in world.engines["vllm-0"].events if event.route == "/v1/completions"]
    assert {name.partition("-")[0] for name in asked} == {"python/1", "python/2"}


async def test_persons_promote_pause_abort_and_roll_back(world: Stage) -> None:
    await serve(world, "1")
    await put(world, "1", "2", rollout=WAITS | {"keepLoaded": 1})
    await reaches(world, {"1": 80, "2": 20})
    await world.act("python", "promote@1")
    await reaches(world, {"1": 50, "2": 50})
    await world.act("python", "pause@2")
    await world.act("python", "promote@3")

    async def refused() -> bool:
        found = await status(world)
        return found.get("lastHandledAction") == "promote@3" and "resume" in found["actionMessage"]

    await until("promote of a paused rollout is refused", refused)
    await world.act("python", "resume@4")
    await world.act("python", "promote-full@5")
    await reaches(world, {"2": 100})
    await world.act("python", "rollback@6")
    await reaches(world, {"1": 100}, deadline=5.0)
    found = await status(world)
    assert found["lastHandledAction"] == "rollback@6" and found["stableVersion"] == "1"


async def test_a_restart_of_the_operator_in_the_middle_changes_no_share(world: Stage, tmp_path: Path) -> None:
    await serve(world, "1")
    router = await world.router("router-0")
    async with Traffic(world, router).running() as traffic:
        await put(world, "1", "2", rollout=WAITS)
        await reaches(world, {"1": 80, "2": 20})
        served = next(one["servedName"] for one in (await status(world))["traffic"] if one["version"] == "2")
        assert world.replica is not None
        world.replica.kill()
        settings = {"watch_namespaces": world.namespace, "lease_name": f"lease-{world.namespace}"}
        async with replica(world.plane.kubeconfig, tmp_path / "second.log", **settings):
            await world.act("python", "promote@1")
            await reaches(world, {"1": 50, "2": 50})
            await world.act("python", "promote@2")
            await reaches(world, {"2": 100})
        steps = [{"1": 100}, {"1": 80, "2": 20}, {"1": 50, "2": 50}, {"2": 100}]
        assert [one for one in steps if one in traffic.seen] == traffic.seen, "and nothing else, in this order"
    probes = [event for engine in world.engines.values() for event in engine.events if event.model == served]
    assert sum(event.route == "/v1/completions" for event in probes) == 2, "what has weight is not probed again"


async def test_one_rolls_out_at_a_time(world: Stage) -> None:
    await world.plane.fleet(world.namespace, rollouts={"maxConcurrent": 1})
    for name in ("a", "b"):
        await serve(world, "1", name)
    for name in ("a", "b"):
        await put(world, "1", "2", name=name, rollout=WAITS)

    async def one_begun() -> str:
        found = [name for name in ("a", "b") if await weights(world, name) == {"1": 80, "2": 20}]
        return found[0] if found else ""

    first = await until("one has begun", one_begun)
    second = "b" if first == "a" else "a"

    async def waits() -> bool:
        rollout = (await status(world, second)).get("rollout") or {}
        return rollout.get("held") == "WaitingForTurn" and first in rollout["message"]

    await until("the other waits", waits)
    await world.act(first, "promote-full@1")
    await reaches(world, {"2": 100}, first)
    await reaches(world, {"1": 80, "2": 20}, second, deadline=10.0)


async def test_the_fleet_says_promptly_which_start_of_an_engine_lacks_what(world: Stage) -> None:
    await serve(world, "1")
    served = (await status(world))["versions"][0]["servedName"]

    async def row(name: str) -> dict[str, Any]:
        found = (await world.plane.get_fleet(world.namespace))["status"]["engines"]
        return next(one for one in found if one["name"] == name)

    async def complete() -> bool:
        one = await row("vllm-0")
        return bool(one["ready"] and not one.get("missing"))

    await until("nothing is missing", complete)
    before = (await row("vllm-0"))["instance"]
    assert before.endswith("/containerd://vllm-0-0/0")
    world.engines["vllm-0"].settings.hang.append("/v1/load_lora_adapter")
    await world.restart("vllm-0")

    async def lacking() -> bool:
        one = await row("vllm-0")
        return bool(one["ready"] and one["instance"] != before and one.get("missing") == [served])

    await until("it is said what the new start lacks", lacking, 20)


async def noted(world: Stage) -> str:
    """What the metadata says is stable, once it does."""

    async def note() -> str:
        meta = (await world.plane.get_adapter(world.namespace, "python"))["metadata"]
        return str((meta.get("annotations") or {}).get(STABLE_ANNOTATION, ""))

    return str(await until("the stable version is noted", note))


async def test_the_stable_version_is_noted_beside_the_status(world: Stage) -> None:
    await serve(world, "1")
    first = await noted(world)
    assert first.startswith("python/1-")
    where = path(API_VERSION, ADAPTER_PLURAL, world.namespace, "python")
    gone = {"metadata": {"annotations": {STABLE_ANNOTATION: None}}}
    await world.plane.merge(where, gone)
    assert await noted(world) == first, "whoever takes it away"
    await put(world, "1", "2")

    async def second() -> bool:
        return (await noted(world)).startswith("python/2-")

    await until("the next one is noted", second)


async def test_a_lost_status_is_made_anew_from_what_engines_list(world: Stage) -> None:
    await serve(world, "1")
    loads = [engine.counts["/v1/load_lora_adapter"] for engine in world.engines.values()]
    where = path(API_VERSION, ADAPTER_PLURAL, world.namespace, "python", "status")
    served = await noted(world)
    current = await world.plane.get_adapter(world.namespace, "python")
    await world.plane.kube.replace(where, {**current, "status": {}})
    await reaches(world, {"1": 100})
    assert await noted(world) == served
    assert [engine.counts["/v1/unload_lora_adapter"] for engine in world.engines.values()] == [1, 1], "never unloaded"
    assert [engine.counts["/v1/load_lora_adapter"] for engine in world.engines.values()] == loads
