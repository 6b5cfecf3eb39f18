"""How far the items of a Job are, and what came of them: the address in its pod where the operator asks for it.

The Job has no permission in Kubernetes, so it cannot write a status: it answers whoever may connect. Nothing secret is
in the answers, and a Job that cannot listen goes on without. A report that was asked for here counts only with the
sha256 that Kubernetes itself brings, in the termination message.
"""

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lorafleet.store.plan import REPORT_PATH, REPORT_SECONDS, ItemProgress, SyncProgress

log = logging.getLogger("lorafleet.sync")

PATH = "/progress"
_SECONDS = 5.0
"""How long a connection may be silent."""
_END_SECONDS = 0.05
"""How long it may take to stop listening: a Job waits for it."""


class Board:
    """The items that are being fetched right now, and the report at the end. Threads may write to it.

    ``taken`` is set when somebody has got the report.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[int, tuple[int, int | None]] = {}
        self._offered = threading.Event()
        self._report = b""
        self.taken = threading.Event()

    def show(self, i: int, done: int, total: int | None) -> None:
        """Say how far an item is."""
        with self._lock:
            self._items[i] = done, total

    def drop(self, i: int) -> None:
        """An item ended."""
        with self._lock:
            self._items.pop(i, None)

    def read(self) -> SyncProgress:
        """All of it."""
        with self._lock:
            found = sorted(self._items.items())
        return SyncProgress(items=tuple(ItemProgress(i=i, done=done, total=total) for i, (done, total) in found))

    def offer(self, report: bytes) -> None:
        """There is a report for whoever asks."""
        self._report = report
        self._offered.set()

    def report(self, seconds: float) -> bytes | None:
        """The report, once there is one; None after so many seconds."""
        return self._report if self._offered.wait(seconds) else None


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
    run = partial(server.serve_forever, poll_interval=_END_SECONDS)
    threading.Thread(target=run, name="lorafleet-progress", daemon=True).start()
    listening = server

    def silence() -> None:
        # Wakes the server, which would look whether it is to end only now and then.
        with suppress(OSError):
            listening.socket.shutdown(socket.SHUT_RDWR)
        listening.shutdown()

    return silence


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
            if self.path == PATH:
                self._send(board.read().model_dump_json(by_alias=True, exclude_none=True).encode())
            elif self.path != REPORT_PATH:
                self.send_error(404)
            elif (report := board.report(REPORT_SECONDS)) is None:
                self.send_error(503)
            else:
                self._send(report)
                board.taken.set()

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Server((address, port), Handler)
