"""A Google Cloud Storage server on loopback: fake-gcs-server, whose buckets everybody may read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.servers.bucket import Bucket
from tests.servers.process import LOOPBACK, Where, program, running


@contextmanager
def gcs(folder: Path, *, name: str = "models", where: Where = LOOPBACK, port: int | None = None) -> Iterator[Bucket]:
    """A bucket; its objects are files below ``folder``. It knows no keys, and no certificate but its own."""
    root = folder / "objects"
    (root / name).mkdir(parents=True)
    port = port or where.port()
    address = f"{where.host}:{port}"
    endpoint = f"http://{address}"
    argv: list[str | Path] = [
        program("fake-gcs-server"), "-scheme", "http", "-host", where.host, "-port", str(port),
        # The address that its answers name.
        "-public-host", address, "-external-url", endpoint,
        "-backend", "filesystem", "-filesystem-root", root,
    ]  # fmt: skip

    def send(method: str, path: str, content: Path | bytes) -> None:
        encoded = quote(path, safe="")
        if method == "DELETE":
            where.curl(f"{endpoint}/storage/v1/b/{name}/o/{encoded}", "-X", "DELETE")
            return
        # The media upload: the server refuses the one that obstore makes.
        url = f"{endpoint}/upload/storage/v1/b/{name}/o?uploadType=media&name={encoded}"
        binary = ["-X", "POST", "-H", "Content-Type: application/octet-stream"]
        if isinstance(content, Path):
            where.curl(url, *binary, "--upload-file", str(content))
        else:
            where.curl(url, *binary, "--data-binary", "@-", stdin=content)

    with running("fake-gcs-server", argv, f"{endpoint}/storage/v1/b", folder / "fake-gcs-server.log", where):
        yield Bucket("gs", name, endpoint, {}, {}, send)
