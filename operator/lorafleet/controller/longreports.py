"""Reports of sync Jobs that are too long for Kubernetes: their pods are asked for them before they end.

A pod answers once its work is done, and ends when it was asked. What it answered counts only when its termination
message, which comes from Kubernetes, has the sha256 of it; without it the message's part counts, and the rest of the
items goes into another Job, which finds them published.
"""

import asyncio
import logging

import httpx

from lorafleet.controller.answers import bounded
from lorafleet.controller.progress import address
from lorafleet.controller.state import FleetState, SyncJob
from lorafleet.controller.world import World
from lorafleet.store.plan import PROGRESS_PORT, REPORT_PATH, REPORT_SECONDS
from lorafleet.store.termination import SURE_ITEMS

log = logging.getLogger(__name__)

AT_ONCE = 256
EVERY = 0.5
"""Seconds between two looks at what runs; a pod that does not answer is asked again after that."""
MAX_BYTES = 2 * 1024 * 1024
_CONNECT_SECONDS = 2.0


class LongReports:
    """Asks the pods of running Jobs of many items, each until it has answered."""

    def __init__(
        self, world: World, http: httpx.AsyncClient, *, every: float = EVERY, port: int = PROGRESS_PORT
    ) -> None:
        self._world = world
        self._http = http
        self._every = every
        self._port = port
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Asks for ever."""
        try:
            while True:
                self.look()
                await asyncio.sleep(self._every)
        finally:
            for task in self._asking.values():
                task.cancel()

    def look(self) -> None:
        """Asks the pods that run and have not been asked yet, or have not answered."""
        running = [job for state in self._world.fleets.values() for job in _long(state)]
        for job in running:
            task = self._asking.get(job.name)
            if task is None or task.done():
                self._asking[job.name] = asyncio.create_task(self._ask(job))
        names = {job.name for job in running}
        for name in self._asking.keys() - names:
            self._asking.pop(name).cancel()

    async def _ask(self, job: SyncJob) -> None:
        try:
            job.report = await fetch(self._http, job.ip, self._port)
        except (httpx.HTTPError, ValueError, OSError) as error:
            log.debug("no report of a sync pod yet", extra={"job": job.name, "error": type(error).__name__})


async def fetch(http: httpx.AsyncClient, ip: str, port: int) -> bytes:
    """What a pod answers as its whole report, once its work is done. Raises httpx.HTTPError, ValueError, OSError."""
    timeout = httpx.Timeout(_CONNECT_SECONDS, read=REPORT_SECONDS + _CONNECT_SECONDS)
    async with http.stream("GET", f"http://{address(ip, port)}{REPORT_PATH}", timeout=timeout) as answer:
        answer.raise_for_status()
        return await bounded(answer, MAX_BYTES)


def _long(state: FleetState) -> list[SyncJob]:
    return [job for job in state.sync.running() if job.ip and not job.report and len(job.items) > SURE_ITEMS]
