"""Keys of clients, the key of engines, and TLS: who gets in, and that no key goes where it does not belong."""

import ssl
import stat
from pathlib import Path

import aiohttp

from lorafleet.router.envoy import arguments, bootstrap, render
from lorafleet.router.files import write
from lorafleet.router.settings import Secrets, Settings
from lorafleet.router.table import RoutingTable
from tests.harness.plane import until
from tests.router.engines import engines
from tests.router.running import BASE, Router, route, router, table
from tests.servers.certificates import Tls, tls

ROUTE = route("python", v1=100)
KEYS = Secrets(client_keys=("key-of-anna", "key-of-bert"))


async def test_a_client_needs_a_known_key(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path, KEYS, check_keys=True) as one:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"x_api_key": "key-of-ann"},
            {"authorization": "Basic x"},
        ):
            status, answer = await one.post({"model": "python"}, **headers)
            assert status == 401, headers
            assert answer["error"]["code"] == "invalid_api_key"
            assert answer["error"]["type"] == "invalid_request_error"
        assert (await one.get("/v1/models"))[0] == 401
        assert (await one.get("/health"))[0] == 200
        assert engine.asked == []
        for headers in ({"authorization": "Bearer key-of-anna"}, {"x_api_key": "key-of-bert"}):
            assert (await one.post({"model": "python"}, **headers))[0] == 200, headers
        async with one.http.get(f"{one.admin}/config_dump") as dump:
            assert "key-of-anna" not in await dump.text()
        assert "key-of-anna" not in (tmp_path / "envoy.log").read_text()


async def test_a_clients_key_stays_with_the_router(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path, KEYS, check_keys=True) as one:
        for model in ("python", BASE):
            for headers in ({"authorization": "Bearer key-of-anna"}, {"x_api_key": "key-of-bert"}):
                await one.post({"model": model}, **headers)
    assert len(engine.asked) == 4
    assert not any("key-of" in str(asked.headers) for asked in engine.asked)


async def test_keys_are_changed_without_a_restart(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path, KEYS, check_keys=True) as one:
        assert await one.update(table([engine], ROUTE), Secrets(client_keys=("new",))) == ("keys.json",)
        assert (await one.post({"model": "python"}, x_api_key="key-of-bert"))[0] == 401
        assert (await one.post({"model": "python"}, x_api_key="new"))[0] == 200


async def test_without_one_known_key_nobody_gets_in(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path, check_keys=True) as one:
        assert (await one.post({"model": "python"}, x_api_key=""))[0] == 401
        assert (await one.post({"model": "python"}))[0] == 401


async def test_engines_get_their_key_and_nobody_elses(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        await one.post({"model": "python"}, authorization="Bearer of-a-client")
        assert "Authorization" not in engine.asked[-1].headers

        async def sent(key: str | None) -> bool:
            await one.post({"model": "python"}, authorization="Bearer of-a-client")
            return engine.asked[-1].headers.get("Authorization") == (key and f"Bearer {key}")

        await one.update(table([engine], ROUTE), Secrets(engine_key="sesame"))
        await until("the key is sent", lambda: sent("sesame"))
        await one.post({"model": BASE}, authorization="Bearer of-a-client")
        assert engine.asked[-1].headers["Authorization"] == "Bearer sesame"
        await one.update(table([engine], ROUTE), Secrets(engine_key="changed"))
        await until("the new key is sent", lambda: sent("changed"))
        await one.update(table([engine], ROUTE))
        await until("no key is sent", lambda: sent(None))


def test_keys_are_in_no_argument_and_in_files_of_their_owner_only(tmp_path: Path) -> None:
    secrets = Secrets(client_keys=("key-of-anna",), engine_key="sesame")
    settings = Settings(check_keys=True)
    directory = tmp_path / "envoy"
    write(directory, render(RoutingTable(), settings, directory, secrets))
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {0o600}
    shown = f"{secrets!r} {arguments(settings, directory)} {bootstrap(settings, directory)!r}"
    assert "sesame" not in shown
    assert "key-of-anna" not in shown


def mount(folder: Path, number: int, secret: Tls) -> None:
    """A Secret as kubelet mounts it: a change is the rename of one link."""
    content = folder / f"..{number}"
    content.mkdir(parents=True)
    (content / "tls.crt").write_bytes(secret.server.certificate.read_bytes())
    (content / "tls.key").write_bytes(secret.server.key.read_bytes())
    link = folder / "..data_tmp"
    link.symlink_to(content.name)
    link.rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


async def test_tls_and_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    secrets = [tls(tmp_path / str(number)) for number in range(2)]
    folder = tmp_path / "mounted"
    mount(folder, 0, secrets[0])

    async def trusted(one: Router, secret: Tls) -> bool:
        context = ssl.create_default_context(cafile=str(secret.authority))
        try:
            # A connection of its own: those that are open go on with the certificate that they began with.
            headers = {"connection": "close"}
            async with one.http.get(f"{one.url}/health", ssl=context, headers=headers) as answer:
                return answer.status == 200
        except aiohttp.ClientSSLError:
            return False

    async with router(table([], ROUTE), tmp_path / "envoy", tls_directory=folder) as one:
        assert await trusted(one, secrets[0])
        assert not await trusted(one, secrets[1])
        mount(folder, 1, secrets[1])
        await until("the new certificate is shown", lambda: trusted(one, secrets[1]))


async def test_what_a_client_says_about_retries_and_timeouts_is_not_heard(tmp_path: Path) -> None:
    async with engines(1) as (engine,), router(table([engine], ROUTE), tmp_path) as one:
        status, _ = await one.post(
            {"model": "python"},
            x_envoy_upstream_rq_timeout_ms="1",
            x_envoy_retry_on="5xx",
            x_lorafleet_served="python/other-0123456789ab",
        )
        assert status == 200
        await one.post({"model": BASE}, x_lorafleet_served="python/other-0123456789ab")
    assert engine.asked[0].headers["x-lorafleet-served"] == engine.asked[0].model
    assert "x-lorafleet-served" not in engine.asked[1].headers
    assert not any(name.lower().startswith("x-envoy-") and "address" not in name for name in engine.asked[0].headers)
