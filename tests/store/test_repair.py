"""Bit rot is found, and put right without a moment in which a path is missing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store import published
from lorafleet.store.fs import PosixFileSystem
from lorafleet.store.manifest import Manifest
from lorafleet.store.published import verify
from lorafleet.store.remove import sweep_trash
from lorafleet.store.scrub import scrub
from tests.adapters import adapter
from tests.store.faulty import NEVER, FaultyFileSystem, Killed
from tests.store.remote import Remote
from tests.store.volume import Volume, tree

WEIGHTS = "adapter_model.safetensors"
Damage = Callable[[Path], object]


def _rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)


DAMAGES: list[Damage] = [
    lambda folder: _rot(folder / WEIGHTS),
    lambda folder: _rot(folder / "adapter_config.json"),
    lambda folder: (folder / WEIGHTS).unlink(),
    lambda folder: (folder / WEIGHTS).open("ab").write(b"x"),
    lambda folder: (folder / WEIGHTS).open("wb").close(),
    lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()),
    lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).symlink_to("tokenizer.json")),
    lambda folder: (folder / "adapter_model.bin").write_bytes(b"pickle"),
    lambda folder: (folder / WEIGHTS).chmod(0o600),
    lambda folder: folder.chmod(0o700),
    lambda folder: [_rot(path) for path in folder.iterdir() if path.name != "lorafleet.json"],
]


def _repair(volume: Volume, found: Manifest, **changes: object) -> Manifest:
    return volume.publish(found.version, repairing=found.served_name, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_found_and_repaired(volume: Volume, damage: Damage) -> None:
    found = volume.publish()
    whole = tree(volume.folder(found))
    damage(volume.folder(found))
    scrubbed = scrub(volume.layout)
    assert (scrubbed.count, [name for name, _ in scrubbed.damaged]) == (1, [found.served_name])
    assert _repair(volume, found) == found
    assert tree(volume.folder(found)) == whole
    assert scrub(volume.layout).damaged == ()
    sweep_trash(volume.layout, PosixFileSystem())
    assert not volume.leftovers()


def test_files_that_are_whole_are_not_touched(volume: Volume) -> None:
    found = volume.publish()
    folder = volume.folder(found)
    _rot(folder / "adapter_config.json")
    before = {path.name: path.stat() for path in folder.iterdir()}
    _repair(volume, found)
    changed = {path.name for path in folder.iterdir() if path.stat().st_ino != before[path.name].st_ino}
    assert changed == {"adapter_config.json"}


def test_nothing_is_fetched_for_a_version_that_is_whole(volume: Volume) -> None:
    found = volume.publish()
    shutil.rmtree(volume.claim)
    assert _repair(volume, found) == found


def test_the_path_of_a_damaged_file_exists_at_every_step(volume: Volume) -> None:
    found = volume.publish()
    weights = volume.folder(found) / WEIGHTS
    _rot(weights)
    seen = 0

    class Watching(FaultyFileSystem):
        def _step(self, name: str) -> None:
            nonlocal seen
            seen += 1
            assert weights.exists(), name
            super()._step(name)

    _repair(volume, found, fs=Watching(NEVER, None))
    assert seen > 10


def test_all_versions_that_share_a_damaged_file_are_repaired_each_in_its_turn(volume: Volume) -> None:
    found = [volume.publish("1"), volume.publish("2"), volume.publish("3", adapter="other")]
    _rot(volume.folder(found[0]) / WEIGHTS)
    assert len(scrub(volume.layout).damaged) == 3
    for number, one in enumerate(found):
        _repair(volume, one, adapter=one.adapter)
        assert len(scrub(volume.layout).damaged) == 2 - number
    inodes = {(volume.folder(one) / WEIGHTS).stat().st_ino for one in found}
    assert len(inodes) == 1


def test_other_bytes_at_the_source_are_not_a_repair(volume: Volume) -> None:
    found = volume.publish()
    _rot(volume.folder(found) / WEIGHTS)
    before = tree(volume.folder(found))
    adapter(volume.claim / "a", seed=9)
    with pytest.raises(ArtifactError) as caught:
        _repair(volume, found)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert tree(volume.folder(found)) == before
    assert not volume.leftovers()


def _lose_a_field(manifest: Path) -> None:
    fields = json.loads(manifest.read_text())
    del fields["rank"]
    manifest.write_text(json.dumps(fields))


def test_a_manifest_that_is_not_valid_is_written_again_with_its_id(volume: Volume) -> None:
    volume.publish("0")
    found = volume.publish("1")
    _lose_a_field(volume.folder(found) / "lorafleet.json")
    _rot(volume.folder(found) / WEIGHTS)
    repaired = _repair(volume, found)
    changes = {"published_at": found.published_at}
    assert repaired.model_copy(update=changes) == found
    assert verify(volume.layout, found.served_name, deep=True) == repaired


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: manifest.unlink(),
        lambda manifest: manifest.write_text("{"),
        lambda manifest: manifest.write_text('{"id": 1}'),
        lambda manifest: manifest.write_text('{"id": 77}'),
        lambda manifest: manifest.write_text('{"id": true}'),
    ],
)
def test_an_id_that_is_lost_is_not_made_up(volume: Volume, damage: Damage) -> None:
    volume.publish("0")
    found = volume.publish("1")
    damage(volume.folder(found) / "lorafleet.json")
    with pytest.raises(ArtifactError) as caught:
        _repair(volume, found)
    assert caught.value.reason is Reason.VOLUME_ERROR
    assert "new version" in caught.value.message
    assert not volume.leftovers()


def test_a_version_that_is_gone_is_not_made_up(volume: Volume) -> None:
    found = volume.publish()
    shutil.rmtree(volume.folder(found))
    with pytest.raises(ArtifactError) as caught:
        _repair(volume, found)
    assert caught.value.reason is Reason.VOLUME_ERROR
    assert volume.served() == []


def test_a_repair_that_dies_at_any_step_is_finished_by_the_next(tmp_path: Path) -> None:
    at = 0
    while True:
        volume = Volume.at(tmp_path / str(at))
        found = volume.publish()
        folder = volume.folder(found)
        whole = tree(folder)
        _rot(folder / WEIGHTS)
        _rot(folder / "tokenizer.json")
        fs = FaultyFileSystem(at, None)
        try:
            _repair(volume, found, fs=fs)
        except Killed:
            assert set(tree(folder)) == set(whole)
        _repair(volume, found)
        assert tree(folder) == whole
        if not fs.reached:
            break
        at += 1
    assert at > 20


def test_a_remote_source_is_fetched_again(volume: Volume) -> None:
    remote = Remote.of(volume.claim / "a", checksum="sha256")
    found = volume.publish(source=remote)
    _rot(volume.folder(found) / WEIGHTS)
    assert _repair(volume, found, source=remote) == found
    verify(volume.layout, found.served_name, deep=True)


def test_a_scrub_reads_a_shared_file_once(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        volume.publish(str(number))
    read: list[int] = []
    real = published.hash_file

    def hash_file(folder: Path, path: str) -> object:
        read.append((folder / path).stat().st_ino)
        return real(folder, path)

    monkeypatch.setattr(published, "hash_file", hash_file)
    assert scrub(volume.layout).count == 5
    assert len(read) == len(set(read)) == 3


def test_a_version_that_is_removed_during_a_scrub_is_not_damaged(volume: Volume) -> None:
    found = [volume.publish("1"), volume.publish("2")]

    def check() -> None:
        shutil.rmtree(volume.folder(found[1]), ignore_errors=True)

    assert scrub(volume.layout, check).damaged == ()


def test_what_nfs_keeps_for_an_engine_is_no_damage(volume: Volume) -> None:
    found = volume.publish()
    (volume.folder(found) / ".nfs000000000001").write_bytes(b"old")
    assert verify(volume.layout, found.served_name, deep=True) == found
