"""Certificates for servers: an authority of its own per folder, and what it signs for hosts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.certificates import Authority, Pair


@dataclass(frozen=True)
class Tls:
    """A server's certificate and key, and the authority that clients must trust, all PEM files."""

    server: Pair
    authority: Path

    @property
    def ca(self) -> str:
        """The authority's certificate, as ``ca.crt`` of a Secret."""
        return self.authority.read_text()


def tls(folder: Path, *hosts: str) -> Tls:
    """A new authority in ``folder`` and a certificate for ``hosts``, loopback when none is given."""
    authority = Authority(folder)
    pair = authority.issue("server", "server", hosts=hosts or ("127.0.0.1", "localhost"))
    return Tls(pair, authority.pair.certificate)


def url(host: str, port: int, secure: Tls | None) -> str:
    """The root address of a server."""
    return f"{'http' if secure is None else 'https'}://{host}:{port}"
