"""A server that is farther away: what clients send it is passed on so much later, as on a long line.

``python -m bench.far PORT TO_PORT SECONDS``. A process of its own, on loopback, which knows no HTTP: each answer comes
later by the delay, whichever request it is for, and the bytes of the answers come as fast as they are sent.
"""

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

from tests.servers.process import LOOPBACK, running


class _Half(asyncio.Protocol):
    """One of two connections; what comes in goes out on the other, some seconds later."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.other: _Half | None = None
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for data in self.early:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._seconds:
            asyncio.get_running_loop().call_later(self._seconds, self._pass_on, data)
        else:
            self._pass_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def _pass_on(self, data: bytes) -> None:
        assert self.other is not None
        if self.other.transport is None:
            self.other.early.append(data)
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)


class _Near(_Half):
    """The client's side, which opens the other."""

    def __init__(self, seconds: float, port: int) -> None:
        super().__init__(seconds)
        self._port = port
        self._opening: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = far = _Half(0.0)
        far.other = self
        loop = asyncio.get_running_loop()
        self._opening = loop.create_task(loop.create_connection(lambda: far, "127.0.0.1", self._port))


async def _serve(port: int, to: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Near(seconds, to), "127.0.0.1", port, backlog=512)
    await server.serve_forever()


@contextmanager
def far(to: str, seconds: float, log: Path) -> Iterator[str]:
    """The address under which the server ``to`` is so many seconds away."""
    port, to_port = LOOPBACK.port(), to.rpartition(":")[2]
    address = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "bench.far", str(port), to_port, str(seconds)]
    with running("long line", argv, address, log):
        yield address


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
