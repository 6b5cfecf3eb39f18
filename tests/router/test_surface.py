"""What of an engine clients can reach: the paths that take a model, and nothing of its administration."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lorafleet.router.envoy import ROUTES
from lorafleet.router.files import write
from lorafleet.router.script import PATHS
from tests.harness.plane import until
from tests.router.engines import engines
from tests.router.running import BASE, Router, route, router, table

ROUTE = route("python", v1=100)


# Every path of vLLM 0.32.0 that is not in `script.PATHS`, with those of its development mode.
OTHERS = """
/v1/load_lora_adapter /v1/unload_lora_adapter /adapters /invocations /ping /metrics /version /load /ready /readyz
/docs /redoc /openapi.json /static/x /server_info /tokenizer_info /weight_info /kv_event_sources /get_world_size
/sleep /wake_up /is_sleeping /pause /resume /is_paused /collective_rpc /abort_requests /release_kv_cache_memory
/reset_prefix_cache /reset_mm_cache /reset_encoder_cache /start_profile /stop_profile /weight_checker
/scale_elastic_ep /is_scaling_elastic_ep /fault_tolerance/apply /fault_tolerance/status
/init_weight_transfer_engine /start_weight_update /update_weights /finish_weight_update /update_weight_version
/inference/v1/generate /inference/v1/abort_requests /generative_scoring /cohere/v2/chat /v2/embed /v1/systemone
/v1/chat/completions/batch /v1/chat/completions/render /v1/completions/derender /v1/messages/render
/v1/responses/render /v1/responses/resp_1 /v1/responses/resp_1/cancel /v1/audio/transcriptions
/v1/audio/translations /v1/realtime /
"""
# The same under names that a careless proxy or server would make equal.
DISGUISED = """
//v1/load_lora_adapter /v1//load_lora_adapter /v1/completions/../load_lora_adapter /v1/../adapters /./metrics
/%76%31/load_lora_adapter /v1%2Fload_lora_adapter /v1/completions/%2e%2e/load_lora_adapter /METRICS
/v1/load_lora_adapter/ /v1/load_lora_adapter?/v1/completions /v1/load_lora_adapter;/v1/completions
/v1/completions/ /v1/completions;/../../metrics /v1/models/../load_lora_adapter /health/../metrics
http://engine/v1/load_lora_adapter
"""


async def test_only_paths_that_take_a_model_reach_an_engine(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        for path in PATHS:
            assert (await one.post({"model": "python"}, path + "?x=1"))[0] == 200
    assert [asked.path for asked in engine.asked] == [f"{path}?x=1" for path in PATHS]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_nothing_else_does_whatever_it_is_called(tmp_path: Path, method: str) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        for path in (OTHERS + DISGUISED).split():
            status, answer = await sent(one, method, path)
            assert (status, answer["error"]["code"]) in ((404, "unknown_url"), (404, "model_not_found")), path
        if method != "POST":
            for path in PATHS:
                status, answer = await sent(one, method, path)
                assert (status, answer["error"]["code"]) == (405, "method_not_allowed"), path
    assert engine.asked == []


async def sent(one: Router, method: str, target: str, *headers: str) -> tuple[int, Any]:
    """Status and JSON of the answer to a target that is sent as it stands: clients make paths normal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", one.settings.port)
    body = b'{"model":"python"}'
    lines = (f"{method} {target} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers)
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = int(head.partition("content-length: ")[2].split()[0])
    answer = json.loads(await reader.readexactly(size)) if size else None
    writer.close()
    return int(head.split()[1]), answer


@pytest.mark.parametrize(
    ("method", "path", "why"),
    [
        ("GET", "/v1/responses/resp_1", "stored"),
        ("DELETE", "/v1/responses/resp_1", "stored"),
        ("POST", "/v1/responses/resp_1/cancel", "stored"),
        ("POST", "/v1/audio/transcriptions", "form"),
        ("GET", "/v1/realtime", "WebSocket"),
        ("POST", "/v1/images/generations", ""),
    ],
)
async def test_what_is_not_routed_is_told_why_and_what_is(tmp_path: Path, method: str, path: str, why: str) -> None:
    async with router(table([], ROUTE), tmp_path) as one:
        status, answer = await sent(one, method, path)
    error = answer["error"]
    assert (status, error["code"], error["type"]) == (404, "unknown_url", "invalid_request_error")
    assert f"There is no {method} {path} here." in error["message"]
    assert why in error["message"]
    assert all(one in error["message"] for one in (*PATHS, "/v1/models")), error["message"]


async def test_a_form_is_told_so(tmp_path: Path) -> None:
    form = aiohttp.FormData({"model": "python"})
    form.add_field("file", b"x" * 3_000_000, filename="speech.wav", content_type="audio/wav")
    async with (
        router(table([], ROUTE), tmp_path) as one,
        one.http.post(f"{one.url}/v1/audio/transcriptions", data=form) as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_url")


async def test_a_websocket_is_refused_in_openais_shape(tmp_path: Path) -> None:
    upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eA==")
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        for path in ("/v1/realtime", "/v1/completions"):
            status, answer = await sent(one, "GET", path, *upgrade)
            assert (status, answer["error"]["code"]) == (403, "upgrade_refused")
    assert engine.asked == []


async def test_when_the_program_fails_no_request_reaches_an_engine(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        routes = json.loads((tmp_path / ROUTES).read_text())
        source = routes["resources"][0]["typed_config"]["default_source_code"]
        # Envoy lets a request go on whose program failed.
        source["inline_string"] = "function envoy_on_request() error('broken') end"
        write(tmp_path, {ROUTES: json.dumps(routes | {"version_info": "broken"}).encode()})

        async def failed() -> bool:
            status, answer = await one.post({"model": "python"})
            return (status, status == 500 and answer["error"]["code"]) == (500, "router_failed")

        await until("the program fails", failed)
        engine.asked.clear()
        for model in ("python", BASE):
            for path in ("/v1/completions", "/v1/load_lora_adapter"):
                status, _ = await one.post({"model": model}, path, x_lorafleet_base="1", x_lorafleet_served="python/v1")
                assert status == 500
    assert engine.asked == []
