"""Identical files once, whatever the volume can, and never a wrong one."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafleet.artifacts.digest import hash_file
from lorafleet.store import volume as volumes
from lorafleet.store.collect import collect
from lorafleet.store.fs import POSIX, FileSystem, PosixFileSystem
from lorafleet.store.published import verify
from lorafleet.store.remove import remove
from lorafleet.store.room import used_bytes
from tests.store.remote import Remote
from tests.store.volume import Volume

WEIGHTS = "adapter_model.safetensors"


class NoLinks(PosixFileSystem):
    """Refuses hard links; shares blocks, by the word of ``clone``."""

    cloned = 0

    def link(self, source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def clone(self, source: Path, target: Path) -> None:
        self.cloned += 1
        self.write_file(target, (source.read_bytes(),))


class NoSharing(NoLinks):
    """Knows neither."""

    def clone(self, source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def _blobs(volume: Volume) -> list[str]:
    return sorted(path.name for path in volume.layout.blobs.iterdir())


def _inode(volume: Volume, served: str, name: str = WEIGHTS) -> int:
    return (volume.layout.serving / served / name).stat().st_ino


def _collect(volume: Volume, fs: FileSystem = POSIX) -> None:
    collect(volumes.Volume(volume.layout, fs))


def _spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)


@pytest.fixture
def remote(volume: Volume) -> Iterator[Remote]:
    yield Remote.of(volume.claim / "a", checksum="sha256")


def test_the_same_file_of_two_versions_is_one_file(volume: Volume) -> None:
    one, two = volume.publish("1"), volume.publish("2", adapter="other")
    assert _inode(volume, one.served_name) == _inode(volume, two.served_name)
    assert {int(found.st_nlink) for found in (path.stat() for path in volume.folder(one).glob("*.json"))} == {1, 3}


def test_versions_that_share_all_but_one_file_take_only_that_one_more(volume: Volume) -> None:
    (volume.claim / "a" / "tokenizer.json").write_bytes(b"x" * 100_000)
    (volume.claim / "a" / "README.md").write_bytes(b"0" * 8192)
    volume.publish("0")
    before = used_bytes(volume.layout)
    for number in range(1, 6):
        (volume.claim / "a" / "README.md").write_bytes(str(number).encode() * 8192)
        volume.publish(str(number))
    a_folder_and_a_manifest = 3 * 4096
    assert used_bytes(volume.layout) - before <= 5 * (8192 + a_folder_and_a_manifest)


def test_a_file_that_is_on_the_volume_is_not_fetched(volume: Volume, remote: Remote) -> None:
    volume.publish("1", remote)
    remote.reads.clear()
    seen: list[tuple[int, int | None]] = []
    found = volume.publish("2", remote, progress=lambda done, total: seen.append((done, total)))
    assert {name for name, _, _ in remote.reads} <= {"adapter_config.json"}
    assert seen[-1][0] == seen[-1][1]
    verify(volume.layout, found.served_name, deep=True)


@pytest.mark.parametrize("checksum", [None, "sha256"])
def test_a_blob_that_is_not_what_its_name_says_is_never_served(volume: Volume, checksum: str | None) -> None:
    remote = Remote.of(volume.claim / "a", checksum=checksum)
    one = volume.publish("1", remote)
    _spoil(volume.folder(one) / WEIGHTS)
    two = volume.publish("2", remote)
    verify(volume.layout, two.served_name, deep=True)
    # And the next one shares the good file.
    three = volume.publish("3", remote)
    assert _inode(volume, two.served_name) == _inode(volume, three.served_name) != _inode(volume, one.served_name)


def test_a_blob_that_is_a_link_to_elsewhere_is_not_followed(volume: Volume, remote: Remote) -> None:
    weights = hash_file(volume.claim / "a", WEIGHTS)
    (volume.layout.blobs / f"sha256-{weights.sha256}").symlink_to(volume.claim / "a" / WEIGHTS)
    found = volume.publish("1", remote)
    assert not (volume.folder(found) / WEIGHTS).is_symlink()
    verify(volume.layout, found.served_name, deep=True)


def test_a_blob_goes_with_the_last_version_that_shares_it(volume: Volume) -> None:
    one, two = volume.publish("1"), volume.publish("2")
    kept = _blobs(volume)
    remove(volume.layout, one.served_name, POSIX)
    _collect(volume)
    assert _blobs(volume) == kept
    remove(volume.layout, two.served_name, POSIX)
    _collect(volume)
    assert _blobs(volume) == []


def test_a_volume_that_refuses_links_shares_blocks(volume: Volume) -> None:
    fs = NoLinks()
    one, two = volume.publish("1", fs=fs), volume.publish("2", fs=fs)
    assert fs.cloned > 4
    assert _inode(volume, one.served_name) != _inode(volume, two.served_name)
    verify(volume.layout, two.served_name, deep=True)
    remove(volume.layout, one.served_name, fs)
    before = _blobs(volume)
    _collect(volume, fs)
    assert _blobs(volume) == before
    remove(volume.layout, two.served_name, fs)
    _collect(volume, fs)
    assert _blobs(volume) == []


def test_a_volume_that_can_share_nothing_keeps_copies_and_no_blobs(volume: Volume) -> None:
    one, two = volume.publish("1", fs=NoSharing()), volume.publish("2", fs=NoSharing())
    assert _inode(volume, one.served_name) != _inode(volume, two.served_name)
    assert _blobs(volume) == []


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EPERM, errno.ENOENT])
def test_a_version_that_cannot_share_has_a_file_of_its_own(volume: Volume, number: int) -> None:
    class Full(PosixFileSystem):
        def link(self, source: Path, target: Path) -> None:
            if "now." not in source.name:
                raise OSError(number, os.strerror(number))
            super().link(source, target)

    one, two = volume.publish("1"), volume.publish("2", fs=Full())
    assert _inode(volume, one.served_name) != _inode(volume, two.served_name)
    verify(volume.layout, two.served_name, deep=True)


def test_a_blob_may_vanish_at_the_moment_it_is_taken(volume: Volume, remote: Remote) -> None:
    volume.publish("1", remote)

    class Racing(PosixFileSystem):
        def link(self, source: Path, target: Path) -> None:
            for blob in volume.layout.blobs.iterdir():
                blob.unlink()
            super().link(source, target)

    found = volume.publish("2", remote, fs=Racing())
    verify(volume.layout, found.served_name, deep=True)


def test_engines_can_read_what_is_shared(volume: Volume) -> None:
    one = volume.publish("1")
    (volume.folder(one) / WEIGHTS).chmod(0o600)
    two = volume.publish("2")
    assert (volume.folder(two) / WEIGHTS).stat().st_mode & 0o777 == 0o644
