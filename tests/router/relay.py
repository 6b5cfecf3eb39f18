"""A TCP relay in front of a server: cut and mended by a test, so that the server behind it need not be stopped."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Relay:
    """Passes bytes on to ``host:port`` while it is whole."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        """Takes connections, always at the same port."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuses connections and resets those that stand."""
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._behind)
        self._writers |= {writer, back}
        with contextlib.suppress(OSError):
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        for one in (writer, back):
            one.transport.abort()
            self._writers.discard(one)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


@contextlib.asynccontextmanager
async def relay(host: str, port: int) -> AsyncIterator[Relay]:
    """A whole relay while the block runs."""
    one = Relay(host, port)
    await one.mend()
    try:
        yield one
    finally:
        await one.cut()
