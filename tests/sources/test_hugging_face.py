"""A source on a hub: commits, folders and tokens, its bytes from wherever the hub sends one, its errors by name."""

import hashlib
import json
import os
import subprocess
import sys
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
from tests.servers.hub import Hub, hub
from tests.sources.origin import Page, origin

REPO = "acme/python-lora"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BODY = os.urandom(3_200_000)
ADAPTER = {CONFIG: b"{}", WEIGHTS: BODY, "README.md": "# Größe\n".encode()}
OTHERS = {"optimizer.pt": b"not part of an adapter", f"checkpoint-1/{WEIGHTS}": b"nor is this", ".gitattributes": b""}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    with hub(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Callable[..., Path]:
    """The folder of a Secret with keys."""

    def make(**keys: str) -> Path:
        folder = tmp_path / "secret"
        folder.mkdir()
        for key, value in keys.items():
            (folder / key.replace("_", ".")).write_text(value + "\n")
        return folder

    return make


def opened(
    endpoint: str, *, pin: str | None = None, secret: Path | None = None, wanted: Wanted | None = None, **spec: Any
) -> Source:
    given = {"repo": REPO, "endpoint": endpoint, **({"secretName": "hub"} if secret else {}), **spec}
    found = SourceSpec.model_validate({"huggingFace": given})
    return open_source(found, Place(secret=secret), wanted or Wanted(), pin)


def content(source: Source, listing: Listing) -> dict[str, bytes]:
    """Everything that is listed, read and checked as whoever fetches does."""
    found = {}
    for file in listing.files:
        data = b"".join(source.read(file, 0))
        assert file.checksum is not None
        digest = {
            "sha256": lambda data: hashlib.sha256(data),
            "git": lambda data: hashlib.sha1(b"blob %d\0" % len(data) + data),
        }[file.checksum.algorithm](data)
        assert (digest.hexdigest(), len(data)) == (file.checksum.value, file.size)
        found[file.path] = data
    return found


def refused(call: Callable[[], object], *secrets: str) -> ArtifactError:
    """The error of a call, whose message must not hold a secret or what the hub answered."""
    with pytest.raises(ArtifactError) as caught:
        call()
    for secret in (*secrets, "hf_", "Signature=", "huggingface.co"):
        assert secret not in caught.value.message
    return caught.value


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/1", "commit"])
def test_a_branch_tag_or_commit_is_read_at_its_commit(server: Hub, revision: str) -> None:
    commit = server.files.commit(REPO, {**ADAPTER, **OTHERS})
    if revision == "commit":
        revision = commit
    elif revision != "main":
        server.files.move(REPO, revision, commit)
        server.files.commit(REPO, {CONFIG: b"[]", WEIGHTS: b""})
    source = opened(server.url, revision=revision)
    listing = source.listing()
    assert listing.pin == commit
    assert [file.path for file in listing.files] == sorted(ADAPTER)
    assert {file.checksum.algorithm for file in listing.files if file.checksum} == {"git", "sha256"}
    assert content(source, listing) == ADAPTER
    source.confirm(listing)
    assert source.describe() == {"scheme": "huggingFace", "repo": REPO, "revision": revision, "endpoint": server.url}


def test_what_is_read_is_what_the_hubs_own_client_downloads(server: Hub, tmp_path: Path) -> None:
    server.files.commit(REPO, {**ADAPTER, **OTHERS})
    program = (
        f"from huggingface_hub import snapshot_download; snapshot_download({REPO!r}, local_dir={str(tmp_path / 'a')!r})"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    source = opened(server.url)
    assert content(source, source.listing()) == {name: (tmp_path / "a" / name).read_bytes() for name in ADAPTER}


def test_bytes_come_from_any_offset(server: Hub) -> None:
    server.files.commit(REPO, ADAPTER)
    source = opened(server.url)
    files = {file.path: file for file in source.listing().files}
    for name, data in ADAPTER.items():
        for start in (0, 1, 65_537, 1_048_577, len(data) - 1, len(data), len(data) + 1):
            assert b"".join(source.read(files[name], start)) == data[start:], (name, start)


@pytest.mark.parametrize("folder", ["adapter", "runs/42/final", "a-b_c.d", "größe", "100%?#"])
def test_only_the_files_of_the_folder_count(server: Hub, folder: str) -> None:
    inside = {f"{folder}/{name}": data for name, data in ADAPTER.items()}
    server.files.commit(
        REPO, {**inside, f"{folder}/deeper/{CONFIG}": b"no", CONFIG: b"no", f"{folder}-2/{CONFIG}": b"no"}
    )
    source = opened(server.url, subfolder=folder)
    assert content(source, source.listing()) == ADAPTER


def test_a_long_folder_is_listed_to_its_end(server: Hub) -> None:
    server.page = 2
    server.files.commit(REPO, {**ADAPTER, **{f"checkpoint-{n}.txt": b"" for n in range(5)}})
    assert len(opened(server.url).listing().files) == len(ADAPTER)


def test_too_many_files_are_refused(server: Hub) -> None:
    server.page = 2
    server.files.commit(REPO, {**ADAPTER, **{f"{n}.txt": b"" for n in range(100)}})
    error = refused(opened(server.url, wanted=Wanted(Limits(max_entries=10))).listing)
    assert error.reason is Reason.SIZE_LIMIT_EXCEEDED
    assert sum("/tree/" in path for _, path, _ in server.requests) < 10


def test_a_branch_that_moved_does_not_move_a_version(server: Hub) -> None:
    first = server.files.commit(REPO, ADAPTER)
    pin = opened(server.url).listing().pin
    second = server.files.commit(REPO, {CONFIG: b"[]", WEIGHTS: b"another"})
    source = opened(server.url, pin=pin)
    listing = source.listing()
    assert (pin, listing.pin) == (first, first)
    assert content(source, listing) == ADAPTER
    assert opened(server.url).listing().pin == second


def test_a_pin_that_is_gone_is_named(server: Hub) -> None:
    server.files.commit(REPO, ADAPTER)
    error = refused(opened(server.url, pin="0" * 40).listing)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "0" * 40 in error.message
    assert "append a new version" in error.message


@pytest.mark.parametrize("form", ["private", "gated"])
def test_a_token_reads_what_it_may_and_goes_to_the_hub_alone(
    server: Hub, secret: Callable[..., Path], form: str
) -> None:
    server.files.commit(REPO, ADAPTER, **{form: True})
    token = server.files.token(REPO)
    source = opened(server.url, secret=secret(token=token))
    assert content(source, source.listing()) == ADAPTER
    asked = {path.startswith("/cdn/"): headers.get("Authorization") for _, path, headers in server.requests}
    assert asked == {False: f"Bearer {token}", True: None}


def test_a_private_repository_without_a_token_may_be_there(server: Hub) -> None:
    server.files.commit(REPO, ADAPTER, private=True)
    hidden, missing = (refused(opened(server.url, repo=repo).listing) for repo in (REPO, "acme/nothing"))
    assert hidden.reason is missing.reason
    for error in (hidden, missing):
        assert "is private" in error.message
        assert "secretName" in error.message


@pytest.mark.parametrize("repo", [REPO, "acme/nothing"])
def test_a_token_that_may_not_read_is_named(server: Hub, secret: Callable[..., Path], repo: str) -> None:
    server.files.commit(REPO, ADAPTER, private=True)
    token = server.files.token("acme/another")
    error = refused(opened(server.url, repo=repo, secret=secret(token=token)).listing, token)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "Secret hub" in error.message


def test_a_token_that_the_hub_does_not_know_is_a_denial(server: Hub, secret: Callable[..., Path]) -> None:
    server.files.commit(REPO, ADAPTER)
    error = refused(opened(server.url, secret=secret(token="hf_unknown")).listing, "hf_unknown")
    assert error.reason is Reason.SOURCE_DENIED
    assert "Secret" in error.message


@pytest.mark.parametrize("known", [True, False])
def test_a_gated_repository_says_what_to_accept(server: Hub, secret: Callable[..., Path], known: bool) -> None:
    server.files.commit(REPO, ADAPTER, gated=True)
    token = server.files.token("acme/another")
    source = opened(server.url, secret=secret(token=token) if known else None)
    error = refused(lambda: content(source, source.listing()), token)
    assert error.reason is Reason.SOURCE_DENIED
    assert ("accept its terms" if known else "secretName") in error.message


def test_a_revision_that_is_not_there_is_named(server: Hub) -> None:
    server.files.commit(REPO, ADAPTER)
    error = refused(opened(server.url, revision="v9").listing)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert f"{REPO}@v9" in error.message
    assert "branch, tag or commit" in error.message


def test_a_folder_that_is_not_there_is_named(server: Hub) -> None:
    server.files.commit(REPO, ADAPTER)
    error = refused(opened(server.url, subfolder="nowhere").listing)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert "nowhere" in error.message


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_a_repository_without_an_adapter_is_refused(server: Hub, missing: str) -> None:
    server.files.commit(REPO, {name: data for name, data in ADAPTER.items() if name != missing})
    error = refused(opened(server.url).listing)
    assert error.reason in (Reason.CONFIG_MISSING, Reason.WEIGHTS_MISSING)
    assert missing in error.message


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("damage", ["other", "truncated", "grown"])
def test_damaged_files_are_noticed(server: Hub, name: str, damage: str) -> None:
    commit = server.files.commit(REPO, ADAPTER)
    source = opened(server.url)
    (file,) = [file for file in source.listing().files if file.path == name]
    whole = ADAPTER[name]
    damaged = {"other": bytes(len(whole)), "truncated": whole[:-1], "grown": whole + b"!"}[damage]
    server.files.blob(REPO, commit, name).write_bytes(damaged)
    if damage == "other":
        with pytest.raises(AssertionError):
            content(source, Listing(commit, (file,)))
        return
    error = refused(lambda: list(source.read(file, 0)))
    assert error.reason is Reason.SOURCE_CORRUPT
    assert name in error.message


def test_a_mirror_with_its_own_authority(tmp_path: Path, secret: Callable[..., Path]) -> None:
    pair = tls(tmp_path / "tls")
    with hub(tmp_path / "hub", tls=pair) as server:
        server.files.commit(REPO, ADAPTER)
        source = opened(server.url, secret=secret(ca_crt=pair.ca))
        assert content(source, source.listing()) == ADAPTER
        error = refused(opened(server.url).listing)
    assert error.reason is Reason.SECRET_INVALID
    assert "ca.crt" in error.message


@pytest.mark.parametrize(
    ("keys", "named"),
    [({"HF-TOKEN": "hf_x"}, "'token'"), ({"token": ""}, "'token'"), ({"token": "hf_x\nhf_y"}, "Authorization")],
)
def test_a_secret_that_cannot_be_used_is_named(
    server: Hub, secret: Callable[..., Path], keys: dict[str, str], named: str
) -> None:
    folder = secret(**keys)
    error = refused(lambda: opened(server.url, secret=folder).listing())
    assert error.reason is Reason.SECRET_INVALID
    assert named in error.message


@pytest.mark.parametrize("repo", ["..", "a/..", "a--b/c", "-a/b", "a/b.git"])
def test_what_cannot_be_a_repository_is_not_asked_for(server: Hub, repo: str) -> None:
    assert refused(opened(server.url, repo=repo).listing).reason is Reason.SOURCE_INVALID
    assert server.requests == []


@pytest.mark.parametrize("subfolder", ["..", "a/../b", "a//b", "a/", "./a"])
def test_a_folder_that_leads_elsewhere_is_not_asked_for(server: Hub, subfolder: str) -> None:
    error = refused(lambda: opened(server.url, subfolder=subfolder))
    assert error.reason is Reason.SOURCE_INVALID
    assert repr(subfolder) in error.message


API = f"/api/models/{REPO}/revision/main"
TREE = f"/api/models/{REPO}/tree/{'a' * 40}?recursive=false&expand=false"


def tree(**fields: Any) -> bytes:
    file = {"type": "file", "path": CONFIG, "size": 2, "oid": "b" * 40, **fields}
    return json.dumps([file, {**file, "path": WEIGHTS}]).encode()


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(status=429), Reason.SOURCE_UNREACHABLE),
        (Page(status=500), Reason.SOURCE_UNREACHABLE),
        (Page(status=503), Reason.SOURCE_UNREACHABLE),
        (Page(status=400), Reason.SOURCE_DENIED),
        (Page(status=403), Reason.SOURCE_DENIED),
        (Page(status=403, headers={"X-Error-Message": "Access to this resource is disabled."}), Reason.SOURCE_DENIED),
        (Page(b"<html>a login page</html>"), Reason.SOURCE_UNREACHABLE),
        (Page(b"[]"), Reason.SOURCE_UNREACHABLE),
        (Page(b"{}"), Reason.SOURCE_UNREACHABLE),
        (Page(b'{"id": "a", "sha": "main"}'), Reason.SOURCE_UNREACHABLE),
        (Page(b'{"id": "a", "sha": "../../../x"}'), Reason.SOURCE_UNREACHABLE),
        (Page(b" " * (16 * 1024 * 1024 + 1)), Reason.SOURCE_INVALID),
        (Page(b'{"sha"', cut_after=3), Reason.SOURCE_UNREACHABLE),
    ],
)
def test_each_answer_of_a_bad_hub_has_its_reason_at_once(page: Page, reason: Reason) -> None:
    with origin() as server:
        server.pages[API] = page
        error = refused(opened(server.url).listing)
        assert error.reason is reason
        assert f"{REPO}@main" in error.message
        # Whoever fetches tries again, not the library.
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (tree(), None),
        (tree(size="2"), Reason.SOURCE_UNREACHABLE),
        (tree(size=-1), Reason.SOURCE_UNREACHABLE),
        (tree(oid="main"), Reason.SOURCE_UNREACHABLE),
        (tree(oid=None), Reason.SOURCE_UNREACHABLE),
        (tree(lfs={"oid": "b" * 40, "size": 2, "pointerSize": 1}), Reason.SOURCE_UNREACHABLE),
        (tree(lfs={}), Reason.SOURCE_UNREACHABLE),
        (tree(type="symlink"), Reason.CONFIG_MISSING),
        (b'[{"type": "file"}]', Reason.SOURCE_UNREACHABLE),
        (b'["adapter_config.json"]', Reason.SOURCE_UNREACHABLE),
        (b"{}", Reason.CONFIG_MISSING),
        (tree(size=10**15), Reason.SIZE_LIMIT_EXCEEDED),
    ],
)
def test_a_listing_that_is_not_one_is_refused(body: bytes, reason: Reason | None) -> None:
    with origin() as server:
        server.pages[API] = Page(b'{"id": "a", "sha": "%s"}' % (b"a" * 40))
        server.pages[TREE] = Page(body)
        source = opened(server.url)
        if reason is None:
            assert len(source.listing().files) == 2
        else:
            assert refused(source.listing).reason is reason


@pytest.mark.parametrize("endpoint", ["", "/", "/mirror/hub", "/mirror/hub/"])
def test_a_mirror_may_be_below_a_path(endpoint: str) -> None:
    with origin() as server:
        below = endpoint.rstrip("/")
        server.pages[below + API] = Page(b'{"id": "a", "sha": "%s"}' % (b"a" * 40))
        server.pages[below + TREE] = Page(tree())
        server.pages[f"{below}/{REPO}/resolve/{'a' * 40}/{CONFIG}"] = Page(b"{}")
        source = opened(server.url + endpoint)
        assert b"".join(source.read(source.listing().files[0], 0)) == b"{}"


def test_what_is_listed_outside_of_the_folder_does_not_count() -> None:
    with origin() as server:
        server.pages[TREE.replace("?", "/adapter?")] = Page(tree())
        error = refused(opened(server.url, pin="a" * 40, subfolder="adapter").listing)
    assert error.reason is Reason.CONFIG_MISSING


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again_by_whoever_fetches_alone(status: int) -> None:
    with origin() as server:
        server.pages[TREE] = Page(status=status)
        assert refused(opened(server.url, pin="a" * 40).listing).reason is Reason.SOURCE_UNREACHABLE
        assert len(server.requests) == 1


def test_a_listing_does_not_go_on_at_another_server(secret: Callable[..., Path]) -> None:
    with origin() as server, origin() as other:
        server.pages[API] = Page(b'{"id": "a", "sha": "%s"}' % (b"a" * 40))
        server.pages[TREE] = Page(tree(), headers={"Link": f'<{other.url}/next>; rel="next"'})
        error = refused(opened(server.url, secret=secret(token="hf_token")).listing)
        assert error.reason is Reason.SOURCE_INVALID
        assert other.requests == []


def test_the_library_asks_nobody_on_its_own() -> None:
    """Nothing of the environment reaches it, and nothing but a source's questions leaves it."""
    program = (
        "import lorafleet.sources.hugging_face\n"
        "from huggingface_hub import HfApi, constants\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY and constants.HF_HUB_DISABLE_XET\n"
        "assert 'hf_ambient' not in str(HfApi(token=False)._build_hf_headers())\n"
        "import httpx2\n"
        "try:\n"
        "    HfApi(token=False).whoami(token='hf_x')\n"
        "except httpx2.ConnectError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "HF_TOKEN": "hf_ambient", "AGENT": "claude", "HF_DEBUG": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "nothing but a source asks a hub" in done.stdout
    assert "hf_" not in done.stdout + done.stderr
