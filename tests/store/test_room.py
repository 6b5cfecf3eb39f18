"""Quota and free space, before a byte is fetched and while unknown sizes arrive."""

from pathlib import Path

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.fs import POSIX, PosixFileSystem
from lorafleet.store.room import Room, used_bytes
from tests.store.remote import Remote
from tests.store.volume import Volume


def test_what_is_used_counts_each_file_once_and_blocks_not_sizes(volume: Volume) -> None:
    empty = used_bytes(volume.layout)
    for folder in (volume.layout.serving, volume.layout.trash):
        (folder / "file").write_bytes(b"x" * 10_000)
    (volume.layout.blobs / "other").hardlink_to(volume.layout.serving / "file")
    with (volume.layout.staging / "hole").open("wb") as file:
        file.truncate(10**9)
    assert used_bytes(volume.layout) - empty == 2 * 12_288


def test_a_version_beyond_the_quota_is_refused_before_a_byte_is_fetched(volume: Volume) -> None:
    remote = Remote.of(volume.claim / "a")
    with pytest.raises(ArtifactError) as caught:
        volume.publish(source=remote, quota=used_bytes(volume.layout) + 100)
    assert (caught.value.reason, caught.value.retry) == (Reason.QUOTA_EXCEEDED, True)
    assert remote.reads == []
    assert not volume.leftovers()
    for number in (used_bytes(volume.layout), used_bytes(volume.layout) + 100):
        assert str(number) in caught.value.message


def test_a_version_within_the_quota_is_published(volume: Volume) -> None:
    assert volume.publish(quota=used_bytes(volume.layout) + 100_000).id == 1


def test_files_that_are_on_the_volume_need_no_room(volume: Volume) -> None:
    (volume.claim / "a" / "tokenizer.json").write_bytes(b"x" * 100_000)
    remote = Remote.of(volume.claim / "a", checksum="sha256")
    volume.publish("1", remote)
    assert volume.publish("2", remote, quota=used_bytes(volume.layout) + 50_000).id == 2


def test_what_is_on_its_way_counts_as_used(volume: Volume) -> None:
    room = Room(volume.layout, POSIX, used_bytes(volume.layout) + 1000)
    with room.reserve(600, "one") as one:
        with pytest.raises(ArtifactError, match="two"), room.reserve(600, "two"):
            pass
        room.write(one, 600, "one")
        with room.reserve(400, "three"):
            pass
        with pytest.raises(ArtifactError), room.reserve(500, "four"):
            pass
    with pytest.raises(ArtifactError), room.reserve(600, "five"):
        pass


def test_an_item_that_fails_gives_its_room_back(volume: Volume) -> None:
    room = Room(volume.layout, POSIX, used_bytes(volume.layout) + 1000)
    with pytest.raises(KeyError), room.reserve(900, "one"):
        raise KeyError
    with room.reserve(900, "two"):
        pass


def test_free_space_is_not_promised_twice(volume: Volume) -> None:
    class Small(PosixFileSystem):
        def free_bytes(self, path: Path) -> int:
            return 5 * 1024 * 1024

    room = Room(volume.layout, Small(), None)
    with room.reserve(800_000, "one") as one:
        with pytest.raises(ArtifactError) as caught, room.reserve(800_000, "two"):
            pass
        assert caught.value.reason is Reason.VOLUME_FULL
        room.write(one, 800_000, "one")
        with room.reserve(800_000, "two"):
            pass
