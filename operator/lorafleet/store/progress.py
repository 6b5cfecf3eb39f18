"""How far the items of a Job are, and the address in its pod where the operator asks for it.

The Job has no permission in Kubernetes, so it cannot write a status: it answers whoever may connect. Nothing secret is
in the answer, and a Job that cannot listen goes on without.
"""

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lorafleet.store.plan import ItemProgress, SyncProgress

log = logging.getLogger("lorafleet.sync")

PATH = "/progress"
_SECONDS = 5.0
"""How long a connection may be silent."""


class Board:
    """The items that are being fetched right now. Threads may write to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[int, ItemProgress] = {}

    def show(self, i: int, done: int, total: int | None) -> None:
        """Say how far an item is."""
        with self._lock:
            self._items[i] = ItemProgress(i=i, done=done, total=total)

    def drop(self, i: int) -> None:
        """An item ended."""
        with self._lock:
            self._items.pop(i, None)

    def read(self) -> SyncProgress:
        """All of it."""
        with self._lock:
            return SyncProgress(items=tuple(self._items[i] for i in sorted(self._items)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asks and hangs up is no error of this process."""


def serve(board: Board, port: int) -> Callable[[], None] | None:
    """Answer ``GET /progress`` on all addresses until what is returned is called; None when that cannot be done."""
    server = None
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        with suppress(OSError):
            server = _bind(family, address, port, board)
            break
    if server is None:
        log.warning("progress is not served", extra={"port": port})
        return None
    threading.Thread(target=server.serve_forever, name="lorafleet-progress", daemon=True).start()
    return server.shutdown


def _bind(family: socket.AddressFamily, address: str, port: int, board: Board) -> _Server:
    class Server(_Server):
        address_family = family

        def server_bind(self) -> None:
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            # Without the look-up of the host's name that the standard library does here.
            self.socket.bind((address, port))

    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            if self.path != PATH:
                self.send_error(404)
                return
            body = board.read().model_dump_json(by_alias=True, exclude_none=True).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Server((address, port), Handler)
