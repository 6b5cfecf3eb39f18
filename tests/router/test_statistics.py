"""What is counted of each version, and how it is read."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from lorafleet.router.statistics import exposition, result, versions
from tests.harness.plane import until
from tests.router.engines import Stream, engines, not_loaded
from tests.router.running import Router, route, router, served, table

V1, V2 = served("python", "v1"), served("python", "v2")
ROUTE = route("python", v1=100)


@pytest.mark.parametrize(
    ("code", "flags", "expected"),
    [
        (200, "-", "ok"),
        (200, "UC", "server"),
        (200, "SI", "server"),
        (200, "DC", "client"),
        (0, "DC", "client"),
        (0, "-", "server"),
        (400, "-", "client"),
        (404, "-", "client"),
        (422, "-", "client"),
        (401, "-", "server"),
        (403, "-", "server"),
        (500, "-", "server"),
        (503, "UF,URX", "server"),
        (503, "UO", "server"),
    ],
)
def test_whose_fault_an_answer_was(code: int, flags: str, expected: str) -> None:
    assert result(code, flags) == expected


async def found(one: Router) -> dict[str, Any]:
    """The numbers by served name."""
    return versions(await one.statistics())


async def counted(one: Router, result: str) -> dict[str, Any] | None:
    """The numbers of the first version, once a request with this result is among them."""
    numbers = (await found(one)).get(V1)
    return numbers if numbers and numbers[result] else None


async def test_requests_latency_and_tokens_of_each_version(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=100, v2=0)), tmp_path) as one:
        for _ in range(3):
            await one.post({"model": "python"})
        await one.post({"model": "python@v2"})
        await one.post({"model": "nothing"})
        numbers = await found(one)
    assert set(numbers) == {V1, V2}
    assert (numbers[V1]["ok"], numbers[V1]["client"], numbers[V1]["server"]) == (3, 0, 0)
    assert numbers[V1]["latencyCount"] == 3
    assert (numbers[V1]["promptTokens"], numbers[V1]["completionTokens"]) == (21, 6)
    assert numbers[V1]["firstTokenCount"] == 0, "an answer that is no stream has no first token"
    assert numbers[V2]["ok"] == 1


async def test_errors_by_whose_fault_they_are(tmp_path: Path) -> None:
    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        wanted = json.loads(body)["status"]
        if wanted == "not loaded":
            return not_loaded(body)
        return web.Response(status=wanted, text="{}", content_type="application/json")

    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path, retries=0) as one:
        engine.answer = answer
        for status in (200, 400, 422, 404, 500, 503, "not loaded", 401):
            await one.post({"model": "python", "status": status})
        await one.post({"model": "python", "status": 200})
        numbers = (await found(one))[V1]
    assert (numbers["ok"], numbers["client"], numbers["server"]) == (2, 3, 4)
    assert numbers["latencyCount"] == 2


async def test_a_retry_that_went_well_is_one_request_that_went_well(tmp_path: Path) -> None:
    async with engines(2) as both, router(table(both, ROUTE), tmp_path, eject_after=0) as one:
        await both[0].stop()
        for _ in range(10):
            await one.post({"model": "python"})
        numbers = (await found(one))[V1]
    assert (numbers["ok"], numbers["client"], numbers["server"]) == (10, 0, 0)


async def test_a_stream_has_a_time_to_its_first_token_and_its_usage(tmp_path: Path) -> None:
    stream = Stream()
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = stream
        began = time.monotonic()
        asking = asyncio.create_task(one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}'))
        await stream.begun.wait()
        await asyncio.sleep(0.2)
        stream.step(b'data: {"choices":[]}\n\n')
        answer = await asking
        await answer.content.readuntil(b"\n\n")
        first = time.monotonic() - began
        await asyncio.sleep(0.3)
        stream.step(b'data: {"choices":[],"usage":{"prompt_tokens":5,"total_tokens":16,"completion_tokens":11}}\n\n')
        stream.end()
        await answer.read()
        numbers = (await found(one))[V1]
    assert numbers["firstTokenCount"] == 1
    assert 190 <= numbers["firstTokenMsSum"] <= first * 1000 + 1
    assert numbers["latencyMsSum"] >= 490
    assert (numbers["promptTokens"], numbers["completionTokens"]) == (5, 11)


async def test_a_stream_that_never_began_has_no_time_to_its_first_token(tmp_path: Path) -> None:
    for number, settings in enumerate(({}, {"restore_model": False, "count_tokens": False})):
        directory = tmp_path / str(number)
        async with engines(1) as (engine,), router(table([engine], ROUTE), directory, **settings) as one:
            engine.answer = Stream()
            async with one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}') as answer:
                answer.close()
            await until("it is counted", lambda one=one: counted(one, "client"))
            assert (await found(one))[V1]["firstTokenCount"] == 0
            engine.answer = stream = Stream()
            stream.step(b"data: [DONE]\n\n")
            stream.end()
            async with one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}') as answer:
                assert await answer.read() == b"data: [DONE]\n\n"
            assert (await found(one))[V1]["firstTokenCount"] == 1


USAGES = (
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"total_tokens":6,"completion_tokens":1}}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":50,"total_tokens":160,"completion_tokens":110}}\n\n'
)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_the_last_usage_counts_however_its_bytes_come(tmp_path: Path, kind: str) -> None:
    events = USAGES if kind == "text/event-stream" else USAGES.replace(b"\n", b"")
    cuts = range(len(events) // 2 - 10, len(events))
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        for number, cut in enumerate(cuts, start=1):
            stream = Stream(kind)
            engine.answer = stream
            stream.step(events[:cut])
            async with one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}') as answer:
                # The first byte is never held back: once it is here, the piece has been through.
                assert await answer.content.readexactly(1) == b"d"
                stream.step(events[cut:])
                stream.end()
                assert await answer.read() == events[1:]
            numbers = (await found(one))[V1]
            assert (numbers["promptTokens"], numbers["completionTokens"]) == (50 * number, 110 * number), events[:cut]


async def test_a_stream_that_the_engine_cuts_is_an_error_and_one_that_the_client_leaves_is_not(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:

        async def cut(request: web.Request, body: bytes) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(b"data: 1\n\n")
            assert request.transport is not None
            request.transport.close()
            return response

        engine.answer = cut
        async with one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}') as answer:
            with pytest.raises(Exception, match="payload"):
                await answer.read()
        engine.answer = Stream()
        async with one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}') as answer:
            answer.close()

        numbers = await until("the client's leaving is counted", lambda: counted(one, "client"))
    assert (numbers["ok"], numbers["client"], numbers["server"]) == (0, 1, 1)


async def test_tokens_are_not_looked_for_when_told_so(tmp_path: Path) -> None:
    first = table([], ROUTE)
    async with engines(1) as (engine,), router(first, tmp_path, count_tokens=False) as one:
        await one.update(table([engine], ROUTE))
        await one.post({"model": "python"})
        assert (await found(one))[V1]["promptTokens"] == 0


async def test_histograms_are_kept_of_few_versions_or_of_those_in_a_rollout(tmp_path: Path) -> None:
    routes = (route("python", v1=90, v2=10), route("rust", v1=100))
    for limit, expected in ((200, {"python", "rust"}), (1, {"python"})):
        directory = tmp_path / str(limit)
        async with engines(1) as (engine,), router(table([engine], *routes), directory, histograms=limit) as one:
            for adapter in ("python", "rust"):
                await one.post({"model": adapter})
            text = await one.statistics()
            families = {family.name: family for family in text_string_to_metric_families(exposition(text))}
        histogram = families["lorafleet_router_request_seconds"]
        assert {sample.labels["adapter"] for sample in histogram.samples} == expected


async def test_prometheus_gets_our_names(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        await one.post({"model": "python"})

        async def counted() -> str | None:
            # Envoy adds histograms up every five seconds.
            text = exposition(await one.statistics())
            return text if "request_seconds_count{" in text and not text.count("_count{} 0") else None

        text = await until("the histogram is there", counted)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    labels = {"adapter": "python", "version": "v1", "served_name": V1}
    requests = families["lorafleet_router_requests"].samples
    assert {sample.labels["result"]: sample.value for sample in requests} == {"ok": 1, "client": 0, "server": 0}
    assert all(labels.items() <= sample.labels.items() for sample in requests)
    tokens = families["lorafleet_router_tokens"].samples
    assert {sample.labels["kind"]: sample.value for sample in tokens} == {"prompt": 7, "completion": 2}
    bounds = [
        sample.labels["le"] for sample in families["lorafleet_router_request_seconds"].samples if "le" in sample.labels
    ]
    assert bounds[0] == "0.005"
    assert bounds[-1] == "+Inf"


def test_ten_thousand_versions_are_read() -> None:
    lines = []
    for number in range(10_000):
        name = f"adapter-{number}/1.0.0-0123456789ab"
        lines += [
            f'envoy_lorafleet_requests{{served="{name} 200 -"}} 5',
            f'envoy_lorafleet_whole_ms{{served="{name} 200 -"}} 50',
            f'envoy_lorafleet_first_ms{{served="{name}"}} 5',
        ]
    found = versions("\n".join(lines))
    assert len(found) == 10_000
    assert found["adapter-7/1.0.0-0123456789ab"]["latencyMsSum"] == 50
