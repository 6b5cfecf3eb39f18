"""A registry as the OCI distribution specification has it, for pulling alone: manifests and blobs, and logging in.

Credentials go to the registry, and to the token service that the registry itself names over TLS; never along with a
redirect, which blobs are usually answered with. What is asked for by a digest is checked against it: here for
manifests, by whoever fetches for blobs.
"""

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.strict_json import parse_object
from lorafleet.sources.oci_reference import DIGEST, Reference, login_for
from lorafleet.sources.remote import corrupt, unreachable
from lorafleet.sources.secret import Secret
from lorafleet.sources.web import Answer, Web, origin

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_MANIFEST_BYTES = 4 * 1024 * 1024
"""What the specification asks registries to take at least, and what most of them take at most."""

_TOKEN_BYTES = 1024 * 1024
_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index: its content, its own digest and its media type."""

    content: Mapping[str, Any]
    digest: str
    media_type: str


class Registry:
    """A repository of a registry; for several threads at once."""

    def __init__(self, reference: Reference, plain_http: bool, secret: Secret) -> None:
        """Raises ArtifactError (SecretInvalid)."""
        self._web = Web(secret)
        self._reference = reference
        self._plain_http = plain_http
        self._secret = secret
        self._login = login_for(reference, secret)
        self._root = f"{'http' if plain_http else 'https'}://{reference.host}/v2/{reference.repository}"
        self._authorization = ""
        self._lock = threading.Lock()

    def manifest(self, name: str, where: str) -> Document:
        """The manifest or index of a tag or digest, as it was pushed. Raises ArtifactError."""
        url = f"{self._root}/manifests/{name}"
        accept = {"Accept": ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))}
        for last in (False, True):
            used = self._authorization
            with self._web.ask(
                url, where, headers=accept, credentials=_header(used), allow=lambda status: status == 401
            ) as answer:
                if answer.status == 401:
                    self._enter(answer, used, last, where)
                    continue
                body = answer.document(_MANIFEST_BYTES)
                declared = answer.headers.get("Docker-Content-Digest") or ""
                media_type = (answer.headers.get("Content-Type") or "").partition(";")[0].strip()
                break
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        for expected in (name, declared):
            if DIGEST.fullmatch(expected) and expected != digest:
                raise corrupt(where, f"the registry sends a manifest with the digest {digest} for {expected}")
        try:
            content = parse_object(body)
        except ValueError:
            raise ArtifactError(
                Reason.SOURCE_INVALID, f"{where} has a manifest that is no JSON object: push it anew as a new version"
            ) from None
        named = content.get("mediaType")
        return Document(content, digest, named if isinstance(named, str) else media_type)

    def blob(self, digest: str, start: int, size: int | None, where: str) -> Iterator[bytes]:
        """The bytes of a blob from ``start`` on. Raises ArtifactError."""
        url = f"{self._root}/blobs/{digest}"
        for last in (False, True):
            used = self._authorization
            try:
                yield from self._web.read(url, start, where, size=size, credentials=_header(used))
                return
            except ArtifactError as error:
                if error.reason is Reason.SOURCE_CHANGED:
                    raise corrupt(where, "the registry sends another size than the manifest says") from None
                if error.reason is not Reason.SOURCE_DENIED or last or not self._renew(url, used, where):
                    raise

    def _renew(self, url: str, used: str, where: str) -> bool:
        """Log in for what was refused: a token may have run out. Whether there is a login at all."""
        with self._web.ask(url, where, method="HEAD", allow=lambda status: True) as answer:
            if answer.status != 401:
                return False
            self._enter(answer, used, False, where)
            return True

    def _enter(self, answer: Answer, used: str, last: bool, where: str) -> None:
        """Log in as a 401 asks. ``used``: what was refused; another thread may have logged in since."""
        if last or origin(answer.url) != origin(self._root):
            raise self._denied(where)
        with self._lock:
            if self._authorization == used:
                self._authorization = self._authorize(answer.headers.get("WWW-Authenticate") or "", where)

    def _authorize(self, challenge: str, where: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._login is not None and self._login.password:
            return self._login.basic
        if scheme.lower() == "bearer":
            parameters = {found[1].lower(): found[2] or found[3] or "" for found in _PARAMETER.finditer(rest)}
            return f"Bearer {self._token(parameters, where)}"
        raise self._denied(where)

    def _token(self, parameters: Mapping[str, str], where: str) -> str:
        """A token that reads this repository and may do nothing else, whatever the registry proposes."""
        realm = parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in (("https", "http") if self._plain_http else ("https",)) or not parts.hostname:
            raise ArtifactError(
                Reason.SOURCE_INVALID,
                f"{where} is behind a token service that does not speak https, to which nothing is sent: correct the"
                " registry, or set source.oci.plainHttp in a new version when it is inside the cluster",
            )
        service = {"service": parameters["service"]} if parameters.get("service") else {}
        asked = {**service, "scope": f"repository:{self._reference.repository}:pull"}
        at = f"token service {parts.hostname} of {where}"
        data, url, credentials = None, f"{realm}{'&' if parts.query else '?'}{urlencode(asked)}", {}
        if self._login is not None and self._login.identity_token:
            grant = {"grant_type": "refresh_token", "refresh_token": self._login.identity_token}
            data, url = urlencode({**asked, **grant, "client_id": "lorafleet"}).encode(), realm
        elif self._login is not None:
            credentials = _header(self._login.basic)
        with self._web.ask(
            url,
            at,
            method="GET" if data is None else "POST",
            credentials=credentials,
            data=data,
            allow=lambda status: status in (400, 401, 403),
        ) as answer:
            if answer.status != 200:
                raise self._denied(where)
            try:
                found = parse_object(answer.document(_TOKEN_BYTES))
            except ValueError:
                raise unreachable(at, "the answer is no JSON object") from None
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise unreachable(at, "the answer has no token")
        return token

    def _denied(self, where: str) -> ArtifactError:
        host = self._reference.registry
        if self._login is not None:
            move = (
                f"correct the entry for {host} in Secret {self._secret.name}, and allow its user to pull"
                f" {self._reference.repository}"
            )
        elif self._secret.name:
            move = f"add an entry for {host} to Secret {self._secret.name}, which has none"
        else:
            move = (
                f"put credentials for {host} into a Secret of type kubernetes.io/dockerconfigjson of this namespace,"
                " and name it in source.oci.pullSecretName"
            )
        return ArtifactError(
            Reason.SOURCE_DENIED, f"{where} may not be read, or does not exist (the registry answered 401): {move}"
        )


def _header(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization} if authorization else {}
