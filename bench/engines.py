"""The fake engines of a benchmark: a process of their own, steered and read through its control endpoint.

Times of events are of the machine's monotonic clock, so they compare with ``time.monotonic`` of any process here.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx

from tests.fake_vllm.engine import LOAD, Event
from tests.fake_vllm.fleet import address
from tests.harness.plane import ROOT, until
from tests.harness.replica import free_port


class Engines:
    """Engines by number, all at one port, each at its own loopback address."""

    def __init__(self, count: int, port: int, http: httpx.AsyncClient) -> None:
        self.hosts = [address(number) for number in range(count)]
        self.port = port
        self._http = http

    def __len__(self) -> int:
        return len(self.hosts)

    @property
    def urls(self) -> list[str]:
        """Where they listen."""
        return [f"http://{host}:{self.port}" for host in self.hosts]

    async def _ask(self, method: str, number: int, verb: str = "", body: Any = None) -> Any:
        answer = await self._http.request(method, f"/engines/{self.hosts[number]}:{self.port}{verb}", json=body)
        answer.raise_for_status()
        return answer.json()

    async def report(self, number: int) -> dict[str, Any]:
        """What an engine holds and how often it was asked for what."""
        found: dict[str, Any] = await self._ask("GET", number)
        return found

    async def reports(self) -> list[dict[str, Any]]:
        """The reports of all."""
        return [await self.report(number) for number in range(len(self))]

    async def change(self, number: int, **settings: Any) -> None:
        """Changes an engine's settings."""
        await self._ask("POST", number, body=settings)

    async def change_all(self, **settings: Any) -> None:
        """Changes every engine's settings."""
        for number in range(len(self)):
            await self.change(number, **settings)

    async def restart(self, number: int) -> None:
        """Ends an engine's connections and empties it."""
        await self._ask("POST", number, "/restart")

    async def restart_all(self) -> None:
        """Restarts every engine."""
        for number in range(len(self)):
            await self.restart(number)

    async def events(self, number: int) -> list[Event]:
        """What an engine was asked, oldest first."""
        return [Event(*event) for event in await self._ask("GET", number, "/events")]

    async def loads(self, number: int, since: float, about: str = "") -> list[Event]:
        """The successful loads that began after ``since``, of served names that begin with ``about``."""
        return [
            event
            for event in await self.events(number)
            if event.route == LOAD and event.status == 200 and event.began >= since and event.model.startswith(about)
        ]

    async def all_loads(self, since: float) -> list[Event]:
        """The same of every engine."""
        return [event for number in range(len(self)) for event in await self.loads(number, since)]

    async def hold(self, count: int, about: str = "", on: Iterable[int] | None = None, deadline: float = 60.0) -> None:
        """Waits until each engine has so many adapters whose served names begin with ``about``."""
        for number in range(len(self)) if on is None else on:

            async def enough(number: int = number) -> bool:
                began = time.monotonic()
                adapters = (await self.report(number))["adapters"]
                if sum(name.startswith(about) for name in adapters) >= count:
                    return True
                # Asking costs the engines' process time that the benchmark is about, the more the longer the answer.
                await asyncio.sleep(0.08 + 20 * (time.monotonic() - began))
                return False

            await until(f"{count} adapters {about} on engine {number}", enough, deadline)


@contextlib.asynccontextmanager
async def engines(count: int, **settings: Any) -> AsyncIterator[Engines]:
    """So many fake engines while the block runs."""
    port, control = free_port(), free_port()
    pairs = [word for name, value in settings.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    argv = [sys.executable, "-m", "tests.fake_vllm", "--count", str(count), "--port", str(port)]
    argv += ["--control", str(control), *pairs]
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{control}", trust_env=False, timeout=30) as http:

            async def listening() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return (await http.get("/engines")).status_code == 200
                return False

            await until("fake engines listen", listening)
            yield Engines(count, port, http)
    finally:
        process.kill()
        await process.wait()
