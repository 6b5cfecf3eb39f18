"""What the fake adds to vLLM's contract: faults on request, and an account of what happened."""

import asyncio

import httpx

from tests.fake_vllm import FakeEngine, FakeFleet, Settings, text_of
from tests.fake_vllm.engine import LOAD
from tests.fake_vllm.fleet import address


async def _load(http: httpx.AsyncClient, engine: FakeEngine, name: str) -> int:
    body = {"lora_name": name, "lora_path": f"/adapters/{name}"}
    return (await http.post(engine.url + LOAD, json=body)).status_code


async def test_loads_wait_for_each_other_and_are_counted_while_they_do() -> None:
    settings = Settings(check_files=False, load_seconds=0.05)
    async with FakeEngine(settings) as engine, httpx.AsyncClient() as http:
        begun = asyncio.get_running_loop().time()
        assert await asyncio.gather(*(_load(http, engine, f"a/{n}") for n in range(4))) == [200] * 4
        assert asyncio.get_running_loop().time() - begun >= 4 * 0.05
        assert engine.most_loads_in_flight == 4
        assert engine.loads_in_flight == 0
        assert engine.double_loads == 0


async def test_a_second_load_of_a_name_is_a_double_load() -> None:
    async with FakeEngine(Settings(check_files=False)) as engine, httpx.AsyncClient() as http:
        assert [await _load(http, engine, "a/1"), await _load(http, engine, "a/1")] == [200, 400]
        assert engine.double_loads == 1
        assert [(event.route, event.status, event.model) for event in engine.events] == [
            (LOAD, 200, "a/1"),
            (LOAD, 400, "a/1"),
        ]


async def test_a_restart_forgets_and_keeps_the_port() -> None:
    async with FakeEngine(Settings(check_files=False)) as engine, httpx.AsyncClient() as http:
        await _load(http, engine, "a/1")
        port = engine.port
        await engine.restart()
        assert (engine.adapters, engine.port, engine.restarts) == ({}, port, 1)
        assert await _load(http, engine, "a/1") == 200


async def test_a_fleet_is_steered_and_read_through_its_control_endpoint() -> None:
    async with FakeFleet(Settings(check_files=False)) as fleet, httpx.AsyncClient() as http:
        engine = await fleet.add(address(0), 0)
        control = f"http://127.0.0.1:{await fleet.control(0)}"
        place = f"{control}/engines/{address(0)}:{engine.port}"
        await _load(http, engine, "a/1")
        assert (await http.get(place)).json()["adapters"] == {"a/1": "/adapters/a/1"}
        assert [event[2:] for event in (await http.get(f"{place}/events")).json()] == [[LOAD, 200, "a/1"]]
        await http.post(place, json={"version": "0.27.1"})
        assert (await http.get(f"{engine.url}/version")).json() == {"version": "0.27.1"}
        await http.post(f"{place}/restart")
        assert engine.adapters == {}
        assert (await http.post(place, json={"versoin": "1"})).status_code == 404
        await http.post(f"{control}/engines/{address(1)}:{engine.port}", json={"model": "acme/other"})
        assert set((await http.get(f"{control}/engines")).json()) == {
            f"{address(number)}:{engine.port}" for number in (0, 1)
        }
        await http.delete(place)
        assert list(fleet.engines) == [f"{address(1)}:{engine.port}"]


async def test_engines_see_a_volume_under_another_folder(tmp_path: object) -> None:
    settings = Settings(mounts={"/adapters": str(tmp_path)})
    async with FakeEngine(settings) as engine, httpx.AsyncClient() as http:
        assert await _load(http, engine, "a/1") == 404
        from pathlib import Path

        from tests.contract.adapters import write_adapter

        write_adapter(Path(str(tmp_path)) / "a" / "1", base_name="acme/base")
        assert await _load(http, engine, "a/1") == 200


async def test_a_completion_streams_the_words_it_would_send_at_once() -> None:
    async with FakeEngine() as engine, httpx.AsyncClient() as http:
        body = {"model": "acme/base", "prompt": "x", "max_tokens": 3}
        whole = (await http.post(f"{engine.url}/v1/completions", json=body)).json()["choices"][0]["text"]
        streamed = (await http.post(f"{engine.url}/v1/completions", json={**body, "stream": True})).text
        assert whole == text_of("acme/base", 3)
        assert streamed.count("data: ") == 4
        assert streamed.endswith("data: [DONE]\n\n")


def test_addresses_are_distinct_loopback_addresses() -> None:
    made = [address(number) for number in range(70_000)]
    assert len(set(made)) == len(made)
    assert made[0] == "127.1.0.1"


async def test_a_served_name_or_an_adapter_can_be_told_to_answer_otherwise() -> None:
    async with FakeEngine(Settings(check_files=False)) as engine, httpx.AsyncClient() as http:
        for name in ("a/1", "a/2", "b/1"):
            await _load(http, engine, name)
        engine.settings.replies = {"a": {"text": "wrong"}, "a/2": {"status": 500, "share": 0.5}}

        async def say(model: str) -> tuple[int, str]:
            answer = await http.post(f"{engine.url}/v1/completions", json={"model": model, "max_tokens": 1})
            body = answer.json()
            return answer.status_code, body["choices"][0]["text"] if answer.status_code == 200 else ""

        assert await say("a/1") == (200, "wrong")
        assert await say("b/1") == (200, text_of("b/1", 1))
        assert [(await say("a/2"))[0] for _ in range(4)] == [200, 500, 200, 500]
