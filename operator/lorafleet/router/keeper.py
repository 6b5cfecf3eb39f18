"""Keeps Envoy's files as the picture is: each change is written at once and followed until Envoy runs by it.

Nothing is written before the picture is whole, and a table that cannot be rendered or written leaves the last one in
force: routing goes on by what was known.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lorafleet.router import metrics
from lorafleet.router.admin import Admin, AdminError
from lorafleet.router.files import write
from lorafleet.router.inforce import Pending, Written
from lorafleet.router.picture import Picture
from lorafleet.router.table import RoutingTable

log = logging.getLogger(__name__)

Render = Callable[[RoutingTable], Mapping[str, bytes]]

BURST = 0.01
"""Seconds between two configurations at least, so that a burst of changes becomes one."""
PACE = 2 * 2**20
"""Bytes of configuration a second at most; only what comes right after another has to wait. Envoy keeps each table as
long as the longest stream that began by it."""
AGAIN = 1.0
"""Seconds until a configuration that could not be made is tried again."""
FIRST_LOOK, LAST_LOOK = 0.005, 0.5
WHOLE = "whole"
"""A file beside the others that says that they are of a whole picture, to a process that starts beside them."""
LATE = 5.0
"""Seconds after which it is an error that Envoy has not taken a configuration."""


class Keeper:
    """Keeps the files of one directory. ``problem`` says why the last change is not in force; empty while it is."""

    def __init__(self, picture: Picture, render: Render, directory: Path, admin: Admin) -> None:
        self._picture = picture
        self._render = render
        self._directory = directory
        self._admin = admin
        self._changes = asyncio.Event()
        self._changed_at = 0.0
        self._writing_since: float | None = None
        self._pending = Pending()
        self._written = asyncio.Event()
        self._applied = 0
        self._settled = False
        self.taken = (directory / WHOLE).exists()
        """Whether Envoy has come to run by a whole picture, also one of a process before this one."""
        self.problem = ""

    def change(self) -> None:
        """Something that routing depends on is another now."""
        if not self._changes.is_set():
            self._changed_at = time.monotonic()
        self._changes.set()

    @property
    def applied(self) -> int:
        """The resource version up to which adapters are in force in Envoy, also when the last ones changed nothing."""
        settled = self._settled and not (self._changes.is_set() or self.writes_for or self._pending)
        return self._picture.version if settled else self._applied

    @property
    def writes_for(self) -> float:
        """Seconds since a write has begun that has not ended; 0 while there is none."""
        return 0.0 if self._writing_since is None else max(time.monotonic() - self._writing_since, 1e-9)

    async def run(self) -> None:
        """Writes and follows until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_changes())
            group.create_task(self._follow_written())

    async def _write_changes(self) -> None:
        while True:
            await self._changes.wait()
            self._changes.clear()
            if self._picture.waits_for:
                continue
            self._writing_since = time.monotonic()
            size = await self._write_one(self._changed_at)
            self._writing_since = None
            if size is not None:
                await asyncio.sleep(max(BURST, size / PACE))
            else:
                await asyncio.sleep(AGAIN)
                self.change()

    async def _write_one(self, since: float) -> int | None:
        """The bytes that were written; None if that failed."""
        table, version = self._picture.table(), self._picture.version
        try:
            files, size = await asyncio.to_thread(self._write, table)
        except Exception as error:
            # A name that cannot be held, a full volume: the former files stay, and with them the routing.
            metrics.CONFIG_WRITES.labels("error").inc()
            self._say(f"the configuration cannot be written: {type(error).__name__}: {error}")
            return None
        metrics.CONFIG_WRITES.labels("ok").inc()
        _count(table)
        self._pending.add(Written(files, version, since, time.monotonic()))
        self._written.set()
        return size

    def _write(self, table: RoutingTable) -> tuple[dict[str, str], int]:
        """Writes what differs; the version of each file, and how many bytes were written."""
        files = self._render(table)
        size = sum(len(files[name]) for name in write(self._directory, files))
        versions = {
            name: str(json.loads(content)["version_info"]) for name, content in files.items() if name.endswith(".json")
        }
        return versions, size

    async def _follow_written(self) -> None:
        """Asks Envoy what it runs by for as long as something written may not be in force."""
        pause = FIRST_LOOK
        while True:
            if not self._pending:
                await self._written.wait()
            if self._written.is_set():
                self._written.clear()
                pause = FIRST_LOOK
            try:
                self._settle(self._pending.settle(await self._admin.versions()))
                if self._pending and time.monotonic() - self._pending.oldest.at > LATE:
                    refused = await self._admin.rejected()
                    self._say(f"Envoy has not taken a configuration ({refused} refused since its start): see its log")
            except AdminError as error:
                self._say(str(error))
            if self._pending:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LAST_LOOK)

    def _settle(self, settled: list[Written]) -> None:
        for one in settled:
            metrics.CONFIG_SECONDS.observe(time.monotonic() - one.since)
            self._applied = one.resource_version
        if settled and not self._settled:
            (self._directory / WHOLE).touch()
            self._settled = self.taken = True
        if settled and not self._pending:
            self._say("")

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("a change is not in force yet", extra={"error": problem})
        elif self.problem and not problem:
            log.info("all changes are in force")
        self.problem = problem


def _count(table: RoutingTable) -> None:
    metrics.ROUTES.set(len(table.routes))
    adapters = sum(engine.adapters for engine in table.engines.values())
    metrics.ENGINES.labels("adapters").set(adapters)
    metrics.ENGINES.labels("base model only").set(len(table.engines) - adapters)
