"""What happens to the bytes of a request's body: the model's name is replaced, nothing else changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.router.engines import Engine, engines
from tests.router.running import Router, route, router, served, table

NAME = served("python", "v1")
MIB = 1024 * 1024


async def sent(one: Router, engine: Engine, body: bytes) -> bytes:
    """What an engine got for this body."""
    status, answer = await one.post(body)
    assert status == 200, answer
    got = engine.asked[-1]
    assert got.headers["Content-Length"] == str(len(got.body))
    return got.body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"model":"python"}', '{"model":"NAME"}'),
        (
            ' \n{ "x" : 1 ,\t"model" :\r\n "python" , "y": [ ] } \n',
            ' \n{ "x" : 1 ,\t"model" :\r\n "NAME" , "y": [ ] } \n',
        ),
        ('{"messages":[{"model":"no","x":{"model":"python"}}],"model":"python"}',) * 2,
        ('{"a":"\\"model\\":\\"x\\"","model":"python","b":"]}{["}',) * 2,
        ('{"a":"\\\\","model":"python"}',) * 2,
        ('{"model":"\\u0070ython"}', '{"model":"NAME"}'),
        ('{"mod\\u0065l":"python"}', '{"mod\\u0065l":"NAME"}'),
        ('{"model":"first","model":"python"}', '{"model":"NAME","model":"NAME"}'),
        ('{"model":3,"model":"python"}', '{"model":3,"model":"NAME"}'),
        ('{"n":-1.5e+3,"t":true,"f":false,"z":null,"model":"python"}',) * 2,
        ('{"text":"größe 😀 \\ud83d\\ude00","model":"python"}',) * 2,
        ('{"model":"python","tools":[{"type":"function","function":{"parameters":{"b":1,"a":  2}}}]}',) * 2,
    ],
)
async def test_only_the_name_changes(tmp_path: Path, body: str, expected: str) -> None:
    if expected == body:
        expected = '"NAME"'.join(body.rsplit('"python"', 1))
    async with engines(1) as (engine,), router(table([engine], route("python", v1=100)), tmp_path) as one:
        assert (await sent(one, engine, body.encode())).decode() == expected.replace("NAME", NAME)


REFUSED = [
    (b"", "has no body"),
    (b"not json", "not a JSON object"),
    (b"[]", "not a JSON object"),
    (b'"model"', "not a JSON object"),
    (b"{", "not a JSON object"),
    (b'{"model":"python"', "not a JSON object"),
    (b'{"model":"python', "not a JSON object"),
    (b'{"model":"python"} x', "not a JSON object"),
    (b"{}", "names no model"),
    (b'{"x":{"model":"python"}}', "names no model"),
    (b'{"x":"model"}', "names no model"),
    (b'{"model":null}', "must be a string"),
    (b'{"model":["python"]}', "must be a string"),
    (b'{"model":"python","model":3}', "must be a string"),
]


async def test_what_is_no_request_is_refused_and_goes_nowhere(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], route("python", v1=100)), tmp_path) as one:
        for body, expected in REFUSED:
            status, answer = await one.post(body)
            assert status == 400, body
            assert expected in answer["error"]["message"], body
            assert answer["error"]["type"] == "invalid_request_error"
    assert engine.asked == []


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["model", "user", "messages", "modèle", "Model", "a\\", '"', "model "])


@given(
    fields=st.lists(st.tuples(KEYS | st.text(max_size=8), JSON), max_size=6),
    place=st.integers(0, 6),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_object_is_read_as_pythons_parser_reads_it(
    shared: tuple[asyncio.AbstractEventLoop, Router, Engine],
    fields: list[tuple[str, Any]],
    place: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    loop, one, engine = shared
    members = [*fields[:place], ("model", "python"), *fields[place:]]
    space = "" if indent is None else "\n" + " " * indent
    body = "{" + space
    body += ("," + space).join(
        f"{json.dumps(key, ensure_ascii=ascii_only)}:{json.dumps(value, ensure_ascii=ascii_only, indent=indent)}"
        for key, value in members
    )
    raw = (body + space + "}").encode("utf-8", "surrogatepass")
    last = json.loads(raw.decode("utf-8", "surrogatepass"))["model"]
    status, answer = loop.run_until_complete(one.post(raw))
    if last == "python":
        assert status == 200, answer
        expected = dict(members) | {"model": NAME}
        assert json.loads(engine.asked[-1].body.decode("utf-8", "surrogatepass")) == expected
    else:
        assert status in (400, 404), answer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One router and engine for many examples."""
    loop = asyncio.new_event_loop()

    async def run() -> AsyncIterator[tuple[Router, Engine]]:
        async with (
            engines(1) as (engine,),
            router(table([engine], route("python", v1=100)), tmp_path_factory.mktemp("shared")) as one,
        ):
            yield one, engine

    running = run()
    one, engine = loop.run_until_complete(anext(running))
    yield loop, one, engine
    loop.run_until_complete(running.aclose())
    loop.close()


def large(size: int) -> bytes:
    """A body of exactly so many bytes, the model last."""
    tail = b'"}],"model":"python"}'
    head = b'{"messages":[{"role":"user","content":"'
    return head + (b"word " * (size // 5))[: size - len(head) - len(tail)] + tail


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 100_000):
        yield body[at : at + 100_000]


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_up_to_the_limit_pass_unchanged(tmp_path: Path, chunked: bool) -> None:
    body = large(10 * MIB)
    async with engines(1) as (engine,), router(table([engine], route("python", v1=100)), tmp_path) as one:
        data = pieces(body) if chunked else body
        async with one.http.post(f"{one.url}/v1/completions", data=data) as answer:
            assert answer.status == 200
    assert engine.asked[0].body == body.replace(b'"model":"python"', b'"model":"' + NAME.encode() + b'"')


@pytest.mark.parametrize("size", [MIB + 1, 3 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_larger_ones_are_refused_in_openais_shape(tmp_path: Path, chunked: bool, size: int) -> None:
    first = table([], route("python", v1=100))
    async with router(first, tmp_path, max_body_bytes=MIB) as one:
        data = pieces(large(size)) if chunked else large(size)
        async with one.http.post(f"{one.url}/v1/completions", data=data) as answer:
            body = await answer.json()
    assert answer.status == 413
    assert body["error"]["code"] == "request_too_large"
    assert str(MIB) in body["error"]["message"]
