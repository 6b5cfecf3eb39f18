"""A token server as container registries have: who proves to be somebody gets a JWT for what they may.

A process of its own, `python -m tests.servers.token`, on the standard library. Each request is a line of JSON on
standard output: who asked, by which method, for what, and what was given; never a password or token.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import ssl
import sys
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "lorafleet-tokens"
SERVICE = "lorafleet-registry"
# Where everybody may pull, and where only who pushes may.
PUBLIC = "public/"
CLOSED = "closed/"


@dataclass
class Tokens:
    """Who may what. ``expired``: so many of the first tokens are out of date when they are given."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    users: dict[str, dict[str, Any]]
    expired: int = 0
    given: int = field(default=0, init=False)

    def who(self, authorization: str | None) -> str | None:
        """The name that an Authorization header proves; "" without one, None when it proves nothing."""
        if authorization is None:
            return ""
        scheme, _, value = authorization.partition(" ")
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            return None
        known = scheme.lower() == "basic" and self.users.get(name, {}).get("password") == password
        return name if known else None

    def allowed(self, user: str, repository: str, actions: list[str]) -> list[str]:
        """What of the actions somebody may do with a repository."""
        if self.users.get(user, {}).get("push"):
            return actions
        may = repository.startswith(PUBLIC) or (user != "" and not repository.startswith(CLOSED))
        return [action for action in actions if action == "pull" and may]

    def token(self, user: str, access: list[dict[str, Any]]) -> tuple[str, int]:
        """A signed token, and for how many seconds it is good."""
        now = int(time.time())
        self.given += 1
        # The registry grants a minute of grace.
        until = now - 3600 if self.given <= self.expired else now + 300
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": ISSUER, "aud": SERVICE, "sub": user, "exp": until, "nbf": now - 7200, "iat": now,
            "jti": os.urandom(8).hex(), "access": access,
        }  # fmt: skip
        signed = f"{_part(json.dumps(header).encode())}.{_part(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}", 300


def _log(entry: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def handler(tokens: Tokens) -> type[BaseHTTPRequestHandler]:
    """Answers `GET /token?service=…&scope=repository:NAME:pull`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            user = tokens.who(self.headers.get("Authorization"))
            scopes = [value for key, value in parse_qsl(asked.query) if key == "scope"]
            access = []
            for scope in " ".join(scopes).split():
                kind, _, rest = scope.partition(":")
                name, _, actions = rest.rpartition(":")
                granted = tokens.allowed(user or "", name, actions.split(","))
                access.append({"type": kind, "name": name, "actions": granted})
            if asked.path == "/token":
                _log({"method": "GET", "user": user, "scopes": scopes, "access": access})
            if asked.path != "/token":
                self._answer(404, {"errors": [{"code": "NOT_FOUND", "message": "not found"}]})
            elif user is None:
                self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]})
            else:
                token, seconds = tokens.token(user, access)
                self._answer(200, {"token": token, "access_token": token, "expires_in": seconds})

        def do_POST(self) -> None:
            # Clients fall back to GET, as with registries that have no OAuth 2 endpoint.
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            _log({"method": "POST"})
            self._answer(404, {"errors": [{"code": "NOT_FOUND", "message": "not found"}]})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.token", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", type=Path, required=True, help="the PEM key that signs tokens")
    parser.add_argument(
        "--certificate", type=Path, required=True, help="its certificate, signed by the registry's root"
    )
    parser.add_argument("--users", type=Path, required=True, help='JSON: {"name": {"password": …, "push": true}}')
    parser.add_argument("--expired", type=int, default=0, help="so many first tokens are out of date")
    parser.add_argument("--tls-certificate", type=Path)
    parser.add_argument("--tls-key", type=Path)
    words = parser.parse_args()
    key = serialization.load_pem_private_key(words.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate(words.certificate.read_bytes())
    tokens = Tokens(key, certificate, json.loads(words.users.read_text()), words.expired)
    server = ThreadingHTTPServer((words.host, words.port), handler(tokens))
    if words.tls_certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(words.tls_certificate, words.tls_key)
        # The handshake is each connection's own, or one slow client stops them all.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()
