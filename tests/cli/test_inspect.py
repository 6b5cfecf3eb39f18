"""``lorafleet inspect`` on folders, archives and servers: the verdict of publishing, and everything else it can say."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from model_signing import hashing, signing

from lorafleet.api.adapter import AdapterVersion
from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.cli.address import Unusable
from lorafleet.cli.inspect import End, inspect
from lorafleet.cli.question import question
from lorafleet.cli.report import Check, Inspection, Result
from lorafleet.store.transfer import no_progress
from tests.adapters import BASE, adapter, pair
from tests.artifacts.archives import pack
from tests.artifacts.signers import Key, new_key, pem, private_pem, public, written
from tests.artifacts.test_signature import ISSUER, MAIL, ROOT, certified, sign_by_sigstore, trust_root
from tests.cli.commands import lorafleet
from tests.servers.hub import hub
from tests.servers.oras import Oras
from tests.servers.registry import registry
from tests.servers.s3 import s3
from tests.servers.web import web

FLEET: dict[str, Any] = {"base_models": (BASE,), "max_lora_rank": 64, "engine_version": "0.32.0"}
TOKEN = "s3cr3t-t0ken"
PICKLE = Path(__file__).parents[1] / "artifacts" / "data" / "fp16.bin"


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


# What it needs from the base model.

LAYER = "base_model.model.model.layers.0.self_attn"
BASE_CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


@pytest.fixture
def base_config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(BASE_CONFIG))
    return file


def test_shapes_are_compared_with_the_base_models_configuration(tmp_path: Path, base_config: Path) -> None:
    fits = inspected(adapter(tmp_path / "1.0"), base_config=base_config)
    assert check(fits, "shapes").result is Result.PASSED
    wide = inspected(adapter(tmp_path / "2.0", width=32), base_config=base_config)
    assert check(wide, "shapes").reason == Reason.SHAPE_MISMATCH
    unasked = inspected(adapter(tmp_path / "2.0", width=32))
    assert check(unasked, "shapes").message == "no --base-config was given"
    assert unasked.accepted


def test_a_base_model_of_an_unknown_kind_leaves_shapes_unchecked_and_says_why(
    tmp_path: Path, base_config: Path
) -> None:
    base_config.write_text(json.dumps(BASE_CONFIG | {"architectures": ["NewForCausalLM"]}))
    found = inspected(adapter(tmp_path / "1.0"), base_config=base_config)
    assert check(found, "shapes").result is Result.NOT_CHECKED
    assert "NewForCausalLM" in (check(found, "shapes").message or "")
    assert found.accepted
    assert found.notices == ()


def test_memory_is_that_of_the_adapter_and_of_the_engines_slots(tmp_path: Path, base_config: Path) -> None:
    found = inspected(adapter(tmp_path / "1.0"), base_config=base_config, max_lora_rank=16, max_loras=4)
    assert found.memory is not None
    # q_proj and v_proj, each 8 x 16 and 16 x 8 numbers of two bytes.
    assert found.memory.slot_bytes == 2 * 2 * (8 * 16 + 16 * 8)
    # At rank 16 also k_proj, o_proj, gate, up and down.
    assert found.memory.fleet_slot_bytes == 2 * 16 * (4 * (16 + 16) + 3 * (16 + 64))
    assert found.memory.preallocated_bytes == 4 * found.memory.fleet_slot_bytes
    spread = inspected(adapter(tmp_path / "1.0"), base_config=base_config, max_lora_rank=16, tensor_parallel=2)
    assert spread.memory is not None
    assert spread.memory.slot_bytes == 2 * 2 * (8 * 16 + 8 * 8)


def test_numbers_that_are_none_are_refused_and_an_untrained_adapter_is_noticed(tmp_path: Path) -> None:
    broken = pair(f"{LAYER}.q_proj")
    broken[f"{LAYER}.q_proj.lora_A.weight"][0, 0] = np.nan
    found = inspected(adapter(tmp_path / "1.0", weights=broken))
    assert check(found, "numbers").reason == Reason.WEIGHTS_NOT_FINITE
    untrained = pair(f"{LAYER}.q_proj")
    untrained[f"{LAYER}.q_proj.lora_B.weight"][:] = 0
    found = inspected(adapter(tmp_path / "2.0", weights=untrained))
    assert found.accepted
    assert [notice.reason for notice in found.notices] == [Reason.HAS_NO_EFFECT]
    assert "HasNoEffect" in lorafleet("inspect", tmp_path / "2.0").out


# What the fleet's policy asks for.


def with_pickle(folder: Path) -> Path:
    """An adapter whose weights are only a pickle of torch."""
    adapter(folder, target_modules=["q_proj"], r=4)
    (folder / "adapter_model.safetensors").unlink()
    shutil.copy(PICKLE, folder / "adapter_model.bin")
    return folder


def test_a_pickle_is_refused_or_converted_and_keeps_its_own_digest(tmp_path: Path) -> None:
    folder = with_pickle(tmp_path / "1.0")
    assert check(inspected(folder), "source").reason == Reason.PICKLE_REFUSED
    found = inspected(folder, allow_pickle=True)
    assert check(found, "pickle").result is Result.PASSED
    assert [notice.reason for notice in found.notices] == [Reason.PICKLE_CONVERTED]
    assert found.digest == digest_of(folder)
    assert check(found, "weights").result is Result.PASSED


def test_a_pickle_that_is_more_than_tensors_is_refused(tmp_path: Path) -> None:
    folder = with_pickle(tmp_path / "1.0")
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    found = inspected(folder, allow_pickle=True)
    assert check(found, "pickle").reason == Reason.PICKLE_REFUSED
    assert check(found, "files").message == "pickle has to pass first"


def signed(folder: Path, key: Key) -> None:
    private = written(folder.parent, "private.pem", private_pem(key))
    left_out = hashing.Config().set_ignored_paths(paths=[folder / "model.sig"], ignore_git_paths=True)
    config = signing.Config().set_hashing_config(left_out).use_elliptic_key_signer(private_key=private)
    config.sign(folder, folder / "model.sig")


def test_a_signature_counts_by_the_key_that_is_given(tmp_path: Path) -> None:
    folder, key, other = adapter(tmp_path / "1.0"), new_key(), new_key()
    expected = digest_of(folder)
    signed(folder, key)
    trusted = written(tmp_path, "public.pem", public(key))
    found = inspected(folder, public_key=trusted)
    assert found.accepted
    assert found.signed_by
    # A signature is over the files and is none of them.
    assert found.digest == expected
    stranger = inspected(folder, public_key=written(tmp_path, "other.pem", public(other)))
    assert check(stranger, "signature").reason == Reason.SIGNATURE_INVALID
    assert check(stranger, "numbers").result is Result.PASSED


@pytest.mark.parametrize("way", ["certificate", "trust_config"])
def test_a_signature_counts_by_the_identity_that_is_given(way: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    content = certified(folder) if way == "certificate" else sign_by_sigstore(folder)
    (folder / "model.sig").write_bytes(content)
    root = pem(ROOT.certificate) if way == "certificate" else trust_root()
    given: dict[str, Any] = {way: written(tmp_path, "root", root)}
    if way == "trust_config":
        given["issuer"] = ISSUER
    found = inspected(folder, identity=MAIL, **given)
    assert found.accepted
    assert MAIL in (found.signed_by or "")
    other = inspected(folder, identity="somebody@else.example", **given)
    assert check(other, "signature").reason == Reason.SIGNATURE_INVALID


def test_a_key_that_is_none_is_named_by_its_file(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    signed(folder, new_key())
    key = written(tmp_path, "public.pem", b"no key")
    message = check(inspected(folder, public_key=key), "signature").message or ""
    assert message.startswith(f"{key} cannot be used")
    assert "ConfigMap" not in message.partition(":")[0]


@pytest.mark.parametrize("packed", [False, True])
def test_an_adapter_without_the_signature_that_is_asked_for_is_checked_all_the_same(
    packed: bool, tmp_path: Path
) -> None:
    folder = adapter(tmp_path / "1.0")
    trusted = written(tmp_path, "public.pem", public(new_key()))
    path = folder
    if packed:
        path = tmp_path / "1.0.tar"
        path.write_bytes(pack({one.name: one.read_bytes() for one in folder.iterdir()}))
    found = inspected(path, public_key=trusted)
    assert results(found, Result.REFUSED) == ["signature"]
    assert check(found, "signature").reason == Reason.SIGNATURE_MISSING
    assert found.digest == digest_of(folder)


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
    refused = check(inspected(snapshot), "source")
    assert refused.reason == Reason.UNSAFE_PATH
    assert f"the claim's root is {snapshot}, unless --root" in (refused.message or "")
    with pytest.raises(Unusable, match="is not below --root"):
        inspected(snapshot, root=tmp_path / "elsewhere")
    found = inspected(snapshot, root=tmp_path / "cache")
    assert found.accepted
    assert found.digest == digest_of(blobs)


def test_what_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    found = inspected(tmp_path / "nothing")
    assert check(found, "source").reason == Reason.SOURCE_NOT_FOUND
    assert str(tmp_path / "nothing") in (check(found, "source").message or "")
    empty = tmp_path / "empty"
    empty.mkdir()
    said = check(inspected(empty), "source")
    assert said.reason == Reason.CONFIG_MISSING
    assert (said.message or "").startswith(f"{empty} has no adapter_config.json")
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


def test_nothing_is_cut_off_where_the_terminal_is_narrow(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0")
    found = inspected(folder)
    for columns in ("30", "80"):
        page = lorafleet("inspect", folder, COLUMNS=columns).out
        assert found.digest in page.split()
        for file in found.files:
            assert "base model " in page
            assert f"{file.path} {file.size} {file.sha256}" in " ".join(page.split())


def test_a_full_temporary_folder_is_named_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(tmp_path / "1.0")
    monkeypatch.setattr("lorafleet.store.fs.PosixFileSystem.free_bytes", lambda self, path: 100)
    with pytest.raises(Unusable, match="TMPDIR"):
        inspected(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_leaves_nothing(number: int, tmp_path: Path, temporary: Path) -> None:
    folder = adapter(tmp_path / "large")
    os.truncate(folder / "adapter_model.safetensors", 8 * 1000**3)
    process = subprocess.Popen([sys.executable, "-m", "lorafleet", "inspect", str(folder)], stdout=subprocess.DEVNULL)
    _until(lambda: any(path.stat().st_size > 10_000_000 for path in temporary.rglob("*") if path.is_file()))
    process.send_signal(number)
    assert process.wait(10) == 128 + number


def test_a_signal_waits_for_threads_alone_and_only_once() -> None:
    with pytest.raises(SystemExit, match="143"):
        End().ask(signal.SIGTERM)
    end = End()
    with pytest.raises(SystemExit, match="143"), end.threads(no_progress) as told:
        end.ask(signal.SIGTERM)
        told(0, None)
    end = End()
    with pytest.raises(SystemExit, match="143"), end.threads(no_progress):
        end.ask(signal.SIGTERM)
    end = End()
    with pytest.raises(SystemExit, match="130"), end.threads(no_progress):
        end.ask(signal.SIGTERM)
        end.ask(signal.SIGINT)
        raise AssertionError("the second signal was not heard")


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
