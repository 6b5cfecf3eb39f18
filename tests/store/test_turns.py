"""Threads take turns between their waits; nobody waits for ever, and who has much to do takes no turn from others."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorafleet.sources.base import Chunk, Listing, SourceFile
from lorafleet.sources.volume import VolumeSource
from lorafleet.store import transfer
from lorafleet.store.fs import PosixFileSystem
from lorafleet.store.turns import TurnedFileSystem, TurnedSource, Turns
from tests.store.remote import Remote
from tests.store.volume import Volume


def free(turns: Turns) -> int:
    return turns._free.qsize()


class Watched:
    """A source that notes how many threads have a turn while it is asked."""

    def __init__(self, source: Remote, turns: Turns) -> None:
        self._source = source
        self._turns = turns
        self.seen: list[tuple[str, int]] = []

    def _note(self, what: str) -> None:
        self.seen.append((what, free(self._turns)))

    def describe(self) -> Mapping[str, str]:
        return self._source.describe()

    def listing(self) -> Listing:
        self._note("listing")
        return self._source.listing()

    def read(self, file: SourceFile, start: int) -> Iterator[Chunk]:
        for chunk in self._source.read(file, start):
            self._note("read")
            yield chunk

    def confirm(self, listing: Listing) -> None:
        self._note("confirm")


@pytest.fixture
def watched(volume: Volume) -> tuple[Watched, Turns]:
    turns = Turns(1)
    return Watched(Remote.of(volume.claim / "a"), turns), turns


def test_whoever_waits_for_a_source_has_no_turn(volume: Volume, watched: tuple[Watched, Turns]) -> None:
    source, turns = watched
    with turns.taken():
        volume.publish(source=TurnedSource(source, turns))
        assert free(turns) == 0
    assert {what for what, _ in source.seen} == {"listing", "read", "confirm"}
    assert {free for _, free in source.seen} == {1}
    assert free(turns) == 1


def test_large_files_are_published_without_a_turn(
    volume: Volume, watched: tuple[Watched, Turns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "LARGE_BYTES", 0)
    source, turns = watched
    checked: list[int] = []
    with turns.taken():
        volume.publish(
            source=TurnedSource(source, turns),
            progress=lambda done, total: checked.append(free(turns)),
        )
    assert set(checked) == {1}
    assert free(turns) == 1


def test_a_turn_ends_with_an_error(watched: tuple[Watched, Turns]) -> None:
    _, turns = watched
    with pytest.raises(KeyError), turns.taken():
        raise KeyError
    with pytest.raises(KeyError), turns.taken():
        turns.away({}.pop, "nothing")
    assert free(turns) == 1


def test_a_slow_volume_gets_more_turns() -> None:
    turns, together = Turns(1, slow=0.01), threading.Barrier(3, timeout=20)

    def work() -> None:
        with turns.taken():
            # Passes only when all have a turn at once.
            together.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not together.broken
    assert free(turns) == 3


def test_bytes_come_as_from_the_source_itself(volume: Volume) -> None:
    source: Any = VolumeSource(volume.claim, "a")
    turned = TurnedSource(source, Turns())
    listing = turned.listing()
    assert listing == source.listing()
    assert turned.describe() == source.describe()
    for file in listing.files:
        for start in (0, 7):
            whole = b"".join(bytes(chunk) for chunk in turned.read(file, start))
            assert whole == b"".join(bytes(chunk) for chunk in source.read(file, start))
    turned.confirm(listing)


def test_whoever_waits_for_a_disk_has_no_turn(volume: Volume) -> None:
    turns, synced = Turns(1), []

    class Disk(PosixFileSystem):
        def sync_file(self, path: Path) -> None:
            synced.append((path.name, free(turns)))
            super().sync_file(path)

        def sync_folder(self, path: Path) -> None:
            synced.append((path.name, free(turns)))
            super().sync_folder(path)

    with turns.taken():
        volume.publish(fs=TurnedFileSystem(Disk(), turns))
    assert {"adapter_model.safetensors", "lorafleet.json", "ids", "tree", "serving"} <= {name for name, _ in synced}
    assert {count for _, count in synced} == {1}
