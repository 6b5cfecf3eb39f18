"""Reading over HTTP, for every source that is behind an HTTP address: the hub, registries, web servers.

Made of the standard library, measured as fast as curl. obstore's HTTPStore was left for reasons: it sends its headers,
and an address with its query as Referer, on to whatever host it is redirected to, and refuses answers without a
length. Here credentials go to the origin that they are for and no other, nothing goes from https to http, and nothing
of a query, a header or an answer is ever in a message. Proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
"""

import http.client
import re
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

import lorafleet
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.remote import bad_certificate, changed, refused, unreachable, untrusted
from lorafleet.sources.secret import CA_KEY, Secret

CHUNK_BYTES = 1024 * 1024
"""Fits a processor's cache: half again as fast as 4 MiB."""

_FIRST_CHUNK_BYTES = 64 * 1024
_TIMEOUT_SECONDS = 20.0
_INVALID = frozenset({9, 10, 62, 64})
"""OpenSSL's codes for a certificate that is not valid yet, has expired, or is another host's or address's."""

_HEADER = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer. ``url``: where it came from after redirects, for the caller alone: it may hold a token."""

    status: int
    headers: Mapping[str, str]
    url: str
    where: str
    body: IO[bytes] = field(repr=False)

    @property
    def size(self) -> int | None:
        """The length that the answer says it has."""
        length = self.headers.get("Content-Length") or ""
        return int(length) if length.isascii() and length.isdigit() else None

    @property
    def etag(self) -> str:
        """The validator of the content, empty without one; a weak one is as good as none."""
        etag = self.headers.get("ETag") or ""
        return "" if etag.startswith("W/") else etag

    def document(self, limit: int) -> bytes:
        """All of a small answer. Raises ArtifactError (SourceUnreachable, SourceInvalid above ``limit`` bytes)."""
        chunks, total = [], 0
        for chunk in self.chunks():
            chunks.append(chunk)
            total += len(chunk)
            if total > limit:
                raise ArtifactError(
                    Reason.SOURCE_INVALID,
                    f"{self.where} answered more than {limit} bytes where a short document was expected: look at what"
                    " is at that address",
                )
        return b"".join(chunks)

    def chunks(self) -> Iterator[bytes]:
        """The content. Raises ArtifactError (SourceUnreachable) when it breaks off."""
        left = self.size
        # Small at first: a chunk that breaks off is lost, and there has to be progress on a bad line.
        size = _FIRST_CHUNK_BYTES
        while True:
            with _errors(self.where):
                chunk = self.body.read(size)
            if not chunk:
                break
            if left is not None:
                left -= len(chunk)
            yield chunk
            size = min(size * 2, CHUNK_BYTES)
        if left:
            raise unreachable(self.where, "the connection was cut")


class Web:
    """An HTTP client that trusts the system's authorities and those of a Secret; for several threads at once."""

    def __init__(self, secret: Secret) -> None:
        """Raises ArtifactError (SecretInvalid)."""
        self._secret = secret
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=_context(secret)),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(),
        ):
            self._opener.add_handler(handler)
        # The standard library adds a User-Agent of its own otherwise.
        self._opener.addheaders = [
            ("User-Agent", f"lorafleet/{lorafleet.__version__}"),
            ("Accept-Encoding", "identity"),
        ]

    @contextmanager
    def ask(
        self,
        url: str,
        where: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
        allow: Callable[[int], bool] = lambda status: False,
        data: bytes | None = None,
    ) -> Iterator[Answer]:
        """An answer, whose content can be read until the ``with`` ends.

        ``where`` names the object in messages. ``headers`` go to every host of a chain of redirects, ``credentials``
        only to the origin of ``url``, and ``data``, the content of a POST, to ``url`` and no further. Raises
        ArtifactError for what is no success, unless ``allow`` takes the status.
        """
        with _errors(where, self._secret):
            _check_headers(credentials or {}, self._secret)
            request = _Request(url, where, method, dict(headers or {}), dict(credentials or {}), data=data)
            try:
                response = self._opener.open(request, timeout=_TIMEOUT_SECONDS)
            except HTTPError as error:
                if not allow(error.code):
                    error.close()
                    _refuse(error.code, where, request, error.url, self._secret)
                response = error
        with response:
            yield Answer(response.status, response.headers, response.url, where, response)

    def read(
        self,
        url: str,
        start: int,
        where: str,
        *,
        size: int | None = None,
        etag: str = "",
        headers: Mapping[str, str] | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """The bytes behind ``url`` from ``start`` to the end, in chunks of at most 1 MiB.

        A server that knows no ranges sends all, and the first bytes are passed over. Raises ArtifactError:
        SourceChanged when ``size`` or ``etag`` are known and others than the server's, and all of ``ask``.
        """
        if size is not None and start >= size:
            return
        ranged = {"Range": f"bytes={start}-"} if start else {}
        with self.ask(
            url,
            where,
            headers={**(headers or {}), **ranged},
            credentials=credentials,
            allow=lambda status: status == 416 and bool(start),
        ) as answer:
            if answer.status == 416:
                # Without a known size the end of the file is only found by asking for more.
                if size is None and answer.headers.get("Content-Range") == f"bytes */{start}":
                    return
                raise changed(where)
            skip = start - _first_byte(answer)
            total = _total(answer)
            if skip < 0 or (etag and answer.etag and answer.etag != etag):
                raise changed(where)
            if size is not None and total is not None and total != size:
                raise changed(where)
            for chunk in answer.chunks():
                if skip < len(chunk):
                    yield chunk[skip:] if skip > 0 else chunk
                skip = max(0, skip - len(chunk))


class _Request(urllib.request.Request):
    """A request of a chain of redirects."""

    def __init__(
        self,
        url: str,
        where: str,
        method: str,
        headers: dict[str, str],
        credentials: dict[str, str],
        chain_origin: tuple[str, str] | None = None,
        data: bytes | None = None,
    ) -> None:
        encoded = quote(url, safe="!#$%&'()*+,/:;=?@[]~")
        self.chain_origin = chain_origin or origin(encoded)
        self.plain_headers = headers
        self.credentials = credentials
        self.where = where
        secret = credentials if origin(encoded) == self.chain_origin else {}
        super().__init__(encoded, data, {**headers, **secret}, method=method)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects of GET and HEAD, to http and https alone, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        assert isinstance(req, _Request)
        parts = urlsplit(newurl)
        before = urlsplit(req.full_url).scheme
        if parts.scheme not in ("http", "https") or (before == "https" and parts.scheme != "https"):
            raise ArtifactError(
                Reason.SOURCE_INVALID,
                f"{req.where} redirects from {before} to {parts.scheme}, where others could read and change what is"
                " sent; expected https: correct the server, or name the final address in a new version",
            )
        return _Request(newurl, req.where, req.get_method(), req.plain_headers, req.credentials, req.chain_origin)


def _refuse(status: int, where: str, request: _Request, url: str, secret: Secret) -> NoReturn:
    left = urlsplit(url).hostname if origin(url) != request.chain_origin else None
    note = f" after a redirect to {left}" if left else ""
    if left and request.credentials and status in (401, 403):
        note += ", to which the Secret's headers are not sent on"
    raise refused(status, where, note, secret)


def origin(url: str) -> tuple[str, str]:
    """Scheme, and host with port: what credentials are bound to."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, f"{(parts.hostname or '').lower()}:{port}"


def _first_byte(answer: Answer) -> int:
    """Where in the file an answer begins."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range") or "") if answer.status == 206 else None
    if answer.status == 206 and found is None:
        raise unreachable(answer.where, "the server sent a part of the file and not which")
    return int(found[1]) if found else 0


def _total(answer: Answer) -> int | None:
    """The size of the whole file, if the answer says it."""
    if answer.status != 206:
        return answer.size
    found = _RANGE.fullmatch(answer.headers.get("Content-Range") or "")
    return int(found[3]) if found and found[3] != "*" else None


def _check_headers(credentials: Mapping[str, str], secret: Secret) -> None:
    for name, value in credentials.items():
        if not _HEADER.fullmatch(value):
            raise secret.invalid(f"has a value for the header {name} that is not one line of text", "correct it")


def _context(secret: Secret) -> ssl.SSLContext:
    try:
        return _trusting(secret.authorities())
    except (ssl.SSLError, ValueError):
        raise secret.invalid(
            f"has a key {CA_KEY!r} that is no certificate in PEM", "put the authority's certificate there"
        ) from None


@lru_cache(maxsize=16)
def _trusting(authorities: str | None) -> ssl.SSLContext:
    """Reading the system's authorities takes as long as fetching a small adapter."""
    context = ssl.create_default_context()
    if authorities is not None:
        context.load_verify_locations(cadata=authorities)
    return context


@contextmanager
def _errors(where: str, secret: Secret | None = None) -> Iterator[None]:
    """Turns what the standard library raises into ArtifactErrors; their texts may hold addresses, so few are kept."""
    try:
        yield
    except URLError as error:
        raise _failed(error.reason, where, secret or Secret()) from None
    except (http.client.InvalidURL, ValueError):
        raise ArtifactError(
            Reason.SOURCE_INVALID, f"{where} is no address that can be asked: correct the source in a new version"
        ) from None
    except (http.client.HTTPException, OSError) as error:
        raise _failed(error, where, secret or Secret()) from None


def _failed(error: object, where: str, secret: Secret) -> ArtifactError:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _INVALID:
            return bad_certificate(where, error.verify_message)
        return untrusted(where, error.verify_message, secret)
    if isinstance(error, TimeoutError):
        return unreachable(where, f"nothing came for {_TIMEOUT_SECONDS:.0f} s")
    if isinstance(error, ssl.SSLError):
        return unreachable(where, f"TLS failed ({(error.reason or 'unknown').lower().replace('_', ' ')})")
    if isinstance(error, OSError) and error.strerror:
        return unreachable(where, error.strerror)
    return unreachable(where, "the connection was cut or the answer is not HTTP")
