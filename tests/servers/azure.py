"""An Azure Blob Storage server on loopback: azurite, with an account and key of its own and perhaps TLS."""

from __future__ import annotations

import base64
import datetime
import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

from e2e.cluster import paths
from e2e.cluster.shell import ClusterError, run, step
from tests.servers.bucket import Bucket
from tests.servers.certificates import Tls, url
from tests.servers.process import LOOPBACK, Where, running

ACCOUNT = "devaccount"
_PINS = Path(__file__).parent / "azurite"
_VERSION = "2021-12-02"


@contextmanager
def azure(
    folder: Path, *, name: str = "models", where: Where = LOOPBACK, port: int | None = None, tls: Tls | None = None
) -> Iterator[Bucket]:
    """A container; the account is the first part of the endpoint's path, as azurite has it for addresses."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or where.port()
    key, wrong = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    endpoint = f"{url(where.host, port, tls)}/{ACCOUNT}"
    secure: list[str | Path] = ["--cert", tls.server.certificate, "--key", tls.server.key] if tls else []
    argv: list[str | Path] = [
        install(), "--blobHost", where.host, "--blobPort", str(port), "--location", folder / "objects",
        "--skipApiVersionCheck", "--disableTelemetry", "--silent", *secure,
    ]  # fmt: skip
    trust = ["--cacert", str(tls.authority)] if tls else []
    signature = _sas(key)

    def send(method: str, path: str, content: Path | bytes) -> None:
        target = f"{endpoint}/{name}/{quote(path)}?{signature}"
        options = ["-X", method, "-H", "x-ms-blob-type: BlockBlob", "-H", f"x-ms-version: {_VERSION}", *trust]
        if isinstance(content, Path):
            where.curl(target, *options, "--upload-file", str(content))
        else:
            where.curl(target, *options, "--data-binary", "@-", stdin=content)

    env = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
    with running("azurite", argv, endpoint, folder / "azurite.log", where, env, cwd=folder):
        version = ["-H", f"x-ms-version: {_VERSION}", "-H", "Content-Length: 0"]
        where.curl(f"{endpoint}/{name}?restype=container&{signature}", "-X", "PUT", *version, *trust)
        keys = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": key}
        yield Bucket("az", name, endpoint, keys, {**keys, "AZURE_STORAGE_ACCOUNT_KEY": wrong}, send)


def _sas(key: str) -> str:
    """The query that lets its bearer do everything with the account's blobs for a day (account SAS)."""
    expiry = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    permissions, services, kinds = "rwdlac", "b", "sco"
    # Name, permissions, services, resource types, start, expiry, addresses, protocols, version, encryption scope.
    lines = [ACCOUNT, permissions, services, kinds, "", expiry, "", "http,https", _VERSION, "", ""]
    digest = hmac.new(base64.b64decode(key), "\n".join(lines).encode(), hashlib.sha256).digest()
    query = {"sv": _VERSION, "ss": services, "srt": kinds, "sp": permissions, "se": expiry, "spr": "http,https"}
    return urlencode({**query, "sig": base64.b64encode(digest).decode()})


def install() -> Path:
    """azurite's blob server from the cache, as its lock file pins it; installed first where it is missing."""
    pins = [_PINS / "package.json", _PINS / "package-lock.json"]
    key = hashlib.sha256(b"".join(file.read_bytes() for file in pins)).hexdigest()[:12]
    home = paths.tool_dir() / f"azurite-{key}"
    command = home / "node_modules/.bin/azurite-blob"
    if command.exists():
        return command
    if shutil.which("npm") is None:
        raise ClusterError("npm is needed to install azurite once; install Node.js 20 or newer and try again")
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not command.exists():
            part = home.parent / f".{home.name}.{os.getpid()}"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            with step("installing azurite"):
                for file in pins:
                    shutil.copy(file, part)
                run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=part)
            shutil.rmtree(home, ignore_errors=True)
            part.rename(home)
    return command
