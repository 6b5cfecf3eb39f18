"""Rules of loading and unloading: what an engine answers, and what the client makes of it."""

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from lorafleet.api.reasons import Reason
from lorafleet.engines.client import EngineClient, LoadOutcome, UnloadOutcome
from lorafleet.engines.errors import BoundElsewhere, Rejected, Retry
from tests.contract.conftest import MAX_RANK, SERVED, Target, say

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"


async def test_a_loaded_adapter_is_listed_with_its_path_and_serves_its_own_output(
    target: Target, client: EngineClient, http: httpx.AsyncClient
) -> None:
    first, first_path = target.adapter("one")
    second, second_path = target.adapter("two")
    assert await client.load(first, first_path) is LoadOutcome.LOADED
    assert await client.load(second, second_path) is LoadOutcome.LOADED
    listing = await client.loaded()
    assert listing.adapters[first] == first_path
    assert listing.adapters[second] == second_path
    answers = [await say(http, target, model) for model in (SERVED[0], first, second)]
    assert [status for status, _ in answers] == [200, 200, 200]
    assert len({text for _, text in answers}) == 3


async def test_a_success_is_plain_text_without_a_content_type(target: Target, http: httpx.AsyncClient) -> None:
    name, path = target.adapter()
    loaded = await http.post(target.url + LOAD, json={"lora_name": name, "lora_path": path})
    unloaded = await http.post(target.url + UNLOAD, json={"lora_name": name})
    assert (loaded.status_code, loaded.text) == (200, f"Success: LoRA adapter '{name}' added successfully.")
    assert (unloaded.status_code, unloaded.text) == (200, f"Success: LoRA adapter '{name}' removed successfully.")
    assert "content-type" not in loaded.headers


async def test_loading_again_from_the_same_path_is_already_loaded(target: Target, client: EngineClient) -> None:
    name, path = target.adapter()
    await client.load(name, path)
    assert await client.load(name, path) is LoadOutcome.ALREADY_LOADED


async def test_a_name_that_is_loaded_from_another_path_is_told_apart(target: Target, client: EngineClient) -> None:
    name, path = target.adapter()
    _, other = target.adapter("two")
    await client.load(name, path)
    with pytest.raises(BoundElsewhere) as caught:
        await client.load(name, other)
    assert caught.value.root == path
    assert (await client.loaded()).adapters[name] == path


async def test_already_loaded_is_400_InvalidUserInput(target: Target, http: httpx.AsyncClient) -> None:
    name, path = target.adapter()
    body = {"lora_name": name, "lora_path": path}
    await http.post(target.url + LOAD, json=body)
    answer = await http.post(target.url + LOAD, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("InvalidUserInput", None, 400)
    assert "has already been loaded" in error["message"]


async def test_concurrent_loads_of_one_name_load_it_once(target: Target, client: EngineClient) -> None:
    name, path = target.adapter()
    outcomes = await asyncio.gather(*(client.load(name, path) for _ in range(4)))
    assert sorted(outcomes) == sorted([LoadOutcome.LOADED] + 3 * [LoadOutcome.ALREADY_LOADED])


async def test_an_unloaded_name_is_forgotten(target: Target, client: EngineClient) -> None:
    name, path = target.adapter()
    await client.load(name, path)
    assert await client.unload(name) is UnloadOutcome.UNLOADED
    assert name not in (await client.loaded()).adapters
    assert await client.load(name, path) is LoadOutcome.LOADED


async def test_unloading_an_unknown_name_is_not_loaded(target: Target, client: EngineClient) -> None:
    assert await client.unload("nobody/1-0") is UnloadOutcome.NOT_LOADED


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (LOAD, {"lora_name": "", "lora_path": "/x"}),
        (LOAD, {"lora_name": "x", "lora_path": ""}),
        (UNLOAD, {"lora_name": ""}),
    ],
)
async def test_empty_names_and_paths_are_refused(
    target: Target, http: httpx.AsyncClient, route: str, body: dict[str, str]
) -> None:
    answer = await http.post(target.url + route, json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "InvalidUserInput")
    assert "provided" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b'{"lora_name": "x"}', "application/json"),
        (b'{"lora_name": "x", "lora_path": "/x"}', "text/plain"),
    ],
    ids=["malformed", "field missing", "content type"],
)
async def test_what_is_no_request_is_a_bad_request(
    target: Target, http: httpx.AsyncClient, content: bytes, kind: str
) -> None:
    answer = await http.post(target.url + LOAD, content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "Bad Request")


async def test_a_missing_path_is_tried_again_because_the_volume_may_come(target: Target, client: EngineClient) -> None:
    with pytest.raises(Retry) as caught:
        await client.load("missing/1-0", "/nonexistent/missing/1-0")
    assert caught.value.reason is Reason.LOAD_FAILED
    assert "mountPath" in caught.value.message


async def test_a_folder_without_a_configuration_is_a_missing_path(target: Target, client: EngineClient) -> None:
    name, path = target.adapter(fault="no config")
    with pytest.raises(Retry) as caught:
        await client.load(name, path)
    assert caught.value.reason is Reason.LOAD_FAILED


async def test_a_rank_above_the_limit_is_rejected_with_both_numbers(target: Target, client: EngineClient) -> None:
    name, path = target.adapter("rank 32")
    with pytest.raises(Rejected) as caught:
        await client.load(name, path)
    assert caught.value.reason is Reason.RANK_TOO_HIGH
    assert "rank 32" in caught.value.message
    assert f"now {MAX_RANK}" in caught.value.message


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("dora", Reason.FEATURE_NOT_SUPPORTED),
        ("bias", Reason.FEATURE_NOT_SUPPORTED),
        ("modules to save", Reason.FEATURE_NOT_SUPPORTED),
        ("other modules", Reason.FEATURE_NOT_SUPPORTED),
        ("no rank", Reason.CONFIG_INVALID),
        ("broken config", Reason.CONFIG_INVALID),
        ("no weights", Reason.WEIGHTS_MISSING),
        ("corrupt", Reason.WEIGHTS_INVALID),
        ("truncated", Reason.WEIGHTS_INVALID),
        ("empty file", Reason.WEIGHTS_INVALID),
        ("too wide", Reason.BASE_MODEL_MISMATCH),
    ],
)
async def test_a_faulty_adapter_is_rejected_for_good(
    target: Target, client: EngineClient, fault: str, reason: Reason
) -> None:
    name, path = target.adapter(fault=fault)
    with pytest.raises(Rejected) as caught:
        await client.load(name, path)
    assert caught.value.reason is reason
    assert name not in (await client.loaded()).adapters


@pytest.mark.parametrize("fault", ["pissa", "lora bias", "layer replication", "alora"])
async def test_features_that_would_be_served_wrongly_are_rejected_from_0_32(
    target: Target, client: EngineClient, fault: str
) -> None:
    name, path = target.adapter(fault=fault)
    if target.version < (0, 32):
        assert await client.load(name, path) is LoadOutcome.LOADED
        return
    with pytest.raises(Rejected) as caught:
        await client.load(name, path)
    assert caught.value.reason is Reason.FEATURE_NOT_SUPPORTED


async def test_ranks_of_patterns_count_from_0_32(target: Target, client: EngineClient) -> None:
    name, path = target.adapter(fault="rank pattern")
    if target.version < (0, 32):
        assert await client.load(name, path) is LoadOutcome.LOADED
        return
    with pytest.raises(Rejected) as caught:
        await client.load(name, path)
    assert caught.value.reason is Reason.RANK_TOO_HIGH


@pytest.mark.parametrize("fault", ["other base", "too narrow", "layers the model lacks"])
async def test_an_adapter_for_another_base_loads_so_the_check_is_ours(
    target: Target, client: EngineClient, fault: str
) -> None:
    name, path = target.adapter(fault=fault)
    assert await client.load(name, path) is LoadOutcome.LOADED


@pytest.mark.parametrize("served", SERVED)
async def test_the_name_of_the_base_model_is_taken_from_0_32(target: Target, client: EngineClient, served: str) -> None:
    _, path = target.adapter()
    if target.version < (0, 32):
        assert await client.load(served, path) is LoadOutcome.LOADED
        await client.unload(served)
        return
    with pytest.raises(Rejected) as caught:
        await client.load(served, path)
    assert "rename" in caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
async def test_weights_of_mode_0600_of_another_user_are_a_missing_path(target: Target, client: EngineClient) -> None:
    name, path = target.adapter()
    (Path(path) / "adapter_model.safetensors").chmod(0o000)
    with pytest.raises(Retry) as caught:
        await client.load(name, path)
    assert caught.value.reason is Reason.LOAD_FAILED
