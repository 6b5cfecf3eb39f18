"""The watches of a router on a real API server: what tests write into statuses arrives in the routing table."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from lorafleet.api.names import ADAPTER_PLURAL, API_VERSION, FLEET_PLURAL
from lorafleet.kube import Kube, path
from lorafleet.router.picture import Picture
from lorafleet.router.table import EngineAddress, Target
from lorafleet.router.watch import Watches
from tests.harness.plane import Plane, connect, until
from tests.router.objects import served, version
from tests.router.relay import relay
from tests.router.statuses import about, address_of, through, write_engines, write_status


@contextlib.asynccontextmanager
async def watching(kube: Kube, namespace: str, fleet: str = "fleet") -> AsyncIterator[tuple[Watches, Picture]]:
    """The watches of a fleet while the block runs."""
    picture = Picture(fleet, lambda: None)
    watches = Watches(kube, namespace, fleet, picture)
    task = asyncio.create_task(watches.run())
    try:
        yield watches, picture
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_statuses_become_the_table(plane: Plane, namespace: str) -> None:
    await plane.fleet(namespace)
    await plane.adapter(namespace, "sql", "v1", "v2")
    await plane.adapter(namespace, "other", "v1", fleet="another")
    await write_status(plane, namespace, "other", {"v1": 100})
    pod = await plane.engine_pod(namespace, "vllm-0", "127.1.0.1")
    await plane.engine_pod(namespace, "web-0", "127.1.0.2", labels={"app": "web"})
    await write_engines(plane, namespace, about(pod))
    async with watching(plane.kube, namespace) as (watches, picture):
        await until("all is read", lambda: not picture.waits_for)
        assert picture.table().engines == {"vllm-0": EngineAddress("vllm-0", "127.1.0.1", 8000, adapters=True)}
        assert picture.table().base_names == ("tiny",)
        assert set(picture.table().routes) == {"sql"}
        at = await write_status(plane, namespace, "sql", {"v1": 90, "v2": 10}, version("sql", "v1"))
        await until("the weights are known", lambda: picture.version >= at)
        route = picture.table().routes["sql"]
        assert route.targets == (Target(served("sql", "v1"), 90), Target(served("sql", "v2"), 10))
        assert watches.problem == "" and watches.stale == 0
        await plane.pod_status(namespace, "vllm-0", "127.1.0.1", restarts=1)
        await until("it is another start", lambda: not picture.table().engines["vllm-0"].adapters)
        await plane.kube.delete(path("v1", "pods", namespace, "vllm-0"))
        await until("the engine is gone", lambda: not picture.table().engines)


async def test_a_missing_fleet_is_said_and_waited_for(plane: Plane, namespace: str) -> None:
    async with watching(plane.kube, namespace) as (watches, picture):
        await until("it is said", lambda: watches.problem)
        assert f"SpecialistFleet {namespace}/fleet does not exist: create it" in watches.problem
        assert "fleet" in picture.waits_for
        await plane.fleet(namespace)
        await until("all is read", lambda: not picture.waits_for)
        assert watches.problem == ""


async def test_another_selector_or_port_gives_other_engines(plane: Plane, namespace: str) -> None:
    await plane.fleet(namespace)
    await plane.engine_pod(namespace, "vllm-0", "127.1.0.1")
    await plane.engine_pod(namespace, "new-0", "127.1.0.2", labels={"app": "new"})
    async with watching(plane.kube, namespace) as (_, picture):
        await until("the engine is known", lambda: set(picture.table().engines) == {"vllm-0"})
        await plane.fleet(namespace, engines={"selector": {"matchLabels": {"app": "new"}}, "port": 9000})
        await until("it is the other", lambda: set(picture.table().engines) == {"new-0"})
        assert picture.table().engines["new-0"].port == 9000


async def test_a_deleted_fleet_is_routed_while_its_pods_last(plane: Plane, namespace: str) -> None:
    await plane.fleet(namespace)
    await plane.engine_pod(namespace, "vllm-0", "127.1.0.1")
    async with watching(plane.kube, namespace) as (_, picture):
        await until("the engine is known", lambda: picture.table().engines)
        await plane.kube.delete(path(API_VERSION, FLEET_PLURAL, namespace, "fleet"))
        await until("it is known", lambda: picture.fleet_gone)
        assert set(picture.table().engines) == {"vllm-0"}
        await plane.kube.delete(path("v1", "pods", namespace, "vllm-0"))
        await until("its pods are gone", lambda: not picture.table().engines)


async def test_the_last_table_stays_without_the_api_server_and_what_was_missed_comes_after(
    plane: Plane, namespace: str, tmp_path: Path
) -> None:
    await plane.fleet(namespace)
    await plane.adapter(namespace, "sql", "v1", "v2")
    await write_status(plane, namespace, "sql", {"v1": 100})
    await plane.adapter(namespace, "old", "v1")
    async with relay(*address_of(plane)) as one:
        kube = await connect(through(plane, one, tmp_path))
        async with watching(kube, namespace) as (watches, picture):
            await until("all is read", lambda: not picture.waits_for and not watches.stale)
            await one.cut()
            await until("the loss is said", lambda: watches.stale > 0 and watches.problem)
            missed = await write_status(plane, namespace, "sql", {"v2": 100})
            await plane.kube.delete(path(API_VERSION, ADAPTER_PLURAL, namespace, "old"))
            assert picture.table().routes["sql"].targets == (Target(served("sql", "v1"), 100),)
            await one.mend()
            await until("it has caught up", lambda: picture.version >= missed and not watches.stale)
            await until("the deletion is known", lambda: set(picture.table().routes) == {"sql"})
            assert picture.table().routes["sql"].targets == (Target(served("sql", "v2"), 100),)
        await kube.close()


async def test_an_object_as_large_as_kubernetes_takes_is_read_from_a_watch(plane: Plane, namespace: str) -> None:
    """aiohttp's own limit of a line is 128 KiB, and a watch that stops there comes back to it for ever."""
    await plane.fleet(namespace)
    async with watching(plane.kube, namespace) as (watches, picture):
        await until("all is read", lambda: not picture.waits_for and not watches.stale)
        await plane.adapter(namespace, "sql", "v1")
        where = path(API_VERSION, ADAPTER_PLURAL, namespace, "sql")
        await plane.merge(where, {"metadata": {"annotations": {"note": "x" * 250_000}}})
        at = await write_status(plane, namespace, "sql", {"v1": 100})
        await until("the status is known", lambda: picture.version >= at)
        assert picture.table().routes["sql"].targets == (Target(served("sql", "v1"), 100),)
