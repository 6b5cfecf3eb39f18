"""What clients get back: their own name for the model, and otherwise the engine's bytes as they come."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.router.engines import Answer, Stream, engines
from tests.router.running import BASE, Router, route, router, served, table

V1 = served("python", "v1")
ROUTE = route("python", v1=100)


def saying(text: str, kind: str = "application/json", status: int = 200) -> Answer:
    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type=kind)

    return answer


async def asked(one: Router, model: str = "python") -> tuple[bytes, Any]:
    """The bytes of an answer and its headers."""
    async with one.http.post(f"{one.url}/v1/completions", data=json.dumps({"model": model})) as answer:
        return await answer.read(), answer.headers


@pytest.mark.parametrize("model", ["python", "python@v1"])
async def test_json_names_the_model_as_the_client_did(tmp_path: Path, model: str) -> None:
    text = f'{{"id":"1", "model":"{V1}","choices":[{{"text":"\\"model\\":\\"{V1}\\" größe"}}],"x":{{"model":"{V1}"}}}}'
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = saying(text)
        body, headers = await asked(one, model)
    assert body.decode() == text.replace(f'"model":"{V1}"', f'"model":"{model}"')
    assert headers["content-length"] == str(len(body))


async def test_an_answer_without_the_name_is_passed_on_as_it_is(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        for text, kind in (('{"model":"other"}', "application/json"), (f'"model":"{V1}"', "text/plain")):
            engine.answer = saying(text, kind)
            body, headers = await asked(one)
            assert body.decode() == text
            assert headers["content-length"] == str(len(text))


async def test_a_large_answer_is_named_too(tmp_path: Path) -> None:
    text = f'{{"data":"{"x" * 20_000_000}","model":"{V1}"}}'
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = saying(text)
        body, _ = await asked(one)
    assert body.decode() == text.replace(V1, "python")


async def test_the_option_can_be_switched_off(tmp_path: Path) -> None:
    first = table([], ROUTE)
    async with engines(1) as (engine,), router(first, tmp_path, restore_model=False, count_tokens=False) as one:
        await one.update(table([engine], ROUTE))
        body, _ = await asked(one)
    assert json.loads(body)["model"] == V1


async def test_the_base_model_is_named_by_the_engine(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        body, _ = await asked(one, BASE)
    assert json.loads(body)["model"] == BASE


async def test_an_error_of_an_engine_is_passed_on(tmp_path: Path) -> None:
    text = '{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}'
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = saying(text, status=400)
        body, _ = await asked(one)
    assert body.decode() == text


async def test_each_event_of_a_stream_comes_at_once_with_the_name(tmp_path: Path) -> None:
    stream = Stream()
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = stream
        asking = asyncio.create_task(one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}'))
        for number in range(3):
            stream.step(f'data: {{"id":"{number}","model":"{V1}","choices":[]}}\n\n'.encode())
            answer = await asking
            event = await asyncio.wait_for(answer.content.readuntil(b"\n\n"), 20)
            assert event == f'data: {{"id":"{number}","model":"python","choices":[]}}\n\n'.encode()
        stream.step(b"data: [DONE]\n\n")
        stream.end()
        assert await answer.read() == b"data: [DONE]\n\n"


async def test_a_name_in_two_pieces_is_found(tmp_path: Path) -> None:
    whole = f'data: {{"id":"1","model":"{V1}","choices":[{{"text":"ü"}}]}}\n\n'.encode()
    expected = whole.replace(V1.encode(), b"python")
    stream = Stream()
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        engine.answer = stream
        asking = asyncio.create_task(one.http.post(f"{one.url}/v1/completions", data=b'{"model":"python"}'))
        got = b""
        for cut in range(1, len(whole)):
            stream.step(whole[:cut])
            answer = await asking
            # The first byte is no part of the name and never held back: once it is here, the piece has been through.
            while len(got) == len(expected) * (cut - 1):
                got += await asyncio.wait_for(answer.content.readany(), 20)
            stream.step(whole[cut:])
            while len(got) < len(expected) * cut:
                got += await asyncio.wait_for(answer.content.readany(), 20)
        stream.end()
        got += await answer.read()
    assert got == expected * (len(whole) - 1)


async def test_the_end_of_an_answer_without_a_length_is_kept_whatever_it_is(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        for text in (b'"ok"', b'["model":"', f'{{"model":"{V1}"}} "mod'.encode()):
            engine.answer = stream = Stream("application/json")
            stream.step(text)
            stream.end()
            body, _ = await asked(one)
            assert body == text.replace(V1.encode(), b"python")
