"""Changes of the configuration: in force at once, and no request or stream notices."""

import asyncio
import json
from pathlib import Path

import aiohttp
import aiohttp.web
import pytest

from lorafleet.router.envoy import render
from lorafleet.router.files import write
from lorafleet.router.settings import Settings
from lorafleet.router.table import RoutingTable
from tests.router.engines import Stream, engines
from tests.router.running import Router, route, router, served, table

ROUTE = route("python", v1=100)


async def begin(one: Router, stream: Stream) -> aiohttp.ClientResponse:
    """A stream of which the first event has come."""
    stream.step(b"data: 0\n\n")
    answer = await one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}')
    assert await answer.content.readuntil(b"\n\n") == b"data: 0\n\n"
    return answer


async def finish(stream: Stream, answer: aiohttp.ClientResponse) -> None:
    """The rest of it comes as it should."""
    stream.step(b"data: 1\n\n")
    assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
    stream.step(b"data: [DONE]\n\n")
    stream.end()
    assert await answer.read() == b"data: [DONE]\n\n"


async def test_an_engine_that_leaves_finishes_its_streams_and_gets_no_new_request(tmp_path: Path) -> None:
    stream = Stream()
    async with engines(2) as (first, second), router(table([first], ROUTE), tmp_path) as one:
        first.answer = stream
        answer = await begin(one, stream)
        await one.update(table([second], ROUTE))
        for _ in range(10):
            assert (await one.post({"model": "python"}))[0] == 200
        assert (len(first.asked), len(second.asked)) == (1, 10)
        await finish(stream, answer)


async def test_a_stream_lives_on_when_there_is_no_engine_left(tmp_path: Path) -> None:
    stream = Stream()
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = stream
        answer = await begin(one, stream)
        await one.update(RoutingTable({"python": ROUTE}))
        assert (await one.post({"model": "python"}))[0] == 503
        await finish(stream, answer)


async def test_a_version_that_leaves_finishes_its_streams(tmp_path: Path) -> None:
    stream = Stream()
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = stream
        answer = await begin(one, stream)
        await one.update(table([engine], route("python", v2=100)))
        await one.update(table([engine]))
        assert (await one.post({"model": "python"}))[0] == 404
        await finish(stream, answer)


async def test_no_request_or_stream_fails_while_weights_and_engines_change(tmp_path: Path) -> None:
    failures: list[str] = []
    counts = {"json": 0, "streams": 0}
    over = asyncio.Event()

    async def answer(request: aiohttp.web.Request, body: bytes) -> aiohttp.web.StreamResponse:
        asked = json.loads(body)
        if not asked.get("stream"):
            return aiohttp.web.json_response({"model": asked["model"]})
        response = aiohttp.web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(8):
            await response.write(f'data: {{"model":"{asked["model"]}","n":{number}}}\n\n'.encode())
            await asyncio.sleep(0.01)
        await response.write(b"data: [DONE]\n\n")
        return response

    async def client(one: Router, stream: bool) -> None:
        body = json.dumps({"model": "python", "stream": stream}).encode()
        while not over.is_set():
            try:
                async with one.http.post(f"{one.url}/v1/completions", data=body) as got:
                    text = await got.text()
                    good = got.status == 200 and (text.endswith("[DONE]\n\n") and text.count('"python"') == 8) == stream
                    if not good:
                        failures.append(f"{got.status} {text[-200:]}")
            except aiohttp.ClientError as error:
                failures.append(repr(error))
            counts["streams" if stream else "json"] += 1

    routes = [route(f"a{number}", v1=100) for number in range(1000)]
    async with engines(6) as found, router(table(found, ROUTE, *routes), tmp_path) as one:
        for engine in found:
            engine.answer = answer
        clients = [asyncio.create_task(client(one, number % 2 == 0)) for number in range(24)]
        for number in range(40):
            weight = number * 5 % 100
            now = [engine for place, engine in enumerate(found) if place not in (number % 6, (number + 1) % 6)]
            await one.update(table(now, route("python", v1=100 - weight, v2=weight), *routes))
        over.set()
        await asyncio.gather(*clients)
        counters = await one.counters()
    assert failures == []
    assert counts["json"] > 100
    assert counts["streams"] > 100
    rejected = {name: value for name, value in counters.items() if "update_rejected" in name and value}
    assert rejected == {}


def resident(one: Router) -> float:
    """MiB of memory that Envoy has."""
    status = Path(f"/proc/{one.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def test_a_program_that_lives_on_for_a_stream_takes_little_more_than_its_table(tmp_path: Path) -> None:
    """All streams of a minute, and of each the table that it began by: 10,000 adapters are 0.6 MiB of text."""
    routes = [route(f"adapter-{number:05d}", v1=100) for number in range(10_000)]
    streams = []
    async with engines(1) as (engine,), router(table([engine], ROUTE, *routes), tmp_path) as one:
        for number in range(22):
            if number == 2:
                before = resident(one)
            engine.answer = stream = Stream()
            streams.append((stream, await begin(one, stream)))
            await one.update(table([engine], route("python", v1=99 - number, v2=1 + number), *routes))
        grown = (resident(one) - before) / 20
        for stream, answer in streams:
            await finish(stream, answer)
    # Of the one worker, and of the main thread, which has the text of the program as well.
    assert grown < 3.2


async def test_only_files_that_changed_are_written(tmp_path: Path) -> None:
    async with engines(2) as found, router(table(found, ROUTE), tmp_path) as one:
        assert await one.update(table(found, ROUTE)) == ()
        assert await one.update(table(found, route("python", v1=50, v2=50))) == ("routes.json",)
        assert await one.update(table(found[:1], route("python", v1=50, v2=50))) == ("engines.json", "adapters.json")


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    routes = {name: route(name, v1=60, v2=40) for name in ("b", "a")}
    backwards = dict(reversed(routes.items()))
    one, other = (render(RoutingTable(given), Settings(), tmp_path) for given in (routes, backwards))
    assert one == other


def test_a_file_is_replaced_whole_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    directory = tmp_path / "made"
    assert write(directory, {"a": b"1", "b": b"2"}) == ("a", "b")
    before = (directory / "a").stat()
    assert write(directory, {"a": b"1", "b": b"3"}) == ("b",)
    assert (directory / "a").stat().st_ino == before.st_ino
    assert (directory / "b").read_bytes() == b"3"
    assert before.st_mode & 0o777 == 0o600
    assert sorted(path.name for path in directory.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("adapters", [70_000])
async def test_more_adapters_than_a_lua_table_literal_may_hold(tmp_path: Path, adapters: int) -> None:
    routes = [route(f"a{number}", v1=100) for number in range(adapters)]
    async with engines(1) as (engine,), router(table([engine], *routes), tmp_path) as one:
        assert (await one.post({"model": f"a{adapters - 1}"}))[0] == 200
    assert engine.asked[0].model == served(f"a{adapters - 1}", "v1")
