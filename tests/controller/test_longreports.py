"""Reports that are too long for Kubernetes: asked of pods that may have one, until they have answered."""

import asyncio
from collections.abc import Callable

import httpx

from lorafleet.controller.longreports import MAX_BYTES, LongReports
from lorafleet.controller.state import FleetState, SyncItem, SyncJob
from lorafleet.store.termination import SURE_ITEMS
from tests.controller.fakes import world_of
from tests.controller.fleets import state_of

MANY = tuple(SyncItem("python", "a", version=str(number)) for number in range(SURE_ITEMS + 1))


def running(state: FleetState, name: str = "job", ip: str = "10.0.0.1", count: int = len(MANY)) -> SyncJob:
    job = state.sync.jobs[name] = SyncJob(name, MANY[:count], ip=ip)
    return job


def asking(state: FleetState, answer: Callable[[str], httpx.Response]) -> tuple[LongReports, list[str]]:
    urls: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return answer(str(request.url))

    http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    return LongReports(world_of(state)[0], http, every=0.0, port=8081), urls


async def settled(one: LongReports) -> None:
    one.look()
    await asyncio.gather(*one._asking.values(), return_exceptions=True)


async def test_a_pod_is_asked_until_it_has_answered() -> None:
    state = state_of()
    job = running(state)
    answers = [httpx.Response(503), httpx.Response(200, content=b"whole")]
    one, urls = asking(state, lambda url: answers.pop(0))
    await settled(one)
    assert job.report == b""
    await settled(one)
    await settled(one)
    assert job.report == b"whole"
    assert urls == ["http://10.0.0.1:8081/report"] * 2


async def test_only_jobs_whose_report_may_be_too_long_are_asked() -> None:
    state = state_of()
    running(state, "few", count=SURE_ITEMS)
    running(state, "waits", ip="")
    running(state, "ended").results = {}
    one, urls = asking(state, lambda url: httpx.Response(200, content=b"whole"))
    await settled(one)
    assert urls == []


async def test_an_answer_without_end_is_not_kept() -> None:
    state = state_of()
    job = running(state)
    one, _ = asking(state, lambda url: httpx.Response(200, content=b"x" * (MAX_BYTES + 1)))
    await settled(one)
    assert job.report == b""


async def test_a_pod_that_is_silent_holds_no_other_up() -> None:
    state = state_of()
    silent, other = running(state, "silent"), running(state, "other", ip="fd00::2")
    release = asyncio.Event()

    async def respond(request: httpx.Request) -> httpx.Response:
        if "10.0.0.1" in str(request.url):
            await release.wait()
        return httpx.Response(200, content=b"whole")

    http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    one = LongReports(world_of(state)[0], http, port=8081)
    one.look()
    await one._asking["other"]
    assert (silent.report, other.report) == (b"", b"whole")
    silent.results = {}
    one.look()
    assert one._asking == {}, "who has ended is asked no more"


async def test_asking_ends_with_the_operator() -> None:
    state = state_of()
    running(state)

    async def respond(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    one = LongReports(world_of(state)[0], httpx.AsyncClient(transport=httpx.MockTransport(respond)), every=0.0)
    run = asyncio.create_task(one.run())
    while not one._asking:
        await asyncio.sleep(0)
    (task,) = one._asking.values()
    run.cancel()
    await asyncio.gather(run, task, return_exceptions=True)
    assert task.cancelled()
