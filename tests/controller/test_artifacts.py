"""The operator and its sync Jobs on a real API server: pins, Secrets, progress, scrubs, repairs, room. Canned syncs."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lorafleet.api import names
from lorafleet.controller import jobs
from lorafleet.kube import KubeError, path
from lorafleet.store.plan import PROGRESS_PORT, ItemResult, Notice, PublishItem
from tests.controller.canned import CannedSync
from tests.harness.plane import Plane, until
from tests.harness.stage import Stage, next_address, stage

HUB = {"huggingFace": {"repo": "acme/python", "secretName": "hub"}}
TOKEN = "hf_hunter2_do_not_show"
SCRUB = {"claimName": "adapters", "mountPath": "/adapters", "scrub": {"schedule": "0 3 * * *"}}


class Ground(Stage):
    """A stage whose syncs are canned."""

    sync: CannedSync


@pytest.fixture
async def world(plane: Plane, namespace: str, tmp_path: Path) -> AsyncIterator[Ground]:
    async with stage(plane, namespace, tmp_path) as one:
        one.__class__ = Ground
        assert isinstance(one, Ground)
        one.sync = one.kubelet.run = CannedSync()
        yield one


async def apply(world: Ground, name: str, *sources: dict[str, Any], **spec: Any) -> None:
    entries = [{"name": str(number), "source": source} for number, source in enumerate(sources, 1)]
    body = {"fleet": "fleet", "versions": entries, **spec}
    await world.plane.put(world.namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, name, body)


async def version(world: Ground, name: str = "python", number: int = 0) -> dict[str, Any]:
    status = (await world.plane.get_adapter(world.namespace, name)).get("status") or {}
    found: list[dict[str, Any]] = status.get("versions") or [{}]
    return found[number]


async def condition(world: Ground, kind: str, reason: str, name: str = "python") -> str:
    async def holds() -> str:
        status = (await world.plane.get_adapter(world.namespace, name)).get("status") or {}
        for one in status.get("conditions", ()):
            if one["type"] == kind and one["reason"] == reason:
                return str(one["status"] + " " + one["message"])
        return ""

    return str(await until(f"{name} {kind} {reason}", holds))


async def secret(world: Ground, name: str, **data: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "data": {key: b64encode(value.encode()).decode() for key, value in data.items()},
    }
    await world.plane.kube.create(path("v1", "secrets", world.namespace), body)


async def test_a_version_from_a_hub_serves_and_its_pin_is_kept(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    await world.engine("vllm-0")
    await secret(world, "hub", token=TOKEN)
    tries: list[str | None] = []

    def answer(item: PublishItem) -> ItemResult | None:
        tries.append(item.pin)
        if len(tries) == 1:
            return ItemResult(i=0, reason="SourceUnreachable", message="cut", retry=True, pin="3f2a9c")
        return ItemResult(i=0, pin=item.pin, dtype="bfloat16", slot_bytes=7, verified_by="a key")

    world.sync.answer = answer
    await apply(world, "python", HUB)
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    assert tries == [None, "3f2a9c"], "the moving name was asked once"
    found = await version(world)
    assert (found["pin"], found["dtype"], found["slotBytes"], found["verifiedBy"]) == ("3f2a9c", "bfloat16", 7, "a key")
    assert world.sync.secrets == [{"token": TOKEN.encode()}] * 2
    assert "True" in await condition(world, "Checked", "Checked")


async def test_no_value_of_a_secret_is_anywhere_but_in_the_job(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    await world.engine("vllm-0")
    await secret(world, "hub", token=TOKEN)
    await apply(world, "python", HUB)
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    kinds = [
        ("batch/v1", "jobs"),
        ("v1", "pods"),
        ("v1", "configmaps"),
        ("events.k8s.io/v1", "events"),
        (names.API_VERSION, names.ADAPTER_PLURAL),
        (names.API_VERSION, names.FLEET_PLURAL),
    ]
    seen = [await world.plane.kube.list(path(*kind, world.namespace)) for kind in kinds]
    text = json.dumps(seen) + "".join(world.kubelet.messages)
    assert world.replica is not None
    text += world.replica.log.read_text()
    for form in (TOKEN, b64encode(TOKEN.encode()).decode()):
        assert form not in text


async def test_a_missing_secret_keeps_nobody_else_from_being_published(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    await world.engine("vllm-0")
    await apply(world, "python", HUB)
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    assert world.sync.secrets == [{}], "the pod starts, and the sync process says what is missing"


async def test_a_claim_that_does_not_exist_keeps_nobody_else_from_being_published(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    await world.engine("vllm-0")
    world.kubelet.missing.add("theirs")
    theirs = {"volume": {"path": "x", "claimName": "theirs"}}
    await apply(world, "bad", theirs)
    await apply(world, "worse", theirs)
    message = await condition(world, "Reconciling", "Publishing", name="bad")
    await apply(world, "python", HUB)
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    await until("the reason is said", lambda: condition(world, "Reconciling", "Publishing", name="bad"))
    assert message


async def test_what_was_found_is_said_and_an_event(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    await world.engine("vllm-0")
    found = Notice(reason="HasNoEffect", message="all lora_B are zero")
    world.sync.answer = lambda item: ItemResult(i=0, notices=(found,))
    await apply(world, "python", HUB)
    assert (await condition(world, "Checked", "HasNoEffect")).startswith("False")
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    await event(world, "HasNoEffect", "python")


async def event(world: Ground, reason: str, about: str) -> None:
    async def posted() -> bool:
        found = (await world.plane.kube.list(path("events.k8s.io/v1", "events", world.namespace)))["items"]
        return any(one["reason"] == reason and one["regarding"]["name"] == about for one in found)

    await until(f"event {reason}", posted)


async def test_bytes_fetched_are_in_the_status_while_a_job_runs(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    await world.engine("vllm-0")
    world.kubelet.paused.clear()
    await apply(world, "python", HUB)

    async def pods() -> list[dict[str, Any]]:
        where = path("v1", "pods", world.namespace)
        return list((await world.plane.kube.list(where, labelSelector=jobs.SELECTOR))["items"])

    (pod,) = await until("a pod", pods)
    address = next_address()

    async def progress(_: web.Request) -> web.Response:
        return web.json_response({"items": [{"i": 0, "done": 10, "total": 40}]})

    app = web.Application()
    app.router.add_get("/progress", progress)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, address, PROGRESS_PORT).start()
    where = path("v1", "pods", world.namespace, pod["metadata"]["name"], "status")
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    await world.plane.merge(where, {"status": status})

    async def shown() -> bool:
        found = await version(world)
        return (found.get("bytesDone"), found.get("bytesTotal")) == (10, 40)

    await until("bytes", shown)
    await runner.cleanup()
    world.kubelet.paused.set()
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    assert "bytesDone" not in await version(world)


async def cron(world: Ground) -> dict[str, Any] | None:
    try:
        return await world.plane.kube.get(path("batch/v1", "cronjobs", world.namespace, "lorafleet-scrub-fleet"))
    except KubeError as error:
        assert error.not_found
        return None


async def scrub_now(world: Ground, name: str) -> None:
    """As ``kubectl create job NAME --from=cronjob/…`` does."""
    found = await until("the CronJob", lambda: cron(world))
    template = found["spec"]["jobTemplate"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": found["metadata"]["name"]}
    metadata = {
        "name": name,
        "labels": template["metadata"]["labels"],
        "annotations": {**template["metadata"]["annotations"], "cronjob.kubernetes.io/instantiate": "manual"},
        "ownerReferences": [{**owner, "uid": found["metadata"]["uid"], "controller": True}],
    }
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
    await world.plane.kube.create(path("batch/v1", "jobs", world.namespace), body)


async def storage(world: Ground) -> dict[str, Any]:
    found = (await world.plane.get_fleet(world.namespace)).get("status") or {}
    return dict(found.get("storage") or {})


async def test_damage_is_found_by_a_scrub_and_put_right(world: Ground) -> None:
    await world.plane.fleet(world.namespace, storage=SCRUB)
    await world.engine("vllm-0")
    await apply(world, "python", HUB)
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    served = (await version(world))["servedName"]
    world.sync.damaged = (served,)
    hold = {"reason": "SourceUnreachable", "message": "the hub is away", "retry": True}
    world.sync.answer = lambda item: ItemResult(i=0, **hold)
    await scrub_now(world, "now")
    await until("the repair", lambda: [item for item in world.sync.published() if item.repair])
    assert world.sync.published()[-1].repair == served
    message = await condition(world, "Checked", "FilesDamaged")
    assert message.startswith("False")
    assert [one["servedName"] for one in (await storage(world))["damaged"]] == [served]
    await event(world, "FilesDamaged", "python")
    await event(world, "FilesDamaged", "fleet")
    assert world.replica is not None
    samples = await world.replica.metrics()
    assert [
        value for name, value in samples.items() if name.startswith("lorafleet_damaged") and world.namespace in name
    ] == [1.0]
    await world.restart("vllm-0")
    waiting = await condition(world, "Ready", "FilesDamaged")
    assert "vllm-0" in waiting
    await world.loaded(adapter="python")
    world.sync.answer = lambda item: None
    await condition(world, "Checked", "Checked")
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    await world.loaded("1")
    found = await storage(world)
    assert "damaged" not in found or found["damaged"] == []
    assert found["lastScrub"]
    assert found["usedBytes"] == 1


async def test_the_scrub_goes_when_the_fleet_does_not_ask_for_it(world: Ground) -> None:
    await world.plane.fleet(world.namespace, storage=SCRUB)
    found = await until("the CronJob", lambda: cron(world))
    assert found["spec"]["schedule"] == "0 3 * * *"
    await world.plane.fleet(world.namespace, storage=SCRUB, suspend=True)

    async def suspended() -> bool:
        one = await cron(world)
        return bool(one and one["spec"]["suspend"])

    await until("it is suspended with the fleet", suspended)
    await world.plane.fleet(world.namespace)

    async def gone() -> bool:
        return await cron(world) is None

    await until("it is gone", gone)


async def test_a_schedule_that_is_none_is_said_and_stops_nothing(world: Ground) -> None:
    await world.plane.fleet(world.namespace, storage={**SCRUB, "scrub": {"schedule": "99 * * * *"}})
    await world.engine("vllm-0")
    await apply(world, "python", HUB)
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")

    async def said() -> str:
        status = (await world.plane.get_fleet(world.namespace)).get("status") or {}
        checked = [one for one in status.get("conditions", ()) if one["type"] == "Checked"]
        return str(checked[0]["message"]) if checked and checked[0]["reason"] == "InvalidSpec" else ""

    assert "spec.storage.scrub is not in effect" in await until("the fleet says so", said)


async def test_a_folder_that_nobody_names_is_removed_when_no_engine_lists_it(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    engine = await world.engine("vllm-0")
    stray = f"old/1-{'0' * 12}"
    folder = world.serving / stray
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    engine.adapters[stray] = f"/adapters/{stray}"
    world.sync.volume = world.sync.volume.model_copy(update={"strays": (stray,)})
    await apply(world, "python", HUB)
    await world.plane.condition(world.namespace, "python", "Ready", "Serving")
    await until("it is gone", lambda: not folder.exists())
    assert stray not in engine.adapters
    known = [plan.known for plan in world.sync.plans]
    assert known[0] is not None


async def test_a_version_without_room_waits_and_gets_the_place_of_one_that_goes(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    args = ("--max-loras", "1", "--max-cpu-loras", "2")
    await world.engine("vllm-0", args=args)
    await world.engine("vllm-1", args=args)
    for name in ("one", "two"):
        await apply(world, name, HUB)
        await world.plane.condition(world.namespace, name, "Ready", "Serving")
    await apply(world, "three", HUB)
    message = await condition(world, "Ready", "NoRoom", name="three")
    assert "--max-cpu-loras 2" in message
    await world.loaded(adapter="three")
    await apply(world, "one", HUB, {"volume": {"path": "x"}})
    await condition(world, "Ready", "NoRoom", name="one")
    await world.loaded("1", adapter="one")
    await world.delete(names.ADAPTER_PLURAL, "two")
    # Whoever is older: the adapter that waits for its second version.
    await world.loaded("2", adapter="one")
    await world.plane.condition(world.namespace, "three", "Ready", "Serving")
    assert all(len(engine.adapters) <= 2 for engine in world.engines.values())
    memory = (await world.plane.get_fleet(world.namespace))["status"]["memory"]
    assert (memory["maxLoras"], memory["maxCpuLoras"]) == (1, 2)


async def test_many_that_come_at_once_get_as_many_places_as_there_are(world: Ground) -> None:
    await world.plane.fleet(world.namespace)
    await world.engine("vllm-0", args=("--max-loras", "1", "--max-cpu-loras", "3"))
    everyone = [f"a{number}" for number in range(8)]
    for name in everyone:
        await apply(world, name, HUB)

    async def settled() -> bool:
        phases = [(await version(world, name)).get("phase") for name in everyone]
        return phases.count("Loaded") == 3 and phases.count("Published") == 5

    await until("three serve and five wait", settled)
    assert len(world.engines["vllm-0"].adapters) == 3
