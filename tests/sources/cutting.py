"""A way to a server on which connections do not last."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def cutting(endpoint: str, after: int) -> Iterator[tuple[str, list[int]]]:
    """A way to a server that ends each connection after as many bytes of answers; and where each was cut."""
    to = urlsplit(endpoint)
    cuts: list[int] = []

    def copy(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        done = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65_536 if limit is None else min(65_536, limit - done)):
                target.sendall(data)
                done += len(data)
                if done == limit:
                    cuts.append(done)
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((to.hostname, to.port))
            for ends in ((client, server, None), (server, client, after)):
                threading.Thread(target=copy, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", cuts
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
