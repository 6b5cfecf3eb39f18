"""A folder in an object store: S3, Google Cloud Storage, Azure Blob Storage and what speaks like one of them.

Credentials are those of the source's Secret alone. Without any the store is read unsigned, so that a cloud's metadata
address is never asked for those of the node. Objects are read only as they were listed, by their ETag.
"""

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import ObjectStoreSource as ObjectStoreSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted, check_entries, select
from lorafleet.sources.base import Chunk, Listing, SourceFile
from lorafleet.sources.credentials import STORES, credentials
from lorafleet.sources.remote import bad_certificate, changed, refused, unreachable, untrusted
from lorafleet.sources.secret import Secret

CHUNK_BYTES = 256 * 1024
"""As fast as larger ones. What a cut leaves of a chunk is lost, so a connection must last for one to be of use."""

_LIST_PAGE = 1000
_DEPTH = 10
"""How many times more objects may be below the folder than in it: listing costs a request for each thousand."""

_OPENING = threading.Lock()
"""Items that begin at the same time are to have one client: each reads all of the system's authorities."""

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)(?:\(\s*(?:OtherError\(\s*)?(\w+))?")
_OS_ERROR = re.compile(r'message: "([A-Za-z ]{1,80})"')


@dataclass(frozen=True, slots=True)
class ObjectStoreSource:
    """The folder of ``spec``; ``pin`` is what its objects were when it was first listed."""

    spec: ObjectStoreSpec
    secret: Secret
    wanted: Wanted
    pin: str | None = None
    _bucket: Any = field(init=False, repr=False)
    _folder: str = field(init=False)

    def __post_init__(self) -> None:
        """Raises ArtifactError (SecretInvalid, SourceInvalid)."""
        object.__setattr__(self, "_folder", _folder(self.spec))
        object.__setattr__(self, "_bucket", _open(self.spec, self.secret))

    def describe(self) -> Mapping[str, str]:
        """Scheme, address and endpoint."""
        endpoint = {"endpoint": self.spec.endpoint} if self.spec.endpoint else {}
        return {"scheme": "objectStore", "url": self.spec.url, **endpoint}

    def listing(self) -> Listing:
        """The adapter's objects, directly in the folder. Raises ArtifactError."""
        found = self._look()
        pin = _pin(found)
        if self.pin is not None and pin != self.pin:
            raise ArtifactError(
                Reason.SOURCE_INVALID,
                f"{self._where} holds other objects than when this version was first fetched; expected objects that"
                " stay as they are: leave them under this path, and append a new version for the new ones",
            )
        return Listing(pin, found)

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        """The bytes of one object as it was listed. Raises ArtifactError."""
        if file.size is not None and start >= file.size:
            return
        where = f"{file.path} of {self._where}"
        small = file.size is not None and file.size <= CHUNK_BYTES
        options: dict[str, Any] = {"range": {"offset": start}} if start else {}
        if file.locator:
            options["if_match"] = f'"{file.locator}"'
        with self._errors(where):
            try:
                result = self._bucket.get(self._key(file.path), options=options or None)
            except FileNotFoundError:
                raise changed(where) from None
            # Some stores do not know If-Match.
            if _etag(result.meta) not in (file.locator, "") or result.meta["size"] != file.size:
                raise changed(where)
            if small:
                # All at once: each chunk of a stream is one more wait for the library's threads.
                whole = result.bytes()
            else:
                chunks = result.stream(min_chunk_size=CHUNK_BYTES)
        if small:
            yield whole
            return
        while True:
            with self._errors(where):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def confirm(self, listing: Listing) -> None:
        """Raises ArtifactError (SourceChanged) unless the folder's objects are those of the listing."""
        if self._look() != listing.files:
            raise changed(self._where)

    def _look(self) -> tuple[SourceFile, ...]:
        found: dict[str, SourceFile] = {}
        with self._errors(self._where):
            for number, (name, meta) in enumerate(self._objects(), 1):
                check_entries(number, self.wanted.limits)
                etag = _etag(meta)
                validator = etag or meta["last_modified"].isoformat()
                found[name] = SourceFile(name, meta["size"], f"{validator} {meta['size']}", locator=etag)
        if not found:
            raise self._missing()
        sizes = ((name, file.size) for name, file in found.items())
        return tuple(found[name] for name in select(sizes, self.wanted, self._where))

    def _objects(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The objects directly in the folder, by name. Page by page: a bucket may hold millions."""
        below = 0
        for page in self._bucket.list(self._folder or None, chunk_size=_LIST_PAGE):
            for meta in page:
                name = meta["path"].removeprefix(self._key(""))
                if name and "/" not in name:
                    yield name, meta
            below += len(page)
            check_entries(below // _DEPTH, self.wanted.limits)

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    @contextmanager
    def _errors(self, where: str) -> Iterator[None]:
        """Turns what obstore raises into ArtifactErrors. Its texts hold addresses and answers: only words are kept."""
        try:
            yield
        except PreconditionError:
            raise changed(where) from None
        except (BaseError, OSError, ValueError) as error:
            failed = _failed(error, where, self.secret)
            raise self._missing() if failed.reason is Reason.SOURCE_NOT_FOUND else failed from None

    def _missing(self) -> ArtifactError:
        key = f" that the key in Secret {self.secret.name} is known there" if self.secret.name else " that it is public"
        return ArtifactError(
            Reason.SOURCE_NOT_FOUND,
            f"{self._where} has no objects, or may not be seen: stores answer the same for a folder or bucket that is"
            f" not there and for a key that they do not know: check the url, the endpoint, and{key}",
        )

    @property
    def _where(self) -> str:
        return f"source {self.spec.url}" + (f" at {self.spec.endpoint}" if self.spec.endpoint else "")


def _folder(spec: ObjectStoreSpec) -> str:
    """The folder's path in its bucket, without slashes around it."""
    folder = urlsplit(spec.url).path.strip("/")
    if folder and {"", ".", ".."} & set(folder.split("/")):
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"source {spec.url} has a path with an empty part, '.' or '..': name the folder without them in a new"
            " version",
        )
    return folder


def _open(spec: ObjectStoreSpec, secret: Secret) -> Any:
    """The bucket, for reading. Raises ArtifactError (SecretInvalid, SourceInvalid)."""
    parts = urlsplit(spec.url)
    store = STORES[parts.scheme]
    config: dict[str, str | bool] = {**credentials(store, spec.endpoint, secret)}
    if spec.endpoint:
        config[store.endpoint_key] = spec.endpoint
    if spec.region and parts.scheme == "s3":
        config.pop("aws_default_region", None)
        config["aws_region"] = spec.region
    try:
        with _OPENING:
            return _bucket(parts.scheme, parts.netloc, frozenset(config.items()), spec.endpoint, secret.authorities())
    except (BaseError, OSError, ValueError) as error:
        raise secret.invalid(
            f"has keys that source {spec.url} cannot use ({type(error).__name__})",
            f"check the form of {store.keys_text}, and of ca.crt",
        ) from None


@lru_cache(maxsize=16)
def _bucket(
    scheme: str, name: str, config: frozenset[tuple[str, str | bool]], endpoint: str | None, authorities: str | None
) -> Any:
    """A client of a bucket. Making one takes longer than fetching a small adapter, and it keeps its connections."""
    options: dict[str, Any] = {
        "allow_http": (endpoint or "").startswith("http:"),
        "connect_timeout": timedelta(seconds=5),
        "read_timeout": timedelta(seconds=20),
        # Of a whole download. The Job has a deadline of its own.
        "timeout": timedelta(days=1),
    }
    if authorities is not None:
        options["root_certificate"] = authorities
    return {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[scheme](
        name,
        config=dict(config),
        client_options=options,
        # Whoever fetches tries again and goes on where it was; here only what is over in a moment.
        retry_config={
            "max_retries": 1,
            "retry_timeout": timedelta(seconds=5),
            "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=1), "base": 2},
        },
    )


def _pin(files: tuple[SourceFile, ...]) -> str:
    lines = sorted(f"{file.path} {file.identity}\n" for file in files)
    return f"objects:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _etag(meta: Mapping[str, Any]) -> str:
    """An object's ETag; some stores put it into quotes in an answer and not in a listing."""
    return (meta["e_tag"] or "").strip('"')


def _failed(error: Exception, where: str, secret: Secret) -> ArtifactError:
    text = str(error)
    code = _CODE.search(text)
    note = f", {code[1]}" if code else ""
    certificate = _CERTIFICATE.search(text)
    if certificate is not None:
        if certificate[1] == "UnknownIssuer" or "CaUsedAsEndEntity" in certificate.groups():
            return untrusted(where, certificate[2] or certificate[1], secret)
        return bad_certificate(where, certificate[2] or certificate[1])
    if isinstance(error, FileNotFoundError):
        return refused(404, where, note, secret)
    status = _STATUS.search(text)
    if status is not None:
        return refused(int(status[1]), where, note, secret)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return refused(403, where, note, secret)
    if "without LOCATION" in text:
        return refused(301, where, ": another region has the bucket; set source.objectStore.region")
    if "TimedOut" in text or "kind: Timeout" in text:
        return unreachable(where, "nothing came for 20 s")
    system = _OS_ERROR.search(text)
    if system is not None:
        return unreachable(where, system[1])
    return unreachable(where, "it cannot be found by its name" if "dns error" in text else "the connection was cut")
