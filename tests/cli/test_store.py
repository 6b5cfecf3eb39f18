"""``lorafleet store`` on real folders."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from lorafleet.store.collect import STAGING_SECONDS
from tests.adapters import adapter
from tests.cli.commands import lorafleet
from tests.store.volume import Volume, tree


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Two versions that share their weights, and one that shares nothing but the tokenizer with them."""
    made = Volume.at(tmp_path)
    adapter(made.claim / "b", lora_alpha=32, files={"tokenizer.json": b"{}"})
    adapter(made.claim / "c", seed=5, lora_alpha=64, files={"tokenizer.json": b"{}"})
    for version, source in (("1.0", "a"), ("1.1", "b"), ("2.0", "c")):
        made.publish(version, source)
    return made


def leave_garbage(volume: Volume) -> dict[str, Path]:
    """Something of each kind that gc removes, and beside it what it must not touch."""
    layout = volume.layout
    dead, alive = layout.new_staging("py.3"), layout.new_staging("py.4")
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "part").write_bytes(b"x" * 10_000)
    for path in (dead / "part", dead):
        os.utime(path, (1, 1))
    trash = layout.new_trash("py.0-000000000000")
    trash.mkdir()
    (trash / "adapter_model.safetensors").write_bytes(b"x" * 10_000)
    blob = layout.blobs / f"sha256-{'a' * 64}"
    blob.write_bytes(b"x" * 10_000)
    return {"dead": dead, "alive": alive, "trash": trash, "blob": blob}


def test_ls_says_of_each_version_what_it_shares(volume: Volume) -> None:
    answer = lorafleet("store", "ls", volume.layout.root, "-o", "json")
    assert answer.code == 0
    found = json.loads(answer.out)
    one, two, three = found["versions"]
    assert [version["id"] for version in (one, two, three)] == [1, 2, 3]
    assert [version["servedName"] for version in (one, two, three)] == volume.served()
    weights = ((volume.layout.serving / one["servedName"]) / "adapter_model.safetensors").stat().st_size
    assert one["sharedBytes"] == two["sharedBytes"] == weights + 2
    assert three["sharedBytes"] == 2
    for version in (one, two, three):
        assert version["uniqueBytes"] + version["sharedBytes"] == version["sizeBytes"]
        assert version["digest"].startswith(f"sha256:{version['servedName'][-12:]}")
    assert one["source"] == {"scheme": "volume", "path": "a"}


def test_areas_count_each_file_once(volume: Volume) -> None:
    leave_garbage(volume)
    found = json.loads(lorafleet("store", "ls", volume.layout.root, "-o", "json").out)
    areas = {area["name"]: area for area in found["areas"]}
    assert {name: area["entries"] for name, area in areas.items()} == {
        "serving": 3,
        "blobs": len(list(volume.layout.blobs.iterdir())),
        "staging": 2,
        "trash": 1,
    }
    # All blobs but one are names of what is in serving/.
    assert areas["blobs"]["sizeBytes"] == (volume.layout.blobs / f"sha256-{'a' * 64}").stat().st_blocks * 512
    assert found["usedBytes"] == sum(area["sizeBytes"] for area in areas.values())


def test_ls_prints_the_same_in_json_and_yaml(volume: Volume) -> None:
    as_json, as_yaml = (lorafleet("store", "ls", volume.layout.root, "-o", form).out for form in ("json", "yaml"))
    assert json.loads(as_json) == yaml.safe_load(as_yaml)


def test_a_folder_without_a_manifest_is_listed_with_its_problem(volume: Volume) -> None:
    stranger = volume.layout.serving / "py" / "stranger"
    stranger.mkdir()
    answer = lorafleet("store", "ls", volume.layout.root)
    assert answer.code == 0
    assert "py/stranger is no version: 'py/stranger' is no served name" in answer.out


def test_verify_names_what_is_damaged(volume: Volume) -> None:
    whole = lorafleet("store", "verify", volume.layout.root)
    assert whole.code == 0
    assert "3 verified (every byte read), 0 damaged" in whole.out
    name = volume.served()[2]
    weights = (volume.layout.serving / name) / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    damaged = lorafleet("store", "verify", volume.layout.root, "-o", "json")
    assert damaged.code == 1
    found = json.loads(damaged.out)
    assert found["damaged"] == 1
    (bad,) = [one for one in found["versions"] if "problem" in one]
    assert bad["servedName"] == name
    assert "adapter_model.safetensors has other content" in bad["problem"]


def test_verify_looks_at_the_named_versions_alone(volume: Volume) -> None:
    one, two, _ = volume.served()
    ((volume.layout.serving / two) / "adapter_model.safetensors").unlink()
    assert lorafleet("store", "verify", volume.layout.root, one).code == 0
    assert lorafleet("store", "verify", volume.layout.root, one, two).code == 1


def test_verify_of_a_name_that_is_not_there_says_which_are(volume: Volume) -> None:
    answer = lorafleet("store", "verify", volume.layout.root, "py/9.9-000000000000")
    assert answer.code == 2
    assert answer.out == ""
    assert "py/9.9-000000000000 is not published" in answer.err
    assert volume.served()[0] in answer.err


def test_a_dry_run_names_what_gc_then_removes_and_touches_nothing(volume: Volume) -> None:
    left = leave_garbage(volume)
    before = tree(volume.layout.root)
    dry = lorafleet("store", "gc", "--dry-run", volume.layout.root, "-o", "json")
    assert dry.code == 0
    assert tree(volume.layout.root) == before
    said = json.loads(dry.out)
    wet = json.loads(lorafleet("store", "gc", volume.layout.root, "-o", "json").out)
    assert wet == said | {"dryRun": False}
    assert (said["staging"], said["trash"], said["blobs"]) == (
        [left["dead"].name],
        [left["trash"].name],
        [left["blob"].name],
    )
    assert [name for name, path in left.items() if path.exists()] == ["alive"]


def test_gc_says_how_many_bytes_the_volume_has_more(volume: Volume) -> None:
    leave_garbage(volume)
    # The weights of a version that was removed are in trash/ and still a blob: both names go, so the bytes do.
    name = volume.served()[2]
    shutil.move((volume.layout.serving / name), volume.layout.new_trash("py.2"))
    before = used(volume.layout.root)
    said = json.loads(lorafleet("store", "gc", volume.layout.root, "-o", "json").out)
    assert said["freedBytes"] == before - used(volume.layout.root)
    assert len(said["blobs"]) == 3


def test_gc_never_touches_serving(volume: Volume) -> None:
    (volume.layout.serving / "empty").mkdir()
    before = {path: path.lstat() for path in volume.layout.serving.rglob("*")}
    leave_garbage(volume)
    answer = lorafleet("store", "gc", volume.layout.root)
    assert "serving/ is left alone" in answer.out
    assert set(volume.layout.serving.rglob("*")) == set(before)
    assert all(path.lstat().st_mtime_ns == found.st_mtime_ns for path, found in before.items())


def test_staging_that_is_young_is_a_job_at_work(volume: Volume) -> None:
    left = leave_garbage(volume)
    now = left["alive"].stat().st_mtime
    for path in (left["dead"] / "part", left["dead"]):
        os.utime(path, (now, now - STAGING_SECONDS + 600))
    found = json.loads(lorafleet("store", "gc", "--dry-run", volume.layout.root, "-o", "json").out)
    assert found["staging"] == []


@pytest.mark.parametrize("command", [["ls"], ["verify"], ["gc"], ["gc", "--dry-run"]], ids=" ".join)
def test_a_folder_that_is_no_volume_is_refused(command: list[str], tmp_path: Path) -> None:
    for root, found in ((tmp_path, "has no serving/"), (tmp_path / "nothing", "is no folder")):
        answer = lorafleet("store", *command, root)
        assert (answer.code, answer.out) == (2, "")
        assert found in answer.err
        assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def used(root: Path) -> int:
    """Allocated bytes of all files below a folder, each file once."""
    files = {(one.st_dev, one.st_ino): one for one in (path.lstat() for path in root.rglob("*") if path.is_file())}
    return sum(one.st_blocks * 512 for one in files.values())
