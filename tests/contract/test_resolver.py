"""Rules of vLLM's filesystem resolver, which brings adapters back after a restart without us."""

import shutil
from pathlib import Path

import httpx

from lorafleet.engines.client import EngineClient
from tests.contract.conftest import Target, say


async def test_a_published_name_is_resolved_by_the_first_request_for_it(
    target: Target, client: EngineClient, http: httpx.AsyncClient
) -> None:
    name, path = target.adapter()
    assert name not in (await client.loaded()).adapters
    status, _ = await say(http, target, name)
    assert status == 200
    assert (await client.loaded()).adapters[name] == path


async def test_a_folder_above_an_adapter_is_a_clean_404(target: Target, http: httpx.AsyncClient) -> None:
    name, _ = target.adapter()
    status, message = await say(http, target, name.partition("/")[0])
    assert status == 404
    assert "does not exist" in message


async def test_another_base_model_is_not_resolved(target: Target, http: httpx.AsyncClient) -> None:
    name, _ = target.adapter(fault="other base")
    assert (await say(http, target, name))[0] == 404


async def test_a_served_name_is_not_the_base_model(target: Target, http: httpx.AsyncClient) -> None:
    from tests.contract.adapters import configured
    from tests.contract.conftest import SERVED

    name, path = target.adapter()
    configured(Path(path), base_model_name_or_path=SERVED[0])
    assert (await say(http, target, name))[0] == 404


async def test_a_negative_answer_is_not_remembered(target: Target, http: httpx.AsyncClient) -> None:
    name, path = target.adapter()
    aside = target.serving.parent / "aside"
    Path(path).rename(aside)
    assert (await say(http, target, name))[0] == 404
    aside.rename(path)
    assert (await say(http, target, name))[0] == 200


async def test_an_adapter_that_cannot_be_loaded_is_400(target: Target, http: httpx.AsyncClient) -> None:
    name, _ = target.adapter(fault="dora")
    status, message = await say(http, target, name)
    assert status == 400
    assert "found but could not be loaded" in message


async def test_an_unloaded_name_is_resolved_again_while_its_folder_is_there(
    target: Target, client: EngineClient, http: httpx.AsyncClient
) -> None:
    name, path = target.adapter()
    await client.load(name, path)
    await client.unload(name)
    assert (await say(http, target, name))[0] == 200
    assert name in (await client.loaded()).adapters


async def test_what_is_outside_the_folder_is_resolved_so_engines_mount_nothing_else(
    target: Target, http: httpx.AsyncClient
) -> None:
    outside = target.serving.parent / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    shutil.copytree(target.templates["one"], outside)
    assert (await say(http, target, "../outside"))[0] == 200


async def test_a_request_for_an_unknown_name_is_404(target: Target, http: httpx.AsyncClient) -> None:
    assert (await say(http, target, "nobody"))[0] == 404
