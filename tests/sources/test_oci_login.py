"""Logging in to a registry: who gets which credentials, and what happens when they run out."""

import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from urllib.parse import parse_qs, urlsplit

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source as SourceSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Wanted
from lorafleet.sources import Place, Source, open_source
from tests.sources.origin import Origin, Page, certificates, origin

PASSWORD = "the-pass:word"
BASIC = "Basic " + base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
TOKENS = [f"tok3n-{number}" for number in range(3)]
IDENTITY = "the-identity-token"
SECRETS = [PASSWORD, BASIC.split()[1], IDENTITY, *TOKENS]
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(range(256)) * 1000}
REPOSITORY = "acme/lora"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


WEIGHTS = f"/v2/{REPOSITORY}/blobs/{digest(FILES['adapter_model.safetensors'])}"
MANIFEST = f"/v2/{REPOSITORY}/manifests/1.0"


class Scripted:
    """A registry of one artifact, with pages for its token service on the same or another server."""

    def __init__(self, server: Origin, authority: Path | None, folder: Path) -> None:
        self.server = server
        self.secret = folder
        self.secret.mkdir(exist_ok=True)
        if authority is not None:
            (self.secret / "ca.crt").write_text(authority.read_text())
        self.address = urlsplit(server.url).netloc
        self.login(username="robot", password=PASSWORD)
        layers = []
        for name, data in FILES.items():
            server.pages[f"/v2/{REPOSITORY}/blobs/{digest(data)}"] = Page(data)
            title = {"org.opencontainers.image.title": name}
            kind = "application/octet-stream"
            layers.append({"mediaType": kind, "digest": digest(data), "size": len(data), "annotations": title})
        body = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
        server.pages[MANIFEST] = Page(json.dumps(body).encode())

    def login(self, **entry: str) -> None:
        """Put credentials into the pull Secret."""
        (self.secret / ".dockerconfigjson").write_text(json.dumps({"auths": {self.address: entry}}))

    def ask_for(self, authorization: str, challenge: str) -> None:
        """From now on the registry wants this header."""
        for path, page in self.server.pages.items():
            if path.startswith("/v2/"):
                page.authorization, page.headers = authorization, {"WWW-Authenticate": challenge}

    def give(self, token: str, key: str = "token", **page: str) -> Page:
        """From now on the registry wants this token, and its token service gives it for the credentials."""
        self.ask_for(f"Bearer {token}", f'Bearer realm="{self.server.url}/token?a=b",service="reg istry",scope="x:y:*"')
        given = Page(json.dumps({key: token, "expires_in": 60}).encode(), **page)  # type: ignore[arg-type]
        self.server.pages[self.token_path] = given
        return given

    @property
    def token_path(self) -> str:
        """What the token service is asked: this repository, to pull, whatever the challenge's scope was."""
        return "/token?a=b&service=reg+istry&scope=repository%3Aacme%2Flora%3Apull"

    def opened(self, **spec: object) -> Source:
        """A source that has not asked anything."""
        plain = self.server.url.startswith("http:")
        given = {"reference": f"{self.address}/{REPOSITORY}:1.0", "plainHttp": plain, "pullSecretName": "pull", **spec}
        return open_source(SourceSpec.model_validate({"oci": given}), Place(secret=self.secret), Wanted())


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    with origin() as server:
        yield Scripted(server, None, tmp_path / "secret")


@pytest.fixture
def other() -> Iterator[Origin]:
    with origin() as running:
        yield running


def everything(source: Source) -> dict[str, bytes]:
    return {file.path: b"".join(source.read(file, 0)) for file in source.listing().files}


def refused(source: Source) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        everything(source)
    for secret in SECRETS:
        assert secret not in caught.value.message
    return caught.value


def sent(server: Origin, path: str) -> list[str | None]:
    """The Authorization of each request for a path."""
    return [headers.get("Authorization") for headers in server.headers(path)]


def test_credentials_are_not_sent_before_they_are_asked_for(scripted: Scripted) -> None:
    assert everything(scripted.opened()) == FILES
    assert all("Authorization" not in headers for _, _, headers in scripted.server.requests)


def test_a_registry_with_basic_authentication_gets_it_for_everything(scripted: Scripted) -> None:
    scripted.ask_for(BASIC, 'Basic realm="a registry"')
    assert everything(scripted.opened()) == FILES
    assert sent(scripted.server, MANIFEST) == [None, BASIC]
    assert sent(scripted.server, WEIGHTS) == [BASIC]


@pytest.mark.parametrize("key", ["token", "access_token"])
def test_a_token_is_asked_with_the_credentials_and_sent_alone(scripted: Scripted, key: str) -> None:
    scripted.give(TOKENS[0], key, authorization=BASIC)
    assert everything(scripted.opened()) == FILES
    assert sent(scripted.server, scripted.token_path) == [BASIC]
    assert sent(scripted.server, WEIGHTS) == [f"Bearer {TOKENS[0]}"]


def test_a_token_that_ran_out_is_asked_anew(scripted: Scripted) -> None:
    scripted.give(TOKENS[0])
    source = scripted.opened()
    listing = source.listing()
    for token in TOKENS[1:]:
        scripted.give(token)
        assert {file.path: b"".join(source.read(file, 0)) for file in listing.files} == FILES
    scripted.give(TOKENS[0])
    assert source.listing() == listing


def test_one_token_serves_files_that_are_read_side_by_side(scripted: Scripted) -> None:
    scripted.give(TOKENS[0])
    source = scripted.opened()
    (_, weights) = source.listing().files
    scripted.give(TOKENS[1])
    together = Barrier(8)

    def read(_: int) -> bytes:
        together.wait()
        return b"".join(source.read(weights, 0))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(8))) == {FILES[weights.path]}
    assert len(sent(scripted.server, scripted.token_path)) == 2


def test_an_identity_token_is_exchanged(scripted: Scripted) -> None:
    scripted.login(identitytoken=IDENTITY, auth=base64.b64encode(b"robot:").decode())
    scripted.give(TOKENS[0])
    page = Page(json.dumps({"access_token": TOKENS[0]}).encode())
    scripted.server.pages["/token?a=b"] = page
    assert everything(scripted.opened()) == FILES
    assert parse_qs(page.posted.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": [IDENTITY],
        "service": ["reg istry"],
        "scope": ["repository:acme/lora:pull"],
        "client_id": ["lorafleet"],
    }


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_token_service_that_refuses_is_a_denial(scripted: Scripted, status: int) -> None:
    scripted.give(TOKENS[0]).status = status
    error = refused(scripted.opened())
    assert error.reason is Reason.SOURCE_DENIED
    assert "Secret pull" in error.message


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"token": ""}', b'{"token": "a b"}', b'{"token": 1}'])
def test_a_token_service_that_gives_no_token_is_named(scripted: Scripted, body: bytes) -> None:
    scripted.give(TOKENS[0]).body = body
    error = refused(scripted.opened())
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "token service" in error.message


def test_a_token_service_that_is_down_is_tried_again(scripted: Scripted) -> None:
    scripted.give(TOKENS[0]).status = 503
    assert refused(scripted.opened()).reason is Reason.SOURCE_UNREACHABLE


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Bearer", 'Bearer realm="ftp://x"', 'Bearer realm="///"'])
def test_a_challenge_that_cannot_be_met_ends_it(scripted: Scripted, challenge: str) -> None:
    scripted.ask_for("nothing that is ever sent", challenge)
    assert refused(scripted.opened()).reason in (Reason.SOURCE_DENIED, Reason.SOURCE_INVALID)
    assert sent(scripted.server, MANIFEST) == [None]


def test_nothing_is_sent_to_a_token_service_without_tls(tmp_path: Path, other: Origin) -> None:
    authority, certificate = certificates(tmp_path)
    with origin(certificate) as server:
        scripted = Scripted(server, authority, tmp_path / "secret")
        scripted.ask_for("Bearer x", f'Bearer realm="{other.url}/token"')
        error = refused(scripted.opened())
    assert error.reason is Reason.SOURCE_INVALID
    assert "https" in error.message
    assert other.requests == []


@pytest.mark.parametrize("path", [MANIFEST, WEIGHTS])
def test_credentials_do_not_follow_a_redirect(scripted: Scripted, other: Origin, path: str) -> None:
    body = scripted.server.pages[path].body
    scripted.server.pages[path] = Page(status=307, location=f"{other.url}/storage?signature=1")
    other.pages["/storage?signature=1"] = Page(body)
    scripted.ask_for(BASIC, "Basic")
    assert everything(scripted.opened()) == FILES
    assert len(other.requests) == 1
    assert "Authorization" not in str(other.requests)


def test_another_server_cannot_ask_for_the_credentials(scripted: Scripted, other: Origin) -> None:
    scripted.server.pages[MANIFEST] = Page(status=307, location=f"{other.url}/manifest")
    other.pages["/manifest"] = Page(
        authorization="x", headers={"WWW-Authenticate": f'Bearer realm="{other.url}/token"'}
    )
    assert refused(scripted.opened()).reason is Reason.SOURCE_DENIED
    assert [path for _, path, _ in other.requests] == ["/manifest"]


def test_storage_that_refuses_is_told_apart_from_the_registry(scripted: Scripted, other: Origin) -> None:
    scripted.server.pages[WEIGHTS] = Page(status=307, location=f"{other.url}/signed?by={TOKENS[0]}")
    other.pages[f"/signed?by={TOKENS[0]}"] = Page(status=403)
    scripted.ask_for(BASIC, "Basic")
    error = refused(scripted.opened())
    assert error.reason is Reason.SOURCE_DENIED
    assert "redirect to 127.0.0.1" in error.message


def test_a_manifest_that_is_too_large_is_not_read_to_its_end(scripted: Scripted) -> None:
    scripted.server.pages[MANIFEST].body = b" " * (4 * 1024 * 1024 + 1)
    assert refused(scripted.opened()).reason is Reason.SOURCE_INVALID


def test_a_manifest_that_is_not_what_the_registry_says_it_is_is_damaged(scripted: Scripted) -> None:
    scripted.server.pages[MANIFEST].headers = {"Docker-Content-Digest": digest(b"another")}
    assert refused(scripted.opened()).reason is Reason.SOURCE_CORRUPT


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_tried_again(scripted: Scripted, status: int) -> None:
    scripted.server.pages[MANIFEST].status = status
    assert refused(scripted.opened()).reason is Reason.SOURCE_UNREACHABLE
