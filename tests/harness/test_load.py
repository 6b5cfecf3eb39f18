"""The load generator counts what a client gets, and takes nothing broken for an answer."""

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web

from e2e.load import VERSION_HEADER, Plan, Summary, load
from tests.fake_vllm.answers import text_of
from tests.fake_vllm.engine import Settings
from tests.fake_vllm.fleet import FakeFleet
from tests.servers.own import in_thread
from tests.servers.process import LOOPBACK


def asked(handler: object, tmp_path: Path, count: int = 20) -> Summary:
    """What the generator says of a server that answers everything in one way."""

    def build() -> web.Application:
        application = web.Application()
        application.router.add_post("/{rest:.*}", handler)  # type: ignore[arg-type]
        return application

    port = LOOPBACK.port()
    plan = Plan(f"http://127.0.0.1:{port}", ("python",), pause=0.0)
    with in_thread(build, "127.0.0.1", [port]), load(plan, tmp_path / "load.log") as running:
        running.after(count)
        return running.stop()


async def test_every_way_of_asking_is_answered_and_counted_by_its_text(tmp_path: Path) -> None:
    async with FakeFleet(Settings(served_names=["tiny"])) as fleet:
        engine = await fleet.add("127.0.0.1", 0)
        plan = Plan(f"http://127.0.0.1:{engine.port}", ("tiny",), tokens=5, pause=0.0)
        with load(plan, tmp_path / "load.log") as running:
            await asyncio.to_thread(running.after, 60)
            found = await asyncio.to_thread(running.stop)
    assert found.failed == 0
    assert {one.kind for one in found.seen} == {"completions", "chat", "completions-stream", "chat-stream"}
    assert {one.text for one in found.seen} == {text_of("tiny", 5)}
    assert sum(found.versions().values()) == found.asked >= 60


def test_a_version_is_what_the_router_says(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        content = {"choices": [{"text": "x", "message": {"content": "x"}}]}
        if (await request.json()).get("stream"):
            return web.Response(text="data: [DONE]\n\n", headers={VERSION_HEADER: "2"})
        return web.json_response(content, headers={VERSION_HEADER: "2"})

    found = asked(answer, tmp_path)
    assert found.failed == 0
    assert set(found.versions("python")) == {"2"}
    assert found.last("2") > found.last("1") == 0


async def refused(_: web.Request) -> web.Response:
    return web.json_response({"error": {"message": "no such model"}}, status=404)


async def without_text(_: web.Request) -> web.Response:
    return web.json_response({"choices": []})


async def cut_short(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'data: {"choices": [{"text": "x", "delta": {"content": "x"}}]}\n\n')
    assert request.transport
    request.transport.close()
    return answer


async def without_end(_: web.Request) -> web.Response:
    return web.Response(text='data: {"choices": [{"text": "x", "delta": {"content": "x"}}]}\n\n')


async def error_in_stream(_: web.Request) -> web.Response:
    return web.Response(text='data: {"error": {"message": "engine died"}}\n\ndata: [DONE]\n\n')


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (refused, "status 404"),
        (without_text, "no text"),
        (cut_short, "peer closed connection"),
        (without_end, r"without \[DONE\] after 1"),
        (error_in_stream, "engine died"),
    ],
)
def test_what_a_client_could_not_use_has_failed(handler: object, words: str, tmp_path: Path) -> None:
    found = asked(handler, tmp_path)
    assert found.failed == found.asked
    assert any(re.search(words, reason) for reason in found.reasons), found.reasons


def test_nobody_there_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    with load(Plan("http://127.0.0.1:1", ("python",)), tmp_path / "load.log") as running:
        found = running.after(5)
    assert found.failed == found.asked
    assert 0 < len(found.reasons) <= 5
    assert "ConnectError" in found.reasons[0]
