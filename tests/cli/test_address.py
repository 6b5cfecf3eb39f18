"""What a user types for a source, and what a version's entry would say."""

from pathlib import Path
from typing import Any

import pytest

from lorafleet.cli.address import Options, Unusable, parse
from lorafleet.cli.entry import entry

SHA = "0f" * 32
COMMIT = "1234567890abcdef" * 2 + "12345678"
DIGEST = f"sha256:{'ab' * 32}"
TOKEN = "s3cr3t-t0ken"


def spec(address: str, **options: Any) -> dict[str, Any]:
    source = parse(address, Options(**options))
    assert source is not None
    return source.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


@pytest.mark.parametrize(
    ("address", "options", "expected"),
    [
        ("hf://acme/sql", {}, {"huggingFace": {"repo": "acme/sql"}}),
        ("hf://acme/sql@v2", {}, {"huggingFace": {"repo": "acme/sql", "revision": "v2"}}),
        (
            "hf://acme/sql@v2/out/adapter",
            {"endpoint": "https://hub.example", "secret_name": "hub"},
            {
                "huggingFace": {
                    "repo": "acme/sql",
                    "revision": "v2",
                    "subfolder": "out/adapter",
                    "endpoint": "https://hub.example",
                    "secretName": "hub",
                }
            },
        ),
        (
            "hf://acme/sql/adapter",
            {},
            {"huggingFace": {"repo": "acme/sql", "subfolder": "adapter"}},
        ),
        (
            "hf://acme/sql@refs/pr/3/adapter",
            {},
            {"huggingFace": {"repo": "acme/sql", "revision": "refs/pr/3", "subfolder": "adapter"}},
        ),
        ("hf://acme/sql@team%2Fnew", {}, {"huggingFace": {"repo": "acme/sql", "revision": "team/new"}}),
        (
            "s3://models/sql/1.0/",
            {"endpoint": "http://minio:9000", "region": "eu-central-1", "secret_name": "s3"},
            {
                "objectStore": {
                    "url": "s3://models/sql/1.0/",
                    "endpoint": "http://minio:9000",
                    "region": "eu-central-1",
                    "secretName": "s3",
                }
            },
        ),
        ("gs://models/sql", {}, {"objectStore": {"url": "gs://models/sql"}}),
        ("az://models/sql", {}, {"objectStore": {"url": "az://models/sql"}}),
        (
            "oci://registry.example:5000/acme/sql:1.0",
            {"subfolder": "adapter", "plain_http": True, "secret_name": "registry"},
            {
                "oci": {
                    "reference": "registry.example:5000/acme/sql:1.0",
                    "subfolder": "adapter",
                    "plainHttp": True,
                    "pullSecretName": "registry",
                }
            },
        ),
        (
            f"oci://registry.example/acme/sql@sha256:{SHA}",
            {},
            {"oci": {"reference": f"registry.example/acme/sql@sha256:{SHA}"}},
        ),
        (
            f"https://files.example/sql.tar.gz?token={TOKEN}#sha256={SHA}",
            {"subfolder": "sql"},
            {"http": {"url": f"https://files.example/sql.tar.gz?token={TOKEN}", "sha256": SHA, "subfolder": "sql"}},
        ),
        (
            f"HTTP://files.example/x.zip#{SHA.upper()}",
            {},
            {"http": {"url": "http://files.example/x.zip", "sha256": SHA}},
        ),
    ],
)
def test_an_address_is_the_source_that_an_entry_would_name(
    address: str, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert spec(address, **options) == expected


@pytest.mark.parametrize("path", ["adapters/sql", "/adapters/sql", "sql.tar.gz", "c:sql", "a:/b"])
def test_whatever_has_no_scheme_is_a_path(path: str) -> None:
    assert parse(path, Options()) is None


@pytest.mark.parametrize(
    ("address", "options", "says"),
    [
        ("ftp://files.example/x", {}, ["ftp://", "s3://", "hf://owner/name"]),
        ("hf://sql", {}, ["names no repository", "hf://owner/name"]),
        ("hf://acme/sql/adapter", {"subfolder": "other"}, ["a subfolder", "--subfolder"]),
        ("hf://acme/sql", {"plain_http": True}, ["--plain-http", "hf://"]),
        ("s3://", {}, ["source.objectStore.url"]),
        ("gs://models/sql", {"region": "eu"}, ["--region", "gs://"]),
        ("s3://models/sql", {"subfolder": "x"}, ["--subfolder", "s3://"]),
        ("oci://sql:1.0", {}, ["source.oci.reference"]),
        ("oci://registry.example/acme/sql:1", {"endpoint": "http://x"}, ["--endpoint", "oci://"]),
        (f"https://files.example/x.tar?token={TOKEN}", {}, ["files.example", "#sha256=<64 hex digits>"]),
        (f"https://me:{TOKEN}@files.example/x.tar", {}, ["files.example", "#sha256=<64 hex digits>"]),
        (f"https://me:{TOKEN}@files.example/x.tar#sha256={SHA}", {}, ["source.http.url"]),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_is_expected(
    address: str, options: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(Unusable) as caught:
        parse(address, Options(**options))
    for part in says:
        assert part in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "pin", "name", "expected"),
    [
        ("hf://acme/sql", COMMIT, "abababababab", {"huggingFace": {"repo": "acme/sql", "revision": COMMIT}}),
        ("hf://acme/sql@v2.0", COMMIT, "v2.0", {"huggingFace": {"repo": "acme/sql", "revision": COMMIT}}),
        (f"hf://acme/sql@{COMMIT}", COMMIT, COMMIT[:12], {"huggingFace": {"repo": "acme/sql", "revision": COMMIT}}),
        ("hf://acme/sql@main", COMMIT, "abababababab", {"huggingFace": {"repo": "acme/sql", "revision": COMMIT}}),
        (
            "oci://registry:5000/sql:1.0",
            DIGEST,
            "1.0",
            {"oci": {"reference": f"registry:5000/sql:1.0@{DIGEST}"}},
        ),
        (
            f"oci://registry/sql@{DIGEST}",
            DIGEST,
            "abababababab",
            {"oci": {"reference": f"registry/sql@{DIGEST}"}},
        ),
        ("s3://models/sql/1.0/", "objects:1", "1.0", {"objectStore": {"url": "s3://models/sql/1.0/"}}),
        (
            f"https://files.example/x.zip?token={TOKEN}#sha256={SHA}",
            f"sha256:{SHA}",
            "abababababab",
            {"http": {"url": "https://files.example/x.zip", "sha256": SHA}},
        ),
    ],
)
def test_an_entry_pins_what_was_inspected_and_holds_no_token(
    address: str, pin: str, name: str, expected: dict[str, Any]
) -> None:
    source = parse(address, Options())
    assert source is not None
    assert entry(source, pin, DIGEST) == {"name": name, "source": expected, "digest": DIGEST}


def test_the_entry_of_a_path_says_where_the_bytes_could_be(tmp_path: Path) -> None:
    folder = tmp_path / "1.2.0"
    folder.mkdir()
    assert entry(folder, "", DIGEST) == {
        "name": "1.2.0",
        "source": {"volume": {"path": "1.2.0"}},
        "digest": DIGEST,
    }
    assert entry(tmp_path / "x.zip", "", DIGEST, SHA)["source"] == {
        "http": {"url": "https://files.example.org/x.zip", "sha256": SHA}
    }
