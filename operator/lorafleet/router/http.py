"""The router's own HTTP: statistics for the operator, metrics for Prometheus, and whether it lives and is ready."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from lorafleet.router.admin import AdminError

Json = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What is answered. ``sick`` says in a word why the process must be restarted, or nothing."""

    sick: Callable[[], str]
    ready: Callable[[], Awaitable[tuple[bool, Json]]]
    statistics: Callable[[], Awaitable[Json]]
    metrics: Callable[[], Awaitable[str]]


async def serve(host: str, port: int, answers: Answers) -> web.AppRunner:
    """Starts the server."""

    async def healthz(_: web.Request) -> web.Response:
        found = answers.sick()
        return web.Response(status=500 if found else 200, text=found or "ok")

    async def readyz(_: web.Request) -> web.Response:
        ready, details = await answers.ready()
        return web.json_response(details, status=200 if ready else 503)

    async def stats(_: web.Request) -> web.Response:
        try:
            return web.json_response(await answers.statistics())
        except AdminError as error:
            return web.json_response({"error": str(error)}, status=503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=(await answers.metrics()).encode(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/stats", stats)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
