"""A folder in an object store, against a real server of each kind: bytes from any offset, errors by name."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source as SourceSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.sources import Listing, Place, Source, open_source
from tests.servers.azure import azure
from tests.servers.bucket import Bucket
from tests.servers.certificates import tls
from tests.servers.gcs import gcs
from tests.servers.s3 import s3 as s3_server
from tests.sources.cutting import cutting
from tests.sources.origin import origin

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
BODY = os.urandom(3_200_000)


SERVERS = {"s3": s3_server, "gs": gcs, "az": azure}


@pytest.fixture(scope="module", params=SERVERS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with SERVERS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


def nowhere(scheme: str, endpoint: str, **keys: str) -> Bucket:
    """A bucket that is not there."""
    return Bucket(scheme, "b", endpoint, keys, {}, lambda *_: None)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    return f"models/{abs(hash(request.node.name))}/1.0"


Opener = Callable[..., Source]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    """Opens a folder of a bucket with the bucket's own credentials, or others."""

    def open_(
        store: Bucket,
        folder: str,
        keys: dict[str, str] | None = None,
        pin: str | None = None,
        wanted: Wanted | None = None,
        **spec: str,
    ) -> Source:
        keys = dict(store.keys) if keys is None else keys
        secret = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        secret.mkdir()
        for key, value in keys.items():
            (secret / key).write_text(value + "\n")
        named = {"secretName": "bucket"} if keys else {}
        given = {"url": store.url(folder), "endpoint": store.endpoint, **named, **spec}
        found = SourceSpec.model_validate({"objectStore": given})
        return open_source(found, Place(secret=secret if keys else None), wanted or Wanted(), pin)

    return open_


def filled(store: Bucket, folder: str) -> None:
    store.put(f"{folder}/{CONFIG}", b"{}")
    store.put(f"{folder}/{WEIGHTS}", BODY)
    store.put(f"{folder}/optimizer.pt", b"not part of an adapter")
    store.put(f"{folder}/checkpoint-1/{WEIGHTS}", b"nor is this")
    store.put(f"{folder}-other/{WEIGHTS}", b"nor this")


def refused(call: Callable[[], object], store: Bucket, *others: str) -> ArtifactError:
    """The error of a call, whose message must not hold any of the secrets."""
    with pytest.raises(ArtifactError) as caught:
        call()
    for secret in (*store.secrets, *others):
        assert secret not in caught.value.message
    return caught.value


def content(source: Source, listing: Listing, start: int) -> bytes:
    (weights,) = [file for file in listing.files if file.path == WEIGHTS]
    return b"".join(source.read(weights, start))


def test_the_adapters_objects_of_the_folder_are_listed(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    source = opened(store, folder + "/")
    listing = source.listing()
    assert [(file.path, file.size) for file in listing.files] == [(CONFIG, 2), (WEIGHTS, len(BODY))]
    assert listing.pin.startswith("objects:")
    assert listing == opened(store, folder, pin=listing.pin).listing()
    source.confirm(listing)
    assert source.describe()["url"] == store.url(folder + "/")


def test_bytes_come_from_any_offset(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    source = opened(store, folder)
    listing = source.listing()
    for start in (0, 1, 1_048_575, 1_048_576, 1_048_577, len(BODY) - 1, len(BODY), len(BODY) + 1):
        assert content(source, listing, start) == BODY[start:], start


def test_an_object_that_was_replaced_is_not_read_on(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    source = opened(store, folder)
    listing = source.listing()
    store.put(f"{folder}/{WEIGHTS}", BODY[::-1])
    for start in (0, 1000):
        assert refused(lambda at=start: content(source, listing, at), store).reason is Reason.SOURCE_CHANGED
    assert refused(lambda: source.confirm(listing), store).reason is Reason.SOURCE_CHANGED


def test_an_object_that_was_removed_is_noticed(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    source = opened(store, folder)
    listing = source.listing()
    store.delete(f"{folder}/{WEIGHTS}")
    assert refused(lambda: content(source, listing, 0), store).reason is Reason.SOURCE_CHANGED
    assert refused(lambda: source.confirm(listing), store).reason is Reason.WEIGHTS_MISSING


def test_a_pin_does_not_move(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    pin = opened(store, folder).listing().pin
    store.put(f"{folder}/README.md", b"one more file of the adapter")
    error = refused(lambda: opened(store, folder, pin=pin).listing(), store)
    assert error.reason is Reason.SOURCE_INVALID
    assert "new version" in error.message


def test_what_is_no_part_of_the_adapter_does_not_move_a_pin(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    pin = opened(store, folder).listing().pin
    store.put(f"{folder}/optimizer.pt", b"grown")
    assert opened(store, folder, pin=pin).listing().pin == pin


def test_a_folder_without_objects_is_not_found(store: Bucket, opened: Opener) -> None:
    error = refused(lambda: opened(store, "models/nowhere").listing(), store)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "bucket" in error.message


def test_a_bucket_that_is_not_there_is_not_found(store: Bucket, opened: Opener) -> None:
    error = refused(lambda: opened(store, "", url=f"{store.scheme}://no-such-bucket/a").listing(), store)
    # fake-gcs-server answers 500 where Google's answers 404.
    assert error.reason is (Reason.SOURCE_UNREACHABLE if store.scheme == "gs" else Reason.SOURCE_NOT_FOUND)


def test_limits_hold_for_names_and_sizes(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    # Three objects are in the folder; what is in folders below it does not count.
    opened(store, folder, wanted=Wanted(Limits(max_entries=3))).listing()
    for limits in (Limits(max_entries=2), Limits(max_bytes=1000)):
        error = refused(lambda held=limits: opened(store, folder, wanted=Wanted(held)).listing(), store)
        assert error.reason is Reason.SIZE_LIMIT_EXCEEDED


def test_a_wrong_key_is_denied(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    if not store.wrong_keys:
        pytest.skip("this server checks no keys")
    error = refused(lambda: opened(store, folder, keys=dict(store.wrong_keys)).listing(), store)
    assert error.reason is Reason.SOURCE_DENIED
    assert "403" in error.message


def test_without_a_secret_a_private_bucket_is_denied(store: Bucket, folder: str, opened: Opener) -> None:
    filled(store, folder)
    if not store.wrong_keys:
        pytest.skip("this server checks no keys")
    error = refused(lambda: opened(store, folder, keys={}).listing(), store)
    assert error.reason in (Reason.SOURCE_DENIED, Reason.SOURCE_NOT_FOUND)


def test_an_access_key_that_the_store_does_not_know_reads_like_a_missing_folder(s3: Bucket, opened: Opener) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "UNKNOWNKEY", "AWS_SECRET_ACCESS_KEY": "unknownsecret"}
    error = refused(lambda: opened(s3, "a", keys=keys).listing(), s3, *keys.values())
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "key in Secret bucket" in error.message


@pytest.mark.parametrize(
    ("scheme", "keys", "named"),
    [
        ("s3", {"AWS_ACCESS_KEY_ID": "x"}, "AWS_SECRET_ACCESS_KEY"),
        ("s3", {"AWS_SECRET_ACCESS_KEY": "hidden"}, "AWS_ACCESS_KEY_ID"),
        ("s3", {"AWS_METADATA_ENDPOINT": "http://hidden"}, "AWS_METADATA_ENDPOINT"),
        ("s3", {"aws_bucket": "hidden"}, "aws_bucket"),
        ("s3", {"AWS_ACCESS_KEY_ID": "x", "aws_access_key_id": "hidden"}, "AWS_ACCESS_KEY_ID"),
        ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/hidden"}, "GOOGLE_APPLICATION_CREDENTIALS"),
        ("gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": "hidden"}, "GOOGLE_SERVICE_ACCOUNT_KEY"),
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": "hidden hidden"}, "AZURE_STORAGE_ACCOUNT_KEY"),
        ("az", {"AZURE_STORAGE_CLIENT_ID": "hidden"}, "AZURE_STORAGE_CLIENT_SECRET"),
        ("s3", {"ca.crt": "hidden"}, "ca.crt"),
        ("s3", {"ca.crt": "-----BEGIN CERTIFICATE-----\nhidden\n-----END CERTIFICATE-----"}, "ca.crt"),
        ("s3", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "hidden"}, "AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_key_that_cannot_be_used_is_named(opened: Opener, scheme: str, keys: dict[str, str], named: str) -> None:
    store = nowhere(scheme, "http://127.0.0.1:1/account")
    error = refused(lambda: opened(store, "a", keys=keys).listing(), store, "hidden")
    assert error.reason is Reason.SECRET_INVALID
    assert named in error.message


@pytest.mark.parametrize("path", ["a//b", "a/../b"])
def test_paths_that_stores_do_not_have_are_refused(opened: Opener, path: str) -> None:
    store = nowhere("s3", "http://127.0.0.1:1")
    assert refused(lambda: opened(store, path), store).reason is Reason.SOURCE_INVALID


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "https://127.0.0.1:1", "http://nowhere.invalid"])
def test_a_store_that_cannot_be_reached_is_unreachable(opened: Opener, endpoint: str) -> None:
    store = nowhere("s3", endpoint, AWS_ACCESS_KEY_ID="id-1", AWS_SECRET_ACCESS_KEY="key-1")
    assert refused(lambda: opened(store, "a").listing(), store).reason is Reason.SOURCE_UNREACHABLE


def test_an_azure_account_must_be_known(opened: Opener) -> None:
    spec = SourceSpec.model_validate({"objectStore": {"url": "az://models/a"}})
    with pytest.raises(ArtifactError) as caught:
        open_source(spec, Place(), Wanted())
    assert caught.value.reason is Reason.SOURCE_INVALID
    assert "AZURE_STORAGE_ACCOUNT_NAME" in caught.value.message


def test_an_authority_of_the_secret_is_trusted_and_no_other(tmp_path: Path, opened: Opener) -> None:
    pair = tls(tmp_path / "tls")
    with s3_server(tmp_path / "store", tls=pair) as secure:
        filled(secure, "a")
        trusting = opened(secure, "a", keys={**secure.keys, "ca.crt": pair.ca})
        assert content(trusting, trusting.listing(), 5) == BODY[5:]
        error = refused(lambda: opened(secure, "a").listing(), secure)
    assert error.reason is Reason.SECRET_INVALID
    assert "ca.crt into Secret bucket" in error.message


def test_a_certificate_of_another_host_is_refused(tmp_path: Path, opened: Opener) -> None:
    pair = tls(tmp_path / "tls", "elsewhere.example")
    with s3_server(tmp_path / "store", tls=pair) as secure:
        keys = {**secure.keys, "ca.crt": pair.ca}
        error = refused(lambda: opened(secure, "a", keys=keys).listing(), secure)
    assert error.reason is Reason.SOURCE_DENIED
    assert "renew" in error.message


def test_a_cut_connection_is_gone_on_from(s3: Bucket, opened: Opener) -> None:
    filled(s3, "cut")
    with cutting(s3.endpoint, after=400_000) as (endpoint, cuts):
        source = opened(s3, "cut", endpoint=endpoint)
        listing = source.listing()
        (weights,) = [file for file in listing.files if file.path == WEIGHTS]
        got = bytearray()
        while len(got) < len(BODY):
            before = len(got)
            try:
                for chunk in source.read(weights, len(got)):
                    got += chunk
            except ArtifactError as error:
                assert error.reason is Reason.SOURCE_UNREACHABLE
                assert len(got) > before
    assert bytes(got) == BODY
    assert len(cuts) >= len(BODY) // 400_000


@pytest.mark.parametrize(
    ("scheme", "variable"),
    [("s3", "AWS_METADATA_ENDPOINT"), ("gs", "GCE_METADATA_HOST"), ("az", "AZURE_MSI_ENDPOINT")],
)
def test_without_a_secret_nothing_is_signed_and_no_metadata_address_is_asked(
    monkeypatch: pytest.MonkeyPatch, opened: Opener, scheme: str, variable: str
) -> None:
    with origin() as metadata, origin() as server:
        monkeypatch.setenv(variable, metadata.url)
        with pytest.raises(ArtifactError):
            opened(nowhere(scheme, f"{server.url}/account"), "a").listing()
    assert metadata.requests == []
    assert server.requests
    assert "Authorization" not in str(server.requests)
