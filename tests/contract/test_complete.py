"""Rules of completions, which probes and warm-ups are made of."""

import aiohttp
import httpx
import pytest

from lorafleet.api.reasons import Reason
from lorafleet.engines.client import EngineClient
from lorafleet.engines.errors import Misconfigured, NotLoaded, Rejected
from tests.contract.conftest import SERVED, Target, say

PROMPT = "A small model"


async def test_a_completion_is_what_the_served_name_says_at_temperature_0(
    target: Target, client: EngineClient, http: httpx.AsyncClient
) -> None:
    name, path = target.adapter("one")
    await client.load(name, path)
    for model in (SERVED[0], name):
        text = await client.complete(model, PROMPT, max_tokens=12)
        assert (200, text) == await say(http, target, model)
    assert await client.complete(name, PROMPT, max_tokens=12) != await client.complete(SERVED[0], PROMPT, max_tokens=12)


async def test_one_token_is_an_answer(target: Target, client: EngineClient) -> None:
    assert len(await client.complete(SERVED[0], PROMPT)) <= 8


async def test_a_name_that_the_engine_does_not_have_is_not_loaded(client: EngineClient) -> None:
    with pytest.raises(NotLoaded) as caught:
        await client.complete("nothing/1-0123456789ab", PROMPT)
    assert "does not exist" in caught.value.message


async def test_a_prompt_that_does_not_fit_the_model_is_refused_for_good(target: Target, client: EngineClient) -> None:
    with pytest.raises(Rejected) as caught:
        await client.complete(SERVED[0], "word " * 4000)
    assert caught.value.reason is Reason.PROBE_FAILED
    assert "trying again" not in caught.value.message


async def test_a_completion_without_the_key_is_a_misconfigured_fleet(
    without_lora: Target, connections: aiohttp.ClientSession
) -> None:
    client = EngineClient(connections, without_lora.url, name="vllm-0")
    with pytest.raises(Misconfigured):
        await client.complete(SERVED[0], PROMPT)
