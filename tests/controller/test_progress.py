"""How far Jobs are: asked of their pods, shown in statuses, and never in anyone's way."""

import json
from typing import Any

import httpx

from lorafleet.controller.progress import MAX_ANSWER_BYTES, ProgressPoller
from lorafleet.controller.state import FleetState, SyncJob
from lorafleet.controller.world import World
from tests.controller.fakes import world_of
from tests.controller.fleets import item_of, state_of

ADAPTER = World.adapter_key(("ns", "python"))


def running(state: FleetState, ip: str = "10.0.0.1", name: str = "job") -> SyncJob:
    job = SyncJob(name, (item_of(state, "1"), item_of(state, "hub")), ip=ip)
    state.sync.jobs[job.name] = job
    return job


def poller(state: FleetState, answer: Any, status: int = 200) -> tuple[ProgressPoller, list[Any], list[str]]:
    urls: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(status, content=answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    world, asked = world_of(state)
    http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    return ProgressPoller(world, http, port=8081), asked.keys, urls


async def test_bytes_are_kept_for_their_item_and_the_adapter_is_asked() -> None:
    state = state_of()
    job = running(state)
    one, keys, urls = poller(state, {"items": [{"i": 1, "done": 10, "total": 40}]})
    await one.round()
    assert job.progress == {item_of(state, "hub"): (10, 40)}
    assert urls == ["http://10.0.0.1:8081/progress"]
    assert keys == [ADAPTER]


async def test_nobody_is_asked_again_while_nothing_moves() -> None:
    state = state_of()
    running(state)
    one, keys, _ = poller(state, {"items": [{"i": 0, "done": 10}]})
    await one.round()
    await one.round()
    assert keys == [ADAPTER]


async def test_a_pod_that_answers_nonsense_or_nothing_changes_nothing() -> None:
    for answer in (
        b"x",
        b"[]",
        b" " * (MAX_ANSWER_BYTES + 1),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
    ):
        state = state_of()
        job = running(state)
        one, keys, _ = poller(state, answer)
        await one.round()
        assert job.progress == {}
        assert keys == []


async def test_an_item_that_is_not_there_is_left_out() -> None:
    state = state_of()
    job = running(state)
    one, _, _ = poller(state, {"items": [{"i": 7, "done": 1}, {"i": -1, "done": 1}]})
    await one.round()
    assert job.progress == {}


async def test_a_job_that_does_not_run_is_not_asked() -> None:
    state = state_of()
    running(state, ip="")
    ended = running(state, name="ended")
    ended.results = {}
    one, _, urls = poller(state, {"items": []})
    await one.round()
    assert urls == []


async def test_addresses_of_the_sixth_version_are_written_as_such() -> None:
    state = state_of()
    running(state, ip="fd00::1")
    one, _, urls = poller(state, {"items": []})
    await one.round()
    assert urls == ["http://[fd00::1]:8081/progress"]
