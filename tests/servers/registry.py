"""A container registry on loopback: CNCF distribution with no, basic or token authentication, and perhaps TLS."""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from e2e.cluster.certificates import Authority
from e2e.cluster.paths import REPOSITORY
from tests.servers.certificates import Tls, url
from tests.servers.process import LOOPBACK, Where, program, running
from tests.servers.token import ISSUER, SERVICE

Auth = Literal["none", "basic", "token"]

# The registry takes bcrypt alone, which no library here makes: one user for basic, with this word.
BASIC_USER = "robot"
BASIC_PASSWORD = "correct-horse-battery"
_BASIC_LINE = "$2b$04$NjtR0pHzEPfm0Q23b4pWB.OyJf3fd4sl2Zil3xs52gFYahaXKhgba"


@dataclass(frozen=True)
class Login:
    """A user of a registry."""

    name: str
    password: str


@dataclass(frozen=True)
class Registry:
    """A running registry. ``pusher`` may everything; ``puller`` may pull, but not in ``closed/``."""

    address: str
    folder: Path
    where: Where
    tls: Tls | None
    pusher: Login | None
    puller: Login | None

    @property
    def url(self) -> str:
        """Its root."""
        return f"{'http' if self.tls is None else 'https'}://{self.address}"

    def docker_config(self, password: str | None = None) -> str:
        """What `.dockerconfigjson` of a pull Secret holds for ``puller``, or one with another password."""
        assert self.puller is not None
        password = password or self.puller.password
        both = base64.b64encode(f"{self.puller.name}:{password}".encode()).decode()
        entry = {"username": self.puller.name, "password": password, "auth": both}
        return json.dumps({"auths": {self.address: entry}})

    def tokens(self) -> list[dict[str, Any]]:
        """What the token server was asked, one entry for each request."""
        return [json.loads(line) for line in (self.folder / "token.log").read_text().splitlines()]

    def blob(self, digest: str) -> Path:
        """The file of a blob, to damage it; the registry gives a blob's bytes without looking at them."""
        kind, _, hexadecimal = digest.partition(":")
        return self.folder / "data/docker/registry/v2/blobs" / kind / hexadecimal[:2] / hexadecimal / "data"


@contextmanager
def registry(
    folder: Path,
    *,
    auth: Auth = "none",
    where: Where = LOOPBACK,
    port: int | None = None,
    tls: Tls | None = None,
    expired_tokens: int = 0,
) -> Iterator[Registry]:
    """A registry that keeps its blobs below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or where.port()
    address = f"{where.host}:{port}"
    pusher = puller = None
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": address, "secret": secrets.token_hex(8)},
    }
    if tls:
        config["http"]["tls"] = {"certificate": str(tls.server.certificate), "key": str(tls.server.key)}
    with ExitStack() as stack:
        if auth == "basic":
            pusher = puller = Login(BASIC_USER, BASIC_PASSWORD)
            (folder / "htpasswd").write_text(f"{BASIC_USER}:{_BASIC_LINE}\n")
            config["auth"] = {"htpasswd": {"realm": "registry", "path": str(folder / "htpasswd")}}
        if auth == "token":
            pusher, puller = (Login(name, secrets.token_urlsafe(16)) for name in ("pusher", "puller"))
            signer = Authority(folder / "tokens")
            realm = stack.enter_context(_tokens(folder, signer, (pusher, puller), where, tls, expired_tokens))
            config["auth"] = {
                "token": {
                    "realm": realm,
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": str(signer.pair.certificate),
                }
            }
        file = folder / "registry.yaml"
        file.write_text(yaml.safe_dump(config))
        # Telemetry is on unless it is told otherwise, and asks for a collector.
        env = {"OTEL_TRACES_EXPORTER": "none"}
        stack.enter_context(
            running(
                "registry", [program("registry"), "serve", file], url(where.host, port, tls), folder / "registry.log",
                where, env,
            )
        )  # fmt: skip
        yield Registry(address, folder, where, tls, pusher, puller)


@contextmanager
def _tokens(
    folder: Path, signer: Authority, users: tuple[Login, Login], where: Where, tls: Tls | None, expired: int
) -> Iterator[str]:
    """The token server of a registry: the address that the registry sends its clients to."""
    port = where.port()
    pair = signer.issue("tokens", "tokens")
    known = {user.name: {"password": user.password, "push": user is users[0]} for user in users}
    (folder / "users.json").write_text(json.dumps(known))
    argv: list[str | Path] = [
        sys.executable, "-m", "tests.servers.token", "--host", where.host, "--port", str(port),
        "--key", pair.key, "--certificate", pair.certificate, "--users", folder / "users.json",
        "--expired", str(expired),
    ]  # fmt: skip
    if tls:
        argv += ["--tls-certificate", tls.server.certificate, "--tls-key", tls.server.key]
    root = url(where.host, port, tls)
    with running("token server", argv, root, folder / "token.log", where, cwd=REPOSITORY):
        yield f"{root}/token"
