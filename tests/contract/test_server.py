"""Rules of the server as a whole: listing, version, key, flags, restart."""

import aiohttp
import httpx
import pytest

from lorafleet.api.reasons import Reason
from lorafleet.engines.client import BaseModel, EngineClient
from lorafleet.engines.errors import Misconfigured
from tests.contract.conftest import SERVED, Target, say


async def test_base_entries_have_the_model_argument_as_root_and_no_parent(
    target: Target, client: EngineClient, http: httpx.AsyncClient
) -> None:
    assert (await client.loaded()).bases == tuple(BaseModel(name, target.model) for name in SERVED)
    data = (await http.get(f"{target.url}/v1/models")).json()["data"]
    assert [entry["parent"] for entry in data if entry["id"] in SERVED] == [None, None]


async def test_the_parent_of_an_adapter_is_the_first_served_name(
    target: Target, client: EngineClient, http: httpx.AsyncClient
) -> None:
    name, path = target.adapter()
    await client.load(name, path)
    data = (await http.get(f"{target.url}/v1/models")).json()["data"]
    assert [(entry["root"], entry["parent"]) for entry in data if entry["id"] == name] == [(path, SERVED[0])]


async def test_version_and_health_answer(target: Target, client: EngineClient) -> None:
    assert await client.version() == ".".join(map(str, target.version))
    assert await client.health() is True


async def test_runtime_updating_is_found_without_changing_anything(target: Target, client: EngineClient) -> None:
    before = await client.loaded()
    assert await client.runtime_updating() is True
    assert await client.loaded() == before


async def test_an_unknown_route_has_another_shape(target: Target, http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{target.url}/v1/nothing")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


async def test_a_missing_key_is_a_misconfigured_fleet(without_lora: Target, connections: aiohttp.ClientSession) -> None:
    client = EngineClient(connections, without_lora.url, name="vllm-0")
    for call in (client.loaded(), client.load("x/1-0", "/x"), client.unload("x/1-0"), client.runtime_updating()):
        with pytest.raises(Misconfigured) as caught:
            await call
        assert caught.value.reason is Reason.API_KEY_MISSING


async def test_a_wrong_key_is_rejected_and_never_told(without_lora: Target, connections: aiohttp.ClientSession) -> None:
    client = EngineClient(connections, without_lora.url, "wr0ng", name="vllm-0")
    with pytest.raises(Misconfigured) as caught:
        await client.loaded()
    assert caught.value.reason is Reason.API_KEY_REJECTED
    assert "wr0ng" not in caught.value.message


async def test_unauthorized_has_a_shape_of_its_own(without_lora: Target, http: httpx.AsyncClient) -> None:
    answer = await http.get(f"{without_lora.url}/v1/models")
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})


async def test_version_and_health_need_no_key(without_lora: Target, connections: aiohttp.ClientSession) -> None:
    client = EngineClient(connections, without_lora.url, name="vllm-0")
    assert await client.health() is True
    assert await client.version() == ".".join(map(str, without_lora.version))


async def test_the_right_key_lists(without_lora: Target, connections: aiohttp.ClientSession) -> None:
    client = EngineClient(connections, without_lora.url, "s3cret", name="vllm-0")
    assert {base.id for base in (await client.loaded()).bases} == set(SERVED)


async def test_an_engine_without_lora_is_misconfigured(
    without_lora: Target, connections: aiohttp.ClientSession
) -> None:
    client = EngineClient(connections, without_lora.url, "s3cret", name="vllm-0")
    name, path = without_lora.adapter()
    with pytest.raises(Misconfigured) as caught:
        await client.load(name, path)
    assert caught.value.reason is Reason.LORA_DISABLED
    assert "--enable-lora" in caught.value.message


async def test_an_engine_without_runtime_updating_is_misconfigured(
    without_updating: Target, connections: aiohttp.ClientSession
) -> None:
    client = EngineClient(connections, without_updating.url, name="vllm-0")
    name, path = without_updating.adapter()
    for call in (client.load(name, path), client.unload(name)):
        with pytest.raises(Misconfigured) as caught:
            await call
        assert caught.value.reason is Reason.RUNTIME_UPDATING_DISABLED
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in caught.value.message
    assert await client.runtime_updating() is False


async def test_without_runtime_updating_nothing_is_resolved(without_updating: Target, http: httpx.AsyncClient) -> None:
    name, _ = without_updating.adapter()
    assert (await say(http, without_updating, name))[0] == 404


async def test_a_restart_forgets_every_adapter_and_the_resolver_brings_it_back(
    target: Target, client: EngineClient, http: httpx.AsyncClient
) -> None:
    name, path = target.adapter()
    await client.load(name, path)
    _, before = await say(http, target, name)
    target.process.restart()
    assert (await client.loaded()).adapters == {}
    assert await say(http, target, name) == (200, before)
    assert (await client.loaded()).adapters == {name: path}
