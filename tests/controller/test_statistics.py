"""Who is asked what it counted, how often, and when statuses say it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from lorafleet.api.model import timestamp
from lorafleet.controller import statistics as module
from lorafleet.controller.statistics import Statistics, told
from tests.controller.fakes import FakeKube, world_of
from tests.controller.fleets import add_adapter, state_of
from tests.harness.router import FakeRouter

SERVED = f"python/1-{'a' * 12}"
NOW = datetime.now(UTC)


class Ground:
    """A fleet with one adapter, and routers that tests start."""

    def __init__(self, http: httpx.AsyncClient, port: int) -> None:
        self.state = state_of()
        version = {"name": "1", "phase": "Loaded", "servedName": SERVED}
        add_adapter(self.state, "python", {"versions": [version]})
        self.world, self.asked = world_of(self.state)
        self.statistics = Statistics(self.world, FakeKube(), http, port=port)

    def pod(self, router: FakeRouter, age: float = -1.0, kind: str = "ADDED", **status: Any) -> None:
        created = timestamp(datetime.now(UTC) - timedelta(seconds=age))
        labels = {"lorafleet.dev/router": "fleet"}
        meta = {"namespace": "ns", "name": router.name, "labels": labels, "creationTimestamp": created}
        self.statistics.put(kind, {"metadata": meta, "status": {"podIP": router.host, **status}})

    async def round(self) -> None:
        await self.statistics.round(self.state, list(self.statistics._routers))

    @property
    def requests(self) -> int:
        return self.state.tally.seen[SERVED].total.requests if SERVED in self.state.tally.seen else 0

    @property
    def adapter_asked(self) -> bool:
        return any(key.kind == "adapter" for key in self.asked.keys)


@pytest.fixture
async def router() -> AsyncIterator[FakeRouter]:
    async with FakeRouter("r0", port=0) as one:
        yield one


@pytest.fixture
async def one(router: FakeRouter) -> AsyncIterator[Ground]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield Ground(http, router.port)


async def test_a_young_router_s_counts_are_all_new(one: Ground, router: FakeRouter) -> None:
    one.pod(router)
    router.count(SERVED, ok=5)
    await one.round()
    assert (one.requests, one.state.routers) == (5, 1)
    router.restart()
    router.count(SERVED, ok=2)
    await one.round()
    assert one.requests == 7


async def test_an_older_router_s_counts_are_in_the_status_already(one: Ground, router: FakeRouter) -> None:
    one.pod(router, age=3600.0)
    router.count(SERVED, ok=5)
    await one.round()
    assert one.requests == 0
    router.count(SERVED, ok=2)
    await one.round()
    assert one.requests == 2


async def test_a_router_that_does_not_answer_costs_nothing(one: Ground, router: FakeRouter) -> None:
    one.pod(router)
    router.count(SERVED, ok=5)
    await one.round()
    router.fails = True
    await one.round()
    assert (one.requests, one.state.routers) == (5, 0)
    router.fails = False
    router.count(SERVED, ok=1)
    await one.round()
    assert one.requests == 6


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"instance": "x", "versions": []}', b'{"instance": "x", "versions": {"a/1": []}}']
)
async def test_odd_answers_count_for_nothing(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body))) as http:
        one = Ground(http, 9091)
        one.pod(FakeRouter("r0"))
        await one.round()
        assert one.requests == 0


async def test_a_long_answer_is_refused(monkeypatch: pytest.MonkeyPatch, one: Ground, router: FakeRouter) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 10)
    one.pod(router)
    await one.round()
    assert one.state.routers == 0


async def test_pods_that_are_gone_or_have_no_address_are_not_asked(one: Ground, router: FakeRouter) -> None:
    one.pod(router)
    one.pod(router, kind="DELETED")
    assert one.statistics._routers == {}
    one.pod(router, phase="Failed")
    assert one.statistics._routers == {}
    one.pod(router, podIP="")
    assert one.statistics._routers == {}


@pytest.mark.parametrize(("asked", "every"), [(None, 30.0), (60.0, 5.0), (2.0, 2.0), (0.1, 1.0)])
def test_routers_are_asked_often_while_a_rollout_wants_it(asked: float | None, every: float) -> None:
    state = state_of()
    if asked is not None:
        state.asks = {"python": asked, "sql": 50.0}
    assert module._interval(state) == every


async def test_an_adapter_with_a_rollout_looks_after_every_round(one: Ground, router: FakeRouter) -> None:
    one.pod(router)
    await one.round()
    assert not one.adapter_asked
    one.state.asks["python"] = 1.0
    await one.round()
    assert one.adapter_asked


async def test_rounds_follow_each_other_and_begin_when_asked_for(one: Ground, router: FakeRouter) -> None:
    running = asyncio.create_task(one.statistics.run())
    try:
        one.pod(router)
        while not router.asked:
            await asyncio.sleep(0.01)
        one.statistics._asked.clear()
        one.statistics.look()
        while router.asked < 2:
            await asyncio.sleep(0.01)
    finally:
        running.cancel()


async def test_statuses_say_it_once_a_minute_or_when_they_are_written_anyway(one: Ground, router: FakeRouter) -> None:
    adapter = one.state.adapters["python"]
    one.pod(router)
    router.count(SERVED, ok=5)
    assert told(one.state, adapter, adapter.status, NOW) is adapter.status, "nothing is known"
    await one.round()
    first = told(one.state, adapter, adapter.status, NOW)
    assert first.versions[0].statistics is not None and first.versions[0].statistics.request_count == 5
    router.count(SERVED, ok=1)
    await one.round()
    assert told(one.state, adapter, adapter.status, NOW) is adapter.status, "not within a minute"
    other = adapter.status.model_copy(update={"loaded": "1/1"})
    shown = told(one.state, adapter, other, NOW).versions[0].statistics
    assert shown is not None and shown.request_count == 6, "it is written anyway"
    assert told(one.state, adapter, other, NOW) is other, "once"


async def test_ten_thousand_names_are_added_up_in_parts(one: Ground, router: FakeRouter) -> None:
    names = [f"python/{number}-{'a' * 12}" for number in range(10_000)]
    versions = [{"name": name.split("/")[1], "phase": "Loaded", "servedName": name} for name in names]
    add_adapter(one.state, "python", {"versions": versions})
    one.pod(router)
    for name in names:
        router.count(name, ok=1)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await one.round()
    beside.cancel()
    assert len(one.state.tally.seen) == 10_000
    assert turns >= 10_000 / module.AT_A_TIME
