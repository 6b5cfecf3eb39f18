"""``lorafleet inspect`` on folders, archives and servers: the verdict of publishing, and everything else it can say."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorafleet.api.adapter import AdapterVersion
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.cli.address import Unusable
from lorafleet.cli.inspect import inspect
from lorafleet.cli.question import question
from lorafleet.cli.report import Check, Inspection, Result
from tests.adapters import BASE, adapter, pair
from tests.artifacts.archives import pack
from tests.cli.commands import lorafleet
from tests.servers.hub import hub
from tests.servers.oras import Oras
from tests.servers.registry import registry
from tests.servers.s3 import s3
from tests.servers.web import web

FLEET: dict[str, Any] = {"base_models": (BASE,), "max_lora_rank": 64, "engine_version": "0.32.0"}
TOKEN = "s3cr3t-t0ken"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which every inspection leaves empty."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def inspected(address: str | Path, **options: Any) -> Inspection:
    return inspect(question(str(address), **options))


def check(found: Inspection, name: str) -> Check:
    return next(check for check in found.checks if check.name == name)


def results(found: Inspection, result: Result) -> list[str]:
    return [check.name for check in found.checks if check.result is result]


def digest_of(folder: Path) -> str:
    return digest(hash_file(folder, path.name) for path in folder.iterdir())


# What is said.


def test_everything_about_a_good_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0", files={"tokenizer.json": b"{}"})
    found = inspected(folder, **FLEET)
    assert found.accepted
    assert results(found, Result.REFUSED) == []
    assert found.digest == digest_of(folder)
    assert {(file.path, file.size, file.sha256) for file in found.files} == {
        (one.path, one.size, one.sha256) for one in (hash_file(folder, path.name) for path in folder.iterdir())
    }
    assert found.size_bytes == sum(file.size for file in found.files)
    assert (found.base_model, found.rank, found.target_modules, found.dtype, found.min_engine) == (
        BASE,
        8,
        ("q_proj", "v_proj"),
        "F16",
        None,
    )


def test_files_that_are_no_part_of_an_adapter_do_not_count(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    expected = inspected(folder).digest
    (folder / "optimizer.pt").write_bytes(b"x" * 1000)
    assert inspected(folder).digest == expected


def test_it_goes_on_after_a_refusal_where_it_can(tmp_path: Path) -> None:
    weights = pair("base_model.model.model.layers.0.self_attn.q_proj", rank=128)
    folder = adapter(tmp_path / "1.0", weights=weights, r=128, base_model_name_or_path="other/model")
    found = inspected(folder, **FLEET, digest=f"sha256:{'0' * 64}")
    assert not found.accepted
    refused = {check.name: check.reason for check in found.checks if check.result is Result.REFUSED}
    assert refused == {"digest": "DigestMismatch", "base model": "BaseModelMismatch", "rank": "RankTooHigh"}
    assert "files" in results(found, Result.PASSED)
    assert "matrices" in results(found, Result.PASSED)
    assert (found.rank, found.target_modules) == (128, ("q_proj",))


def test_what_a_refused_check_was_needed_for_is_not_checked_and_says_so(tmp_path: Path) -> None:
    found = inspected(adapter(tmp_path / "1.0", peft_type="IA3"), **FLEET)
    assert check(found, "configuration").reason == Reason.PEFT_TYPE_NOT_SUPPORTED
    for name in ("base model", "rank", "engine version", "matrices"):
        one = check(found, name)
        assert (one.result, one.message) == (Result.NOT_CHECKED, "configuration has to pass first")
    assert check(found, "weights").result is Result.PASSED


def test_without_options_what_needs_them_is_not_checked_and_says_which(tmp_path: Path) -> None:
    found = inspected(adapter(tmp_path / "1.0", base_model_name_or_path="any/model"))
    assert found.accepted
    for name, option in (
        ("digest", "--digest"),
        ("signature", "--public-key"),
        ("base model", "--base-model"),
        ("rank", "--max-lora-rank"),
    ):
        one = check(found, name)
        assert one.result is Result.NOT_CHECKED
        assert option in (one.message or "")
    # An adapter that any engine serves needs no version of the engine.
    assert check(found, "engine version").result is Result.PASSED


def test_an_adapter_that_needs_a_new_vllm_says_which(tmp_path: Path) -> None:
    weights = pair("base_model.model.model.layers.0.self_attn.q_proj", rank=16) | pair(
        "base_model.model.model.layers.0.self_attn.v_proj", rank=8
    )
    folder = adapter(tmp_path / "1.0", weights=weights, rank_pattern={"q_proj": 16})
    unknown = inspected(folder)
    assert unknown.min_engine == "0.32"
    assert check(unknown, "engine version").result is Result.NOT_CHECKED
    assert inspected(folder, engine_version="0.32.1").accepted
    old = inspected(folder, engine_version="0.30.0")
    assert check(old, "engine version").reason == Reason.FEATURE_NOT_SUPPORTED


def test_the_entry_of_an_accepted_adapter_is_a_valid_one(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    found = inspected(folder)
    entry = AdapterVersion.model_validate(found.entry)
    assert entry.digest == found.digest
    # Published by its digest it is accepted, and anything else is not.
    assert inspected(folder, digest=entry.digest).accepted
    (folder / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes() + b"\n")
    assert check(inspected(folder, digest=entry.digest), "digest").reason == Reason.DIGEST_MISMATCH


def test_a_refused_adapter_has_no_entry_to_paste(tmp_path: Path) -> None:
    assert inspected(adapter(tmp_path / "1.0", use_dora=True)).entry is None


# Where it is.


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.zst", "zip"])
def test_an_archive_has_the_digest_of_its_folder(form: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    content = {f"out/{path.name}": path.read_bytes() for path in folder.iterdir()}
    archive = tmp_path / f"adapter.{form}"
    archive.write_bytes(pack(content, form))
    found = inspected(archive, **FLEET)
    assert found.accepted
    assert found.digest == digest_of(folder)
    assert found.entry is not None
    assert found.entry["source"]["http"]["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_a_subfolder_of_an_archive_is_named(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    content = {f"{name}/{path.name}": path.read_bytes() for path in folder.iterdir() for name in ("a", "b")}
    archive = tmp_path / "adapter.tar"
    archive.write_bytes(pack(content))
    assert check(inspected(archive), "source").reason == Reason.SOURCE_INVALID
    assert inspected(archive, subfolder="a").accepted


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"not one")
    found = inspected(tmp_path / "x.tar.gz")
    assert check(found, "source").reason == Reason.ARCHIVE_INVALID
    assert results(found, Result.PASSED) == []


def test_links_of_a_folder_stay_below_it_or_below_the_root_that_is_named(tmp_path: Path) -> None:
    blobs = adapter(tmp_path / "cache" / "blobs")
    snapshot = tmp_path / "cache" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    assert check(inspected(snapshot), "source").reason == Reason.UNSAFE_PATH
    found = inspected(snapshot, root=tmp_path / "cache")
    assert found.accepted
    assert found.digest == digest_of(blobs)


def test_what_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    found = inspected(tmp_path / "nothing")
    assert check(found, "source").reason == Reason.SOURCE_NOT_FOUND
    assert str(tmp_path / "nothing") in (check(found, "source").message or "")
    assert (found.digest, found.files, found.entry) == (None, (), None)


def test_a_commit_of_a_hub_is_pinned_in_the_entry(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    secret = tmp_path / "hub-token"
    secret.mkdir()
    with hub(tmp_path / "hub") as server:
        commit = server.files.commit("acme/sql", folder, private=True)
        token = server.files.token("acme/sql")
        (secret / "token").write_text(token)
        found = inspected("hf://acme/sql", endpoint=server.url, secret=secret, **FLEET)
        assert found.accepted
        assert found.digest == digest_of(folder)
        assert found.pin == commit
        assert found.entry is not None
        assert found.entry["source"]["huggingFace"] == {
            "repo": "acme/sql",
            "revision": commit,
            "endpoint": server.url,
            "secretName": "hub-token",
        }
        # Whoever may not read is told so, and nothing that was in the Secret.
        denied = inspected("hf://acme/sql", endpoint=server.url)
        assert check(denied, "source").result is Result.REFUSED
        assert token not in denied.model_dump_json()
        assert token not in found.model_dump_json()


def test_an_address_with_a_token_is_read_and_never_shown(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    archive = pack({path.name: path.read_bytes() for path in folder.iterdir()}, "tar.gz")
    with web(tmp_path / "web") as server:
        (server.root / "sql.tar.gz").write_bytes(archive)
        url = f"{server.url}/sql.tar.gz?token={TOKEN}"
        found = inspected(f"{url}#sha256={hashlib.sha256(archive).hexdigest()}")
        assert found.accepted
        assert found.digest == digest_of(folder)
        assert TOKEN not in found.model_dump_json()
        other = inspected(f"{url}#sha256={'0' * 64}")
        assert check(other, "source").reason == Reason.SOURCE_CORRUPT
        assert TOKEN not in other.model_dump_json()


def test_a_folder_of_a_bucket(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    secret = tmp_path / "models"
    secret.mkdir()
    with s3(tmp_path / "s3") as bucket:
        bucket.fill("sql/1.0", folder)
        for key, value in bucket.keys.items():
            (secret / key).write_text(value)
        found = inspected(bucket.url("sql/1.0/"), endpoint=bucket.endpoint, secret=secret, **FLEET)
        assert found.accepted
        assert found.digest == digest_of(folder)
        assert found.entry is not None
        assert found.entry["name"] == "1.0"
        assert found.entry["source"]["objectStore"]["secretName"] == "models"


def test_an_artifact_of_a_registry_is_pinned_in_the_entry(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    with registry(tmp_path / "registry") as server:
        pin = Oras(server).files("acme/sql", "1.0", folder)
        found = inspected(f"oci://{server.address}/acme/sql:1.0", plain_http=True, **FLEET)
        assert found.accepted
        assert found.digest == digest_of(folder)
        assert found.entry is not None
        assert found.entry["source"]["oci"] == {
            "reference": f"{server.address}/acme/sql:1.0@{pin}",
            "plainHttp": True,
        }


# What cannot be asked.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"digest": "abc"}, "--digest"),
        ({"engine_version": "new"}, "--engine-version"),
        ({"max_size": "lots"}, "--max-size"),
        ({"secret": Path("/nonexistent")}, "--secret"),
        ({"base_config": Path("/nonexistent")}, "--base-config"),
        ({"public_key": Path("/nonexistent")}, "--public-key"),
        ({"public_key": Path("a"), "certificate": Path("b")}, "--public-key and --certificate"),
        ({"certificate": Path("a")}, "--identity"),
        ({"trust_config": Path("a"), "identity": "x"}, "--issuer"),
        ({"identity": "x"}, "--identity"),
        ({"endpoint": "http://x"}, "--endpoint"),
        ({"subfolder": "x"}, "--subfolder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_cannot_be_used_are_named(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=says):
        question(str(adapter(tmp_path / "1.0")), **options)


def test_a_file_of_an_adapter_is_answered_with_its_folder(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    with pytest.raises(Unusable, match=f"inspect {folder}"):
        question(str(folder / "adapter_model.safetensors"))


# As a command.


def test_the_exit_code_is_the_verdict(tmp_path: Path) -> None:
    good, bad = adapter(tmp_path / "good"), adapter(tmp_path / "bad", use_dora=True)
    assert lorafleet("inspect", good).code == 0
    refused = lorafleet("inspect", bad)
    assert refused.code == 1
    assert "FeatureNotSupported" in refused.out
    usage = lorafleet("inspect", good, "--digest", "x")
    assert (usage.code, usage.out) == (2, "")
    assert usage.err.startswith("error: --digest is no digest")
    for answer in (refused, usage):
        assert "Traceback" not in answer.err + answer.out


def test_json_and_yaml_are_the_same_document(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0", use_dora=True)
    as_json, as_yaml = (lorafleet("inspect", folder, "-o", form) for form in ("json", "yaml"))
    assert (as_json.code, as_yaml.code) == (1, 1)
    document = json.loads(as_json.out)
    assert document == yaml.safe_load(as_yaml.out)
    assert Inspection.model_validate(document).to_json() == document


def test_fields_of_the_document_are_only_ever_added() -> None:
    schema = Inspection.model_json_schema(by_alias=True)
    fields = {name: sorted(model["properties"]) for name, model in schema["$defs"].items() if "properties" in model}
    assert {"Inspection": sorted(schema["properties"])} | fields == {
        "Inspection": [
            "accepted", "baseModel", "checks", "digest", "dtype", "entry", "files", "memory", "minEngine", "notices",
            "pin", "rank", "schemaVersion", "signedBy", "sizeBytes", "source", "targetModules",
        ],
        "Check": ["message", "name", "reason", "result"],
        "File": ["path", "sha256", "size"],
        "Memory": [
            "fleetSlotBytes", "maxLoraRank", "maxLoras", "preallocatedBytes", "slotBytes", "tensorParallelSize",
        ],
        "Notice": ["message", "reason"],
    }  # fmt: skip
    assert schema["$defs"]["Result"]["enum"] == ["passed", "refused", "notChecked"]


def test_what_a_file_says_does_not_steer_the_terminal(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0", base_model_name_or_path="\x1b[2J\x1b]0;title\x07[bold]x")
    answer = lorafleet("inspect", folder, "--base-model", BASE)
    assert answer.code == 1
    assert "\x1b" not in answer.out
    assert "\x07" not in answer.out
    assert "[bold]x" in answer.out


def test_a_full_temporary_folder_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(tmp_path / "1.0")
    monkeypatch.setattr("lorafleet.store.fs.PosixFileSystem.free_bytes", lambda self, path: 100)
    with pytest.raises(Unusable, match="TMPDIR"):
        inspected(folder)


def test_a_command_that_is_ended_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    folder = adapter(tmp_path / "large")
    os.truncate(folder / "adapter_model.safetensors", 8 * 1000**3)
    process = subprocess.Popen([sys.executable, "-m", "lorafleet", "inspect", str(folder)], stdout=subprocess.DEVNULL)
    _until(lambda: any(path.stat().st_size > 10_000_000 for path in temporary.rglob("*") if path.is_file()))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
