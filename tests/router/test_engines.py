"""Which engine gets a request, and what happens when it does not answer."""

import asyncio
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from lorafleet.router.table import RoutingTable
from tests.harness.plane import until
from tests.router.engines import Answer, Engine, completion, engines, not_loaded
from tests.router.running import BASE, Router, route, router, served, table

ROUTE = route("python", v1=100)
BODY = {"model": "python"}


def lacking(found: RoutingTable, name: str, *missing: str, adapters: bool = True) -> RoutingTable:
    """The same with an engine that lacks versions, or all."""
    engine = dataclasses.replace(found.engines[name], missing=frozenset(missing), adapters=adapters)
    return dataclasses.replace(found, engines={**found.engines, name: engine})


async def statuses(one: Router, count: int, body: object = BODY) -> Counter[int]:
    """How so many requests were answered."""
    return Counter([(await one.post(body))[0] for _ in range(count)])


def asked(found: list[Engine]) -> list[int]:
    return [len(engine.asked) for engine in found]


def waiting_for(event: asyncio.Event) -> Answer:
    """Answers when the event says so."""

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        await event.wait()
        return await completion(request, body)

    return answer


async def test_the_least_loaded_engine_is_asked(tmp_path: Path) -> None:
    held = asyncio.Event()

    async with engines(2) as found, router(table(found, ROUTE), tmp_path) as one:
        found[0].answer = waiting_for(held)
        waiting: list[asyncio.Task[object]] = []
        while not found[0].asked:
            waiting.append(asyncio.create_task(one.post(BODY)))
            await asyncio.sleep(0.01)
        before = asked(found)
        for number in range(1, 21):
            idle = len(found[1].asked)
            waiting.append(asyncio.create_task(one.post(BODY)))
            wanted = sum(before) + number

            def sent_on(wanted: int = wanted) -> bool:
                return sum(asked(found)) == wanted

            await until("it was sent on", sent_on)
            if len(found[1].asked) > idle:
                await waiting[-1]
        # Each time the other one is not among the five that are drawn once in 2^5 times.
        assert len(found[1].asked) - before[1] >= 14
        held.set()
        await asyncio.gather(*waiting)


async def test_an_engine_that_lacks_a_version_is_not_asked_for_it(tmp_path: Path) -> None:
    routes = (route("python", v1=100), route("rust", v1=100))
    async with engines(3) as found:
        first = lacking(table(found, *routes), "e1", served("python", "v1"))
        async with router(first, tmp_path) as one:
            assert await statuses(one, 40) == {200: 40}
            assert found[1].asked == []
            assert len(found[0].asked) > 5 and len(found[2].asked) > 5
            await statuses(one, 40, {"model": "rust"})
            assert len(found[1].asked) > 5, "what it has it is asked for"


async def test_an_engine_without_adapters_gets_the_base_model_only(tmp_path: Path) -> None:
    async with engines(2) as found, router(lacking(table(found, ROUTE), "e1", adapters=False), tmp_path) as one:
        assert await statuses(one, 20) == {200: 20}
        assert asked(found) == [20, 0]
        await statuses(one, 20, {"model": BASE})
        assert len(found[1].asked) > 2


async def test_with_no_engine_known_to_have_adapters_all_are_asked(tmp_path: Path) -> None:
    async with engines(1) as found, router(lacking(table(found, ROUTE), "e0", adapters=False), tmp_path) as one:
        assert await statuses(one, 3) == {200: 3}


async def test_a_dead_engine_costs_no_request_also_a_large_one(tmp_path: Path) -> None:
    large = {"model": "python", "prompt": "x" * 8_000_000}
    async with engines(2) as found, router(table(found, ROUTE), tmp_path, eject_after=0) as one:
        await found[0].stop()
        assert await statuses(one, 30) == {200: 30}
        assert await statuses(one, 4, large) == {200: 4}
        assert len(found[1].asked[-1].body) > 8_000_000


async def test_a_dead_engine_which_is_the_least_loaded_costs_no_request(tmp_path: Path) -> None:
    held = asyncio.Event()

    async with engines(2) as found, router(table(found, ROUTE), tmp_path, eject_after=0) as one:
        await found[0].stop()
        found[1].answer = waiting_for(held)
        waiting = [asyncio.create_task(one.post(BODY)) for _ in range(30)]
        await until("all are with the living one", lambda: len(found[1].asked) == 30 or any(t.done() for t in waiting))
        held.set()
        assert Counter([status for status, _ in await asyncio.gather(*waiting)]) == {200: 30}


def refusing(status: int) -> Answer:
    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        if status == 404:
            return not_loaded(body)
        return web.Response(status=status, text="{}", content_type="application/json")

    return answer


async def breaking(request: web.Request, body: bytes) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def test_another_engine_is_tried_when_one_does_not_have_the_model_or_breaks(tmp_path: Path) -> None:
    async with engines(2) as found, router(table(found, ROUTE), tmp_path, eject_after=0) as one:
        for answer in (refusing(404), refusing(503), breaking):
            found[0].asked.clear()
            found[0].answer = answer
            assert await statuses(one, 30) == {200: 30}
            assert found[0].asked, "it was tried"


async def test_an_engine_without_the_model_is_left_also_when_the_others_have_more_to_do(tmp_path: Path) -> None:
    held = asyncio.Event()

    async with engines(2) as found, router(table(found, ROUTE), tmp_path, eject_after=0) as one:
        found[0].answer, found[1].answer = refusing(404), waiting_for(held)
        waiting = [asyncio.create_task(one.post(BODY)) for _ in range(10)]
        await until("all are with the one that has it", lambda: len(found[1].asked) == 10)
        found[1].answer = completion
        assert await statuses(one, 40) == {200: 40}
        held.set()
        assert Counter([status for status, _ in await asyncio.gather(*waiting)]) == {200: 10}


async def test_a_pinned_list_of_engines_is_left_too(tmp_path: Path) -> None:
    async with engines(4) as found:
        first = lacking(table(found, ROUTE), "e3", served("python", "v1"))
        async with router(first, tmp_path, eject_after=0) as one:
            await found[0].stop()
            found[1].answer = refusing(404)
            assert await statuses(one, 40) == {200: 40}
            assert len(found[2].asked) == 40
            assert found[3].asked == []


async def test_when_no_engine_has_the_model_the_client_may_come_back(tmp_path: Path) -> None:
    async with engines(2) as found, router(table(found, ROUTE), tmp_path) as one:
        for engine in found:
            engine.answer = refusing(404)
        async with one.http.post(f"{one.url}/v1/completions", data=json.dumps(BODY)) as answer:
            body = await answer.json()
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert body["error"]["code"] == "model_not_ready"
    assert served("python", "v1") not in json.dumps(body)


NOT_LOADABLE = f"LoRA adapter '{served('python', 'v1')}' was found but could not be loaded."


@pytest.mark.parametrize(("message", "expected"), [(NOT_LOADABLE, 503), (f"no grammar: {NOT_LOADABLE}", 400)])
async def test_an_engine_that_cannot_load_a_model_is_no_fault_of_the_clients(
    tmp_path: Path, message: str, expected: int
) -> None:
    """vLLM 0.32.0 answers 400 when its resolver finds an adapter that does not load."""

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
        text = json.dumps({"error": error}, separators=(",", ":"))
        return web.Response(status=400, text=text, content_type="application/json")

    async with engines(1) as found, router(table(found, ROUTE), tmp_path) as one:
        found[0].answer = answer
        status, body = await one.post(BODY)
    assert status == expected
    assert (body["error"]["code"] == "model_not_ready") == (expected == 503)


async def test_a_404_about_something_else_is_the_engines_answer(tmp_path: Path) -> None:
    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=404, text='{"detail":"Not Found"}', content_type="application/json")

    async with engines(1) as found, router(table(found, ROUTE), tmp_path) as one:
        found[0].answer = answer
        assert await one.post(BODY) == (404, {"detail": "Not Found"})


async def test_nothing_is_asked_twice_once_an_answer_has_begun(tmp_path: Path) -> None:
    async def broken(request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(0.05)
        return await breaking(request, body)

    async with engines(2) as found, router(table(found, ROUTE), tmp_path) as one:
        for engine in found:
            engine.answer = broken
        async with one.http.post(f"{one.url}/v1/completions", data=json.dumps(BODY)) as answer:
            got = b""
            try:
                async for chunk in answer.content.iter_any():
                    got += chunk
            except Exception as error:
                assert "payload" in str(error).lower()
            else:
                raise AssertionError("the client was not told that its stream was cut")
    assert got == b"data: 1\n\n"
    assert sum(asked(found)) == 1


async def test_without_an_engine_the_answer_is_openais_503(tmp_path: Path) -> None:
    async with (
        router(table([], ROUTE), tmp_path) as one,
        one.http.post(f"{one.url}/v1/completions", data=json.dumps(BODY)) as answer,
    ):
        body = await answer.json()
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert body["error"]["code"] == "no_engine"


async def test_above_the_limits_the_answer_is_openais_503(tmp_path: Path) -> None:
    held = asyncio.Event()

    async with engines(1) as found, router(table(found, ROUTE), tmp_path, max_requests=2) as one:
        found[0].answer = waiting_for(held)
        waiting = [asyncio.create_task(one.post(BODY)) for _ in range(2)]
        while len(found[0].asked) < 2:
            await asyncio.sleep(0.01)
        async with one.http.post(f"{one.url}/v1/completions", data=json.dumps(BODY)) as answer:
            body = await answer.json()
        held.set()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
    assert (answer.status, body["error"]["code"], answer.headers["retry-after"]) == (503, "overloaded", "1")


async def test_an_engine_that_hangs_is_given_up_when_a_timeout_is_set(tmp_path: Path) -> None:
    async with engines(1) as found, router(table(found, ROUTE), tmp_path, request_timeout=0.3) as one:
        found[0].answer = waiting_for(asyncio.Event())
        status, body = await one.post(BODY)
    assert (status, body["error"]["code"]) == (504, "timeout")


async def test_an_engine_that_keeps_failing_is_left_out_but_never_all(tmp_path: Path) -> None:
    async with engines(2) as found, router(table(found, ROUTE), tmp_path, eject_after=3, eject_time=60) as one:
        for engine in found:
            await engine.stop()
        assert set(await statuses(one, 12)) == {503}
        counters = await one.counters()
        ejected = counters['envoy_cluster_outlier_detection_ejections_active{envoy_cluster_name="adapters"}']
        assert ejected == 1
        for engine in found:
            await engine.start()
        assert await statuses(one, 6) == {200: 6}


async def test_with_affinity_a_version_prefers_the_same_engines(tmp_path: Path) -> None:
    routes = [route(f"a{number}", v1=100) for number in range(12)]
    async with engines(6) as found, router(table(found, *routes), tmp_path, affinity=2) as one:
        used: dict[str, set[str]] = {}
        for one_route in routes:
            before = asked(found)
            await statuses(one, 16, {"model": one_route.adapter})
            used[one_route.adapter] = {
                engine.name for engine, old in zip(found, before, strict=True) if len(engine.asked) > old
            }
        assert all(len(names) == 2 for names in used.values())
        assert len(set().union(*used.values())) >= 4, "and adapters are spread"
        gone = min(used["a0"])
        without = [engine for engine in found if engine.name != gone]
        await one.update(table(without, *routes))
        before = asked(found)
        await statuses(one, 16, {"model": "a0"})
        now = {engine.name for engine, old in zip(found, before, strict=True) if len(engine.asked) > old}
        assert len(now) == 2
        assert used["a0"] - {gone} < now, "the other one is kept"
