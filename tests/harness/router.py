"""A router's part for the operator: what it counted, at ``/stats`` of an address of its own. It routes nothing."""

import itertools
from collections import Counter
from typing import Any

from aiohttp import web

from lorafleet.api.names import ROUTER_STATS_PORT

_starts = itertools.count(1)


class FakeRouter:
    """Counts what a test says; ``restart()`` is a new process that knows of nothing."""

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = ROUTER_STATS_PORT) -> None:
        self.name, self.host, self.port = name, host, port
        self.versions: dict[str, Counter[str]] = {}
        self.asked = 0
        self.fails = False
        self._runner: web.AppRunner | None = None
        self.restart()

    def restart(self) -> None:
        """Begins anew."""
        self.instance = f"{self.name}/{next(_starts)}"
        self.versions = {}

    def count(self, served: str, ok: int = 0, server: int = 0, client: int = 0, ms: float = 10.0) -> None:
        """Requests that came; each took so many milliseconds."""
        one = self.versions.setdefault(served, Counter())
        one.update({"ok": ok, "server": server, "client": client, "latencyCount": ok, "firstTokenCount": ok})
        one.update({"latencyMsSum": ok * ms, "firstTokenMsSum": ok * ms / 2})  # type: ignore[dict-item]
        one.update({"promptTokens": 3 * ok, "completionTokens": 2 * ok})

    async def _stats(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.fails:
            return web.Response(status=503)
        versions: dict[str, Any] = {served: dict(sums) for served, sums in self.versions.items()}
        return web.json_response({"instance": self.instance, "time": "2026-01-01T00:00:00Z", "versions": versions})

    async def __aenter__(self) -> "FakeRouter":
        app = web.Application()
        app.router.add_get("/stats", self._stats)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        if not self.port:
            self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
