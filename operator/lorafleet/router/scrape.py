"""Envoy's statistics, asked for once for all who ask at the same time, as JSON for the operator and for Prometheus."""

import asyncio
import time
from datetime import UTC, datetime

from prometheus_client import generate_latest

from lorafleet.router import statistics
from lorafleet.router.admin import Admin
from lorafleet.router.http import Json

FRESH = 0.5
"""Seconds for which an answer is good for others too: at 10,000 adapters it costs Envoy more than its requests do."""


class Scraper:
    """Asks one Envoy. Its numbers are those of ``name`` and of its start, not of this process'."""

    def __init__(self, admin: Admin, name: str) -> None:
        self._admin = admin
        self._name = name
        self._lock = asyncio.Lock()
        self._text = ""
        self._started = ""
        self._asked_at = -FRESH
        self._time = datetime.now(UTC)

    async def snapshot(self, applied: int) -> Json:
        """The numbers since Envoy's start, as the operator adds them up. Raises AdminError."""
        text = await self._scrape()
        return {
            "instance": f"{self._name}/{self._started}",
            "time": self._time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "applied": {"resourceVersion": str(applied)},
            "versions": await asyncio.to_thread(statistics.versions, text),
        }

    async def metrics(self) -> str:
        """The process' own metrics and Envoy's, in the text form of Prometheus. Raises AdminError."""
        text = await self._scrape()
        return generate_latest().decode() + await asyncio.to_thread(statistics.exposition, text)

    async def _scrape(self) -> str:
        async with self._lock:
            if time.monotonic() - self._asked_at >= FRESH:
                started = ""
                while started != await self._admin.started():
                    started = await self._admin.started()
                    self._time = datetime.now(UTC)
                    text = await self._admin.statistics(statistics.PATTERN)
                self._started, self._text = started, text
                self._asked_at = time.monotonic()
            return self._text
