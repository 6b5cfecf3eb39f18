"""A web server of files on loopback, plain or TLS, that can misbehave; in a thread or as a process of its own."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web as aio

from e2e.cluster.paths import REPOSITORY
from tests.servers.certificates import Tls, url
from tests.servers.own import forever, in_thread, load
from tests.servers.process import LOOPBACK, Where, running
from tests.servers.sending import NONE, Faults, send


@dataclass
class Files:
    """The files of ``root``, how asking for each goes wrong, and what was asked.

    ``faults`` are by path, such as ``/a/b.tar``; "" is for every path that has none of its own.
    """

    url: str
    root: Path
    faults: dict[str, Faults] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def headers(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for a path, as it was asked, with its query."""
        return [headers for _, asked, headers in self.requests if asked == path]

    def application(self) -> aio.Application:
        """Answers every path."""
        app = aio.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: aio.Request) -> aio.StreamResponse:
        before = sum(1 for method, path, _ in self.requests if method == request.method and _bare(path) == request.path)
        self.requests.append((request.method, request.path_qs, dict(request.headers)))
        if request.method not in ("GET", "HEAD"):
            return aio.Response(status=405)
        file = (self.root / request.path.lstrip("/")).resolve()
        if not file.is_relative_to(self.root.resolve()):
            return aio.Response(status=404)
        faults = self.faults.get(request.path, self.faults.get("", NONE))
        return await send(request, file, faults, before)


def _bare(path: str) -> str:
    return path.partition("?")[0]


@contextmanager
def web(
    root: Path, *, host: str = "127.0.0.1", port: int | None = None, tls: Tls | None = None, faults: Faults = NONE
) -> Iterator[Files]:
    """In a thread: ``faults`` and ``requests`` of what it gives are live."""
    root.mkdir(parents=True, exist_ok=True)
    port = port or Where(host).port()
    files = Files(url(host, port, tls), root, {"": faults})
    with in_thread(files.application, host, [port], tls):
        yield files


@contextmanager
def web_process(
    root: Path,
    log: Path,
    *,
    where: Where = LOOPBACK,
    port: int | None = None,
    tls: Tls | None = None,
    faults: Mapping[str, Faults] | None = None,
) -> Iterator[str]:
    """As a process of its own, anywhere: its address."""
    root.mkdir(parents=True, exist_ok=True)
    port = port or where.port()
    argv: list[str | Path] = [
        sys.executable, "-m", "tests.servers.web", root, "--host", where.host, "--port", str(port),
        "--faults", json.dumps({path: dataclasses.asdict(one) for path, one in (faults or {}).items()}),
    ]  # fmt: skip
    if tls:
        argv += ["--certificate", tls.server.certificate, "--key", tls.server.key]
    address = url(where.host, port, tls)
    with running("web server", argv, address, log, where, cwd=REPOSITORY):
        yield address


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.web", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--faults", default="{}", help='JSON: {"/path": {"cut_after": 1000, …}}; "" for all paths')
    words = parser.parse_args()
    faults = {path: Faults(**one) for path, one in json.loads(words.faults).items()}
    files = Files("", words.root, faults)
    secure = load(words.certificate, words.key) if words.certificate else None
    forever(files.application(), words.host, [words.port], secure)


if __name__ == "__main__":
    main()
