"""Names of OCI artifacts, and which credentials of a pull secret are for one. No network."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.strict_json import parse_object
from lorafleet.sources.secret import CA_KEY, Secret

CONFIG_KEY = ".dockerconfigjson"
"""The key of a Secret of type kubernetes.io/dockerconfigjson."""

_DOCKER = "docker.io"
_DOCKER_NAMES = frozenset({_DOCKER, "index.docker.io", "registry-1.docker.io"})
_REFERENCE = re.compile(
    r"(?P<registry>[A-Za-z0-9][\w.-]*(?::[0-9]+)?)/(?P<repository>[^:@]+)(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>.+))?"
)
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """``registry/repository:tag@digest``; a digest, where there is one, decides, and the tag is for people."""

    registry: str
    repository: str
    tag: str
    digest: str | None

    @property
    def host(self) -> str:
        """The host, perhaps with a port, that speaks the registry's API."""
        return "registry-1.docker.io" if self.registry == _DOCKER else self.registry

    @property
    def name(self) -> str:
        """What the manifest is asked for by."""
        return self.digest or self.tag


def parse_reference(text: str) -> Reference:
    """The parts of a reference as docker, oras and Kubernetes write it. Raises ArtifactError (SourceInvalid)."""
    found = _REFERENCE.fullmatch(text)
    if found is None or not all(_PART.fullmatch(part) for part in found["repository"].split("/")):
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"source.oci.reference {text!r} is no reference; expected registry/repository:tag or"
            " registry/repository@sha256:…, in small letters: correct it in a new version",
        )
    digest = found["digest"]
    if digest is not None and not DIGEST.fullmatch(digest):
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"source.oci.reference {text!r} has a digest that is no sha256; expected sha256: and 64 hex digits:"
            " correct it in a new version",
        )
    registry = found["registry"].lower()
    repository = found["repository"]
    if registry in _DOCKER_NAMES:
        registry = _DOCKER
        repository = repository if "/" in repository else f"library/{repository}"
    return Reference(registry, repository, found["tag"] or "latest", digest)


@dataclass(frozen=True, slots=True)
class Login:
    """Credentials of a registry: a user with a password, or an identity token to exchange for others."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The header for HTTP's basic authentication."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def login_for(reference: Reference, secret: Secret) -> Login | None:
    """The pull secret's credentials for a reference; None when it has none for it.

    As Kubernetes matches them: the longest entry whose host is the registry's (``*`` stands for a part of it) and
    whose path is the start of the repository's. Raises ArtifactError (SecretInvalid).
    """
    names = secret.names()
    if not names or (CONFIG_KEY not in names and CA_KEY in names):
        return None
    text = secret.text(CONFIG_KEY)
    if text is None:
        raise secret.invalid(
            f"has no key {CONFIG_KEY!r}", "make it of type kubernetes.io/dockerconfigjson, as kubectl does"
        )
    try:
        auths = parse_object(text.encode()).get("auths")
    except ValueError:
        auths = None
    if not isinstance(auths, dict):
        raise secret.invalid(f"has no JSON with 'auths' under {CONFIG_KEY!r}", "create it with kubectl")
    matching = [(len(key), key) for key in auths if _matches(key, reference)]
    if not matching:
        return None
    _, key = max(matching)
    return _login(auths[key], key, secret)


def _matches(key: str, reference: Reference) -> bool:
    host, _, path = re.sub(r"^https?://", "", key).partition("/")
    path = re.sub(r"^v[12](/|$)", "", path).strip("/")
    host = host.lower()
    if host in _DOCKER_NAMES:
        host = _DOCKER
    patterns, parts = host.split("."), reference.registry.split(".")
    if len(patterns) != len(parts) or not all(map(fnmatchcase, parts, patterns)):
        return False
    return not path or f"{reference.repository}/".startswith(f"{path}/")


def _login(entry: Any, key: str, secret: Secret) -> Login:
    """The credentials of one entry. Messages name the entry's host and nothing in it."""
    if not isinstance(entry, Mapping):
        entry = {}
    given = {name: entry.get(name) or "" for name in ("auth", "username", "password", "identitytoken")}
    if not all(isinstance(value, str) for value in given.values()):
        raise secret.invalid(f"has an entry for {key!r} whose values are not text", "create it with kubectl")
    username, password = given["username"], given["password"]
    if given["auth"]:
        try:
            username, colon, password = base64.b64decode(given["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise secret.invalid(
                f"has an entry for {key!r} whose auth is not the base64 of user:password", "create it with kubectl"
            )
    # Docker pads passwords with NUL.
    password = password.rstrip("\0")
    if not given["identitytoken"] and not (username and password):
        raise secret.invalid(
            f"has an entry for {key!r} without a user and password", "create it with kubectl, not with a docker helper"
        )
    return Login(username, password, given["identitytoken"])
