"""A source behind an HTTP address: its bytes from any offset, its errors by name, its headers to its own host alone."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source as SourceSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.sources import Place, Source, SourceFile, open_source
from tests.sources.origin import Origin, Page, certificates, origin

BODY = bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(BODY).hexdigest()
TOKEN = "s3cr3t-t0ken"
PATH = f"/a/adapter.tar.gz?token={TOKEN}"


@pytest.fixture
def server() -> Iterator[Origin]:
    with origin() as running:
        running.pages[PATH] = Page(BODY)
        yield running


@pytest.fixture
def other() -> Iterator[Origin]:
    with origin() as running:
        running.pages["/final"] = Page(BODY)
        yield running


def opened(url: str, secret: Path | None = None, wanted: Wanted | None = None) -> Source:
    http = {"url": url, "sha256": SHA256, **({"secretName": "web"} if secret else {})}
    return open_source(SourceSpec.model_validate({"http": http}), Place(secret=secret), wanted or Wanted())


def listed(source: Source) -> SourceFile:
    (file,) = source.listing().files
    return file


def content(source: Source, start: int = 0) -> bytes:
    return b"".join(source.read(listed(source), start))


def refused(source: Source, start: int = 0) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        content(source, start)
    # The rule of every message: nothing of the query, of a header, or of what the server sent.
    assert TOKEN not in caught.value.message
    return caught.value


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    (folder / "..data").mkdir(parents=True)
    (folder / "X-Token").write_text(TOKEN + "\n")
    (folder / "Authorization").write_text(f"Bearer {TOKEN}")
    return folder


def test_an_archive_is_listed_with_its_size_and_the_specs_checksum(server: Origin) -> None:
    source = opened(server.url + PATH)
    listing = source.listing()
    (file,) = listing.files
    assert (file.path, file.size, file.archive) == ("adapter.tar.gz", len(BODY), True)
    assert file.checksum is not None
    assert (file.checksum.algorithm, file.checksum.value) == ("sha256", SHA256)
    assert listing.pin == f"sha256:{SHA256}"
    assert TOKEN not in str(source.describe()) + file.path + file.identity
    source.confirm(listing)


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("start", [0, 1, 65_535, 65_536, 65_537, 1_048_576, len(BODY) - 1, len(BODY), len(BODY) + 5])
def test_bytes_come_from_any_offset(server: Origin, start: int, ranges: bool, length: bool) -> None:
    server.pages[PATH].ranges = ranges
    server.pages[PATH].length = length
    if start > len(BODY) and not length:
        assert content(opened(server.url + PATH), len(BODY)) == b""
    else:
        assert content(opened(server.url + PATH), start) == BODY[start:]


def test_a_server_that_refuses_head_is_read(server: Origin) -> None:
    server.pages[PATH].head = False
    source = opened(server.url + PATH)
    assert listed(source).size is None
    assert content(source) == BODY


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.SOURCE_DENIED),
        (403, Reason.SOURCE_DENIED),
        (404, Reason.SOURCE_NOT_FOUND),
        (410, Reason.SOURCE_NOT_FOUND),
        (418, Reason.SOURCE_DENIED),
        (429, Reason.SOURCE_UNREACHABLE),
        (500, Reason.SOURCE_UNREACHABLE),
        (503, Reason.SOURCE_UNREACHABLE),
    ],
)
def test_each_status_has_its_reason(server: Origin, status: int, reason: Reason) -> None:
    server.pages[PATH] = Page(TOKEN.encode(), status=status)
    error = refused(opened(server.url + PATH))
    assert error.reason is reason
    assert str(status) in error.message


def test_a_cut_connection_is_unreachable_and_what_came_is_kept(server: Origin) -> None:
    server.pages[PATH].cut_after = 300_000
    source = opened(server.url + PATH)
    file = listed(source)
    got = bytearray()
    cuts = 0
    while len(got) < len(BODY):
        try:
            for chunk in source.read(file, len(got)):
                got += chunk
        except ArtifactError as error:
            assert error.reason is Reason.SOURCE_UNREACHABLE
            cuts += 1
    assert bytes(got) == BODY
    assert cuts == len(BODY) // 300_000


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with origin() as gone:
        url = gone.url
    assert refused(opened(url + PATH)).reason is Reason.SOURCE_UNREACHABLE


@pytest.mark.parametrize("page", [Page(BODY, etag='"2"'), Page(BODY + b"more"), Page(BODY[:-1])])
def test_a_file_that_changed_since_it_was_listed_is_not_gone_on_with(server: Origin, page: Page) -> None:
    source = opened(server.url + PATH)
    file = listed(source)
    server.pages[PATH] = page
    with pytest.raises(ArtifactError) as caught:
        list(source.read(file, 1000))
    assert caught.value.reason is Reason.SOURCE_CHANGED


def test_each_key_of_the_secret_is_a_header(server: Origin, secret: Path) -> None:
    content(opened(server.url + PATH, secret))
    assert server.headers(PATH)
    for headers in server.headers(PATH):
        assert (headers["X-Token"], headers["Authorization"]) == (TOKEN, f"Bearer {TOKEN}")


def test_headers_stay_with_their_host(server: Origin, other: Origin, secret: Path) -> None:
    server.pages[PATH] = Page(status=302, location=f"{other.url}/final")
    assert content(opened(server.url + PATH, secret)) == BODY
    assert other.headers("/final")
    assert TOKEN not in str(other.requests)


def test_headers_go_along_on_the_same_host(server: Origin, secret: Path) -> None:
    server.pages[PATH] = Page(status=307, location="/b")
    server.pages["/b"] = Page(BODY)
    assert content(opened(server.url + PATH, secret)) == BODY
    assert all(headers["X-Token"] == TOKEN for headers in server.headers("/b"))


def test_who_is_refused_after_a_redirect_is_told_where_headers_went(
    server: Origin, other: Origin, secret: Path
) -> None:
    server.pages[PATH] = Page(status=302, location=f"{other.url}/final")
    other.pages["/final"] = Page(status=403)
    assert "redirect to 127.0.0.1" in refused(opened(server.url + PATH, secret)).message


def test_a_redirect_without_end_is_refused(server: Origin) -> None:
    server.pages[PATH] = Page(status=302, location=PATH)
    assert refused(opened(server.url + PATH)).reason is Reason.SOURCE_DENIED


def test_a_redirect_to_files_of_the_job_is_refused(server: Origin) -> None:
    server.pages[PATH] = Page(status=302, location="file:///etc/passwd")
    assert refused(opened(server.url + PATH)).reason is Reason.SOURCE_DENIED


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path, other: Origin) -> None:
    authority, certificate = certificates(tmp_path)
    with origin(certificate) as server:
        server.pages[PATH] = Page(status=302, location=f"{other.url}/final")
        assert refused(opened(server.url + PATH, _secret(tmp_path, authority))).reason is Reason.SOURCE_INVALID
    assert other.requests == []


def test_a_redirect_from_http_to_https_is_followed(tmp_path: Path, server: Origin) -> None:
    authority, certificate = certificates(tmp_path)
    with origin(certificate) as secure:
        secure.pages["/final"] = Page(BODY)
        server.pages[PATH] = Page(status=302, location=f"{secure.url}/final")
        assert content(opened(server.url + PATH, _secret(tmp_path, authority))) == BODY


def test_an_authority_of_the_secret_is_trusted_and_no_other(tmp_path: Path) -> None:
    authority, certificate = certificates(tmp_path)
    with origin(certificate) as server:
        server.pages[PATH] = Page(BODY)
        assert content(opened(server.url + PATH, _secret(tmp_path, authority)), 5) == BODY[5:]
        error = refused(opened(server.url + PATH))
    assert error.reason is Reason.SECRET_INVALID
    assert "ca.crt" in error.message


@pytest.mark.parametrize(("name", "days"), [("elsewhere.example", 1), ("127.0.0.1", -1)])
def test_a_certificate_of_another_host_or_time_is_refused(tmp_path: Path, name: str, days: int) -> None:
    authority, certificate = certificates(tmp_path, name, days)
    with origin(certificate) as server:
        server.pages[PATH] = Page(BODY)
        error = refused(opened(server.url + PATH, _secret(tmp_path, authority)))
    assert error.reason is Reason.SOURCE_DENIED
    assert "renew" in error.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ca.crt", b"no certificate"),
        ("ca.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("Range", b"bytes=0-1"),
        ("X-Two-Lines", TOKEN.encode() + b"\nX-Injected: 1"),
        ("X-Binary", TOKEN.encode() + b"\xff"),
        ("X-Empty", b"\n"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(server: Origin, secret: Path, key: str, value: bytes) -> None:
    (secret / key).write_bytes(value)
    with pytest.raises(ArtifactError) as caught:
        content(opened(server.url + PATH, secret))
    assert caught.value.reason is Reason.SECRET_INVALID
    assert key in caught.value.message
    assert TOKEN not in caught.value.message


@pytest.mark.parametrize("mounted", [True, False])
def test_a_secret_that_is_not_there_is_named(server: Origin, tmp_path: Path, mounted: bool) -> None:
    http = {"url": server.url + PATH, "sha256": SHA256, "secretName": "web"}
    with pytest.raises(ArtifactError) as caught:
        open_source(SourceSpec.model_validate({"http": http}), Place(secret=tmp_path if mounted else None), Wanted())
    assert caught.value.reason is Reason.SECRET_INVALID
    assert "web" in caught.value.message


@pytest.mark.parametrize("known", [True, False])
def test_limits_hold_also_for_a_server_that_says_no_size(server: Origin, known: bool) -> None:
    server.pages[PATH].head = known
    source = opened(server.url + PATH, wanted=Wanted(limits=Limits(max_bytes=len(BODY) - 1)))
    assert refused(source).reason is Reason.SIZE_LIMIT_EXCEEDED


def test_files_of_a_list_are_chosen_and_found_below_the_address(server: Origin) -> None:
    names = ["adapter_config.json", "adapter_model.safetensors", "optimizer.pt"]
    for name in names:
        server.pages[f"/a/{name}?k=1"] = Page(name.encode())
    files = [{"path": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names]
    spec = SourceSpec.model_validate({"http": {"url": f"{server.url}/a/?k=1", "files": files}})
    source = open_source(spec, Place(), Wanted())
    listing = source.listing()
    assert [file.path for file in listing.files] == names[:2]
    for file in listing.files:
        assert b"".join(source.read(file, 3)) == file.path.encode()[3:]
        assert file.checksum is not None
        assert file.checksum.value == hashlib.sha256(file.path.encode()).hexdigest()


def _secret(folder: Path, authority: Path) -> Path:
    (folder / "trusted").mkdir()
    (folder / "trusted" / "ca.crt").write_bytes(authority.read_bytes())
    return folder / "trusted"
