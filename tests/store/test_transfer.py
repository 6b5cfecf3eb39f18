"""Fetching over a bad line: gone on with, checked, bounded, ended."""

import errno
import hashlib
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import digest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.store import attempts, transfer
from lorafleet.store.reading import Pace
from lorafleet.store.transfer import Marks
from tests.store.remote import CHUNK, Cuts, Remote, tarball, unreachable
from tests.store.volume import HOW, Volume, tree

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def remote(volume: Volume) -> Remote:
    """The source ``a`` behind a line."""
    return Remote.of(volume.claim / "a")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # What nobody writes to is abandoned at once, instead of after seconds.
    monkeypatch.setattr(attempts, "ABANDONED_SECONDS", -1.0)
    # The files of these tests are fetched as large ones are.
    monkeypatch.setattr(transfer, "LARGE_BYTES", 0)


def _digest(volume: Volume) -> str:
    return digest(hash_file(volume.claim / "a", path.name) for path in (volume.claim / "a").iterdir())


def _fails(volume: Volume, *args: Any, **changes: Any) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        volume.publish(*args, **changes)
    assert volume.served() == []
    return caught.value


def _parts(volume: Volume) -> list[Path]:
    return [path for path in volume.layout.staging.glob("*/parts/*") if len(path.name) == 64]


class Enough(Exception):
    """Told to stop."""


def test_a_line_that_is_cut_at_every_chunk_brings_every_byte_once(volume: Volume, remote: Remote) -> None:
    remote.meddle = Cuts(WEIGHTS)
    found = volume.publish(source=remote)
    assert found.digest == _digest(volume)
    assert remote.fetched(WEIGHTS) == len(remote.files[WEIGHTS])
    assert len(remote.reads) > len(remote.files[WEIGHTS]) // CHUNK


def test_a_source_that_brings_nothing_is_given_up_after_a_few_tries(volume: Volume, remote: Remote) -> None:
    def cut(name: str, at: int) -> None:
        if name == WEIGHTS and at >= CHUNK:
            raise unreachable()

    waits: list[float] = []
    remote.meddle = cut
    pace = Pace(tries=4, first=1.0, longest=3.0, wait=lambda ended, s: waits.append(s), jitter=lambda: 0.5)
    error = _fails(volume, source=remote, how=replace(HOW, pace=pace))
    assert (error.reason, error.retry) == (Reason.SOURCE_UNREACHABLE, True)
    assert waits == [1.0, 2.0, 3.0]


def test_a_listing_that_fails_for_a_moment_is_asked_again(volume: Volume, remote: Remote) -> None:
    real, failures = remote.listing, [unreachable(), unreachable()]

    def listing() -> Any:
        if failures:
            raise failures.pop()
        return real()

    remote.listing = listing  # type: ignore[method-assign]
    assert volume.publish(source=remote).id == 1


def _others_are_marked(volume: Volume, remote: Remote) -> bool:
    others = [data for name, data in remote.files.items() if name != WEIGHTS]
    marks = [f"*.{len(data)}.{hashlib.sha256(data).hexdigest()}" for data in others]
    return all(any(volume.layout.staging.glob(f"*/parts/{mark}")) for mark in marks)


def _broken_off(volume: Volume, remote: Remote, at: int = 2 * CHUNK, *, others: bool = True, **changes: Any) -> None:
    """An attempt that ends by a cut line after some bytes of the weights, and with all ``others`` marked."""

    def cut(name: str, offset: int) -> None:
        if name == WEIGHTS and offset >= at:
            # The other files come side by side: what is left of them is not left to luck.
            until = time.monotonic() + 10.0
            while others and not _others_are_marked(volume, remote) and time.monotonic() < until:
                time.sleep(0.001)
            raise unreachable()

    whole = remote.meddle
    remote.meddle = cut
    _fails(volume, source=remote, **changes)
    remote.meddle = whole
    remote.reads.clear()


def test_what_was_fetched_is_the_beginning_of_the_next_attempt(volume: Volume, remote: Remote) -> None:
    _broken_off(volume, remote)
    assert len(_parts(volume)) == 3
    found = volume.publish(source=remote)
    assert found.digest == _digest(volume)
    assert remote.reads == [[WEIGHTS, 2 * CHUNK, len(remote.files[WEIGHTS]) - 2 * CHUNK]]
    assert not volume.leftovers()


def test_attempts_that_all_end_early_come_to_the_end_together(volume: Volume, remote: Remote) -> None:
    for number in range(1, 4):
        _broken_off(volume, remote, at=number * CHUNK)
        assert len(volume.leftovers()) == 1
        assert sum(path.stat().st_size for path in _parts(volume)) < 3 * len(remote.files[WEIGHTS])
    volume.publish(source=remote)
    assert [read[1] for read in remote.reads] == [3 * CHUNK]


def test_other_bytes_under_the_same_name_begin_anew(volume: Volume, remote: Remote) -> None:
    _broken_off(volume, remote)
    remote.etag = "2"
    assert volume.publish(source=remote).digest == _digest(volume)
    assert remote.fetched(WEIGHTS) == len(remote.files[WEIGHTS])


def test_a_part_of_another_version_is_not_taken(volume: Volume, remote: Remote) -> None:
    _broken_off(volume, remote)
    for version, adapter in (("1", "py"), ("1.0.0", "py"), ("1.0", "pyx")):
        remote.reads.clear()
        volume.publish(version, remote, adapter=adapter)
        assert remote.fetched(WEIGHTS) in (0, len(remote.files[WEIGHTS]))
        assert all(start == 0 for _, start, _ in remote.reads)


def test_a_part_that_changed_since_is_not_believed(volume: Volume, remote: Remote) -> None:
    _broken_off(volume, remote)
    for part in _parts(volume):
        part.write_bytes(b"\0" * part.stat().st_size)
    assert volume.publish(source=remote).digest == _digest(volume)
    assert remote.fetched(WEIGHTS) == len(remote.files[WEIGHTS])


@pytest.mark.parametrize("size", [0, 1])
def test_a_part_that_is_shorter_than_its_mark_is_not_believed(volume: Volume, remote: Remote, size: int) -> None:
    _broken_off(volume, remote)
    for part in _parts(volume):
        os.truncate(part, size)
    assert volume.publish(source=remote).digest == _digest(volume)


def test_whoever_still_writes_to_an_old_part_cannot_change_what_is_published(volume: Volume, remote: Remote) -> None:
    _broken_off(volume, remote)
    zombies = [part.open("r+b") for part in _parts(volume)]

    def overwrite(name: str, at: int) -> None:
        for zombie in zombies:
            zombie.seek(0)
            zombie.write(b"\0" * 100)
            zombie.flush()

    remote.meddle = overwrite
    found = volume.publish(source=remote)
    assert found.digest == _digest(volume)
    folder = volume.folder(found)
    assert [hash_file(folder, file.path) for file in found.files] == [file.as_digest for file in found.files]
    for zombie in zombies:
        zombie.close()


def test_an_attempt_that_is_alive_is_left_alone(
    volume: Volume, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "ABANDONED_SECONDS", 5.0)
    _broken_off(volume, remote)
    before = volume.leftovers()
    volume.publish(source=remote)
    assert remote.fetched(WEIGHTS) == len(remote.files[WEIGHTS])
    assert volume.leftovers() == before


def test_an_attempt_that_waits_shows_that_it_is_alive(
    volume: Volume, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_ALIVE_SECONDS", 0.001)
    seen = threading.Event()
    real = os.mkdir

    def mkdir(path: Any, *args: Any, **more: Any) -> None:
        if Path(path).name == "alive":
            seen.set()
        real(path, *args, **more)

    monkeypatch.setattr(os, "mkdir", mkdir)
    remote.meddle = lambda name, at: seen.wait(20)
    volume.publish(source=remote)
    assert seen.is_set()
    assert not volume.leftovers()


def test_a_sign_of_life_that_could_not_be_removed_is_not_the_last(
    volume: Volume, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_ALIVE_SECONDS", 0.001)
    failed, again = threading.Event(), threading.Event()
    real = os.rmdir

    def rmdir(path: Any, *args: Any, **more: Any) -> None:
        if Path(path).name == "alive" and not failed.is_set():
            failed.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path, *args, **more)
        if Path(path).name == "alive":
            again.set()

    monkeypatch.setattr(os, "rmdir", rmdir)
    waited: list[bool] = []
    remote.meddle = lambda name, at: waited.append(again.wait(20))
    volume.publish(source=remote)
    assert failed.is_set()
    assert all(waited)
    assert not volume.leftovers()


def test_small_files_cost_no_threads(volume: Volume, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "LARGE_BYTES", 1024 * 1024)
    readers: set[threading.Thread] = set()
    remote.meddle = lambda name, at: readers.add(threading.current_thread())
    assert volume.publish(source=remote).digest == _digest(volume)
    assert readers == {threading.current_thread()}


def test_a_refusal_for_good_leaves_nothing_to_go_on_with(volume: Volume, remote: Remote) -> None:
    assert _fails(volume, source=remote, digest="sha256:" + "0" * 64).reason is Reason.DIGEST_MISMATCH
    assert not volume.leftovers()


def test_a_volume_without_room_is_not_filled_with_parts(volume: Volume, remote: Remote) -> None:
    remote.sized = False
    error = _fails(volume, source=remote, quota=2000)
    assert error.reason is Reason.QUOTA_EXCEEDED
    assert not volume.leftovers()


@pytest.mark.parametrize("algorithm", ["sha256", "git", "md5"])
def test_bytes_that_are_not_what_the_source_announces_are_fetched_once_more(
    volume: Volume, remote: Remote, algorithm: str
) -> None:
    damaged = [WEIGHTS]

    def sent(name: str, data: bytes) -> bytes:
        return data[:-1] + b"?" if name in damaged and damaged.pop() else data

    remote.checksum, remote.sent = algorithm, sent
    assert volume.publish(source=remote).digest == _digest(volume)
    assert [start for name, start, _ in remote.reads if name == WEIGHTS] == [0, 0]


@pytest.mark.parametrize("algorithm", ["sha256", "git", "md5"])
def test_bytes_that_stay_wrong_are_refused_and_not_kept(volume: Volume, remote: Remote, algorithm: str) -> None:
    remote.checksum = algorithm
    remote.sent = lambda name, data: data[:-1] + b"?" if name == WEIGHTS else data
    error = _fails(volume, source=remote)
    assert (error.reason, error.retry) == (Reason.SOURCE_CORRUPT, True)
    assert WEIGHTS in error.message
    assert f"source says {remote._file(WEIGHTS).checksum.value}" in error.message  # type: ignore[union-attr]
    remote.sent = lambda name, data: data
    remote.reads.clear()
    volume.publish(source=remote)
    assert remote.fetched(WEIGHTS) == len(remote.files[WEIGHTS])


@pytest.mark.parametrize("change", [lambda data: data + b"x", lambda data: data[:-1]])
def test_a_file_of_another_size_than_listed_has_changed(volume: Volume, remote: Remote, change: Any) -> None:
    remote.sent = lambda name, data: change(data) if name == WEIGHTS else data
    assert _fails(volume, source=remote).reason is Reason.SOURCE_CHANGED


def test_a_source_that_does_not_tell_sizes_is_fetched(volume: Volume, remote: Remote) -> None:
    remote.sized, remote.meddle = False, Cuts(WEIGHTS, {0, CHUNK, 5 * CHUNK})
    assert volume.publish(source=remote).digest == _digest(volume)


@pytest.mark.parametrize("limits", [Limits(max_bytes=1000), Limits(max_side_file_bytes=100)])
def test_a_source_that_does_not_tell_sizes_is_stopped_at_the_limit(
    volume: Volume, remote: Remote, limits: Limits
) -> None:
    remote.sized = False
    assert _fails(volume, source=remote, wanted=Wanted(limits)).reason is Reason.SIZE_LIMIT_EXCEEDED
    assert not volume.leftovers()


def test_progress_is_of_all_files_together(volume: Volume, remote: Remote) -> None:
    seen: list[tuple[int, int | None]] = []
    volume.publish(source=remote, progress=lambda done, total: seen.append((done, total)))
    total = sum(map(len, remote.files.values()))
    assert seen[-1] == (total, total)
    assert {of for _, of in seen} == {total}
    assert max(done for done, _ in seen) == total


def test_a_stop_ends_all_threads_and_keeps_what_was_fetched(volume: Volume, remote: Remote) -> None:
    release, stopped = threading.Event(), threading.Event()

    def hang(name: str, at: int) -> None:
        if name == WEIGHTS and at >= 2 * CHUNK:
            stopped.set()
            release.wait(20)

    def progress(done: int, total: int | None) -> None:
        if stopped.is_set():
            raise Enough

    remote.meddle = hang
    before = time.monotonic()
    with pytest.raises(Enough):
        volume.publish(source=remote, progress=progress)
    assert time.monotonic() - before < 15
    release.set()
    end = time.monotonic() + 20
    while any(thread.name.startswith("lorafleet") for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert volume.leftovers()
    remote.meddle = lambda name, at: None
    remote.reads.clear()
    volume.publish(source=remote)
    assert remote.fetched(WEIGHTS) < len(remote.files[WEIGHTS])


def test_what_fails_in_one_file_ends_the_others(volume: Volume, remote: Remote) -> None:
    remote.files |= dict.fromkeys(("vocab.json", "merges.txt"), b"x" * 100_000)
    broken = ArtifactError(Reason.SOURCE_DENIED, "no")

    def refuse(name: str, at: int) -> None:
        if name == WEIGHTS:
            raise broken

    remote.meddle = refuse
    assert _fails(volume, source=remote) is broken


def test_no_more_is_read_ahead_than_a_few_pieces(volume: Volume, remote: Remote) -> None:
    ahead, most = [0], [0]

    def read(name: str, at: int) -> None:
        if name == WEIGHTS:
            ahead[0] += 1
            most[0] = max(most[0], ahead[0])

    def progress(done: int, total: int | None) -> None:
        ahead[0] = 0

    remote.meddle = read
    volume.publish(source=remote, progress=progress)
    assert most[0] <= 6


def test_parts_are_not_marked_more_often_than_is_worth_it(volume: Volume, remote: Remote) -> None:
    how = replace(HOW, marks=Marks(every_bytes=2 * CHUNK, every_seconds=0.0))
    _broken_off(volume, remote, at=5 * CHUNK, others=False, how=how)
    marks = sorted(int(path.name.split(".")[1]) for path in volume.layout.staging.glob("*/parts/*.*.*"))
    assert marks == [2 * CHUNK, 4 * CHUNK]


def test_an_archive_is_published_as_the_files_in_it(volume: Volume) -> None:
    plain = volume.publish("1")
    remote = Remote({"a.tar.gz": tarball(volume.claim / "a")}, "sha256", archive=True)
    found = volume.publish("2", remote)
    assert found.digest == plain.digest
    assert found.files == plain.files
    assert set(tree(volume.folder(found))) == set(tree(volume.folder(plain)))
    assert not volume.leftovers()


def test_an_archive_that_is_broken_off_goes_on_where_it_was(volume: Volume) -> None:
    remote = Remote({"a.tar.gz": tarball(volume.claim / "a")}, "sha256", archive=True)
    remote.meddle = lambda name, at: _raise() if at >= 2 * CHUNK else None
    _fails(volume, source=remote)
    remote.meddle = lambda name, at: None
    remote.reads.clear()
    volume.publish(source=remote)
    assert [start for _, start, _ in remote.reads] == [2 * CHUNK]


def _raise() -> None:
    raise unreachable()
