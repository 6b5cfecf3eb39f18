"""The operator's own HTTP: ``/healthz`` for liveness, ``/readyz`` for readiness, ``/metrics`` for Prometheus.

It answers on a replica that waits for the Lease as well, which is why it is not kopf's own endpoint.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


async def serve(host: str, port: int, sick: Callable[[], str], ready: Callable[[], bool]) -> web.AppRunner:
    """Starts the server; ``sick`` says in a word why the process must be restarted, or nothing."""

    async def healthz(_: web.Request) -> web.Response:
        found = sick()
        return web.Response(status=500 if found else 200, text=found or "ok")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(status=200, text="ok") if ready() else web.Response(status=503, text="starting")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
