"""A server as a process of its own: started on a port of an address, answering when it is handed out, ended by its id.

An address may be inside another network namespace: then ``enter`` is what gets a command there, and both the server and
what asks it are started with it in front.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import binaries

READY_SECONDS = 30.0
_PROBE_SECONDS = 0.02


class ServerError(Exception):
    """A server did not start, or a client of it failed; the text has its words."""


@dataclass(frozen=True)
class Where:
    """An address to listen on, and the words that start a command where it is reachable."""

    host: str = "127.0.0.1"
    enter: tuple[str, ...] = ()

    def port(self) -> int:
        """A port that was free a moment ago, on this machine's loopback at least."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            found: int = free.getsockname()[1]
            return found

    def run(
        self,
        *argv: str | Path,
        stdin: bytes | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        seconds: float = 300,
    ) -> bytes:
        """Runs a client to its end and returns what it printed; raises ServerError with its words, never its argv."""
        done = subprocess.run(
            [*self.enter, *map(str, argv)],
            input=stdin,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise ServerError(f"{Path(argv[0]).name}: exit {done.returncode}: {words}")
        return done.stdout

    def curl(self, url: str, *options: str, stdin: bytes | None = None) -> bytes:
        """What curl prints; raises ServerError unless it answers 2xx."""
        return self.run("curl", "-sS", "--fail-with-body", "--noproxy", "*", *options, url, stdin=stdin)


LOOPBACK = Where()


def program(name: str) -> Path:
    """A server or client that is written in Go, from the cache; built first where it is missing."""
    return binaries.ensure([name])[name]


@contextmanager
def running(
    name: str,
    argv: Sequence[str | Path],
    url: str,
    log: Path,
    where: Where = LOOPBACK,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers HTTP at ``url``, whatever the status, when it is handed out; it writes to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*where.enter, *map(str, argv)],
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(process, name, url, log, where)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], name: str, url: str, log: Path, where: Where) -> None:
    until = time.monotonic() + READY_SECONDS
    probe = [*where.enter, "curl", "-sk", "--noproxy", "*", "-m", "2", "-o", "/dev/null", url]
    while subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode:
        tail = log.read_text(errors="replace")[-2000:]
        if process.poll() is not None:
            raise ServerError(f"{name} ended with {process.returncode}: {tail}")
        if time.monotonic() > until:
            raise ServerError(f"{name} does not answer at {url} within {READY_SECONDS:g} s: {tail}")
        time.sleep(_PROBE_SECONDS)
