"""An S3 server on loopback: versitygw on a folder, with keys of its own and perhaps TLS."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.bucket import Bucket
from tests.servers.certificates import Tls, url
from tests.servers.process import LOOPBACK, Where, program, running

REGION = "us-east-1"


@contextmanager
def s3(
    folder: Path, *, name: str = "models", where: Where = LOOPBACK, port: int | None = None, tls: Tls | None = None
) -> Iterator[Bucket]:
    """A bucket; its objects are files below ``folder``."""
    root = folder / "objects"
    # A folder at the root is a bucket.
    (root / name).mkdir(parents=True)
    port = port or where.port()
    endpoint = url(where.host, port, tls)
    keys = {
        "AWS_ACCESS_KEY_ID": f"AKIA{secrets.token_hex(8).upper()}",
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
    }
    options = ["--cert", str(tls.server.certificate), "--key", str(tls.server.key)] if tls else []
    # Real ones keep connections, too.
    address = ["--port", f"{where.host}:{port}", "--region", REGION, "--keep-alive"]
    argv: list[str | Path] = [program("versitygw"), *address, *options, "posix", root]
    env = {"ROOT_ACCESS_KEY": keys["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": keys["AWS_SECRET_ACCESS_KEY"]}

    def send(method: str, path: str, content: Path | bytes) -> None:
        file = isinstance(content, Path)
        body = ["--upload-file", str(content)] if file else ["--data-binary", "@-"]
        signed = ["--aws-sigv4", f"aws:amz:{REGION}:s3", "--user", ":".join(keys.values())]
        trust = ["--cacert", str(tls.authority)] if tls else []
        unsigned = ["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
        target = f"{endpoint}/{name}/{path}"
        stdin = None if isinstance(content, Path) else content
        where.curl(target, "-X", method, *unsigned, *signed, *trust, *body, stdin=stdin)

    with running("versitygw", argv, endpoint, folder / "versitygw.log", where, env, cwd=folder):
        wrong = {**keys, "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30)}
        yield Bucket("s3", name, endpoint, keys, wrong, send)
