"""Real object stores on loopback, one of each kind, with a bucket to put objects into."""

import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

TOOLS = Path.home() / ".cache/lorafleet/servers"
KINDS = ("s3", "gs", "az")


@dataclass
class Bucket:
    """A bucket. ``keys``: what a Secret for it holds; ``wrong_keys``: ones that do not open it, none if all do."""

    scheme: str
    name: str
    endpoint: str
    keys: dict[str, str]
    wrong_keys: dict[str, str] = field(default_factory=dict)
    client: Any = None

    def url(self, folder: str) -> str:
        """A folder of it."""
        return f"{self.scheme}://{self.name}/{folder}"

    @property
    def secrets(self) -> list[str]:
        """The values that no message may hold."""
        return [value for key, value in self.keys.items() if not key.endswith("_NAME")]

    def put(self, path: str, data: bytes) -> None:
        """Write an object."""
        if self.scheme == "gs":
            # The server refuses the upload that obstore makes.
            url = f"{self.endpoint}/upload/storage/v1/b/{self.name}/o?uploadType=media&name={path}"
            _send("POST", url, data)
        else:
            self.client.put(path, data)

    def delete(self, path: str) -> None:
        """Remove an object."""
        if self.scheme == "gs":
            # obstore asks the metadata address before it deletes, also without a signature.
            url = f"{self.endpoint}/storage/v1/b/{self.name}/o/{quote(path, safe='')}"
            _send("DELETE", url, b"")
        else:
            self.client.delete(path)


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


@contextmanager
def bucket(kind: str, folder: Path, certificate: Path | None = None) -> Iterator[Bucket]:
    """A bucket of a running server, which speaks TLS with a certificate (of s3 alone)."""
    folder.mkdir(exist_ok=True)
    with {"s3": _s3, "gs": _gcs, "az": _azure}[kind](folder, certificate) as running:
        yield running


@contextmanager
def _s3(folder: Path, certificate: Path | None) -> Iterator[Bucket]:
    from obstore.store import S3Store

    (folder / "models").mkdir()
    keys = {"AWS_ACCESS_KEY_ID": "AKIATHEKEY", "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-key"}
    tls = ["--cert", str(certificate), "--key", str(certificate)] if certificate else []
    environment = {"ROOT_ACCESS_KEY": keys["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": keys["AWS_SECRET_ACCESS_KEY"]}
    with _server(
        "versitygw", lambda port: [*tls, "-p", f"127.0.0.1:{port}", "posix", str(folder)], environment
    ) as port:
        endpoint = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
        # Only what fills the bucket trusts everybody.
        options: Any = {"allow_http": True, "allow_invalid_certificates": certificate is not None}
        config: Any = {**keys, "aws_endpoint": endpoint}
        client = S3Store("models", config=config, client_options=options)
        yield Bucket("s3", "models", endpoint, keys, {**keys, "AWS_SECRET_ACCESS_KEY": "another-secret"}, client)


@contextmanager
def _gcs(folder: Path, certificate: Path | None) -> Iterator[Bucket]:
    def arguments(port: int) -> list[str]:
        address = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        return ["-scheme", "http", "-backend", "memory", *address]

    with _server("fake-gcs-server", arguments) as port:
        endpoint = f"http://127.0.0.1:{port}"
        _send("POST", f"{endpoint}/storage/v1/b", b'{"name": "models"}', {"Content-Type": "application/json"})
        yield Bucket("gs", "models", endpoint, {})


@contextmanager
def _azure(folder: Path, certificate: Path | None) -> Iterator[Bucket]:
    from obstore.store import AzureStore

    key, wrong = (base64.b64encode(text * 16).decode() for text in (b"ok", b"no"))
    keys = {"AZURE_STORAGE_ACCOUNT_NAME": "account", "AZURE_STORAGE_ACCOUNT_KEY": key}

    def arguments(port: int) -> list[str]:
        place = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
        return [*place, "--skipApiVersionCheck", "--disableTelemetry", "--silent"]

    with _server("azurite-blob", arguments, {"AZURITE_ACCOUNTS": f"account:{key}"}) as port:
        endpoint = f"http://127.0.0.1:{port}/account"
        date = formatdate(usegmt=True)
        signed = (
            f"PUT{12 * chr(10)}x-ms-date:{date}\nx-ms-version:2021-08-06\n/account/account/models\nrestype:container"
        )
        digest = hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()
        headers = {
            "x-ms-date": date,
            "x-ms-version": "2021-08-06",
            "Authorization": f"SharedKey account:{base64.b64encode(digest).decode()}",
        }
        _send("PUT", f"{endpoint}/models?restype=container", b"", headers)
        config: Any = {**keys, "azure_endpoint": endpoint}
        client = AzureStore("models", config=config, client_options={"allow_http": True})
        yield Bucket("az", "models", endpoint, keys, {**keys, "AZURE_STORAGE_ACCOUNT_KEY": wrong}, client)


@contextmanager
def _server(
    name: str, arguments: Callable[[int], list[str]], environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """A server's process and its port. The test is skipped where the server is not installed."""
    command = shutil.which(name, path=f"{TOOLS}:{os.environ['PATH']}")
    if command is None:
        pytest.skip(f"{name} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [command, *arguments(port)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _ready(process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _ready(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


def _send(method: str, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    urllib.request.urlopen(urllib.request.Request(url, body or None, dict(headers or {}), method=method)).close()
