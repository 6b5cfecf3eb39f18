"""The load generator counts what a client gets, and takes nothing broken for an answer."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from aiohttp import web

from e2e.load import Plan, Summary, load
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
    assert sum(one.count for one in found.seen) == found.asked >= 60


def test_versions_are_told_by_what_they_say(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        text = "one" if (await request.json())["user"].endswith("0") else "two"
        event = {"choices": [{"text": text, "message": {"content": text}, "delta": {"content": text}}]}
        if (await request.json()).get("stream"):
            return web.Response(text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")
        return web.json_response(event)

    found = asked(answer, tmp_path, count=100)
    known = {(kind, "one"): "1" for kind in ("chat", "completions")}
    with pytest.raises(AssertionError, match=r"python by .* said 'two'"):
        found.versions(known)
    known |= {(kind, "two"): "2" for kind in ("chat", "completions")}
    counts = found.versions(known, "python")
    assert sum(counts.values()) == found.asked
    assert 0 < counts["1"] < counts["2"]
    assert found.last(known, "2") > found.last(known, "3") == 0


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
