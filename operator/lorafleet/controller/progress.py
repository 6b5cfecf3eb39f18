"""How far running sync Jobs are: their pods are asked now and then, and adapters' statuses say it.

A courtesy: a pod that does not answer costs a short timeout and nothing else. What is shown changes once a round, so no
adapter's status is written more often than that because of it.
"""

import asyncio
import logging
from collections.abc import Iterator
from time import monotonic

import httpx

from lorafleet.controller.answers import bounded
from lorafleet.controller.state import FleetState, SyncJob
from lorafleet.controller.world import World
from lorafleet.store.plan import PROGRESS_PORT, SyncProgress

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two rounds."""
AT_ONCE = 32
TIMEOUT = 2.0
MAX_ANSWER_BYTES = 64 * 1024
LOG_EVERY = 30.0


class ProgressPoller:
    """Asks the pods of all running Jobs."""

    def __init__(
        self, world: World, http: httpx.AsyncClient, *, every: float = EVERY, port: int = PROGRESS_PORT
    ) -> None:
        self._world = world
        self._http = http
        self._every = every
        self._port = port
        self._logged: dict[str, float] = {}

    async def run(self) -> None:
        """Asks for ever."""
        while True:
            await asyncio.sleep(self._every)
            await self.round()

    async def round(self) -> None:
        """Asks every running pod once, a few at a time."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(state: FleetState, job: SyncJob) -> None:
            async with gate:
                try:
                    found = await asyncio.wait_for(self._ask(job.ip), TIMEOUT)
                except (httpx.HTTPError, TimeoutError, ValueError, OSError):
                    return
            self._show(state, job, found)

        running = list(self._running())
        await asyncio.gather(*(ask(state, job) for state, job in running))
        self._logged = {name: at for name, at in self._logged.items() if name in {job.name for _, job in running}}

    def _running(self) -> Iterator[tuple[FleetState, SyncJob]]:
        for state in self._world.fleets.values():
            for job in state.sync.running():
                if job.ip:
                    yield state, job

    async def _ask(self, ip: str) -> SyncProgress:
        async with self._http.stream("GET", f"http://{address(ip, self._port)}/progress") as answer:
            answer.raise_for_status()
            return SyncProgress.model_validate_json(await bounded(answer, MAX_ANSWER_BYTES))

    def _show(self, state: FleetState, job: SyncJob, found: SyncProgress) -> None:
        if job.results is not None:
            return
        before = dict(job.progress)
        job.progress = {job.items[one.i]: (one.done, one.total) for one in found.items if 0 <= one.i < len(job.items)}
        changed = {item for item, _ in before.items() ^ job.progress.items()}
        for item in changed:
            if item.version and not item.repair:
                self._world.ask_served(state, item.adapter, 0.0)
        if job.progress and monotonic() - self._logged.get(job.name, 0.0) >= LOG_EVERY:
            self._logged[job.name] = monotonic()
            for item, (done, total) in job.progress.items():
                about = {"namespace": state.ref[0], "fleet": state.ref[1], "job": job.name, "adapter": item.adapter}
                log.info("fetching", extra=about | {"version": item.version, "bytes": done, "of": total})


def address(ip: str, port: int) -> str:
    """A pod's address in a URL."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
