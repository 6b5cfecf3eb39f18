"""A whole router on a real API server with a real Envoy: what is written into statuses is where requests go."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.names import ADAPTER_PLURAL, API_VERSION, FLEET_PLURAL
from lorafleet.kube import path
from tests.fake_vllm.fleet import address
from tests.harness.plane import Plane, until
from tests.harness.replica import free_port
from tests.router.beside import Pod, pod
from tests.router.engines import Engine, Stream
from tests.router.objects import Object, served
from tests.router.relay import relay
from tests.router.statuses import about, address_of, through, write_engines, write_status
from tests.servers.certificates import tls


@asynccontextmanager
async def fleet_of(plane: Plane, namespace: str, count: int) -> AsyncIterator[list[Engine]]:
    """A fleet with engines that answer, and the adapter ``sql`` with all weight on ``v1``."""
    port = free_port()
    found = [Engine(f"vllm-{number}", address(number), port) for number in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for one in found:
            await one.start()
            stack.push_async_callback(one.stop)
        await plane.fleet(namespace, port=port)
        pods = [await plane.engine_pod(namespace, one.name, one.host) for one in found]
        await write_engines(plane, namespace, *(about(one) for one in pods))
        await plane.adapter(namespace, "sql", "v1", "v2")
        await write_status(plane, namespace, "sql", {"v1": 100})
        yield found


async def applied(one: Pod, at: int) -> None:
    """Waits until the router says that a resource version is in force."""

    async def said() -> bool:
        status, answer = await one.own("/stats")
        return status == 200 and int(answer["applied"]["resourceVersion"]) >= at

    await until(f"{at} is in force", said)


def models(engines: list[Engine]) -> list[str]:
    """What engines were asked for since the last call."""
    found = [asked.model for engine in engines for asked in engine.asked]
    for engine in engines:
        engine.asked.clear()
    return found


async def test_a_status_write_is_where_the_next_requests_go(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with fleet_of(plane, namespace, 2) as engines, pod(tmp_path, kubeconfig, namespace) as one:
        await one.ready()
        status, answer = await one.ask("sql")
        assert (status, answer["model"]) == (200, "sql")
        await applied(one, await write_status(plane, namespace, "sql", {"v2": 100}))
        models(engines)
        for _ in range(20):
            assert (await one.ask("sql"))[0] == 200
        assert set(models(engines)) == {served("sql", "v2")}
        assert (await one.ask("sqll"))[0] == 404


async def test_it_is_not_ready_before_it_has_read_its_fleet_and_says_what_is_missing(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with pod(tmp_path, kubeconfig, namespace) as one:

        async def said() -> Any:
            status, answer = await one.own("/readyz")
            return status == 503 and "does not exist" in answer["problem"] and answer["problem"]

        assert f"{namespace}/fleet" in await until("it says what is missing", said)
        assert (await one.own("/healthz"))[0] == 200, "a restart would change nothing"
        await plane.fleet(namespace)
        await one.ready()


async def test_without_the_api_server_it_stays_ready_and_routes_as_before(
    plane: Plane, namespace: str, tmp_path: Path
) -> None:
    async with fleet_of(plane, namespace, 1) as engines, relay(*address_of(plane)) as between:
        kubeconfig = through(plane, between, tmp_path)
        async with pod(tmp_path, kubeconfig, namespace) as one:
            await one.ready()
            await between.cut()

            async def stale() -> bool:
                return bool((await one.own("/readyz"))[1]["staleSeconds"] > 0)

            await until("it says that it has lost the API server", stale)
            status, answer = await one.own("/readyz")
            assert (status, answer["ready"]) == (200, True)
            assert "no answer from the API server" in answer["problem"] or "was cut" in answer["problem"]
            assert "lorafleet_router_stale_seconds 0.0\n" not in (await one.own("/metrics"))[1]
            assert (await one.ask("sql"))[0] == 200
            assert one.router is not None
            one.router.kill()
            await one.router.wait()
            await one.start_router()
            await one.ready()
            assert (await one.ask("sql"))[0] == 200, "also a new process goes on by what the last one knew"
            at = await write_status(plane, namespace, "sql", {"v2": 100})
            await between.mend()
            await applied(one, at)
            models(engines)
            assert (await one.ask("sql"))[0] == 200
            assert models(engines) == [served("sql", "v2")]


async def test_envoy_goes_on_while_the_process_is_killed_and_starts_again(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with fleet_of(plane, namespace, 1) as engines, pod(tmp_path, kubeconfig, namespace) as one:
        await one.ready()
        stream = Stream()
        normal, engines[0].answer = engines[0].answer, stream
        async with one.stream("sql") as answer:
            await stream.begun.wait()
            engines[0].answer = normal
            before = (await one.own("/stats"))[1]["instance"]
            assert one.router is not None
            one.router.kill()
            await one.router.wait()
            assert (await one.ask("sql"))[0] == 200
            at = await write_status(plane, namespace, "sql", {"v2": 100})
            files = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "shared").glob("e*.json")}
            await one.bootstrap()
            await one.start_router()
            await one.ready()
            await applied(one, at)
            assert (await one.own("/stats"))[1]["instance"] == before, "the counters are the same Envoy's"
            assert {name: (tmp_path / "shared" / name).stat().st_mtime_ns for name in files} == files
            stream.step(b'data: {"model":"x"}\n\n')
            stream.end()
            assert b"data:" in await answer.read()
        models(engines)
        assert (await one.ask("sql"))[0] == 200
        assert models(engines) == [served("sql", "v2")]


async def test_a_new_envoy_beside_the_process_routes_at_once_and_counts_as_another_start(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with fleet_of(plane, namespace, 1), pod(tmp_path, kubeconfig, namespace) as one:
        await one.ready()
        before = (await one.own("/stats"))[1]["instance"]
        assert one.envoy is not None
        one.envoy.kill()
        await one.envoy.wait()
        status, answer = await one.own("/readyz")
        assert status == 503 and "Envoy does not answer" in answer["problem"]
        await until("there are no numbers", lambda: _stats_status(one, 503))
        await one.start_envoy()
        await one.ready()
        assert (await one.ask("sql"))[0] == 200
        await until("there are numbers", lambda: _stats_status(one, 200))
        assert (await one.own("/stats"))[1]["instance"] != before


async def _stats_status(one: Pod, status: int) -> bool:
    return (await one.own("/stats"))[0] == status


async def test_the_end_cuts_no_stream_and_takes_late_requests(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with (
        fleet_of(plane, namespace, 1) as engines,
        pod(tmp_path, kubeconfig, namespace, leave="0s", grace="60s") as one,
    ):
        await one.ready()
        stream = Stream()
        normal, engines[0].answer = engines[0].answer, stream
        async with one.stream("sql") as answer:
            await stream.begun.wait()
            engines[0].answer = normal
            ending = asyncio.create_task(one.end())

            async def draining() -> bool:
                status, answer = await one.own("/readyz")
                return status == 503 and "drains" in answer["problem"]

            await until("it is not ready any more", draining)
            async with one.http.post(
                f"http://127.0.0.1:{one.port}/v1/completions", json={"model": "sql", "prompt": "x"}
            ) as late:
                assert late.status == 200
                assert late.headers["connection"] == "close", "the client is told to go elsewhere"
            stream.step(b"data: 1\n\n")
            await asyncio.sleep(1.0)
            assert not ending.done(), "a stream still runs"
            stream.step(b"data: 2\n\n")
            stream.end()
            assert await answer.read() == b"data: 1\n\ndata: 2\n\n"
        assert await ending == 0, one.log()


async def test_after_the_grace_period_it_ends_whatever_runs(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with (
        fleet_of(plane, namespace, 1) as engines,
        pod(tmp_path, kubeconfig, namespace, leave="0s", grace="500ms") as one,
    ):
        await one.ready()
        stream = Stream()
        engines[0].answer = stream
        async with one.stream("sql"):
            await stream.begun.wait()
            assert await one.end() == 0
        assert "requests that still run are cut" in one.log()
        stream.end()


async def test_engines_come_and_go_with_their_pods(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with fleet_of(plane, namespace, 2) as engines, pod(tmp_path, kubeconfig, namespace) as one:
        await one.ready()
        await plane.pod_status(namespace, "vllm-0", engines[0].host, ready=False)

        async def one_left() -> bool:
            return bool((await one.own("/readyz"))[1]["engines"] == 1)

        await until("one engine is left", one_left)
        await until("Envoy has it too", lambda: _only(one, engines[1], engines))


async def _only(one: Pod, engine: Engine, engines: list[Engine]) -> bool:
    models(engines)
    for _ in range(10):
        assert (await one.ask("sql"))[0] == 200
    return len(engine.asked) == 10


async def test_changed_keys_are_taken_up(plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "alice").write_text("a-key")
    settings = {"check_keys": True, "client_keys_directory": keys}
    async with fleet_of(plane, namespace, 1), pod(tmp_path, kubeconfig, namespace, **settings) as one:
        await one.ready()

        async def status(key: str) -> int:
            headers = {"authorization": f"Bearer {key}"}
            body: Object = {"model": "sql", "prompt": "x"}
            async with one.http.post(
                f"http://127.0.0.1:{one.port}/v1/completions", json=body, headers=headers
            ) as answer:
                return answer.status

        async def taken() -> bool:
            return await status("b-key") == 200

        assert (await status("a-key"), await status("b-key")) == (200, 401)
        (keys / "alice").unlink()
        (keys / "bob").write_text("b-key")
        await until("the new key is taken", taken)
        assert await status("a-key") == 401
        assert "a-key" not in one.log() and "b-key" not in one.log()


async def test_with_tls_and_keys_it_gets_ready_too(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    """Envoy is asked whether it has taken each file; it says so of certificates and keys as well."""
    pair = tls(tmp_path / "authority").server
    (tmp_path / "tls").mkdir()
    shutil.copy(pair.certificate, tmp_path / "tls" / "tls.crt")
    shutil.copy(pair.key, tmp_path / "tls" / "tls.key")
    (tmp_path / "engine-key").write_text("e-key")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "alice").write_text("a-key")
    settings = {
        "tls_directory": tmp_path / "tls",
        "engine_key_file": tmp_path / "engine-key",
        "check_keys": True,
        "client_keys_directory": tmp_path / "keys",
    }
    async with fleet_of(plane, namespace, 1) as engines, pod(tmp_path, kubeconfig, namespace, **settings) as one:
        await one.ready()
        headers = {"authorization": "Bearer a-key"}
        where = f"https://127.0.0.1:{one.port}/v1/completions"
        async with one.http.post(where, json={"model": "sql", "prompt": "x"}, headers=headers, ssl=False) as answer:
            assert answer.status == 200
        given = {name.lower(): value for name, value in engines[0].asked[-1].headers.items()}
        assert given["authorization"] == "Bearer e-key", given
        await applied(one, await write_status(plane, namespace, "sql", {"v2": 100}))


@pytest.mark.parametrize(("settings", "said"), [({"fleet": ""}, "LORAFLEET_ROUTER_FLEET"), ({"port": 0}, "PORT")])
async def test_wrong_settings_end_it_with_their_names(
    tmp_path: Path, kubeconfig: str, settings: dict[str, object], said: str
) -> None:
    one = Pod(tmp_path, kubeconfig, "here", settings)
    await one.http.close()
    await one.start_router()
    assert one.router is not None
    assert await one.router.wait() == 2
    assert said in one.log() and "Traceback" not in one.log()


async def test_requests_are_counted_for_the_operator_and_for_prometheus(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with fleet_of(plane, namespace, 1), pod(tmp_path, kubeconfig, namespace, leave="0s") as one:
        await one.ready()
        for _ in range(7):
            await one.ask("sql")

        async def counted() -> Any:
            status, answer = await one.own("/stats")
            return status == 200 and (answer["versions"].get(served("sql", "v1")) or {}).get("ok") == 7 and answer

        answer = await until("they are counted", counted)
        found = answer["versions"][served("sql", "v1")]
        assert (found["client"], found["server"], found["latencyCount"]) == (0, 0, 7)
        assert (found["promptTokens"], found["completionTokens"]) == (49, 14)
        assert answer["instance"].startswith("pod-0/")
        status, text = await one.own("/metrics")
        assert status == 200
        labels = f'adapter="sql",version="v1",served_name="{served("sql", "v1")}"'
        assert f'lorafleet_router_requests_total{{{labels},result="ok"}} 7' in text
        for line in ("lorafleet_router_routes 1.0", 'lorafleet_router_engines{gets="adapters"} 1.0'):
            assert line in text
        assert "lorafleet_router_config_seconds_count" in text


async def test_a_deleted_adapter_is_unknown_at_once(
    plane: Plane, namespace: str, kubeconfig: str, tmp_path: Path
) -> None:
    async with fleet_of(plane, namespace, 1), pod(tmp_path, kubeconfig, namespace, leave="0s") as one:
        await one.ready()
        await plane.kube.delete(path(API_VERSION, ADAPTER_PLURAL, namespace, "sql"))

        async def unknown() -> bool:
            return (await one.ask("sql"))[0] == 404

        await until("it is unknown", unknown)
        await plane.kube.delete(path(API_VERSION, FLEET_PLURAL, namespace, "fleet"))
        assert (await one.ask("tiny"))[0] == 200, "the base model is served while its pods last"
        assert one.router is not None
        one.router.send_signal(signal.SIGTERM)
        assert await one.router.wait() == 0
