"""Just enough HTTP/1.1 to stand in for vLLM's server, fast enough to be thousands of them on a core.

Requests have a Content-Length or no body; answers too. One request at a time per connection. Nothing here knows vLLM.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Request:
    """A request; header names are lower case, the path has no query."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. ``body`` in parts is sent part by part as server-sent events are."""

    status: int
    body: bytes | tuple[bytes, ...] = b""
    content_type: str = "application/json"


Handler = Callable[[Request], Response | Awaitable[Response]]


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, handler: Handler, connections: set["Connection"]) -> None:
        self._handler = handler
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # As in vLLM, what was asked for goes on when the client leaves.
        self._transport = None
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._next()

    def drop(self) -> None:
        """Ends the connection as a killed process does, and the work behind it."""
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        while (request := self._parse()) is not None:
            answer = self._handler(request)
            if not isinstance(answer, Response):
                self._task = asyncio.ensure_future(self._later(answer))
                return
            self._send(answer)

    def _parse(self) -> Request | None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        method, target, _ = first.split(" ", 2)
        return Request(method, target.partition("?")[0], headers, rest[:length])

    async def _later(self, answer: Awaitable[Response]) -> None:
        response = await answer
        self._task = None
        self._send(response)
        self._next()

    def _send(self, response: Response) -> None:
        if self._transport is None:
            return
        head = f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}\r\n"
        if response.content_type:
            head += f"content-type: {response.content_type}\r\n"
        if isinstance(response.body, bytes):
            head += f"content-length: {len(response.body)}\r\n\r\n"
            self._transport.write(head.encode() + response.body)
            return
        self._transport.write((head + "transfer-encoding: chunked\r\n\r\n").encode())
        for part in response.body:
            self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        self._transport.write(b"0\r\n\r\n")


class Listener:
    """A socket that answers with a handler until it is closed."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listens; the answer is the port, which the system chooses when it is 0."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._handler, self._connections), host, port)
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None

    def close(self) -> None:
        """Refuses connections from now on and breaks the ones there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.drop()
        self._connections.clear()
