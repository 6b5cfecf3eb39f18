"""A scripted web server on loopback: each path has an answer that misbehaves in one way, and requests are kept."""

import datetime
import ipaddress
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Page:
    """An answer. ``ranges``: it knows Range. ``length``: it says its length. ``head``: it answers HEAD.

    ``cut_after``: each connection ends after as many bytes of the body; ``status`` other than 200 has no body.
    ``authorization``: whoever comes with another is answered 401, with ``headers`` and no body. ``posted``: what came.
    """

    body: bytes = b""
    status: int = 200
    etag: str = '"1"'
    location: str | None = None
    ranges: bool = True
    length: bool = True
    head: bool = True
    cut_after: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    authorization: str | None = None
    posted: bytes = b""


@dataclass
class Origin:
    """A running server."""

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def headers(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for a path."""
        return [headers for _, asked, headers in self.requests if asked == path]


@contextmanager
def origin(certificate: Path | None = None) -> Iterator[Origin]:
    """A server, with TLS when it is given a certificate and its key in one file."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    scheme = "http"
    if certificate is not None:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    running = Origin(f"{scheme}://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = _handler(running)
    server.handle_error = lambda *_: None  # type: ignore[assignment,method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(running: Origin) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            running.requests.append((self.command, self.path, dict(self.headers)))
            page = running.pages.get(self.path, Page(status=404))
            page.posted = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or page.posted
            body, status, start = page.body, page.status, 0
            if page.authorization not in (None, self.headers.get("Authorization")):
                status = 401
            if self.command == "HEAD" and not page.head:
                status = 405
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if wanted and page.ranges and status == 200:
                start, status = int(wanted[1]), 206 if int(wanted[1]) < len(body) else 416
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if status == 416:
                self.send_header("Content-Range", f"bytes */{len(body)}")
            for name, value in page.headers.items():
                self.send_header(name, value)
            if page.location:
                self.send_header("Location", page.location)
            if page.etag:
                self.send_header("ETag", page.etag)
            body = body[start:] if status in (200, 206) else b""
            if page.length:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: page.cut_after])
                self.close_connection |= page.cut_after is not None

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def certificates(folder: Path, name: str = "127.0.0.1", days: int = 1) -> tuple[Path, Path]:
    """An authority's certificate, and the certificate of ``name`` with its key, as files."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])

    def build(subject: x509.Name, public: ec.EllipticCurvePublicKey, ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=10 if ca else days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )

    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    root = build(authority, authority_key.public_key(), ca=True).sign(authority_key, hashes.SHA256())
    leaf = (
        build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")]), key.public_key(), ca=False)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(root.public_bytes(pem))
    (folder / "server.pem").write_bytes(
        leaf.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.crt", folder / "server.pem"
