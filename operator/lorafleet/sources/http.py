"""An archive, or a list of files, behind an HTTP address. The sha256 of the spec decides, not what a server says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import HttpSource as HttpSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted, check_sizes, select
from lorafleet.sources.base import Checksum, Chunk, Listing, SourceFile
from lorafleet.sources.remote import public
from lorafleet.sources.secret import CA_KEY, Secret
from lorafleet.sources.web import Web

_OURS = frozenset({"host", "range", "content-length", "connection", "transfer-encoding", "accept-encoding", "if-range"})
"""Headers that carry how we read, so none of them can come from a Secret."""


@dataclass(frozen=True, slots=True)
class HttpSource:
    """What ``spec`` names. Each key of ``secret`` but ``ca.crt`` is a header, sent to the spec's origin alone."""

    spec: HttpSpec
    secret: Secret
    wanted: Wanted
    web: Web = field(init=False)

    def __post_init__(self) -> None:
        """Raises ArtifactError (SecretInvalid)."""
        object.__setattr__(self, "web", Web(self.secret))

    def describe(self) -> Mapping[str, str]:
        """Scheme and address, without its query, which may hold a token."""
        return {"scheme": "http", "url": public(self.spec.url)}

    def listing(self) -> Listing:
        """The archive or the files, with the sizes that the server tells. Raises ArtifactError."""
        headers = self._headers()
        if self.spec.sha256 is not None:
            name = PurePosixPath(urlsplit(self.spec.url).path).name or "archive"
            archive = self._look(name, self.spec.url, self.spec.sha256, headers, archive=True)
            self._check_size(archive.size or 0)
            return Listing(pin=f"sha256:{self.spec.sha256}", files=(archive,))
        named = {file.path: file.sha256 for file in self.spec.files}
        # By their names first: what is no part of the adapter is not asked for.
        chosen = select(((name, None) for name in named), self.wanted, self._where)
        files = tuple(self._look(name, self._address(name), named[name], headers) for name in chosen)
        check_sizes([(file.path, file.size or 0) for file in files], self.wanted.limits)
        return Listing(pin="", files=files)

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """The bytes of the archive or a file. Raises ArtifactError."""
        total = start
        # At the start there is nothing yet that other bytes could be mixed with.
        etag = file.identity.partition(" ")[2] if start else ""
        for chunk in self.web.read(
            file.locator, start, self._named(file.path), size=file.size, etag=etag, credentials=self._headers()
        ):
            total += len(chunk)
            self._check_size(total)
            yield chunk

    def confirm(self, listing: Listing) -> None:
        """Nothing: each file's sha256 was checked."""

    def _look(self, name: str, url: str, sha256: str, headers: Mapping[str, str], archive: bool = False) -> SourceFile:
        # Addresses that are signed for GET, and some servers, refuse HEAD. The GET will tell what is wrong.
        where = self._named(name)
        with self.web.ask(url, where, method="HEAD", credentials=headers, allow=lambda status: True) as answer:
            known = answer.status == 200 and "Content-Encoding" not in answer.headers
            size = (answer.size or None) if known else None
            identity = f"sha256:{sha256} {answer.etag if known else ''}".rstrip()
        return SourceFile(name, size, identity, url, Checksum("sha256", sha256), archive)

    def _headers(self) -> dict[str, str]:
        headers = {}
        for key in self.secret.names():
            if key == CA_KEY:
                continue
            if key.lower() in _OURS:
                raise self.secret.invalid(f"has the header {key!r}, which is not for a source to set", "remove the key")
            headers[key] = self.secret.text(key) or ""
        return headers

    def _address(self, name: str) -> str:
        parts = urlsplit(self.spec.url)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{name}").geturl()

    def _check_size(self, size: int) -> None:
        limit = self.wanted.limits.max_bytes
        if size > limit:
            raise ArtifactError(
                Reason.SIZE_LIMIT_EXCEEDED,
                f"{self._where} has more than {limit} bytes, the most that an adapter may have: this is more than a"
                " LoRA adapter needs; if not, raise spec.artifacts.maxSize of the fleet",
            )

    def _named(self, name: str) -> str:
        return self._where if self.spec.sha256 is not None else f"{name} of {self._where}"

    @property
    def _where(self) -> str:
        return f"source {public(self.spec.url)}"
