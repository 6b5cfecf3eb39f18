"""References and pull secrets are read as docker and Kubernetes read them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.oci_reference import Login, Reference, login_for, parse_reference
from lorafleet.sources.secret import Secret

DIGEST = f"sha256:{'a' * 64}"
PASSWORD = "the-password"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/acme/lora:1.2.0", Reference("ghcr.io", "acme/lora", "1.2.0", None)),
        ("ghcr.io/acme/lora", Reference("ghcr.io", "acme/lora", "latest", None)),
        (f"ghcr.io/acme/lora@{DIGEST}", Reference("ghcr.io", "acme/lora", "latest", DIGEST)),
        (f"ghcr.io/acme/lora:1@{DIGEST}", Reference("ghcr.io", "acme/lora", "1", DIGEST)),
        ("registry.tools:5000/lora:V_1", Reference("registry.tools:5000", "lora", "V_1", None)),
        ("localhost:5000/a/b/c-d__e.f", Reference("localhost:5000", "a/b/c-d__e.f", "latest", None)),
        ("Registry.Example/a:1", Reference("registry.example", "a", "1", None)),
        ("docker.io/lora:1", Reference("docker.io", "library/lora", "1", None)),
        ("index.docker.io/acme/lora:1", Reference("docker.io", "acme/lora", "1", None)),
    ],
)
def test_the_parts_of_a_reference(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


def test_a_digest_decides_over_a_tag() -> None:
    assert parse_reference(f"ghcr.io/acme/lora:1@{DIGEST}").name == DIGEST
    assert parse_reference("ghcr.io/acme/lora:1").name == "1"


def test_docker_hub_speaks_at_another_name() -> None:
    assert parse_reference("docker.io/acme/lora").host == "registry-1.docker.io"
    assert parse_reference("ghcr.io/acme/lora").host == "ghcr.io"


@pytest.mark.parametrize(
    "text",
    [
        "lora",
        "ghcr.io/",
        "ghcr.io/a//b",
        "ghcr.io/../b",
        "ghcr.io/a/..",
        "ghcr.io/Acme/lora",
        "ghcr.io/a_/b",
        "ghcr.io/a/b/",
        "https://ghcr.io/a/b",
        "user@ghcr.io/a/b",
        "ghcr.io:x/a",
        f"ghcr.io/a@sha512:{'a' * 128}",
        f"ghcr.io/a@sha256:{'A' * 64}",
        "ghcr.io/a:1:2",
        "ghcr.io/a:",
        "ghcr.io/a?b=c",
        "ghcr.io/a/%2e%2e",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse_reference(text)
    assert caught.value.reason is Reason.SOURCE_INVALID
    assert text in caught.value.message


def auth(user: str, password: str = PASSWORD) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(folder: Path, auths: Any, reference: str) -> Login | None:
    (folder / ".dockerconfigjson").write_text(json.dumps({"auths": auths}))
    return login_for(parse_reference(reference), Secret("pull", folder))


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        ("ghcr.io", "ghcr.io/acme/lora"),
        ("https://ghcr.io", "ghcr.io/acme/lora"),
        ("https://ghcr.io/", "ghcr.io/acme/lora"),
        ("http://ghcr.io/v2/", "ghcr.io/acme/lora"),
        ("GHCR.io", "ghcr.io/acme/lora"),
        ("ghcr.io/acme", "ghcr.io/acme/lora"),
        ("ghcr.io/acme/lora", "ghcr.io/acme/lora"),
        ("registry.tools:5000", "registry.tools:5000/lora"),
        ("*.registry.example", "eu.registry.example/lora"),
        ("*.registry.example:5000", "eu.registry.example:5000/lora"),
        ("https://index.docker.io/v1/", "docker.io/acme/lora"),
        ("docker.io", "index.docker.io/acme/lora"),
        ("registry-1.docker.io", "docker.io/lora"),
    ],
)
def test_an_entry_is_for_its_host_and_path(tmp_path: Path, key: str, reference: str) -> None:
    assert found(tmp_path, {key: auth("robot"), "elsewhere.example": auth("other")}, reference) == Login(
        "robot", PASSWORD
    )


@pytest.mark.parametrize(
    ("key", "reference"),
    [
        ("ghcr.io", "ghcr.io.evil.example/acme/lora"),
        ("ghcr.io", "evil-ghcr.io/acme/lora"),
        ("registry.tools", "registry.tools:5000/lora"),
        ("registry.tools:5000", "registry.tools:5001/lora"),
        ("ghcr.io/acme", "ghcr.io/acme-evil/lora"),
        ("ghcr.io/acme/lora/more", "ghcr.io/acme/lora"),
        ("*.example", "a.b.example/lora"),
        ("*", "a.example/lora"),
        ("*.registry.example", "registry.example/lora"),
        ("", "a.example/lora"),
    ],
)
def test_an_entry_is_for_no_other(tmp_path: Path, key: str, reference: str) -> None:
    assert found(tmp_path, {key: auth("robot")}, reference) is None


def test_the_longest_entry_wins(tmp_path: Path) -> None:
    auths = {"ghcr.io/acme/lora": auth("lora"), "ghcr.io": auth("all"), "ghcr.io/acme": auth("acme")}
    login = found(tmp_path, auths, "ghcr.io/acme/lora")
    assert login is not None
    assert login.username == "lora"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"username": "robot", "password": PASSWORD}, Login("robot", PASSWORD)),
        (auth("robot", "a:b"), Login("robot", "a:b")),
        (auth("robot", PASSWORD + "\0\0"), Login("robot", PASSWORD)),
        ({**auth("robot"), "username": "other", "password": "other"}, Login("robot", PASSWORD)),
        ({**auth("robot", ""), "identitytoken": "it"}, Login("robot", "", "it")),
        ({"identitytoken": "it"}, Login("", "", "it")),
        ({**auth("robot"), "email": "robot@acme.example"}, Login("robot", PASSWORD)),
    ],
)
def test_each_way_to_write_credentials(tmp_path: Path, entry: dict[str, str], expected: Login) -> None:
    assert found(tmp_path, {"ghcr.io": entry}, "ghcr.io/a") == expected


@pytest.mark.parametrize(
    "entry",
    [
        {},
        None,
        [PASSWORD],
        {"auth": PASSWORD},
        {"auth": base64.b64encode(b"no colon").decode()},
        {"auth": base64.b64encode(b"\xff:\xff").decode()},
        {"username": "robot"},
        {"username": "robot", "password": [PASSWORD]},
        {"password": PASSWORD},
    ],
)
def test_an_entry_that_cannot_be_used_is_named_without_its_values(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(ArtifactError) as caught:
        found(tmp_path, {"ghcr.io": entry}, "ghcr.io/a")
    assert caught.value.reason is Reason.SECRET_INVALID
    assert "Secret pull" in caught.value.message
    assert "ghcr.io" in caught.value.message
    assert PASSWORD not in caught.value.message
    assert "robot" not in caught.value.message


@pytest.mark.parametrize("text", ["", PASSWORD, "[]", "{}", '{"auths": []}', f'{{"auths": "{PASSWORD}"}}'])
def test_a_secret_that_is_no_docker_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / ".dockerconfigjson").write_text(text)
    with pytest.raises(ArtifactError) as caught:
        login_for(parse_reference("ghcr.io/a"), Secret("pull", tmp_path))
    assert caught.value.reason is Reason.SECRET_INVALID
    assert ".dockerconfigjson" in caught.value.message
    assert PASSWORD not in caught.value.message


def test_a_secret_of_another_kind_is_told_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    with pytest.raises(ArtifactError) as caught:
        login_for(parse_reference("ghcr.io/a"), Secret("pull", tmp_path))
    assert "kubernetes.io/dockerconfigjson" in caught.value.message


def test_a_secret_with_authorities_alone_has_no_login(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("-----BEGIN CERTIFICATE-----")
    assert login_for(parse_reference("ghcr.io/a"), Secret("pull", tmp_path)) is None
    assert login_for(parse_reference("ghcr.io/a"), Secret()) is None


def test_a_login_does_not_show_its_secrets() -> None:
    assert PASSWORD not in repr(Login("robot", PASSWORD, PASSWORD))
    assert base64.b64decode(Login("robot", PASSWORD).basic.split()[1]) == f"robot:{PASSWORD}".encode()
