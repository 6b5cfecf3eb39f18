"""Each server answers its own plain client as the real thing does, and misbehaves when it is told to."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from huggingface_hub import HfApi, close_session, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import _http
from obstore.store import AzureStore, GCSStore, S3Store

from tests.servers.azure import azure
from tests.servers.bucket import Bucket
from tests.servers.certificates import tls
from tests.servers.gcs import gcs
from tests.servers.hub import Hub, hub, hub_process
from tests.servers.oras import FILEPATH, MANIFEST, TITLE, Oras
from tests.servers.process import LOOPBACK, ServerError
from tests.servers.registry import Login, Registry, registry
from tests.servers.s3 import s3
from tests.servers.sending import Faults
from tests.servers.web import Files, web, web_process

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BODY = bytes(range(256)) * 4000


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / CONFIG).write_text('{"r": 8}')
    (folder / WEIGHTS).write_bytes(BODY)
    (folder / "README.md").write_text("# An adapter")
    return folder


# Object stores.

BUCKETS = {"s3": s3, "gs": gcs, "az": azure}


def client(bucket: Bucket, keys: dict[str, str]) -> Any:
    kinds: dict[str, tuple[Any, str]] = {
        "s3": (S3Store, "aws_endpoint"),
        "gs": (GCSStore, "google_base_url"),
        "az": (AzureStore, "azure_endpoint"),
    }
    kind, endpoint = kinds[bucket.scheme]
    options = {"allow_http": True, "allow_invalid_certificates": True}
    anonymous = {} if keys else {"skip_signature": True}
    return kind(bucket.name, config={**keys, endpoint: bucket.endpoint}, client_options=options, **anonymous)


def check_bucket(bucket: Bucket, adapter: Path) -> None:
    bucket.fill("python/1.0", adapter)
    bucket.put("python/note.txt", b"gone")
    bucket.delete("python/note.txt")
    store = client(bucket, dict(bucket.keys))
    found = {entry["path"]: entry["size"] for entry in obstore.list(store).collect()}
    assert found == {f"python/1.0/{file.name}": file.stat().st_size for file in adapter.iterdir()}
    assert bytes(obstore.get(store, f"python/1.0/{WEIGHTS}").bytes()) == BODY


@pytest.mark.parametrize("kind", BUCKETS)
def test_a_bucket_gives_what_was_put_and_is_closed_to_other_keys(kind: str, tmp_path: Path, adapter: Path) -> None:
    with BUCKETS[kind](tmp_path / "store") as bucket:
        check_bucket(bucket, adapter)
        if bucket.wrong_keys:
            with pytest.raises(Exception, match=r"403|SignatureDoesNotMatch"):
                obstore.list(client(bucket, dict(bucket.wrong_keys))).collect()


@pytest.mark.parametrize("kind", ["s3", "az"])
def test_a_bucket_speaks_tls_with_an_authority_of_its_own(kind: str, tmp_path: Path, adapter: Path) -> None:
    secure = tls(tmp_path / "tls")
    with {"s3": s3, "az": azure}[kind](tmp_path / "store", tls=secure) as bucket:
        assert bucket.endpoint.startswith("https://")
        check_bucket(bucket, adapter)
        with pytest.raises(ServerError, match="certificate"):
            LOOPBACK.curl(bucket.endpoint)


# A registry.


def test_a_registry_gives_the_layouts_that_were_pushed(tmp_path: Path, adapter: Path) -> None:
    with registry(tmp_path / "registry") as running:
        oras = Oras(running)

        def layers(digest: str) -> list[dict[str, Any]]:
            found = json.loads(oras.run("manifest", "fetch", f"{running.address}/acme/lora@{digest}"))
            return list(found["layers"])

        files = layers(oras.files("acme/lora", "files", adapter))
        assert {layer["annotations"][TITLE] for layer in files} == {CONFIG, WEIGHTS, "README.md"}
        (folder,) = layers(oras.directory("acme/lora", "folder", adapter))
        assert folder["mediaType"].endswith("tar+gzip")
        assert folder["annotations"]["io.deis.oras.content.unpack"] == "true"
        (kit,) = layers(oras.modelkit("acme/lora", "kit", adapter))
        assert kit["mediaType"] == "application/vnd.kitops.modelkit.model.v1.tar+gzip"
        pack = layers(oras.modelpack("acme/lora", "pack", adapter))
        assert {layer["annotations"][FILEPATH] for layer in pack} == {CONFIG, WEIGHTS, "README.md"}
        one = oras.image("acme/lora", "amd64", adapter, base={"etc/os-release": b"ID=x\n"})
        two = oras.image("acme/lora", "arm64", adapter, compression="zst", below="models", architecture="arm64")
        assert len(layers(one)) == 2
        index = oras.index("acme/lora", "both", {one: {"os": "linux", "architecture": "amd64"}, two: None})
        listed = json.loads(oras.run("manifest", "fetch", f"{running.address}/acme/lora@{index}"))
        assert [entry["digest"] for entry in listed["manifests"]] == [one, two]
        oras.pull("acme/lora", "files", tmp_path / "pulled")
        assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == BODY


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_registry_asks_who_one_is(auth: Any, secure: bool, tmp_path: Path, adapter: Path) -> None:
    certificate = tls(tmp_path / "tls") if secure else None
    with registry(tmp_path / "registry", auth=auth, tls=certificate) as running:
        Oras(running).files("acme/lora", "1", adapter)
        assert running.puller is not None
        Oras(running, running.puller).pull("acme/lora", "1", tmp_path / "pulled")
        assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == BODY
        with pytest.raises(ServerError, match="unauthorized"):
            Oras(running, Login(running.puller.name, "wrong")).pull("acme/lora", "1", tmp_path / "denied")
        assert running.puller.password in running.docker_config()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[Registry]:
    with registry(tmp_path / "registry", auth="token") as running:
        yield running


def test_a_token_grants_what_its_user_may_and_no_more(tokens: Registry, tmp_path: Path, adapter: Path) -> None:
    for repository in ("acme/lora", "closed/lora", "public/lora"):
        Oras(tokens).files(repository, "1", adapter)
    puller = Oras(tokens, tokens.puller)
    with pytest.raises(ServerError, match="unauthorized"):
        puller.files("acme/lora", "2", adapter)
    with pytest.raises(ServerError, match="unauthorized"):
        puller.pull("closed/lora", "1", tmp_path / "closed")
    assert tokens.tokens()[-1]["access"] == [{"type": "repository", "name": "closed/lora", "actions": []}]
    answer = tokens.where.curl(f"{tokens.url}/v2/public/lora/manifests/1", "-o", "/dev/null", "-w", "%{http_code}",
                               "--no-fail-with-body")  # fmt: skip
    assert answer == b"401", "also what is public takes a token"


def test_a_damaged_blob_is_given_as_it_is(tmp_path: Path) -> None:
    with registry(tmp_path / "registry") as running:
        digest = Oras(running).blob("acme/lora", "application/octet-stream", BODY)["digest"]
        file = running.blob(digest)
        file.write_bytes(b"X" + file.read_bytes()[1:])
        assert running.where.curl(f"{running.url}/v2/acme/lora/blobs/{digest}") == b"X" + BODY[1:]


def test_a_tag_can_be_moved(tmp_path: Path, adapter: Path) -> None:
    with registry(tmp_path / "registry") as running:
        oras = Oras(running)
        first = oras.modelpack("acme/lora", "latest", adapter)
        (adapter / "README.md").write_text("# Another")
        second = oras.modelpack("acme/lora", "latest", adapter)
        assert first != second

        def at(tag: str) -> str:
            accept = ["-H", f"Accept: {MANIFEST}"]
            data = running.where.curl(f"{running.url}/v2/acme/lora/manifests/{tag}", *accept)
            return f"sha256:{hashlib.sha256(data).hexdigest()}"

        assert at("latest") == second
        oras.tag("acme/lora", first, "latest")
        assert at("latest") == first


# The web.


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "body").write_bytes(BODY)
    with web(tmp_path / "root") as running:
        yield running


def curl(url: str, *options: str) -> tuple[int, bytes]:
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", *options, url], capture_output=True, check=False, timeout=60
    )
    return done.returncode, done.stdout


def status(url: str, *options: str) -> str:
    return curl(url, "-o", "/dev/null", "-w", "%{http_code} %header{retry-after}", *options)[1].decode().strip()


PARTIAL, CUT = "206", 18


def test_a_file_is_given_whole_and_in_part(files: Files) -> None:
    assert curl(f"{files.url}/body") == (0, BODY)
    assert curl(f"{files.url}/body", "-r", "1000-") == (0, BODY[1000:])
    assert status(f"{files.url}/body", "-r", "1000-") == PARTIAL
    assert status(f"{files.url}/other") == "404"
    assert status(f"{files.url}/../secret", "--path-as-is") == "404"
    assert [path for _, path, _ in files.requests][:2] == ["/body", "/body"]


def test_connections_are_cut_as_often_as_was_asked(files: Files) -> None:
    files.faults["/body"] = Faults(cut_after=1000, cuts=1)
    assert curl(f"{files.url}/body") == (CUT, BODY[:1000])
    assert curl(f"{files.url}/body") == (0, BODY)
    files.faults["/body"] = Faults(cut_after=1000)
    assert curl(f"{files.url}/body", "-r", "1000-") == (CUT, BODY[1000:2000])


FAULTS: dict[str, tuple[Faults, tuple[str, ...], list[str]]] = {
    "too many requests": (Faults(status=429, failures=2, retry_after="1"), (), ["429 1", "429 1", "200"]),
    "broken": (Faults(status=500), (), ["500", "500"]),
    "no ranges": (Faults(ranges=False), ("-r", "5-"), ["200"]),
    "no HEAD": (Faults(head=False), ("-I",), ["405"]),
    "a header is missing": (Faults(headers={"X-Token": "a"}), (), ["401"]),
    "a header is wrong": (Faults(headers={"X-Token": "a"}), ("-H", "X-Token: b"), ["403"]),
    "a header is right": (Faults(headers={"X-Token": "a"}), ("-H", "X-Token: a"), ["200"]),
    "another ETag": (Faults(changes_after=1), ("-H", 'If-Match: "x"'), ["412"]),
    "a redirect": (Faults(location="/other"), ("-L",), ["404"]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_path_answers_as_it_was_told_to(files: Files, case: str) -> None:
    faults, options, statuses = FAULTS[case]
    files.faults["/body"] = faults
    assert [status(f"{files.url}/body", *options) for _ in statuses] == statuses


def test_a_length_can_be_wrong_or_missing(files: Files) -> None:
    files.faults["/body"] = Faults(more=10)
    assert curl(f"{files.url}/body") == (CUT, BODY)
    files.faults["/body"] = Faults(length=False)
    assert curl(f"{files.url}/body") == (0, BODY)


def test_the_etag_changes_after_so_many_requests(files: Files) -> None:
    files.faults["/body"] = Faults(changes_after=1)
    first, second = (curl(f"{files.url}/body", "-o", "/dev/null", "-w", "%header{etag}")[1] for _ in range(2))
    assert first
    assert second
    assert first != second


def test_the_web_server_is_also_a_process_with_tls(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "body").write_bytes(BODY)
    secure = tls(tmp_path / "tls")
    faults = {"/body": Faults(headers={"X-Token": "a"})}
    with web_process(tmp_path / "root", tmp_path / "log", tls=secure, faults=faults) as url:
        trusted = ("--cacert", str(secure.authority))
        assert curl(f"{url}/body", *trusted, "-H", "X-Token: a") == (0, BODY)
        assert status(f"{url}/body", *trusted) == "401"
        assert curl(f"{url}/body")[0] == 60, "nobody trusts it by default"


# A hub.


@pytest.fixture
def models(tmp_path: Path) -> Iterator[Hub]:
    with hub(tmp_path / "hub") as running:
        yield running


@pytest.fixture(autouse=True)
def _the_librarys_own_transport(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A source that ran before in this process has taken the library's requests for itself."""
    monkeypatch.setattr(_http, "_GLOBAL_CLIENT_FACTORY", _http.default_client_factory)
    close_session()
    yield
    close_session()


def api(running: Hub, token: str | None = None) -> HfApi:
    return HfApi(endpoint=running.url, token=token or False)


def test_the_hubs_own_library_reads_a_repository(models: Hub, tmp_path: Path, adapter: Path) -> None:
    sha = models.files.commit("acme/lora", adapter)
    assert api(models).model_info("acme/lora").sha == sha
    tree = {item.path: item for item in api(models).list_repo_tree("acme/lora", revision=sha)}
    assert set(tree) == {CONFIG, WEIGHTS, "README.md"}
    assert tree[WEIGHTS].lfs.sha256 == hashlib.sha256(BODY).hexdigest()  # type: ignore[union-attr]
    data = (adapter / CONFIG).read_bytes()
    assert tree[CONFIG].blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # type: ignore[union-attr]
    for name in (CONFIG, WEIGHTS):
        path = hf_hub_download(
            "acme/lora", name, endpoint=models.url, token=False, cache_dir=tmp_path / "cache", revision="main"
        )
        assert Path(path).read_bytes() == (adapter / name).read_bytes()
        assert sha in path


def test_large_files_come_from_another_origin_without_the_token(models: Hub) -> None:
    models.files.commit("acme/lora", {WEIGHTS: BODY}, private=True)
    token = models.files.token("acme/lora")
    url, bearer = f"{models.url}/acme/lora/resolve/main/{WEIGHTS}", ("-H", f"Authorization: Bearer {token}")
    assert curl(url, "-L", *bearer) == (0, BODY)
    location = curl(url, "-o", "/dev/null", "-w", "%{redirect_url}", *bearer)[1].decode()
    assert location.startswith(models.cdn)
    assert status(location, *bearer) == "400", "a token that goes along is found out"
    assert status(location.partition("?")[0] + "?Policy=acme/lora&Signature=0") == "403"
    assert status(location, "-r", "10-") == PARTIAL


def test_a_branch_moves_and_a_commit_does_not(models: Hub) -> None:
    first = models.files.commit("acme/lora", {CONFIG: b"1"})
    second = models.files.commit("acme/lora", {CONFIG: b"2"})
    models.files.move("acme/lora", "v1", first)
    answers = {revision: curl(f"{models.url}/acme/lora/resolve/{revision}/{CONFIG}", "-L")[1]
               for revision in ("main", "v1", first, second)}  # fmt: skip
    assert answers == {"main": b"2", "v1": b"1", first: b"1", second: b"2"}
    with pytest.raises(RevisionNotFoundError):
        api(models).model_info("acme/lora", revision="v2")
    models.files.move("acme/lora", "feature/a", first)
    assert api(models).model_info("acme/lora", revision="feature/a").sha == first


def test_who_may_not_read_is_told_what_the_hub_tells(models: Hub) -> None:
    models.files.commit("acme/private", {CONFIG: b"1"}, private=True)
    models.files.commit("acme/gated", {CONFIG: b"1"}, gated=True)
    good, other = models.files.token("acme/private", "acme/gated"), models.files.token()
    assert api(models, good).model_info("acme/private").sha
    for token, code in ((None, 401), (other, 404)):
        # Of a 401 the library tells what it is about from addresses with https alone.
        with pytest.raises(HfHubHTTPError) as missing:
            api(models, token).model_info("acme/private")
        assert missing.value.response.status_code == code
        assert isinstance(missing.value, RepositoryNotFoundError) == (code == 404)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        api(models, "hf_wrong").model_info("acme/private")
    for token, code in ((None, 401), (other, 403)):
        assert api(models, token).model_info("acme/gated").gated == "manual"
        with pytest.raises(GatedRepoError) as gated:
            api(models, token).get_hf_file_metadata(url=f"{models.url}/acme/gated/resolve/main/{CONFIG}")
        assert gated.value.response.status_code == code


def test_a_tree_has_pages_and_folders(models: Hub) -> None:
    models.page = 7
    names = {f"a/b/{number:02}.json" for number in range(20)} | {"top.json"}
    models.files.commit("acme/lora", dict.fromkeys(names, b"{}"))
    found = {item.path for item in api(models).list_repo_tree("acme/lora", recursive=True)}
    assert found == names | {"a", "a/b"}
    assert {item.path for item in api(models).list_repo_tree("acme/lora")} == {"a", "top.json"}
    assert {item.path for item in api(models).list_repo_tree("acme/lora", "a")} == {"a/b"}


def test_large_files_and_answers_go_wrong_as_they_are_told_to(models: Hub) -> None:
    sha = models.files.commit("acme/lora", {WEIGHTS: BODY})
    models.faults[""] = Faults(cut_after=1000, cuts=1)
    url = f"{models.url}/acme/lora/resolve/main/{WEIGHTS}"
    assert curl(url, "-L") == (CUT, BODY[:1000])
    assert curl(url, "-L") == (0, BODY)
    models.files.blob("acme/lora", sha, WEIGHTS).write_bytes(BODY[::-1])
    assert curl(url, "-L") == (0, BODY[::-1])
    models.api_faults = Faults(status=503, failures=1)
    about = f"{models.url}/api/models/acme/lora/revision/main"
    assert [status(about), status(about)] == ["503", "200"]


def test_the_hub_is_also_a_process_whose_files_can_be_changed(tmp_path: Path) -> None:
    secure = tls(tmp_path / "tls")
    with hub_process(tmp_path / "hub", tmp_path / "log", tls=secure) as running:
        for content in (b"1", b"2"):
            running.files.commit("acme/lora", {CONFIG: content, WEIGHTS: content})
            for name in (CONFIG, WEIGHTS):
                url = f"{running.url}/acme/lora/resolve/main/{name}"
                assert curl(url, "-L", "--cacert", str(secure.authority)) == (0, content)
