"""The client against an engine that is slow, hung, gone, or not vLLM at all."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lorafleet.api.reasons import Reason
from lorafleet.engines.client import LISTING_BYTES, EngineClient, LoadOutcome, UnloadOutcome, session
from lorafleet.engines.errors import BoundElsewhere, Misconfigured, Retry
from tests.fake_vllm import FakeEngine, Settings
from tests.fake_vllm.engine import LOAD, MODELS, UNLOAD

SHORT = 0.15


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine(Settings(check_files=False)) as started:
        yield started


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with session() as one:
        yield one


@pytest.fixture
def client(engine: FakeEngine, http: aiohttp.ClientSession) -> EngineClient:
    return EngineClient(http, engine.url, "s3cret", name="vllm-0", load_timeout=SHORT, list_timeout=SHORT)


async def test_a_load_that_completes_after_the_timeout_counts_as_loaded(
    engine: FakeEngine, client: EngineClient
) -> None:
    engine.settings.hang = [LOAD]
    engine.adapters["a/1"] = "/a/1"
    assert await client.load("a/1", "/a/1") is LoadOutcome.LOADED


async def test_a_load_that_times_out_and_is_not_listed_is_hung(engine: FakeEngine, client: EngineClient) -> None:
    engine.settings.hang = [LOAD]
    with pytest.raises(Retry) as caught:
        await client.load("a/1", "/a/1")
    assert caught.value.reason is Reason.HUNG


async def test_a_load_that_times_out_while_the_name_is_elsewhere_says_so(
    engine: FakeEngine, client: EngineClient
) -> None:
    engine.settings.hang = [LOAD]
    engine.adapters["a/1"] = "/other"
    with pytest.raises(BoundElsewhere) as caught:
        await client.load("a/1", "/a/1")
    assert caught.value.root == "/other"


async def test_an_engine_that_answers_nothing_is_hung(engine: FakeEngine, client: EngineClient) -> None:
    engine.settings.hang = ["*"]
    for call in (client.loaded(), client.load("a/1", "/a/1"), client.unload("a/1"), client.version(), client.health()):
        with pytest.raises(Retry) as caught:
            await call
        assert caught.value.reason is Reason.HUNG


async def test_an_engine_that_is_gone_is_unreachable(engine: FakeEngine, client: EngineClient) -> None:
    engine.stop()
    with pytest.raises(Retry) as caught:
        await client.loaded()
    assert caught.value.reason is Reason.UNREACHABLE
    assert f"127.0.0.1:{engine.port}" in caught.value.message


async def test_a_connection_that_the_engine_closed_meanwhile_is_opened_again(
    engine: FakeEngine, client: EngineClient
) -> None:
    await client.loaded()
    await engine.restart()
    assert await client.load("a/1", "/a/1") is LoadOutcome.LOADED


@pytest.mark.parametrize("call", ["GET", "POST"])
async def test_an_engine_that_breaks_every_connection_is_unreachable(call: str, http: aiohttp.ClientSession) -> None:
    connections = 0

    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(breaks, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = EngineClient(http, f"http://127.0.0.1:{port}", name="vllm-0")
        with pytest.raises(Retry) as caught:
            await (client.loaded() if call == "GET" else client.load("a/1", "/a/1"))
    assert caught.value.reason is Reason.UNREACHABLE
    assert connections == 2


async def test_the_key_is_in_no_message_and_no_repr_even_when_the_engine_tells_it(
    engine: FakeEngine, client: EngineClient
) -> None:
    engine.settings.answers = {LOAD: (500, '{"error":{"message":"your key is s3cret"}}')}
    with pytest.raises(Retry) as caught:
        await client.load("a/1", "/a/1")
    assert "your key is" in caught.value.message
    assert "s3cret" not in caught.value.message
    assert "s3cret" not in repr(client)


async def test_a_key_that_no_header_can_hold_is_said_without_the_key(
    engine: FakeEngine, http: aiohttp.ClientSession
) -> None:
    client = EngineClient(http, engine.url, "bad\nkey", name="vllm-0")
    with pytest.raises(Misconfigured) as caught:
        await client.loaded()
    assert caught.value.reason is Reason.API_KEY_REJECTED
    assert "bad" not in caught.value.message
    assert not engine.counts


@pytest.mark.parametrize("body", ["hello", "[]", "{}", '{"data":[{}]}', '{"data":[1]}', '{"data":null}', ""])
async def test_a_listing_that_is_none_means_another_port(engine: FakeEngine, client: EngineClient, body: str) -> None:
    engine.settings.answers = {MODELS: (200, body)}
    with pytest.raises(Misconfigured) as caught:
        await client.loaded()
    assert caught.value.reason is Reason.PORT_NOT_FOUND


async def test_a_listing_without_end_is_cut(engine: FakeEngine, client: EngineClient) -> None:
    engine.settings.answers = {MODELS: (200, "x" * (LISTING_BYTES + 2**20))}
    with pytest.raises(Misconfigured):
        await client.loaded()


async def test_a_redirect_is_not_followed(engine: FakeEngine, client: EngineClient) -> None:
    engine.settings.answers = {MODELS: (302, "")}
    with pytest.raises(Retry) as caught:
        await client.loaded()
    assert "302" in caught.value.message


async def test_a_relative_path_is_never_sent_because_vllm_would_fetch_it(
    engine: FakeEngine, client: EngineClient
) -> None:
    with pytest.raises(ValueError, match="not absolute"):
        await client.load("a/1", "a/1")
    assert not engine.counts


async def test_a_name_that_is_taken_and_not_listed_is_tried_again(engine: FakeEngine, client: EngineClient) -> None:
    engine.settings.answers = {LOAD: (400, '{"error":{"message":"a/1 has already been loaded."}}')}
    with pytest.raises(Retry):
        await client.load("a/1", "/a/1")


async def test_loads_and_unloads_are_as_good_twice_as_once(engine: FakeEngine, client: EngineClient) -> None:
    assert [await client.load("a/1", "/a/1") for _ in range(2)] == [LoadOutcome.LOADED, LoadOutcome.ALREADY_LOADED]
    assert [await client.unload("a/1") for _ in range(2)] == [UnloadOutcome.UNLOADED, UnloadOutcome.NOT_LOADED]
    assert engine.counts[LOAD] == engine.counts[UNLOAD] == 2


async def test_the_client_never_asks_to_load_in_place(http: aiohttp.ClientSession) -> None:
    bodies: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response(text="Success")

    app = web.Application()
    app.router.add_post("/v1/load_lora_adapter", take)
    async with TestServer(app) as server:
        await EngineClient(http, str(server.make_url("/"))).load("a/1", "/a/1")
    assert bodies == [b'{"lora_name": "a/1", "lora_path": "/a/1"}']


async def test_one_hung_engine_does_not_slow_another(engine: FakeEngine, http: aiohttp.ClientSession) -> None:
    engine.settings.hang = ["*"]
    async with FakeEngine(Settings(check_files=False)) as healthy:
        hung = EngineClient(http, engine.url, list_timeout=30.0)
        waiting = asyncio.create_task(hung.loaded())
        assert await EngineClient(http, healthy.url).load("a/1", "/a/1") is LoadOutcome.LOADED
        assert not waiting.done()
        waiting.cancel()


async def test_a_completion_that_fails_is_asked_again_and_one_that_is_odd_as_well(
    engine: FakeEngine, client: EngineClient
) -> None:
    engine.settings.replies = {"acme/base": {"status": 500}}
    with pytest.raises(Retry) as caught:
        await client.complete("acme/base", "x")
    assert "500" in caught.value.message and "acme/base" in caught.value.message
    engine.settings.replies = {}
    engine.settings.answers = {"/v1/completions": (200, '{"choices": []}')}
    with pytest.raises(Retry) as caught:
        await client.complete("acme/base", "x")
    assert "no completion" in caught.value.message


async def test_a_completion_has_its_own_time(engine: FakeEngine, client: EngineClient) -> None:
    engine.settings.replies = {"acme/base": {"hang": True}}
    with pytest.raises(Retry) as caught:
        await client.complete("acme/base", "x", timeout=SHORT)
    assert caught.value.reason is Reason.HUNG
