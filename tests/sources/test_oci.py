"""A source in a real registry: every layout byte for byte, pins, damage, credentials."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source as SourceSpec
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.sources import Listing, Place, Source, open_source
from tests.servers.certificates import tls
from tests.servers.oras import IMAGE_CONFIG, INDEX, Oras, contents, tar
from tests.servers.registry import Auth, Registry, registry

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
REPOSITORY = "acme/python-lora"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that nothing here looks into."""
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    folder.mkdir()
    (folder / CONFIG).write_text("{}")
    (folder / WEIGHTS).write_bytes(os.urandom(3_200_000))
    (folder / "README.md").write_text("# An adapter\n")
    (folder / "optimizer.pt").write_bytes(b"not part of an adapter")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry for everybody."""
    with registry(tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Auth], Registry]]:
    """Registries that ask who one is, over TLS; each is started once."""
    entered: dict[Auth, tuple[Any, Registry]] = {}

    def start(auth: Auth) -> Registry:
        if auth not in entered:
            folder = tmp_path_factory.mktemp(auth)
            manager = registry(folder, auth=auth, tls=tls(folder / "tls"))
            entered[auth] = manager, manager.__enter__()
        return entered[auth][1]

    yield start
    for manager, _ in entered.values():
        manager.__exit__(None, None, None)


@pytest.fixture
def oras(plain: Registry) -> Oras:
    return Oras(plain)


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return f"acme/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"


def opened(
    server: Registry,
    name: str,
    *,
    pin: str | None = None,
    secret: Path | None = None,
    wanted: Wanted | None = None,
    **spec: Any,
) -> Source:
    given = {"reference": f"{server.address}/{name}", "plainHttp": server.tls is None, **spec}
    if secret:
        given["pullSecretName"] = "pull"
    found = SourceSpec.model_validate({"oci": given})
    return open_source(found, Place(secret=secret), wanted or Wanted(), pin)


def secret_for(server: Registry, folder: Path, password: str | None = None) -> Path:
    """The keys of a pull Secret."""
    folder.mkdir(exist_ok=True)
    if server.puller is not None:
        (folder / ".dockerconfigjson").write_text(server.docker_config(password))
    if server.tls is not None:
        (folder / "ca.crt").write_text(server.tls.ca)
    return folder


def content(source: Source, listing: Listing) -> dict[str, bytes]:
    """Everything that is listed, read and checked as whoever fetches does."""
    found = {}
    for file in listing.files:
        data = b"".join(source.read(file, 0))
        assert file.checksum is not None
        assert file.checksum.value == hashlib.sha256(data).hexdigest()
        assert file.size == len(data)
        found[file.path] = data
    return found


def adapter_files(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name != "optimizer.pt"}


def refused(call: Callable[[], object], *secrets: str) -> ArtifactError:
    """The error of a call, whose message must not hold a secret."""
    with pytest.raises(ArtifactError) as caught:
        call()
    for secret in secrets:
        assert secret not in caught.value.message
    return caught.value


@pytest.mark.parametrize("by", ["tag", "digest", "tag and digest"])
def test_files_pushed_by_oras_are_read_as_oras_pulls_them(
    plain: Registry, oras: Oras, adapter: Path, repository: str, tmp_path: Path, by: str
) -> None:
    digest = oras.files(repository, "1.0", adapter)
    name = {"tag": ":1.0", "digest": f"@{digest}", "tag and digest": f":gone@{digest}"}[by]
    source = opened(plain, f"{repository}{name}")
    listing = source.listing()
    oras.pull(repository, "1.0", tmp_path)
    pulled = contents(tmp_path)
    pulled.pop("optimizer.pt")
    assert content(source, listing) == pulled == adapter_files(adapter)
    assert listing.pin == digest
    assert not any(file.archive for file in listing.files)
    source.confirm(listing)
    assert source.describe()["reference"] == f"{plain.address}/{repository}{name}"


def test_bytes_come_from_any_offset(plain: Registry, oras: Oras, adapter: Path, repository: str) -> None:
    oras.files(repository, "1.0", adapter)
    source = opened(plain, f"{repository}:1.0")
    (weights,) = [file for file in source.listing().files if file.path == WEIGHTS]
    whole = (adapter / WEIGHTS).read_bytes()
    for start in (0, 1, 1_048_575, 1_048_577, len(whole) - 1, len(whole), len(whole) + 1):
        assert b"".join(source.read(weights, start)) == whole[start:], start


def test_a_folder_pushed_by_oras_is_an_archive(plain: Registry, oras: Oras, adapter: Path, repository: str) -> None:
    digest = oras.directory(repository, "1.0", adapter)
    source = opened(plain, f"{repository}:1.0")
    listing = source.listing()
    assert [(file.path, file.archive) for file in listing.files] == [("layer-000", True)]
    assert content(source, listing)["layer-000"][:2] == b"\x1f\x8b"
    assert listing.pin == digest


@pytest.mark.parametrize("compression", ["", "gz", "zst"])
def test_the_layers_of_an_image_are_archives_in_their_order(
    plain: Registry, oras: Oras, adapter: Path, repository: str, compression: str
) -> None:
    base = {"etc/passwd": b"root", "adapter/README.md": b"an older one"}
    oras.image(repository, "1.0", adapter, compression=compression, below="adapter", base=base)
    source = opened(plain, f"{repository}:1.0")
    listing = source.listing()
    assert all(file.archive for file in listing.files)
    assert content(source, listing) == {
        "layer-000": tar(base, compression),
        "layer-001": tar(contents(adapter, "adapter"), compression),
    }


@pytest.mark.parametrize("suffix", ["tar", "tar+gzip"])
def test_a_modelkit_is_an_archive(plain: Registry, oras: Oras, adapter: Path, repository: str, suffix: str) -> None:
    oras.modelkit(repository, "1.0", adapter, suffix)
    source = opened(plain, f"{repository}:1.0")
    expected = tar(contents(adapter, adapter.name), "gz" if suffix == "tar+gzip" else "")
    assert content(source, source.listing()) == {"layer-000": expected}


@pytest.mark.parametrize("below", ["", "adapter"])
def test_the_raw_layers_of_a_modelpack_are_files(
    plain: Registry, oras: Oras, adapter: Path, repository: str, below: str
) -> None:
    oras.modelpack(repository, "1.0", adapter, below=below)
    for subfolder in ({}, {"subfolder": below} if below else {}):
        source = opened(plain, f"{repository}:1.0", **subfolder)
        listing = source.listing()
        assert not any(file.archive for file in listing.files)
        assert content(source, listing) == adapter_files(adapter)


@pytest.mark.parametrize("form", ["tar", "tar+gzip"])
def test_the_packed_layers_of_a_modelpack_are_archives(
    plain: Registry, oras: Oras, adapter: Path, repository: str, form: str
) -> None:
    oras.modelpack(repository, "1.0", adapter, form)
    source = opened(plain, f"{repository}:1.0")
    found = content(source, source.listing())
    assert list(found.values()) == [
        tar({name: data}, "gz" if form == "tar+gzip" else "") for name, data in contents(adapter).items()
    ]


def test_a_subfolder_that_is_not_there_is_not_replaced_by_the_root(
    plain: Registry, oras: Oras, adapter: Path, repository: str
) -> None:
    oras.files(repository, "1.0", adapter)
    error = refused(opened(plain, f"{repository}:1.0", subfolder="adapter").listing)
    assert error.reason is Reason.CONFIG_MISSING


def test_only_layers_of_the_adapter_are_fetched(plain: Registry, oras: Oras, adapter: Path, repository: str) -> None:
    oras.files(repository, "1.0", adapter)
    listed = {file.path for file in opened(plain, f"{repository}:1.0").listing().files}
    assert listed == {CONFIG, WEIGHTS, "README.md"}


@pytest.mark.parametrize("layout", ["files", "image"])
def test_sizes_are_judged_before_anything_is_fetched(
    plain: Registry, oras: Oras, adapter: Path, repository: str, layout: str
) -> None:
    getattr(oras, layout)(repository, "1.0", adapter)
    source = opened(plain, f"{repository}:1.0", wanted=Wanted(Limits(max_bytes=3_000_000)))
    error = refused(source.listing)
    assert error.reason is Reason.SIZE_LIMIT_EXCEEDED
    assert "3000000" in error.message


def test_a_tag_that_moved_does_not_move_a_version(
    plain: Registry, oras: Oras, adapter: Path, repository: str, tmp_path: Path
) -> None:
    first = oras.files(repository, "1.0", adapter)
    pin = opened(plain, f"{repository}:1.0").listing().pin
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes(b"{}")
    second = oras.files(repository, "1.0", tmp_path)
    assert first == pin != second
    source = opened(plain, f"{repository}:1.0", pin=pin)
    listing = source.listing()
    assert listing.pin == pin
    assert content(source, listing) == adapter_files(adapter)
    assert opened(plain, f"{repository}:1.0").listing().pin == second


def test_a_pin_that_was_deleted_is_named(plain: Registry, oras: Oras, adapter: Path, repository: str) -> None:
    pin = f"sha256:{'0' * 64}"
    oras.files(repository, "1.0", adapter)
    error = refused(opened(plain, f"{repository}:1.0", pin=pin).listing)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert pin in error.message
    assert "append a new version" in error.message


@pytest.mark.parametrize("name", ["acme/nothing:1.0", "acme/python-lora:none", f"acme/python-lora@sha256:{'1' * 64}"])
def test_what_is_not_there_is_not_found(plain: Registry, oras: Oras, adapter: Path, name: str) -> None:
    oras.files(REPOSITORY, "1.0", adapter)
    error = refused(opened(plain, name).listing)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert name in error.message


@pytest.mark.parametrize("start", [0, 1000])
@pytest.mark.parametrize("damage", ["other", "truncated", "grown", "missing"])
def test_a_damaged_blob_is_noticed(
    plain: Registry, oras: Oras, adapter: Path, repository: str, tmp_path: Path, damage: str, start: int
) -> None:
    # A blob of the test's own: the registry keeps equal ones once.
    whole = os.urandom(500_000)
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / WEIGHTS).write_bytes(whole)
    oras.files(repository, "1.0", tmp_path)
    source = opened(plain, f"{repository}:1.0")
    (weights,) = [file for file in source.listing().files if file.path == WEIGHTS]
    blob = plain.blob(weights.identity)
    if damage == "missing":
        blob.unlink()
    else:
        blob.write_bytes({"other": whole[::-1], "truncated": whole[:-1], "grown": whole + b"!"}[damage])
    if damage == "other":
        read = whole[:start] + b"".join(source.read(weights, start))
        assert weights.checksum is not None
        assert hashlib.sha256(read).hexdigest() != weights.checksum.value
        return
    error = refused(lambda: list(source.read(weights, start)))
    assert error.reason is (Reason.SOURCE_NOT_FOUND if damage == "missing" else Reason.SOURCE_CORRUPT)
    assert WEIGHTS in error.message


@pytest.mark.parametrize("by", ["tag", "digest", "pin"])
def test_a_damaged_manifest_is_noticed(
    plain: Registry, oras: Oras, adapter: Path, repository: str, tmp_path: Path, by: str
) -> None:
    (tmp_path / CONFIG).write_text("{}")
    (tmp_path / WEIGHTS).write_bytes(os.urandom(10))
    digest = oras.files(repository, "1.0", tmp_path)
    blob = plain.blob(digest)
    # Still a manifest, of other content.
    blob.write_bytes(blob.read_bytes().replace(b"{", b"{ ", 1))
    name = f"{repository}@{digest}" if by == "digest" else f"{repository}:1.0"
    error = refused(opened(plain, name, pin=digest if by == "pin" else None).listing)
    assert error.reason is Reason.SOURCE_CORRUPT
    assert digest in error.message


def test_an_index_of_one_image_and_attestations_is_that_image(
    plain: Registry, oras: Oras, adapter: Path, repository: str
) -> None:
    image = oras.image(repository, "image", adapter)
    attestation = oras.manifest(repository, "att", (IMAGE_CONFIG, b"{}"), [])
    index = oras.index(repository, "1.0", {image: None, attestation: {"os": "unknown", "architecture": "unknown"}})
    listing = opened(plain, f"{repository}:1.0").listing()
    assert listing.pin == index
    assert [file.archive for file in listing.files] == [True]
    assert opened(plain, f"{repository}:1.0", pin=index).listing() == listing


def test_of_several_platforms_the_engines_own_is_taken(
    plain: Registry, oras: Oras, adapter: Path, repository: str
) -> None:
    amd = oras.image(repository, "amd", adapter)
    arm = oras.image(repository, "arm", adapter, base={"etc/arm": b"1"}, architecture="arm64")
    oras.index(
        repository,
        "1.0",
        {arm: {"os": "linux", "architecture": "arm64"}, amd: {"os": "linux", "architecture": "amd64"}},
    )
    assert opened(plain, f"{repository}:1.0").listing().files == opened(plain, f"{repository}:amd").listing().files


def test_an_index_that_leaves_a_choice_is_refused_with_its_manifests(
    plain: Registry, oras: Oras, adapter: Path, repository: str
) -> None:
    members = [oras.image(repository, str(n), adapter, base={"etc/n": b"%d" % n}) for n in range(2)]
    oras.index(repository, "1.0", dict.fromkeys(members))
    error = refused(opened(plain, f"{repository}:1.0").listing)
    assert error.reason is Reason.SOURCE_INVALID
    assert all(member in error.message for member in members)


def test_what_cannot_be_an_adapter_is_refused_by_its_type(
    plain: Registry, oras: Oras, adapter: Path, repository: str
) -> None:
    kind = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
    chart = oras.blob(repository, kind, tar({"Chart.yaml": b"name: chart"}, "gz"))
    oras.manifest(repository, "1.0", (IMAGE_CONFIG, b"{}"), [chart])
    error = refused(opened(plain, f"{repository}:1.0").listing)
    assert error.reason is Reason.SOURCE_INVALID
    assert kind in error.message


def test_an_index_in_an_index_is_refused(plain: Registry, oras: Oras, adapter: Path, repository: str) -> None:
    inner = oras.index(repository, "inner", {oras.image(repository, "image", adapter): None})
    oras.index(repository, "1.0", {inner: None})
    error = refused(opened(plain, f"{repository}:1.0").listing)
    assert error.reason is Reason.SOURCE_INVALID
    assert INDEX in error.message


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_registry_that_asks_who_one_is_is_read_over_tls(
    guarded: Callable[[Auth], Registry], adapter: Path, tmp_path: Path, auth: Auth
) -> None:
    server = guarded(auth)
    digest = Oras(server).files(REPOSITORY, "1.0", adapter)
    secret = secret_for(server, tmp_path / "secret")
    source = opened(server, f"{REPOSITORY}:1.0", secret=secret)
    listing = source.listing()
    assert listing.pin == digest
    assert content(source, listing) == adapter_files(adapter)
    # A Job that goes on where another ended may read before it lists.
    again = opened(server, f"{REPOSITORY}:1.0", secret=secret, pin=listing.pin)
    (weights,) = [file for file in listing.files if file.path == WEIGHTS]
    assert b"".join(again.read(weights, 1000)) == (adapter / WEIGHTS).read_bytes()[1000:]


def test_a_token_is_asked_once_and_for_pulling_alone(
    guarded: Callable[[Auth], Registry], adapter: Path, tmp_path: Path
) -> None:
    server = guarded("token")
    Oras(server).files("acme/once", "1.0", adapter)
    before = len(server.tokens())
    source = opened(server, "acme/once:1.0", secret=secret_for(server, tmp_path / "secret"))
    content(source, source.listing())
    (asked,) = server.tokens()[before:]
    assert server.puller is not None
    assert (asked["user"], asked["scopes"]) == (server.puller.name, ["repository:acme/once:pull"])


def test_a_public_repository_needs_no_secret_but_the_authority(
    guarded: Callable[[Auth], Registry], adapter: Path, tmp_path: Path
) -> None:
    server = guarded("token")
    Oras(server).files("public/lora", "1.0", adapter)
    secret = tmp_path / "secret"
    secret.mkdir()
    assert server.tls is not None
    (secret / "ca.crt").write_text(server.tls.ca)
    source = opened(server, "public/lora:1.0", secret=secret)
    assert content(source, source.listing()) == adapter_files(adapter)


@pytest.mark.parametrize("auth", ["basic", "token"])
@pytest.mark.parametrize("case", ["wrong password", "no entry", "no credentials"])
def test_who_may_not_read_is_told_what_to_mend(
    guarded: Callable[[Auth], Registry], adapter: Path, tmp_path: Path, auth: Auth, case: str
) -> None:
    server = guarded(auth)
    Oras(server).files(REPOSITORY, "1.0", adapter)
    secret = secret_for(server, tmp_path / "secret", "another-password")
    config = secret / ".dockerconfigjson"
    if case == "no entry":
        config.write_text(config.read_text().replace(server.address, "elsewhere.example"))
    if case == "no credentials":
        config.unlink()
    error = refused(opened(server, f"{REPOSITORY}:1.0", secret=secret).listing, *_secrets(server))
    assert error.reason is Reason.SOURCE_DENIED
    assert server.address in error.message
    assert "Secret pull" in error.message


def test_a_repository_that_the_user_may_not_pull_is_denied(
    guarded: Callable[[Auth], Registry], adapter: Path, tmp_path: Path
) -> None:
    server = guarded("token")
    Oras(server).files("closed/lora", "1.0", adapter)
    secret = secret_for(server, tmp_path / "secret")
    error = refused(opened(server, "closed/lora:1.0", secret=secret).listing, *_secrets(server))
    assert error.reason is Reason.SOURCE_DENIED
    assert "pull closed/lora" in error.message


def test_a_registry_that_is_not_trusted_is_not_read(guarded: Callable[[Auth], Registry], tmp_path: Path) -> None:
    server = guarded("basic")
    secret = secret_for(server, tmp_path / "secret")
    (secret / "ca.crt").unlink()
    error = refused(opened(server, f"{REPOSITORY}:1.0", secret=secret).listing, *_secrets(server))
    assert error.reason is Reason.SECRET_INVALID
    assert "ca.crt" in error.message


def test_plain_http_is_spoken_only_when_it_is_asked_for(plain: Registry) -> None:
    error = refused(opened(plain, f"{REPOSITORY}:1.0", plainHttp=False).listing)
    assert error.reason is Reason.SOURCE_UNREACHABLE


def test_a_registry_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    with registry(tmp_path) as server:
        source = opened(server, f"{REPOSITORY}:1.0")
    assert refused(source.listing).reason is Reason.SOURCE_UNREACHABLE


def _secrets(server: Registry) -> list[str]:
    config = json.loads(server.docker_config())["auths"][server.address]
    return [config["password"], config["auth"], "another-password"]
