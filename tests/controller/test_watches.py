"""Objects that vanished while no watch stood: of them there is only who they were, and that has to do."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from lorafleet import watch
from lorafleet.api.names import FLEET_LABEL
from lorafleet.controller.pods import PodWatches
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import SyncJob
from lorafleet.controller.statistics import Statistics
from lorafleet.controller.sync import JOB_LABEL, SyncReconciler
from lorafleet.kube import KubeError
from lorafleet.rollout.observed import Failed
from tests.controller.fakes import world_of
from tests.controller.fleets import item_of, state_of
from tests.harness.plane import until
from tests.harness.script import Script, named

VANISHED = (KubeError(410, "Gone", "too old"), ([], "9", ""))


@pytest.fixture(autouse=True)
def without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_DELAY", 0.0)


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()


async def test_an_engine_is_dropped() -> None:
    state = state_of()
    state.discovered = False
    world, _ = world_of(state)
    spec = {"containers": [{"name": "vllm", "ports": [{"containerPort": 8000}]}]}
    pod = named("vllm-0") | {"spec": spec, "status": {"phase": "Running", "podIP": "127.1.0.1"}}
    script = Script(([pod], "7", ""))
    watches = PodWatches(script, world, lambda what: None)
    watches.watch(state, "app=vllm", "8000")
    await until("the pods are read", lambda: state.discovered)
    assert set(state.engines) == {"vllm-0"}
    script.answers += VANISHED
    script.cut.set()
    await until("it is dropped", lambda: not state.engines)
    watches.stop(state.ref)


@pytest.mark.parametrize(
    ("what", "name", "text"),
    [("jobs", "sync-1", "sync job sync-1 was deleted"), ("pods", "sync-1-x", "the sync pod was deleted")],
)
async def test_what_a_sync_job_had_to_do_is_lost(what: str, name: str, text: str) -> None:
    state = state_of()
    world, _ = world_of(state)
    items = (item_of(state, "1"),)
    job = state.sync.jobs["sync-1"] = SyncJob("sync-1", items, open=set(items))
    one = named(name, labels={FLEET_LABEL: "fleet", JOB_LABEL: "sync-1"}) | {"status": {"phase": "Running"}}
    script = Script(([one], "7", ""), *VANISHED)
    async with running(SyncReconciler(world, script, Settings()).follow(what, "ns")):
        await until("it is lost", lambda: job.results)
    assert job.results is not None
    (failure,) = job.results.values()
    assert isinstance(failure, Failed) and failure.message == text and failure.retry


async def test_a_router_is_not_asked_any_more() -> None:
    world, _ = world_of(state_of())
    script = Script(([named("router-0") | {"status": {"podIP": "127.1.0.1"}}], "7", ""))
    async with httpx.AsyncClient() as http:
        statistics = Statistics(world, script, http)
        async with running(statistics.follow("ns")):
            await until("it is known", lambda: statistics._routers)
            script.answers += VANISHED
            script.cut.set()
            await until("it is forgotten", lambda: not statistics._routers)
