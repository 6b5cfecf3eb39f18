"""Running a server of our own: in a thread of the test, which can then change and question it, or as a process."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from tests.servers.certificates import Tls


@contextmanager
def in_thread(
    build: Callable[[], web.Application], host: str, ports: Sequence[int], tls: Tls | None = None
) -> Iterator[None]:
    """The application answers on each of the ports, from a thread and an event loop of its own."""
    loop = asyncio.new_event_loop()
    started: asyncio.Event = asyncio.Event()
    failed: list[BaseException] = []
    ready = threading.Event()

    async def serve() -> None:
        try:
            # No patience with connections that clients keep open.
            runner = web.AppRunner(build(), access_log=None, shutdown_timeout=0.05)
            await runner.setup()
            for port in ports:
                await web.TCPSite(runner, host, port, ssl_context=context(tls)).start()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()
        await started.wait()
        await runner.cleanup()

    def run() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(serve())
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run, name="test-server", daemon=True)
    thread.start()
    ready.wait()
    if failed:
        raise failed[0]
    try:
        yield
    finally:
        loop.call_soon_threadsafe(started.set)
        thread.join()


def forever(app: web.Application, host: str, ports: Sequence[int], tls: ssl.SSLContext | None) -> None:
    """The application answers until the process is told to end."""

    async def serve() -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handle_signals=True)
        await runner.setup()
        for port in ports:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    with suppress(KeyboardInterrupt, web.GracefulExit):
        asyncio.run(serve())


def context(tls: Tls | None) -> ssl.SSLContext | None:
    """What a server with this certificate speaks, None for plain HTTP."""
    return None if tls is None else load(tls.server.certificate, tls.server.key)


def load(certificate: Path, key: Path) -> ssl.SSLContext:
    """The same from the two files."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(certificate, key)
    return found
